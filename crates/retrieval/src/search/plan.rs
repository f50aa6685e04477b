//! What one snapshot answers: both halves' candidates as far as they are visible, fused, and as hits or to be read again.

use super::fusion::Fused;
use super::scope::SearchScope;
use super::spaces::{self, Placed};
use super::wire::{Hit, SearchRequest};
use super::{Search, cache, fresh, fusion, present, rows};
use crate::lexical::LexicalHit;
use docmill_model::TenantId;
use docmill_platform::database::DbError;
use docmill_platform::reranker::Passage;
use sqlx::PgConnection;

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
    pub vector: Option<Placed>,
}

pub(super) enum Outcome {
    Found(Found),
    /// The question was embedded for another space than the one that answers in this snapshot.
    Moved,
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
        let k = self.request.k as usize;
        let (config, mut dense, mut lexical, mut has_more) = (&self.search.config, Vec::new(), Vec::new(), false);
        let placed = self.vector.as_ref().map(|placed| (&placed.space, placed.vector.as_slice()));
        let (seen, is_active) = cache::seen_beside(connection, placed.map(|(space, _)| space)).await?;
        if let Some((space, vector)) = placed {
            let is_still = match &self.request.space {
                _ if self.search.pinned.is_some() => true,
                None => is_active,
                Some(_) => spaces::is_still(connection, &self.request, space).await?,
            };
            if !is_still {
                return Ok(Outcome::Moved);
            }
            let limit = config.depth(self.request.k) as i64;
            dense = self.search.dense.nearest(connection, self.tenant, space, &self.scope, vector, limit).await?;
        }
        if let Some(words) = &self.words {
            lexical = rows::visible_candidates(connection, &self.scope, words, placed, &dense).await?;
            has_more = words.len() >= self.depth;
        }
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
