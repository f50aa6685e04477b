//! What one snapshot answers: both halves' candidates as far as they are visible, fused, and as hits or to be read again.
//!
//! The snapshot begins when the words have said theirs: which of their candidates are visible is looked up while the
//! question is still being embedded. A search by meaning alone begins it at once.

use super::fusion::{Fused, LexicalCandidate};
use super::scope::SearchScope;
use super::spaces::{self, Question};
use super::wire::{Hit, SearchRequest};
use super::{Search, cache, fresh, fusion, present, rows};
use crate::lexical::LexicalHit;
use docmill_model::TenantId;
use docmill_platform::database::DbError;
use docmill_platform::embedder::{Space, cosine};
use docmill_platform::reranker::Passage;
use sqlx::PgConnection;
use std::time::Duration;

/// How long a snapshot waits for the vector of the question. Where the model has more to do, connections do not wait with it.
const PATIENCE: Duration = Duration::from_millis(20);

/// What one snapshot has to answer.
pub(super) struct Plan {
    pub search: Search,
    pub tenant: TenantId,
    pub request: SearchRequest,
    pub scope: SearchScope,
    /// Candidates the lexical half was asked for.
    pub depth: usize,
    /// Candidates that are to be read again; 0 for hits at once.
    pub reads: usize,
    pub words: Option<Vec<LexicalHit>>,
    /// Where the question is compared; none for a search by words alone.
    pub space: Option<Space>,
    pub question: Question,
}

pub(super) enum Outcome {
    Found(Found),
    /// The question was embedded for another space than the one that answers in this snapshot.
    Moved,
    /// The question has no vector yet.
    Early,
}

/// What one snapshot answered.
pub(super) struct Found {
    pub hits: Vec<Hit>,
    /// Instead of hits what is to be read again.
    pub candidates: Option<Candidates>,
    /// True when fewer than `k` texts of the lexical half were visible and the index has more: then nothing else is here.
    pub is_short: bool,
    /// What the snapshot said of the corpus.
    pub seen: cache::Seen,
}

impl Plan {
    pub(super) async fn run(self, connection: &mut PgConnection) -> Result<Outcome, DbError> {
        let (seen, is_active) = cache::seen_beside(connection, self.space.as_ref()).await?;
        if let Some(space) = &self.space {
            let is_still = match &self.request.space {
                _ if self.search.pinned.is_some() => true,
                None => is_active,
                Some(_) => spaces::is_still(connection, &self.request, space).await?,
            };
            if !is_still {
                return Ok(Outcome::Moved);
            }
        }
        // What has no vector and will have none is not compared.
        let (space, known) = match self.question.peek() {
            Some(Some(Ok(vector))) => (self.space.as_ref(), Some(vector.as_slice())),
            Some(_) => (None, None),
            None => (self.space.as_ref(), None),
        };
        let words = self.words.as_deref().unwrap_or_default();
        let has_more = self.words.is_some() && words.len() >= self.depth;
        let visible = rows::visible_candidates(connection, &self.scope, words, space, known).await?;
        let way = match space {
            Some(space) => Some(self.search.dense.way(connection, self.tenant, space, &self.scope).await?),
            None => None,
        };
        let Ok(vector) = tokio::time::timeout(PATIENCE, self.question.clone()).await else {
            return Ok(Outcome::Early);
        };
        let vector = vector.and_then(Result::ok);
        let (k, config, mut dense) = (self.request.k as usize, &self.search.config, Vec::new());
        match (space, way, &vector) {
            (Some(space), Some(way), Some(vector)) => {
                let limit = config.dense_depth(self.request.k).max(self.reads) as i64;
                dense = self.search.dense.nearest(connection, way, space, &self.scope, vector, limit).await?;
            }
            (_, Some(way), None) => self.search.dense.leave(connection, way).await?,
            _ => {}
        }
        let lexical: Vec<LexicalCandidate> = visible
            .into_iter()
            .map(|(candidate, other)| {
                let compared = vector.as_ref().zip(other).map(|(vector, other)| cosine(vector, other.as_slice()));
                LexicalCandidate { cosine: candidate.cosine.or(compared), ..candidate }
            })
            .collect();
        let mut fused = fusion::fuse(&config.fusion, &lexical, &dense);
        // Copies of a text are one candidate; the dense half has searched everything when it returns too few.
        let texts = fused.iter().filter(|fused| fused.explanation.bm25_rank.is_some()).count();
        let is_short = has_more && texts < k && (fused.len() < k || self.depth < config.max_candidates);
        if let Some(freshness) = &self.request.freshness {
            fresh::apply(connection, &mut fused, freshness).await?;
        }
        let (mut hits, mut candidates) = (Vec::new(), None);
        if is_short {
            // Asked again for more.
        } else if self.reads > 0 {
            // What is neither read nor shown must not be missed by the snapshot that shows them.
            fused.truncate(self.reads.max(present::width(&self.request)));
            let passages = rows::passages(connection, &fused[..self.reads.min(fused.len())]).await?;
            candidates = Some(Candidates { passages, fused });
        } else {
            hits = present::present(connection, fused, &self.request, &self.scope).await?;
        }
        Ok(Outcome::Found(Found { hits, candidates, is_short, seen }))
    }
}

/// A ranking whose best are to be read again.
pub(super) struct Candidates {
    pub fused: Vec<Fused>,
    /// What is read of the first of them.
    pub passages: Vec<Passage>,
}
