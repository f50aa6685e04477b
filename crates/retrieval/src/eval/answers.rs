//! Answers judged on a data set in BEIR layout with `answers.jsonl`: whether the cited sentences hold the gold answer,
//! whether the gold passage is cited, and whether questions nothing answers are declined.

use super::beir::{BeirFolder, Question};
use super::measures::{holds_answer, quantile, recall, token_f1};
use super::outcome::{Measure, Outcome};
use super::scratch::{Bench, Progress, Scratch};
use crate::AnswerRequest;
use crate::answers::{Answer, Answers, AnswersConfig, Generator};
use docmill_model::{DocumentId, Failure};
use docmill_platform::artifacts::Artifacts;
use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::sync::Arc;
use std::time::Instant;

/// Scores by question id.
pub type Scores = BTreeMap<String, f64>;

/// What one data set says of answers; shares are of all questions asked.
#[derive(Clone, Debug, serde::Serialize)]
pub struct AnswersReport {
    /// The data set.
    pub dataset: String,
    /// Questions that have an answer.
    pub questions: usize,
    /// Questions of another data set, which nothing here answers.
    pub foreign_questions: usize,
    /// `answered`: share that was answered at all. `gold_held`: share in which one cited sentence holds a gold answer
    /// word for word. `token_f1`: best token F1 between a cited sentence and a gold answer. `gold_cited`: share in which
    /// a gold passage is cited. `citation_precision`: share of the citations that are of a gold passage.
    /// `citation_recall`: share of the gold passages that are cited. `declined`: share of the foreign questions that
    /// were declined.
    pub measures: Vec<Measure>,
    /// Median time of an answer, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the same.
    pub p99_ms: f64,
    /// The times by question.
    #[serde(skip)]
    pub millis: Scores,
    /// Identity of the data.
    pub data: String,
    /// Ids of the questions whose gold answer was not in a cited sentence.
    #[serde(skip)]
    pub missed: Vec<String>,
}

/// Loads `folder`, asks its questions and the `foreign` ones, and clears up. Without a `generator` the answers are
/// extractive.
///
/// # Errors
/// `CONFLICT` while another evaluation runs; failures of database, store and model.
pub async fn evaluate_answers(
    bench: &Bench,
    artifacts: &Artifacts,
    generator: Option<Arc<dyn Generator>>,
    config: AnswersConfig,
    folder: &BeirFolder,
    foreign: &[Question],
    progress: Progress<'_>,
) -> Result<AnswersReport, Failure> {
    let scratch = Scratch::build(bench, &folder.entries, Some(artifacts), progress).await?;
    let answers = Answers::new(scratch.search().clone(), artifacts.clone(), generator, config);
    let mut tally = Tally::default();
    for question in &folder.questions {
        let started = Instant::now();
        let answer = answers.answer(&scratch.caller(), &AnswerRequest::new(question.text.as_str())).await?;
        tally.millis.insert(question.id.clone(), started.elapsed().as_secs_f64() * 1e3);
        tally.count(|document| scratch.entry_id(document), folder, question, &answer);
    }
    let mut declined = Scores::new();
    for question in foreign {
        let answer = answers.answer(&scratch.caller(), &AnswerRequest::new(question.text.as_str())).await?;
        declined.insert(question.id.clone(), share(!answer.found));
    }
    scratch.remove().await?;
    Ok(tally.report(folder, declined))
}

#[derive(Default)]
struct Tally {
    answered: Scores,
    holds: Scores,
    f1: Scores,
    cited: Scores,
    precision: Scores,
    recall: Scores,
    millis: Scores,
    missed: Vec<String>,
}

impl Tally {
    /// Enters the answer to a question of `folder`, whose entries documents are by `entry_of`.
    fn count<'e>(
        &mut self,
        entry_of: impl Fn(DocumentId) -> Option<&'e str>,
        folder: &BeirFolder,
        question: &Question,
        answer: &Answer,
    ) {
        let gold = folder.answers.get(&question.id).map(Vec::as_slice).unwrap_or_default();
        let relevant = folder.relevant(&question.id);
        let citations: Vec<_> = answer.sentences.iter().flat_map(|sentence| &sentence.citations).collect();
        let quotes: Vec<&str> = citations.iter().filter_map(|citation| citation.quote.as_deref()).collect();
        let cited = citations.iter().filter_map(|citation| entry_of(citation.document_id));
        let cited: Vec<&str> = cited.filter(|id| relevant.contains(id)).collect();
        let right = cited.len();
        let held = quotes.iter().any(|quote| gold.iter().any(|gold| holds_answer(quote, gold)));
        let best = quotes.iter().flat_map(|quote| gold.iter().map(|gold| token_f1(quote, gold))).fold(0.0, f64::max);
        self.answered.insert(question.id.clone(), share(answer.found));
        self.holds.insert(question.id.clone(), share(held));
        self.f1.insert(question.id.clone(), best);
        self.cited.insert(question.id.clone(), share(right > 0));
        self.recall.insert(question.id.clone(), recall(&cited, &relevant, usize::MAX));
        if !citations.is_empty() {
            self.precision.insert(question.id.clone(), right as f64 / citations.len() as f64);
        }
        if !held {
            self.missed.push(question.id.clone());
        }
    }

    fn report(self, folder: &BeirFolder, declined: Scores) -> AnswersReport {
        let times: Vec<f64> = self.millis.values().copied().collect();
        AnswersReport {
            dataset: folder.name.clone(),
            questions: self.answered.len(),
            foreign_questions: declined.len(),
            measures: vec![
                Measure::mean_of("answered", self.answered),
                Measure::mean_of("gold_held", self.holds),
                Measure::mean_of("token_f1", self.f1),
                Measure::mean_of("gold_cited", self.cited),
                Measure::mean_of("citation_precision", self.precision),
                Measure::mean_of("citation_recall", self.recall),
                Measure::mean_of("declined", declined),
            ],
            p50_ms: quantile(&times, 0.5),
            p99_ms: quantile(&times, 0.99),
            millis: self.millis,
            data: folder.fingerprint(),
            missed: self.missed,
        }
    }
}

impl AnswersReport {
    /// The figure of a measure; 0 for an unknown name.
    #[must_use]
    pub fn value(&self, name: &str) -> f64 {
        self.measures.iter().find(|measure| measure.name == name).map_or(0.0, |measure| measure.value)
    }

    /// The report as an outcome.
    #[must_use]
    pub fn outcome(&self, suite: &str) -> Outcome {
        let mut measures = self.measures.clone();
        measures.push(Measure::quantile_of("p50_ms", 0.5, self.millis.clone()));
        measures.push(Measure::plain("p99_ms", self.p99_ms));
        let facts = [
            ("dataset", self.dataset.clone().into()),
            ("data", self.data.clone().into()),
            ("questions", self.questions.into()),
            ("foreign_questions", self.foreign_questions.into()),
        ];
        let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Outcome { suite: suite.to_owned(), kind: "answers".to_owned(), facts, measures }
    }
}

fn share(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

impl Display for AnswersReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {} questions, {} foreign ones", self.dataset, self.questions, self.foreign_questions)?;
        for measure in &self.measures {
            write!(f, "{} {:.4}  ", measure.name, measure.value)?;
        }
        writeln!(f)?;
        writeln!(f, "p50 {:.1} ms  p99 {:.1} ms", self.p50_ms, self.p99_ms)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::answers::{AnswerSentence, Citation};
    use docmill_model::{AnswerId, ChunkId, VersionId};
    use std::collections::HashMap;

    fn cited(document: DocumentId, quote: &str) -> Citation {
        Citation {
            document_id: document,
            version_id: VersionId::fresh(),
            chunk_id: ChunkId::fresh(),
            document: None,
            sha256: None,
            page: None,
            boxes: Vec::new(),
            char_start: 0,
            char_end: 0,
            quote: Some(quote.to_owned()),
            withdrawn: false,
            parsed_sha256: None,
        }
    }

    /// One sentence a citation; no answer without any.
    fn answer(citations: Vec<Citation>) -> Answer {
        let (id, engine, found) = (AnswerId::fresh(), "extractive".to_owned(), !citations.is_empty());
        let sentence = |citation: Citation| AnswerSentence { text: citation.quote.clone(), citations: vec![citation] };
        let sentences = citations.into_iter().map(sentence).collect();
        Answer { id, engine, found, sentences, removed: 0, usage: None, note: None }
    }

    fn question(id: &str) -> Question {
        Question { id: id.to_owned(), text: "q".to_owned() }
    }

    #[test]
    fn answers_are_tallied_by_what_they_hold_and_cite() {
        let grades = |entries: &[(&str, u32)]| entries.iter().map(|(id, grade)| ((*id).to_owned(), *grade)).collect();
        let folder = BeirFolder {
            questions: ["both", "wrong", "none"].map(question).to_vec(),
            judgements: HashMap::from([
                ("both".to_owned(), grades(&[("a", 1), ("b", 2), ("c", 0)])),
                ("wrong".to_owned(), grades(&[("b", 1)])),
                ("none".to_owned(), grades(&[("a", 1)])),
            ]),
            answers: HashMap::from([
                ("both".to_owned(), vec!["a pound".to_owned(), "ninety pounds".to_owned()]),
                ("wrong".to_owned(), vec!["at noon".to_owned()]),
            ]),
            ..BeirFolder::default()
        };
        let (a, c, unknown) = (DocumentId::fresh(), DocumentId::fresh(), DocumentId::fresh());
        let entry_of =
            |document: DocumentId| [(a, "a"), (c, "c")].into_iter().find(|(id, _)| *id == document).map(|(_, id)| id);
        let both =
            vec![cited(a, "The fee is ninety pounds."), cited(a, "It is due in May."), cited(c, "Pounds are sold.")];
        let wrong = vec![cited(c, "The gate is closed."), cited(unknown, "Nobody is there.")];
        let mut tally = Tally::default();
        for (question, citations) in folder.questions.iter().zip([both, wrong, Vec::new()]) {
            tally.count(entry_of, &folder, question, &answer(citations));
        }
        let declined = Scores::from([("x".to_owned(), 1.0), ("y".to_owned(), 0.0)]);
        let report = tally.report(&folder, declined);
        assert_eq!((report.questions, report.foreign_questions), (3, 2));
        assert_eq!(report.missed, ["wrong", "none"]);
        let cases = |name: &str| {
            let measure = report.measures.iter().find(|measure| measure.name == name).unwrap();
            let of = |id: &str| measure.cases.get(id).copied();
            (of("both"), of("wrong"), of("none"))
        };
        assert_eq!(cases("answered"), (Some(1.0), Some(1.0), Some(0.0)));
        assert_eq!(cases("gold_held"), (Some(1.0), Some(0.0), Some(0.0)), "word for word, in one of the quotes");
        assert_eq!(cases("gold_cited"), (Some(1.0), Some(0.0), Some(0.0)), "what is graded 0 is no gold");
        assert_eq!(cases("citation_recall"), (Some(0.5), Some(0.0), Some(0.0)), "one of two passages, cited twice");
        let (of_both, of_wrong, of_none) = cases("citation_precision");
        assert!((of_both.unwrap() - 2.0 / 3.0).abs() < 1e-12 && of_wrong == Some(0.0));
        assert_eq!(of_none, None, "where nothing is cited there is no share of it");
        let (of_both, of_wrong, of_none) = cases("token_f1");
        // Two words of five are the two of the best gold answer.
        assert!((of_both.unwrap() - 4.0 / 7.0).abs() < 1e-12);
        assert_eq!((of_wrong, of_none), (Some(0.0), Some(0.0)));
        assert!((report.value("citation_precision") - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((report.value("declined"), report.value("unheard of")), (0.5, 0.0));
    }

    #[test]
    fn the_outcome_of_answers_names_data_counts_and_times() {
        let folder = BeirFolder { name: "faq".to_owned(), questions: vec![question("q")], ..BeirFolder::default() };
        let mut tally = Tally::default();
        tally.count(|_| None, &folder, &folder.questions[0], &answer(Vec::new()));
        tally.millis.insert("q".to_owned(), 7.0);
        let outcome = tally.report(&folder, Scores::new()).outcome("suite");
        assert_eq!((outcome.suite.as_str(), outcome.kind.as_str()), ("suite", "answers"));
        assert_eq!(outcome.facts["data"], folder.fingerprint());
        assert_eq!(outcome.facts["questions"], 1);
        assert_eq!(outcome.facts["foreign_questions"], 0);
        assert_eq!(outcome.measure("p50_ms").unwrap().value, 7.0);
        assert_eq!(outcome.measure("declined").unwrap().value, 0.0, "of no foreign question");
    }
}
