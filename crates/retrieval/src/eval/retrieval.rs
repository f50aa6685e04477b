//! Retrieval judged on a data set in BEIR layout: one ranking for each question and mode, through the search that serves.

use super::beir::{BeirFolder, Rankings, distinct};
use super::measures::{ndcg, quantile, recall, reciprocal_rank};
use super::outcome::{Measure, Outcome};
use super::scratch::{Bench, Progress, Scratch};
use crate::search::{Explanation, Hit, SearchMode, SearchRequest};
use docmill_model::Failure;
use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::time::Instant;

/// Hits of a search as it serves: what `ndcg@10`, `recall@10`, `mrr@10` and the times are of.
pub const SERVED: u32 = 10;
/// Hits of the second search of every question, for `recall@100` and run files.
pub const DEPTH: u32 = 100;
/// The measures of every mode, in order.
pub const MEASURES: [&str; 4] = ["ndcg@10", "recall@10", "recall@100", "mrr@10"];

/// What one data set says.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RetrievalReport {
    /// The data set.
    pub dataset: String,
    /// The judgements used.
    pub split: String,
    /// Passages indexed.
    pub entries: usize,
    /// Questions asked.
    pub questions: usize,
    /// Identity of the data.
    pub data: String,
    /// The embedding model.
    pub embedder: String,
    /// One report for each mode asked for.
    pub modes: Vec<ModeReport>,
}

/// What one mode reached.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ModeReport {
    /// Which halves looked.
    pub mode: SearchMode,
    /// `ndcg@10`, `recall@10`, `recall@100` and `mrr@10`, by question.
    pub measures: Vec<Measure>,
    /// Median time of a search for ten hits, the question's embedding included, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the same.
    pub p99_ms: f64,
    /// The times by question.
    #[serde(skip)]
    pub millis: BTreeMap<String, f64>,
    /// The rankings of 100 hits, scored by what ordered them: BM25, cosine or the fused score.
    #[serde(skip)]
    pub rankings: Rankings,
}

impl ModeReport {
    /// The figure of a measure; 0 for an unknown name.
    #[must_use]
    pub fn value(&self, name: &str) -> f64 {
        self.measures.iter().find(|measure| measure.name == name).map_or(0.0, |measure| measure.value)
    }

    /// Name of the mode as it is asked for.
    #[must_use]
    pub fn mode_name(&self) -> &'static str {
        match self.mode {
            SearchMode::Hybrid => "hybrid",
            SearchMode::Lexical => "lexical",
            SearchMode::Dense => "dense",
        }
    }
}

/// Indexes `folder` into the scratch tenant, asks every judged question in every mode of `modes`, and clears up.
///
/// # Errors
/// `CONFLICT` while another evaluation runs; failures of database and model.
pub async fn evaluate_retrieval(
    bench: &Bench,
    folder: &BeirFolder,
    modes: &[SearchMode],
    progress: Progress<'_>,
) -> Result<RetrievalReport, Failure> {
    let scratch = Scratch::build(bench, &folder.entries, None, progress).await?;
    let mut reports = Vec::with_capacity(modes.len());
    for &mode in modes {
        reports.push(ask(&scratch, folder, mode).await?);
    }
    scratch.remove().await?;
    Ok(RetrievalReport {
        dataset: folder.name.clone(),
        split: folder.split.clone(),
        entries: folder.entries.len(),
        questions: folder.questions.len(),
        data: folder.fingerprint(),
        embedder: bench.embedder.fingerprint(),
        modes: reports,
    })
}

async fn ask(scratch: &Scratch, folder: &BeirFolder, mode: SearchMode) -> Result<ModeReport, Failure> {
    let caller = scratch.caller();
    let (mut served, mut deep, mut millis) = (Rankings::new(), Rankings::new(), BTreeMap::new());
    let ranking = |hits: &[Hit]| {
        let scored = |hit: &Hit| Some((scratch.entry_id(hit.document_id)?.to_owned(), score(hit, mode)));
        hits.iter().filter_map(scored).collect::<Vec<_>>()
    };
    for question in &folder.questions {
        let request = SearchRequest { k: SERVED, mode, explain: true, ..SearchRequest::new(question.text.as_str()) };
        let started = Instant::now();
        let response = scratch.search().search(&caller, &request).await?;
        millis.insert(question.id.clone(), started.elapsed().as_secs_f64() * 1e3);
        served.insert(question.id.clone(), ranking(&response.hits));
        let response = scratch.search().search(&caller, &SearchRequest { k: DEPTH, ..request }).await?;
        deep.insert(question.id.clone(), ranking(&response.hits));
    }
    Ok(judge(folder, mode, &served, deep, millis))
}

fn score(hit: &Hit, mode: SearchMode) -> f64 {
    let own = |explanation: &Explanation| match mode {
        SearchMode::Hybrid => None,
        SearchMode::Lexical => explanation.bm25_score,
        SearchMode::Dense => explanation.dense_cosine,
    };
    hit.explanation.as_ref().and_then(own).unwrap_or(hit.score)
}

/// Judges rankings by the data set: those `served` but for `recall@100`, which is of the `deep` ones. Questions without
/// a ranking count as 0.
#[must_use]
pub fn judge(
    folder: &BeirFolder,
    mode: SearchMode,
    served: &Rankings,
    deep: Rankings,
    millis: BTreeMap<String, f64>,
) -> ModeReport {
    let mut scores: [BTreeMap<String, f64>; 4] = Default::default();
    for question in &folder.questions {
        let (ranking, deep) = (ids(served, &question.id), ids(&deep, &question.id));
        let grades = folder.judgements.get(&question.id).into_iter().flatten();
        let relevant = folder.relevant(&question.id);
        let judged = [
            ndcg(&ranking, &grades.map(|(id, &grade)| (id.as_str(), grade)).collect(), 10),
            recall(&ranking, &relevant, 10),
            recall(&deep, &relevant, 100),
            reciprocal_rank(&ranking, &relevant, 10),
        ];
        for (measure, score) in scores.iter_mut().zip(judged) {
            measure.insert(question.id.clone(), score);
        }
    }
    let named = MEASURES.iter().zip(scores).map(|(name, cases)| Measure::mean_of(*name, cases));
    let times: Vec<f64> = millis.values().copied().collect();
    let (p50_ms, p99_ms) = (quantile(&times, 0.5), quantile(&times, 0.99));
    ModeReport { mode, measures: named.collect(), p50_ms, p99_ms, millis, rankings: deep }
}

/// The ids ranked for `question`, each once.
fn ids<'r>(rankings: &'r Rankings, question: &str) -> Vec<&'r str> {
    distinct(rankings.get(question).into_iter().flatten().map(|(id, _)| id.as_str()))
}

impl RetrievalReport {
    /// The report as an outcome; measures are named `MODE.MEASURE`.
    #[must_use]
    pub fn outcome(&self, suite: &str) -> Outcome {
        let mut measures = Vec::new();
        for report in &self.modes {
            let mode = report.mode_name();
            let named = |measure: &Measure| Measure { name: format!("{mode}.{}", measure.name), ..measure.clone() };
            measures.extend(report.measures.iter().map(named));
            measures.push(Measure::quantile_of(format!("{mode}.p50_ms"), 0.5, report.millis.clone()));
            measures.push(Measure::plain(format!("{mode}.p99_ms"), report.p99_ms));
        }
        let facts = [
            ("dataset", self.dataset.clone().into()),
            ("split", self.split.clone().into()),
            ("entries", self.entries.into()),
            ("questions", self.questions.into()),
            ("data", self.data.clone().into()),
            ("embedder", self.embedder.clone().into()),
        ];
        let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Outcome { suite: suite.to_owned(), kind: "retrieval".to_owned(), facts, measures }
    }
}

impl Display for RetrievalReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} ({}): {} passages, {} questions", self.dataset, self.split, self.entries, self.questions)?;
        writeln!(
            f,
            "{:8} {:>8} {:>8} {:>9} {:>7} {:>8} {:>8}",
            "mode", "nDCG@10", "recall@10", "recall@100", "MRR@10", "p50 ms", "p99 ms"
        )?;
        for report in &self.modes {
            write!(f, "{:8}", report.mode_name())?;
            for (name, width) in MEASURES.iter().zip([8, 9, 10, 7]) {
                write!(f, " {:width$.4}", report.value(name))?;
            }
            writeln!(f, " {:8.1} {:8.1}", report.p50_ms, report.p99_ms)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::beir::Question;
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn rankings_are_judged_with_missing_questions_as_zero_and_repetitions_once() {
        let question = |id: &str| Question { id: id.to_owned(), text: "q".to_owned() };
        let judged = |entry: &str| HashMap::from([(entry.to_owned(), 1)]);
        let folder = BeirFolder {
            questions: vec![question("1"), question("2")],
            judgements: HashMap::from([("1".to_owned(), judged("b")), ("2".to_owned(), judged("c"))]),
            ..BeirFolder::default()
        };
        let rankings = |ids: &[&str]| {
            let ranking = ids.iter().map(|id| ((*id).to_owned(), 1.0)).collect();
            Rankings::from([("1".to_owned(), ranking)])
        };
        let millis = BTreeMap::from([("1".to_owned(), 3.0), ("2".to_owned(), 1.0)]);
        let (served, deep) = (rankings(&["a", "a", "b"]), rankings(&["b"]));
        let report = judge(&folder, SearchMode::Hybrid, &served, deep, millis.clone());
        let shallow = judge(&folder, SearchMode::Hybrid, &served, Rankings::new(), millis);
        assert_eq!((report.value("recall@100"), shallow.value("recall@100")), (0.5, 0.0));
        assert_eq!((report.value("mrr@10"), report.value("recall@10"), report.p50_ms), (0.25, 0.5, 1.0));
        assert!((report.value("ndcg@10") - 0.5 / 3f64.log2()).abs() < 1e-12);
    }
}
