//! Hybrid search: words are looked up while the question is embedded; one Postgres snapshot then finds what is near and
//! decides what is visible; one ranking comes out.
//!
//! Promises: at most `k` hits, fewer only when fewer match; every hit belongs to the caller's tenant, to the visible
//! generation of a document whose labels the caller meets, and passes the filters, all judged in one snapshot. When
//! one half fails, the other answers and the response says so. What reranks reads between two snapshots: the second
//! one judges anew, and when it has lost a candidate, the search is done again without.

mod around;
mod cache;
mod copies;
mod diversity;
mod fresh;
pub mod fusion;
mod near;
pub mod options;
mod plan;
mod present;
mod rerank;
mod rows;
pub mod scope;
mod similar;
mod spaces;
pub mod wire;
mod words;

pub use fusion::FusionConfig;
pub use options::{Expand, Freshness};
pub use rerank::{RerankConfig, Reranking};
pub use wire::{Context, Copy, Explanation, Hit, SearchMode, SearchRequest, SearchResponse};

use crate::Caller;
use crate::dense::{Dense, DenseConfig};
use crate::follower::FollowerStatus;
use crate::lexical::{LexicalHit, LexicalIndexes, WeightedWord};
use cache::{Recall, ResultCache};
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::database::Database;
use docmill_platform::embedder::{Embedder, Embedders, Space};
use plan::{Found, Outcome, Plan};
use rerank::Rerank;
use scope::SearchScope;
use spaces::{KnownSpace, Question};
use std::sync::Arc;
use std::time::{Duration, Instant};
use words::Reach;

/// Constants of a search.
#[derive(Clone, Debug)]
pub struct SearchConfig {
    /// Candidates of the lexical half before fusion, at least; three times `k` when that is more.
    pub candidates: usize,
    /// The same of the dense half: what words have found brings its cosine with it, so that fewer do.
    pub dense_candidates: usize,
    /// Candidates up to which the lexical half is asked again for a better order alone. Beyond them only while fewer
    /// than `k` hits were found, and then until it has no more.
    pub max_candidates: usize,
    /// A filter that leaves at most this many documents is applied inside the lexical index.
    pub max_gate: i64,
    /// How long the lexical index and the embedding of the query may each take; the other half answers then.
    pub half_timeout: Duration,
    /// How the halves become one ranking.
    pub fusion: FusionConfig,
    /// The dense half.
    pub dense: DenseConfig,
    /// How the best candidates are read again.
    pub rerank: RerankConfig,
    /// Bytes of results to remember; 0 for none.
    pub cache_bytes: usize,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self {
            candidates: 100,
            dense_candidates: 50,
            max_candidates: 20_000,
            max_gate: 2_000,
            half_timeout: Duration::from_secs(5),
            fusion: FusionConfig::default(),
            dense: DenseConfig::default(),
            rerank: RerankConfig::default(),
            cache_bytes: 32 << 20,
        }
    }
}

impl SearchConfig {
    /// Candidates of the lexical half at first.
    fn depth(&self, k: u32) -> usize {
        self.candidates.max(k as usize * 3)
    }

    /// Candidates of the dense half.
    fn dense_depth(&self, k: u32) -> usize {
        self.dense_candidates.max(k as usize * 3)
    }
}

/// The retrieval service.
#[derive(Clone)]
pub struct Search {
    database: Database,
    embedders: Embedders,
    known: Arc<KnownSpace>,
    pinned: Option<Space>,
    lexical: Arc<LexicalIndexes>,
    dense: Arc<Dense>,
    cache: Arc<ResultCache>,
    rerank: Arc<Rerank>,
    follower: Option<FollowerStatus>,
    config: Arc<SearchConfig>,
}

impl Search {
    /// Over the database, the embedding models and this node's lexical indexes.
    #[must_use]
    pub fn new(
        database: Database,
        embedders: impl Into<Embedders>,
        lexical: Arc<LexicalIndexes>,
        config: SearchConfig,
    ) -> Self {
        let (dense, known) = (Arc::new(Dense::new(config.dense)), Arc::default());
        let cache = Arc::new(ResultCache::new(config.cache_bytes));
        let embedders = embedders.into();
        let rerank = Arc::new(Rerank::new(config.rerank.clone(), &lexical));
        let (pinned, follower, config) = (None, None, Arc::new(config));
        Self { database, embedders, known, pinned, lexical, dense, cache, rerank, follower, config }
    }

    /// Says that the lexical half may lack something while the follower of its indexes is out of rotation.
    #[must_use]
    pub fn following(self, follower: FollowerStatus) -> Self {
        Self { follower: Some(follower), ..self }
    }

    /// Compares in this space only, whichever is active, and takes the first model's vectors to lie there: for
    /// evaluations, whose tenant nobody else writes.
    #[must_use]
    pub fn pinned(self, space: Space) -> Self {
        Self { pinned: Some(space), ..self }
    }

    /// Lets go of results that nobody asked for in five minutes; to be called now and then.
    pub fn forget_idle(&self) {
        self.cache.forget_idle();
    }

    /// Where this node's lexical indexes differ from the database; see [`crate::audit`].
    ///
    /// # Errors
    /// Failures of database and index.
    pub async fn compare_index(&self) -> Result<Vec<crate::audit::IndexDifference>, Failure> {
        crate::audit::compare(&self.database, &self.lexical).await
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The embedding model of the settings, which compares sentences.
    #[must_use]
    pub fn embedder(&self) -> &Arc<dyn Embedder> {
        self.embedders.first()
    }

    /// All embedding models.
    #[must_use]
    pub fn embedders(&self) -> &Embedders {
        &self.embedders
    }

    pub(crate) fn fusion(&self) -> &FusionConfig {
        &self.config.fusion
    }

    /// Languages the embedding model was made for.
    pub(crate) fn known_languages(&self) -> &[String] {
        &self.config.fusion.dense_languages
    }

    /// The words of `text` weighed by rarity in the tenant's index; all alike when the index cannot say.
    pub(crate) async fn weigh(&self, tenant: TenantId, text: &str) -> Vec<WeightedWord> {
        let weighed = self.lexical.weigh(tenant, text.to_owned()).await;
        weighed.unwrap_or_else(|_| WeightedWord::alike(text))
    }

    /// Finds passages for `caller`.
    ///
    /// # Errors
    /// `QUERY_EMPTY`, `QUERY_LIMIT`, `FIELD_INVALID`, `SPACE_UNKNOWN`, `SPACE_INCOMPLETE` for the request;
    /// `DATABASE_UNAVAILABLE`; a half's own failure when it was the only one asked, or when both failed.
    pub async fn search(&self, caller: &Caller, request: &SearchRequest) -> Result<SearchResponse, Failure> {
        request.check()?;
        let started = Instant::now();
        let scope = SearchScope::new(caller, &request.filters);
        let recall = Recall { cache: &self.cache, database: &self.database, lexical: &self.lexical };
        let mut ticket = match recall.look(caller, request, &scope).await? {
            cache::Looked::Found(hits) => {
                let reranking = self.rerank.of_kept(request);
                return Ok(SearchResponse { hits, reranking, cached: true, ..Default::default() }.since(started));
            }
            cache::Looked::Missing(ticket) => ticket,
        };
        let gate = if scope.is_narrowed() { self.gate(caller.tenant_id, &scope, request.mode).await? } else { None };
        let mut reach = Reach { depth: self.config.depth(request.k), gate, is_gate_known: scope.is_narrowed() };
        let mut space = self.space(caller.tenant_id, request).await?;
        let mut question = self.question(request, space.as_ref());
        let mut words = beside(&question, self.lexical_half(caller.tenant_id, request, &reach)).await;
        let (mut reads, mut unread) = (self.rerank.reads(request), None);
        let (Found { mut hits, seen, .. }, degraded, reranking) = loop {
            let plan = Plan {
                search: self.clone(),
                tenant: caller.tenant_id,
                request: request.clone(),
                scope: scope.clone(),
                depth: reach.depth,
                reads,
                words: words.as_ref().and_then(|words| words.as_ref().ok()).cloned(),
                space: space.clone(),
                question: question.clone(),
            };
            let read = self.database.read(caller.tenant_id, |connection| Box::pin(plan.run(connection)));
            let mut found = match read.await? {
                Outcome::Found(found) => found,
                Outcome::Moved => {
                    space = self.space_now(caller.tenant_id, request).await?;
                    question = self.question(request, space.as_ref());
                    continue;
                }
                Outcome::Early => {
                    question.clone().await;
                    continue;
                }
            };
            let degraded = self.degraded(words.as_ref(), question.peek().and_then(Option::as_ref))?;
            if found.is_short {
                // A gate is read in a snapshot of its own: what it saw of the corpus must be what this one saw.
                ticket = ticket.and_then(|ticket| ticket.of(found.seen));
                self.widen(caller.tenant_id, &scope, request.mode, &mut reach).await?;
            } else if let Some(candidates) = found.candidates.take() {
                ticket = ticket.and_then(|ticket| ticket.of(found.seen));
                match self.read_again(caller.tenant_id, request, &scope, candidates).await? {
                    (Some(found), outcome) => break (found, degraded, Some(outcome)),
                    (None, outcome) => (reads, unread) = (0, Some(outcome)),
                }
            } else {
                break (found, degraded, unread);
            }
            words = self.lexical_half(caller.tenant_id, request, &reach).await;
        };
        if !request.explain {
            hits.iter_mut().for_each(|hit| hit.explanation = None);
        }
        let is_whole = degraded.is_none() && reranking.is_none_or(|outcome| outcome == Reranking::Done);
        if let Some(place) = ticket.filter(|_| is_whole).and_then(|ticket| ticket.place(seen)) {
            self.cache.put(place, &hits);
        }
        let degraded = degraded.map(str::to_owned);
        Ok(SearchResponse { hits, degraded, reranking, ..Default::default() }.since(started))
    }

    /// The half whose answer is lacking, if the other one has answered.
    ///
    /// # Errors
    /// The failure of the only half that was asked, or of the first when both failed.
    fn degraded(
        &self,
        words: Option<&Result<Vec<LexicalHit>, Failure>>,
        vector: Option<&Result<Vec<f32>, Failure>>,
    ) -> Result<Option<&'static str>, Failure> {
        match (words, vector) {
            (Some(Err(_)), Some(Ok(_))) => Ok(Some("lexical")),
            (Some(Ok(_)), Some(Err(_))) => Ok(Some("dense")),
            (Some(Err(failure)), _) | (_, Some(Err(failure))) => Err(failure.clone()),
            (Some(Ok(_)), _) if self.follower.as_ref().is_some_and(|node| !node.is_live()) => Ok(Some("lexical")),
            _ => Ok(None),
        }
    }

    /// What a half says within its time.
    async fn in_time<T>(&self, half: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let late = || Failure::new(Code::RequestTimeout, "a half of the search did not answer in time");
        tokio::time::timeout(self.config.half_timeout, half).await.unwrap_or_else(|_| Err(late()))
    }
}

/// What `half` says; the question is being embedded meanwhile.
async fn beside<T>(question: &Question, half: impl Future<Output = T>) -> T {
    tokio::pin!(half);
    tokio::select! {
        biased;
        _ = question.clone() => half.await,
        said = &mut half => said,
    }
}
