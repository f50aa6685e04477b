//! The lexical half of a search: how far it looks, and in which documents.

use super::scope::SearchScope;
use super::wire::{SearchMode, SearchRequest};
use super::{Search, rows};
use crate::lexical::{LexicalHit, LexicalScope};
use docmill_model::{Code, DocumentId, Failure, TenantId};

/// How far the lexical half looks.
pub(super) struct Reach {
    /// Candidates.
    pub depth: usize,
    /// The only documents it looks at.
    pub gate: Option<Vec<DocumentId>>,
    /// True once it was found out whether a gate is possible.
    pub is_gate_known: bool,
}

impl Search {
    /// Too few lexical candidates were for the caller, or told apart by their text, although the index has more: look
    /// only at documents that are for the caller, when they are few, else deeper.
    pub(super) async fn widen(
        &self,
        tenant: TenantId,
        scope: &SearchScope,
        mode: SearchMode,
        reach: &mut Reach,
    ) -> Result<(), Failure> {
        if !reach.is_gate_known {
            reach.is_gate_known = true;
            reach.gate = self.gate(tenant, scope, mode).await?;
            if reach.gate.is_some() {
                return Ok(());
            }
        }
        reach.depth = reach.depth.saturating_mul(8);
        Ok(())
    }

    /// The documents in scope, when few: the lexical index then looks at nothing else. Documents, not generations, so
    /// that a version that becomes visible meanwhile is not missed.
    pub(super) async fn gate(
        &self,
        tenant: TenantId,
        scope: &SearchScope,
        mode: SearchMode,
    ) -> Result<Option<Vec<DocumentId>>, Failure> {
        if mode == SearchMode::Dense {
            return Ok(None);
        }
        let (scope, limit) = (scope.clone(), self.config.max_gate + 1);
        let read = self.database.read(tenant, move |connection| {
            Box::pin(async move { Ok(rows::visible_documents(connection, &scope, limit).await?) })
        });
        let documents = read.await?;
        Ok(((documents.len() as i64) < limit).then_some(documents))
    }

    pub(super) async fn lexical_half(
        &self,
        tenant: TenantId,
        request: &SearchRequest,
        reach: &Reach,
    ) -> Option<Result<Vec<LexicalHit>, Failure>> {
        if request.mode == SearchMode::Dense {
            return None;
        }
        let scope = LexicalScope { documents: reach.gate.clone(), collection: request.filters.collection.clone() };
        let half = async {
            match self.lexical.search(tenant, request.query.clone(), reach.depth, scope).await? {
                Some(hits) => Ok(hits),
                None if self.is_answering(tenant).await? => {
                    Err(Failure::new(Code::Internal, "the lexical index is being rebuilt"))
                }
                None => Ok(Vec::new()),
            }
        };
        Some(self.in_time(half).await)
    }

    /// True when the tenant has documents that answer: then it should have a lexical index.
    async fn is_answering(&self, tenant: TenantId) -> Result<bool, Failure> {
        let read =
            self.database.read(tenant, |connection| Box::pin(async move { Ok(rows::is_answering(connection).await?) }));
        Ok(read.await?)
    }
}
