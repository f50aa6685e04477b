//! Changing one tenant's index, each step on a blocking thread.

use super::tenant::{LexicalChange, TenantIndex};
use super::{LexicalError, LexicalIndexes};
use docmill_model::TenantId;
use std::sync::Arc;

/// One tenant's index held open for changes: what is applied here is committed here, whatever happens around it.
pub struct LexicalWriter {
    pub(super) indexes: Arc<LexicalIndexes>,
    pub(super) tenant: TenantId,
    pub(super) index: Arc<TenantIndex>,
}

impl LexicalWriter {
    /// The feed number the index has durably reached; `None` before the first commit.
    ///
    /// # Errors
    /// [`LexicalError`].
    pub async fn seq(&self) -> Result<Option<i64>, LexicalError> {
        let index = self.index.clone();
        self.indexes.blocking(self.tenant, move |_| Ok(index.seq()?)).await
    }

    /// Buffers a change; nothing is visible or durable before [`LexicalWriter::commit`].
    ///
    /// # Errors
    /// [`LexicalError`].
    pub async fn apply(&self, change: LexicalChange) -> Result<(), LexicalError> {
        let index = self.index.clone();
        self.indexes.blocking(self.tenant, move |_| Ok(index.apply(&change)?)).await
    }

    /// Makes buffered changes durable together with the feed number, in one atomic step, and visible to searches.
    ///
    /// # Errors
    /// [`LexicalError`].
    pub async fn commit(&self, seq: i64) -> Result<(), LexicalError> {
        let index = self.index.clone();
        self.indexes.blocking(self.tenant, move |_| Ok(index.commit(seq)?)).await
    }
}
