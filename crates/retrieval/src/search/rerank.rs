//! Reranking: the best candidates are read again, question and passage together: by the cross-encoder that the settings
//! name, else by the words that stand near each other.
//!
//! Bounded in candidates and in time, a model also in searches at once; out of time or after a failure the fused order
//! stays, and the response says so. No transaction is open while a model reads: what it read is judged anew in the snapshot that shows it.

use super::fusion::{Fused, sort};
use super::near::NearWords;
use super::plan::{Candidates, Found};
use super::scope::SearchScope;
use super::wire::SearchRequest;
use super::{Search, cache, present, rows};
use crate::lexical::LexicalIndexes;
use docmill_model::{Failure, TenantId};
use docmill_platform::database::DbError;
use docmill_platform::reranker::{Passage, RerankError, Reranker};
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Constants of reranking.
#[derive(Clone)]
pub struct RerankConfig {
    /// A cross-encoder; without one, words that stand near each other lift a passage.
    pub model: Option<Arc<dyn Reranker>>,
    /// True to rerank searches that do not say whether.
    pub is_default: bool,
    /// Candidates that are read again, the best of the fused ranking; those below keep their order behind them.
    pub candidates: usize,
    /// How long a search waits for the scores, its turn included.
    pub timeout: Duration,
    /// Searches that the model reads for at once; what is built in takes no turns.
    pub slots: usize,
}

impl Default for RerankConfig {
    fn default() -> Self {
        Self { model: None, is_default: false, candidates: 20, timeout: Duration::from_secs(2), slots: 1 }
    }
}

impl std::fmt::Debug for RerankConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("RerankConfig");
        shown.field("has_model", &self.model.is_some()).field("is_default", &self.is_default);
        shown.field("candidates", &self.candidates).field("timeout", &self.timeout).field("slots", &self.slots).finish()
    }
}

/// What became of reranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reranking {
    /// The best candidates are in the order of the model, or of what is built in.
    Done,
    /// It did not answer in time, or what it read had changed meanwhile: the fused order.
    Late,
    /// It failed: the fused order.
    Failed,
}

impl Reranking {
    fn name(self) -> &'static str {
        match self {
            Reranking::Done => "done",
            Reranking::Late => "late",
            Reranking::Failed => "failed",
        }
    }
}

/// What reads, with its turns.
pub(super) struct Rerank {
    reader: Arc<dyn Reranker>,
    config: RerankConfig,
    /// Of a model: each of its sessions reads for one search at a time.
    turns: Option<Semaphore>,
}

impl Rerank {
    pub(super) fn new(config: RerankConfig, lexical: &Arc<LexicalIndexes>) -> Self {
        let reader = config.model.clone().unwrap_or_else(|| Arc::new(NearWords::new(lexical.clone())));
        let turns = config.model.as_ref().map(|_| Semaphore::new(config.slots.max(1)));
        Self { reader, config, turns }
    }

    fn is_wanted(&self, request: &SearchRequest) -> bool {
        request.rerank.unwrap_or(self.config.is_default)
    }

    /// How many candidates of `request` are to be read again.
    pub(super) fn reads(&self, request: &SearchRequest) -> usize {
        if self.is_wanted(request) { self.config.candidates.max(1) } else { 0 }
    }

    /// What is said of a result of `request` that is remembered.
    pub(super) fn of_kept(&self, request: &SearchRequest) -> Option<Reranking> {
        self.is_wanted(request).then_some(Reranking::Done)
    }

    /// The scores of `passages`, in time and in turn.
    async fn scores(&self, tenant: TenantId, question: &str, passages: Vec<Passage>) -> Result<Vec<f64>, Reranking> {
        if passages.is_empty() {
            return Ok(Vec::new());
        }
        let read = async {
            let _turn = match &self.turns {
                Some(turns) => Some(turns.acquire().await.map_err(|_| RerankError("the turns have ended"))?),
                None => None,
            };
            self.reader.rerank(tenant, question, passages).await
        };
        match tokio::time::timeout(self.config.timeout, read).await {
            Ok(Ok(scores)) => {
                metrics::counter!("docmill_reranked_passages_total").increment(scores.len() as u64);
                Ok(scores)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "a search was not reranked");
                Err(Reranking::Failed)
            }
            Err(_) => Err(Reranking::Late),
        }
    }

    /// Orders the candidates that were read by their scores, before all others; what age leaves of a score counts.
    async fn order(&self, tenant: TenantId, question: &str, candidates: Candidates) -> (Vec<Fused>, Reranking) {
        let Candidates { mut fused, passages } = candidates;
        let started = Instant::now();
        let outcome = match self.scores(tenant, question, passages).await {
            Ok(scores) => {
                for (fused, score) in fused.iter_mut().zip(scores) {
                    fused.score = 1.0 + score * fused.explanation.freshness.unwrap_or(1.0);
                    fused.explanation.rerank = Some(score);
                }
                sort(&mut fused);
                Reranking::Done
            }
            Err(outcome) => outcome,
        };
        metrics::histogram!("docmill_rerank_seconds").record(started.elapsed().as_secs_f64());
        (fused, outcome)
    }
}

impl Search {
    /// `candidates` read again, and as hits of a second snapshot; `None` when that has lost one of them (what stands in its
    /// place is not among the others), with what is then to be said.
    ///
    /// # Errors
    /// Of the database; never of the model.
    pub(super) async fn read_again(
        &self,
        tenant: TenantId,
        request: &SearchRequest,
        scope: &SearchScope,
        candidates: Candidates,
    ) -> Result<(Option<Found>, Reranking), Failure> {
        let (fused, outcome) = self.rerank.order(tenant, &request.query, candidates).await;
        let (request, scope) = (request.clone(), scope.clone());
        let read = self.database.read(tenant, |connection| Box::pin(show(connection, fused, request, scope)));
        let found = read.await?;
        let outcome = if found.is_none() && outcome == Reranking::Done { Reranking::Late } else { outcome };
        metrics::counter!("docmill_rerank_total", "outcome" => outcome.name()).increment(1);
        Ok((found, outcome))
    }
}

/// The hits of `fused`, when all of them are visible in this snapshot.
async fn show(
    connection: &mut PgConnection,
    fused: Vec<Fused>,
    request: SearchRequest,
    scope: SearchScope,
) -> Result<Option<Found>, DbError> {
    let ids: Vec<Uuid> = fused.iter().map(|fused| fused.chunk_id.0).collect();
    if rows::visible_chunks(connection, &scope, &ids).await?.len() < ids.len() {
        return Ok(None);
    }
    let hits = present::present(connection, fused, &request, &scope).await?;
    Ok(Some(Found { hits, candidates: None, is_short: false, seen: cache::seen(connection).await? }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lexical::LexicalConfig;
    use crate::search::Explanation;
    use docmill_model::ChunkId;
    use docmill_platform::reranker::ScriptedReranker;

    fn candidates(texts: &[(&str, f64)]) -> Candidates {
        let one = |(number, (_, score)): (usize, &(&str, f64))| Fused {
            chunk_id: ChunkId(Uuid::from_u128(number as u128)),
            score: *score,
            explanation: Explanation { fused: *score, ..Explanation::default() },
        };
        let passage = |(text, fused): &(&str, f64)| Passage {
            headings: Vec::new(),
            text: (*text).to_owned(),
            language: None,
            fused: *fused,
        };
        let passages = texts.iter().take(2).map(passage).collect();
        Candidates { fused: texts.iter().enumerate().map(one).collect(), passages }
    }

    fn places(fused: &[Fused]) -> Vec<u128> {
        fused.iter().map(|fused| fused.chunk_id.0.as_u128()).collect()
    }

    fn rerank(config: RerankConfig) -> Rerank {
        let folder = tempfile::tempdir().unwrap();
        Rerank::new(config, &LexicalIndexes::new(LexicalConfig::new(folder.path())).unwrap())
    }

    async fn order(rerank: &Rerank, candidates: Candidates) -> (Vec<Fused>, Reranking) {
        rerank.order(TenantId::fresh(), "a", candidates).await
    }

    const TEXTS: [(&str, f64); 3] = [("fog", 0.9), ("ferry", 0.8), ("ferry, but too far down to be read", 0.7)];

    #[tokio::test]
    async fn what_was_read_comes_first_in_the_order_of_the_model() {
        let model: Arc<dyn Reranker> = Arc::new(ScriptedReranker::preferring("ferry"));
        let rerank = rerank(RerankConfig { model: Some(model), ..RerankConfig::default() });
        let (fused, outcome) = order(&rerank, candidates(&TEXTS)).await;
        assert_eq!((places(&fused), outcome), (vec![1, 0, 2], Reranking::Done));
        let scores: Vec<f64> = fused.iter().map(|fused| fused.score).collect();
        assert_eq!((scores, fused[2].explanation.rerank), (vec![2.0, 1.25, 0.7], None));
        let mut aged = candidates(&TEXTS);
        aged.fused[1].explanation.freshness = Some(0.1);
        assert_eq!(places(&order(&rerank, aged).await.0), [0, 1, 2], "age counts");
    }

    fn with(model: Arc<ScriptedReranker>) -> Rerank {
        let timeout = Duration::from_millis(50);
        rerank(RerankConfig { model: Some(model), timeout, ..RerankConfig::default() })
    }

    fn never() -> Arc<ScriptedReranker> {
        Arc::new(ScriptedReranker::preferring("ferry").taking(Duration::from_secs(3_600)))
    }

    #[tokio::test]
    async fn a_model_that_fails_or_is_late_leaves_the_order_as_it_was() {
        let failing = Arc::new(ScriptedReranker::preferring("ferry").failing());
        for (model, wanted) in [(never(), Reranking::Late), (failing, Reranking::Failed)] {
            let (fused, outcome) = order(&with(model), candidates(&TEXTS)).await;
            assert_eq!((places(&fused), outcome), (vec![0, 1, 2], wanted));
            assert!(fused.iter().all(|fused| fused.explanation.rerank.is_none()));
        }
    }

    #[tokio::test]
    async fn searches_take_turns_waiting_counts_and_a_turn_is_given_back() {
        let model = never();
        let rerank = with(model.clone());
        let ask = || async { order(&rerank, candidates(&TEXTS)).await.1 };
        let (first, second, third) = futures::join!(ask(), ask(), ask());
        assert_eq!([first, second, third], [Reranking::Late; 3]);
        let read = model.passages_read();
        assert_eq!(ask().await, Reranking::Late);
        assert_eq!((model.most_at_once(), model.passages_read()), (1, read + 2));
    }

    #[tokio::test]
    async fn what_is_built_in_takes_no_turns_and_needs_no_index() {
        let rerank = rerank(RerankConfig::default());
        assert!(rerank.turns.is_none());
        let apart = format!("fog {} pier", "calm ".repeat(12));
        let texts = [(apart.as_str(), 0.9), ("fog pier", 0.85)];
        let (fused, outcome) = rerank.order(TenantId::fresh(), "fog pier", candidates(&texts)).await;
        assert_eq!((places(&fused), outcome), (vec![1, 0], Reranking::Done));
    }
}
