//! Retrieval judged on a data set in BEIR layout: one ranking for each question and mode, through the search that serves.

use super::beir::{BeirFolder, Rankings, distinct};
use super::measures::{mean, ndcg, quantile, recall, reciprocal_rank};
use super::scratch::{Bench, Progress, Scratch};
use crate::search::{Explanation, Hit, SearchMode, SearchRequest};
use docmill_model::Failure;
use std::fmt::{Display, Formatter};
use std::time::Instant;

/// Depth of every ranking.
pub const DEPTH: u32 = 100;

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
    /// The embedding model.
    pub embedder: String,
    /// One report for each mode asked for.
    pub modes: Vec<ModeReport>,
}

/// What one mode reached, means over questions.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ModeReport {
    /// Which halves looked.
    pub mode: SearchMode,
    /// nDCG of the first 10.
    pub ndcg_at_10: f64,
    /// Recall within the first 10.
    pub recall_at_10: f64,
    /// Recall within the first 100.
    pub recall_at_100: f64,
    /// Reciprocal rank within the first 10.
    pub mrr_at_10: f64,
    /// Median time of a search, the question's embedding included, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the same.
    pub p99_ms: f64,
    /// nDCG@10 of every question in the order of the data set, for comparisons.
    #[serde(skip)]
    pub ndcg_by_question: Vec<f64>,
    /// The rankings, scored by what ordered them: BM25, cosine or the fused score.
    #[serde(skip)]
    pub rankings: Rankings,
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
        embedder: bench.embedder.fingerprint(),
        modes: reports,
    })
}

async fn ask(scratch: &Scratch, folder: &BeirFolder, mode: SearchMode) -> Result<ModeReport, Failure> {
    let caller = scratch.caller();
    let (mut rankings, mut millis) = (Rankings::new(), Vec::with_capacity(folder.questions.len()));
    for question in &folder.questions {
        let request = SearchRequest { k: DEPTH, mode, explain: true, ..SearchRequest::new(question.text.as_str()) };
        let started = Instant::now();
        let response = scratch.search().search(&caller, &request).await?;
        millis.push(started.elapsed().as_secs_f64() * 1e3);
        let scored = response
            .hits
            .iter()
            .filter_map(|hit| Some((scratch.entry_id(hit.document_id)?.to_owned(), score(hit, mode))));
        rankings.insert(question.id.clone(), scored.collect());
    }
    Ok(judge(folder, mode, rankings, &millis))
}

fn score(hit: &Hit, mode: SearchMode) -> f64 {
    let own = |explanation: &Explanation| match mode {
        SearchMode::Hybrid => None,
        SearchMode::Lexical => explanation.bm25_score,
        SearchMode::Dense => explanation.dense_cosine,
    };
    hit.explanation.as_ref().and_then(own).unwrap_or(hit.score)
}

/// Judges rankings by the data set; questions without a ranking count as 0.
#[must_use]
pub fn judge(folder: &BeirFolder, mode: SearchMode, rankings: Rankings, millis: &[f64]) -> ModeReport {
    let (mut ndcgs, mut at_10, mut at_100, mut first) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for question in &folder.questions {
        let ranked = rankings.get(&question.id).into_iter().flatten();
        let ranking = distinct(ranked.map(|(id, _)| id.as_str()));
        let grades = folder.judgements.get(&question.id).into_iter().flatten();
        let relevant = folder.relevant(&question.id);
        ndcgs.push(ndcg(&ranking, &grades.map(|(id, &grade)| (id.as_str(), grade)).collect(), 10));
        at_10.push(recall(&ranking, &relevant, 10));
        at_100.push(recall(&ranking, &relevant, 100));
        first.push(reciprocal_rank(&ranking, &relevant, 10));
    }
    ModeReport {
        mode,
        ndcg_at_10: mean(&ndcgs),
        recall_at_10: mean(&at_10),
        recall_at_100: mean(&at_100),
        mrr_at_10: mean(&first),
        p50_ms: quantile(millis, 0.5),
        p99_ms: quantile(millis, 0.99),
        ndcg_by_question: ndcgs,
        rankings,
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
            let mode = format!("{:?}", report.mode).to_lowercase();
            writeln!(
                f,
                "{mode:8} {:8.4} {:9.4} {:10.4} {:7.4} {:8.1} {:8.1}",
                report.ndcg_at_10,
                report.recall_at_10,
                report.recall_at_100,
                report.mrr_at_10,
                report.p50_ms,
                report.p99_ms
            )?;
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
        let ranking = ["a", "a", "b"].iter().map(|id| ((*id).to_owned(), 1.0)).collect();
        let report = judge(&folder, SearchMode::Hybrid, Rankings::from([("1".to_owned(), ranking)]), &[3.0, 1.0]);
        assert_eq!((report.mrr_at_10, report.recall_at_10, report.p50_ms), (0.25, 0.5, 1.0));
        assert!((report.ndcg_at_10 - 0.5 / 3f64.log2()).abs() < 1e-12);
    }
}
