//! Answers judged on a data set in BEIR layout with `answers.jsonl`: whether the cited sentences hold the gold answer,
//! whether the gold passage is cited, and whether questions nothing answers are declined.

use super::beir::{BeirFolder, Question};
use super::measures::{holds_answer, mean, quantile, token_f1};
use super::scratch::{Bench, Progress, Scratch};
use crate::AnswerRequest;
use crate::answers::{Answer, Answers, AnswersConfig};
use docmill_model::Failure;
use docmill_platform::artifacts::Artifacts;
use std::fmt::{Display, Formatter};
use std::time::Instant;

/// What one data set says of answers; shares are of all questions asked.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AnswersReport {
    /// The data set.
    pub dataset: String,
    /// Questions that have an answer.
    pub questions: usize,
    /// Share that was answered at all.
    pub answered: f64,
    /// Share in which one cited sentence holds a gold answer word for word.
    pub holds_gold: f64,
    /// Mean over questions of the best token F1 between a cited sentence and a gold answer.
    pub token_f1: f64,
    /// Share in which a gold passage is cited.
    pub gold_cited: f64,
    /// Share of citations that are of a gold passage.
    pub citation_precision: f64,
    /// Questions of another data set, which nothing here answers.
    pub foreign_questions: usize,
    /// Share of those that were declined.
    pub declined: f64,
    /// Median time of an answer, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the same.
    pub p99_ms: f64,
    /// Ids of the questions whose gold answer was not in a cited sentence.
    #[serde(skip)]
    pub missed: Vec<String>,
}

/// Loads `folder`, asks its questions and the `foreign` ones, and clears up.
///
/// # Errors
/// `CONFLICT` while another evaluation runs; failures of database, store and model.
pub async fn evaluate_answers(
    bench: &Bench,
    artifacts: &Artifacts,
    config: AnswersConfig,
    folder: &BeirFolder,
    foreign: &[Question],
    progress: Progress<'_>,
) -> Result<AnswersReport, Failure> {
    let scratch = Scratch::build(bench, &folder.entries, Some(artifacts), progress).await?;
    let answers = Answers::new(scratch.search().clone(), artifacts.clone(), None, config);
    let mut tally = Tally::default();
    for question in &folder.questions {
        let started = Instant::now();
        let answer = answers.answer(&scratch.caller(), &AnswerRequest::new(question.text.as_str())).await?;
        tally.millis.push(started.elapsed().as_secs_f64() * 1e3);
        tally.count(&scratch, folder, question, &answer);
    }
    let mut declined = Vec::with_capacity(foreign.len());
    for question in foreign {
        let answer = answers.answer(&scratch.caller(), &AnswerRequest::new(question.text.as_str())).await?;
        declined.push(share(!answer.found));
    }
    scratch.remove().await?;
    Ok(tally.report(folder, &declined))
}

#[derive(Default)]
struct Tally {
    answered: Vec<f64>,
    holds: Vec<f64>,
    f1: Vec<f64>,
    cited: Vec<f64>,
    precision: Vec<f64>,
    millis: Vec<f64>,
    missed: Vec<String>,
}

impl Tally {
    fn count(&mut self, scratch: &Scratch, folder: &BeirFolder, question: &Question, answer: &Answer) {
        let gold = folder.answers.get(&question.id).map(Vec::as_slice).unwrap_or_default();
        let relevant = folder.relevant(&question.id);
        let citations: Vec<_> = answer.sentences.iter().flat_map(|sentence| &sentence.citations).collect();
        let quotes: Vec<&str> = citations.iter().filter_map(|citation| citation.quote.as_deref()).collect();
        let is_gold = |document| scratch.entry_id(document).is_some_and(|id| relevant.contains(id));
        let right = citations.iter().filter(|citation| is_gold(citation.document_id)).count();
        let held = quotes.iter().any(|quote| gold.iter().any(|gold| holds_answer(quote, gold)));
        let best = quotes.iter().flat_map(|quote| gold.iter().map(|gold| token_f1(quote, gold))).fold(0.0, f64::max);
        self.answered.push(share(answer.found));
        self.holds.push(share(held));
        self.f1.push(best);
        self.cited.push(share(right > 0));
        if !citations.is_empty() {
            self.precision.push(right as f64 / citations.len() as f64);
        }
        if !held {
            self.missed.push(question.id.clone());
        }
    }

    fn report(self, folder: &BeirFolder, declined: &[f64]) -> AnswersReport {
        AnswersReport {
            dataset: folder.name.clone(),
            questions: self.answered.len(),
            answered: mean(&self.answered),
            holds_gold: mean(&self.holds),
            token_f1: mean(&self.f1),
            gold_cited: mean(&self.cited),
            citation_precision: mean(&self.precision),
            foreign_questions: declined.len(),
            declined: mean(declined),
            p50_ms: quantile(&self.millis, 0.5),
            p99_ms: quantile(&self.millis, 0.99),
            missed: self.missed,
        }
    }
}

fn share(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

impl Display for AnswersReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {} questions, {} foreign ones", self.dataset, self.questions, self.foreign_questions)?;
        writeln!(
            f,
            "answered {:.4}  gold in a cited sentence {:.4}  token F1 {:.4}",
            self.answered, self.holds_gold, self.token_f1
        )?;
        writeln!(
            f,
            "gold passage cited {:.4}  citation precision {:.4}  foreign declined {:.4}",
            self.gold_cited, self.citation_precision, self.declined
        )?;
        writeln!(f, "p50 {:.1} ms  p99 {:.1} ms", self.p50_ms, self.p99_ms)
    }
}
