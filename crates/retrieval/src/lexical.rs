//! The lexical half: one tantivy index for each tenant, so that nobody else's texts change anybody's BM25 statistics,
//! and so that a tenant filter cannot be forgotten.
//!
//! Promises: a search never parses user text as a query; a panic or error of tantivy is a typed outcome that marks the
//! tenant's index as suspect. Not here: deciding what to index ([`crate::follower`]) and what is visible (Postgres).

pub mod analysis;
mod query;
mod schema;
mod soundness;
mod tenant;
mod weigh;
mod writer;

pub use schema::LexicalChunk;
pub use tenant::LexicalChange;
pub use weigh::WeightedWord;
pub use writer::LexicalWriter;

use docmill_model::{ChunkId, Code, DocumentId, Failure, GenerationId, TenantId};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tenant::TenantIndex;

/// Where the indexes live and how many stay open.
#[derive(Clone, Debug)]
pub struct LexicalConfig {
    /// Directory of this node alone; created when missing. It can be deleted at any time.
    pub directory: PathBuf,
    /// Most tenants whose index stays open.
    pub max_open: usize,
}

impl LexicalConfig {
    /// Indexes under `directory`, 64 open at most.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), max_open: 64 }
    }
}

/// A chunk found, with its BM25 score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LexicalHit {
    /// The chunk.
    pub chunk_id: ChunkId,
    /// BM25, at least 0; comparable within one search only.
    pub score: f64,
}

/// What a lexical search is narrowed to, inside the index. Who may see what is decided by Postgres.
#[derive(Clone, Debug, Default)]
pub struct LexicalScope {
    /// These documents; all when absent.
    pub documents: Option<Vec<DocumentId>>,
    /// This collection; all when absent.
    pub collection: Option<String>,
}

/// An index of a few texts, in memory, for one comparison.
pub(crate) struct PassingIndex(TenantIndex);

impl PassingIndex {
    /// Over `chunks` alone.
    ///
    /// # Errors
    /// [`LexicalError`]
    pub fn of(chunks: Vec<LexicalChunk>) -> Result<Self, LexicalError> {
        Ok(Self(TenantIndex::of(chunks)?))
    }

    /// The best `limit` of them for `text`, best first.
    ///
    /// # Errors
    /// [`LexicalError`]
    pub fn search(&self, text: &str, limit: usize) -> Result<Vec<LexicalHit>, LexicalError> {
        Ok(self.0.search(text, limit, &LexicalScope::default())?)
    }
}

/// The index is unusable and must be built again from Postgres.
#[derive(Debug, thiserror::Error)]
pub enum LexicalError {
    /// tantivy refused: missing or damaged files, a lock held elsewhere, a full disk.
    #[error("the lexical index failed")]
    Tantivy(#[from] tantivy::TantivyError),
    /// tantivy panicked.
    #[error("the lexical index panicked")]
    Panicked,
    /// There is no index to change.
    #[error("the lexical index is not there")]
    Missing,
}

impl From<LexicalError> for Failure {
    fn from(error: LexicalError) -> Self {
        tracing::warn!(error = ?error, "lexical index failed");
        Failure::new(Code::Internal, "the lexical index is being rebuilt")
    }
}

struct Open {
    index: Arc<TenantIndex>,
    used: u64,
}

#[derive(Default)]
struct State {
    open: HashMap<TenantId, Open>,
    suspect: HashSet<TenantId>,
    /// Tenants whose index was made, or read from end to end, since this process began.
    sound: HashSet<TenantId>,
    clock: u64,
}

/// All indexes of this node.
pub struct LexicalIndexes {
    config: LexicalConfig,
    state: Mutex<State>,
    /// Held while an index is opened or made: one that is being read for damage must not be written to.
    opening: Mutex<()>,
}

impl LexicalIndexes {
    /// Over a directory of this node alone.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the directory cannot be created.
    pub fn new(config: LexicalConfig) -> Result<Arc<Self>, Failure> {
        std::fs::create_dir_all(&config.directory).map_err(|error| {
            Failure::new(Code::ConfigInvalid, format!("cannot create the lexical index directory: {}", error.kind()))
        })?;
        Ok(Arc::new(Self { config, state: Mutex::default(), opening: Mutex::default() }))
    }

    /// The best `limit` chunks of `tenant` for `text` within `scope`; `None` when the tenant has no index, or one that
    /// is still being built. The result may hold chunks that are not visible (yet, any more, or to the caller).
    ///
    /// # Errors
    /// [`LexicalError`]; the tenant is then suspect and will be rebuilt.
    pub async fn search(
        self: &Arc<Self>,
        tenant: TenantId,
        text: String,
        limit: usize,
        scope: LexicalScope,
    ) -> Result<Option<Vec<LexicalHit>>, LexicalError> {
        self.blocking(tenant, move |indexes| match indexes.built(tenant)? {
            Some(index) => Ok(Some(index.search(&text, limit, &scope)?)),
            None => Ok(None),
        })
        .await
    }

    /// Chunks of each of `generations` in the tenant's index, and of all; zeros when there is no index.
    ///
    /// # Errors
    /// [`LexicalError`].
    pub async fn count(
        self: &Arc<Self>,
        tenant: TenantId,
        generations: Vec<GenerationId>,
    ) -> Result<(Vec<i64>, i64), LexicalError> {
        self.blocking(tenant, move |indexes| match indexes.opened(tenant)? {
            Some(index) => Ok(index.count(&generations)?),
            None => Ok((vec![0; generations.len()], 0)),
        })
        .await
    }

    /// The tenant's index for changing; `None` when there is none. Only the follower changes indexes.
    ///
    /// # Errors
    /// [`LexicalError`].
    pub async fn writer(self: &Arc<Self>, tenant: TenantId) -> Result<Option<LexicalWriter>, LexicalError> {
        let index = self.blocking(tenant, move |indexes| indexes.opened(tenant)).await?;
        Ok(index.map(|index| LexicalWriter { indexes: self.clone(), tenant, index }))
    }

    /// Starts the tenant's index anew, empty.
    ///
    /// # Errors
    /// [`LexicalError`].
    pub async fn recreate(self: &Arc<Self>, tenant: TenantId) -> Result<LexicalWriter, LexicalError> {
        let index = self
            .blocking(tenant, move |indexes| {
                let _opening = indexes.opening.lock().unwrap_or_else(PoisonError::into_inner);
                indexes.close(tenant);
                let index = TenantIndex::create(&indexes.directory(tenant))?;
                Ok(indexes.keep(tenant, Arc::new(index)))
            })
            .await?;
        Ok(LexicalWriter { indexes: self.clone(), tenant, index })
    }

    /// Removes the indexes of all other tenants, with their files: they were deleted.
    pub async fn retain(self: &Arc<Self>, tenants: &HashSet<TenantId>) {
        let Ok(entries) = std::fs::read_dir(self.config.directory.join(schema::LAYOUT)) else { return };
        let present = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for tenant in present.filter(|tenant| !tenants.contains(tenant)) {
            self.release_writer(tenant).await;
            self.close(tenant);
            if let Err(error) = std::fs::remove_dir_all(self.directory(tenant)) {
                tracing::warn!(%tenant, error = %error.kind(), "the index of a deleted tenant is removed later");
            }
        }
    }

    /// Removes from disk what was removed from the tenant's index, then gives its writer back.
    pub async fn rest(self: &Arc<Self>, tenant: TenantId) {
        let purged = self.blocking(tenant, move |indexes| match indexes.opened(tenant)? {
            Some(index) => Ok(index.purge()?),
            None => Ok(()),
        });
        if let Err(error) = purged.await {
            tracing::warn!(error = %error, "a lexical index could not be purged");
        }
        self.release_writer(tenant).await;
    }

    /// Gives back the memory, threads and lock of the tenant's writer, if it is open.
    pub async fn release_writer(self: &Arc<Self>, tenant: TenantId) {
        let released = self.blocking(tenant, move |indexes| {
            let open = indexes.locked().open.get(&tenant).map(|open| open.index.clone());
            if let Some(index) = open {
                index.release_writer();
            }
            Ok(())
        });
        if let Err(error) = released.await {
            tracing::warn!(error = %error, "a lexical writer could not be released");
        }
    }

    /// Tenants whose index was missing or failed since the last call.
    #[must_use]
    pub fn take_suspects(&self) -> HashSet<TenantId> {
        std::mem::take(&mut self.locked().suspect)
    }

    /// Runs tantivy on a blocking thread; a panic there is an error here.
    async fn blocking<T, F>(self: &Arc<Self>, tenant: TenantId, work: F) -> Result<T, LexicalError>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T, LexicalError> + Send + 'static,
    {
        let indexes = self.clone();
        let outcome = tokio::task::spawn_blocking(move || work(&indexes)).await.unwrap_or(Err(LexicalError::Panicked));
        if outcome.is_err() {
            self.close(tenant);
            self.suspect(tenant);
        }
        outcome
    }

    /// The tenant's index, read for damage when this process opens it for the first time.
    fn opened(&self, tenant: TenantId) -> Result<Option<Arc<TenantIndex>>, LexicalError> {
        if let Some(index) = self.open(tenant) {
            return Ok(Some(index));
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = self.open(tenant) {
            return Ok(Some(index));
        }
        let check = !self.locked().sound.contains(&tenant);
        let Some(index) = TenantIndex::open(&self.directory(tenant), check)? else { return Ok(None) };
        Ok(Some(self.keep(tenant, Arc::new(index))))
    }

    /// The tenant's index once it holds what it should; a tenant that has none is suspect.
    fn built(&self, tenant: TenantId) -> Result<Option<Arc<TenantIndex>>, LexicalError> {
        let index = self.opened(tenant)?;
        if index.is_none() {
            self.suspect(tenant);
        }
        Ok(index.filter(|index| index.is_committed()))
    }

    fn open(&self, tenant: TenantId) -> Option<Arc<TenantIndex>> {
        let mut state = self.locked();
        state.clock += 1;
        let now = state.clock;
        let open = state.open.get_mut(&tenant)?;
        open.used = now;
        Some(open.index.clone())
    }

    /// The feed number that searches of the tenant have reached here; `None` while its index is not open.
    #[must_use]
    pub fn reached(&self, tenant: TenantId) -> Option<i64> {
        self.locked().open.get(&tenant)?.index.reached()
    }

    /// Keeps an index open, or hands out the one that another thread opened first.
    fn keep(&self, tenant: TenantId, index: Arc<TenantIndex>) -> Arc<TenantIndex> {
        let mut state = self.locked();
        state.clock += 1;
        let used = state.clock;
        state.sound.insert(tenant);
        let kept = state.open.entry(tenant).or_insert(Open { index, used }).index.clone();
        while state.open.len() > self.config.max_open.max(1) {
            // Only what nobody uses right now may go: two open writers of one directory must never exist.
            let idle = state.open.iter().filter(|(_, open)| Arc::strong_count(&open.index) == 1);
            let Some(oldest) = idle.min_by_key(|(_, open)| open.used).map(|(&tenant, _)| tenant) else { break };
            state.open.remove(&oldest);
        }
        kept
    }

    fn close(&self, tenant: TenantId) {
        let mut state = self.locked();
        state.open.remove(&tenant);
        state.sound.remove(&tenant);
    }

    fn suspect(&self, tenant: TenantId) {
        self.locked().suspect.insert(tenant);
    }

    fn directory(&self, tenant: TenantId) -> PathBuf {
        self.config.directory.join(schema::LAYOUT).join(tenant.to_string())
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
