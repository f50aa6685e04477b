//! Results of searches, remembered until what they could see changes.
//!
//! A result belongs to a tenant, the caller's labels, the whole request, the corpus (a counter that whatever changes what
//! is visible raises in its own transaction), the embedding space that answers and the state of this node's lexical index.
//! Searches in a named space, which may be filling, are not remembered. The cache does not decide about access: the
//! snapshot of the search that finds a result here says whether every passage in it is still visible to this caller, and
//! else it is not used. Degraded results are not kept, nor those that were to be reranked and were not, nor
//! those that age with the clock. What reranks is one for as long as the process runs.

mod shelves;

pub(super) use shelves::{Place, ResultCache};

use super::rows;
use super::scope::SearchScope;
use super::wire::{Hit, SearchRequest};
use crate::Caller;
use crate::lexical::LexicalIndexes;
use docmill_model::{Failure, Sha256Hex, TenantId};
use docmill_platform::database::{Database, DbError};
use docmill_platform::embedder::Space;
use shelves::State;
use sqlx::PgConnection;
use std::sync::Arc;
use uuid::Uuid;

/// What a snapshot of the database says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Seen {
    /// How often what is visible has changed.
    corpus: i64,
    /// The embedding space that answers.
    space: i32,
}

/// What may be remembered once it is found.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    tenant: TenantId,
    key: Sha256Hex,
    /// What the lexical index had applied before the halves looked. What becomes visible is in it by then: a result that
    /// lacks it is of an index that no later look is about, since that reads what the index has applied after the corpus.
    reached: i64,
    /// What was read of the corpus before the search looked, where something else depends on it.
    seen: Option<Seen>,
}

impl Ticket {
    /// What a snapshot of the search saw; `None` when that differs from what was seen before: a result in between may lack
    /// something.
    pub(super) fn of(self, seen: Seen) -> Option<Self> {
        self.seen.is_none_or(|before| before == seen).then_some(Self { seen: Some(seen), ..self })
    }

    /// Where a result goes that was found in a snapshot that saw this.
    pub(super) fn place(self, seen: Seen) -> Option<Place> {
        let Self { tenant, key, reached, .. } = self.of(seen)?;
        Some(Place { tenant, key, state: State { seen, reached } })
    }
}

/// What a look into the cache came to.
pub(super) enum Looked {
    /// A result that holds.
    Found(Vec<Hit>),
    /// None; how the one that is found is remembered, when it may be.
    Missing(Option<Ticket>),
}

/// A look into the cache, over what it is checked with.
pub(super) struct Recall<'r> {
    pub cache: &'r Arc<ResultCache>,
    pub database: &'r Database,
    pub lexical: &'r Arc<LexicalIndexes>,
}

impl Recall<'_> {
    /// The result of `request` for `caller`, when it is remembered and one snapshot says that it still holds.
    ///
    /// # Errors
    /// Of the database.
    pub(super) async fn look(
        &self,
        caller: &Caller,
        request: &SearchRequest,
        scope: &SearchScope,
    ) -> Result<Looked, Failure> {
        // Read before the halves look: what they find is of this state of the index, or of a later one.
        let reached = self.lexical.reached(caller.tenant_id);
        let may_keep = self.cache.limit_bytes > 0 && request.freshness.is_none() && request.space.is_none();
        let (Some(reached), true) = (reached, may_keep) else {
            return Ok(Looked::Missing(None));
        };
        let (tenant, key, scope) = (caller.tenant_id, key(caller, request)?, scope.clone());
        let (cache, lexical) = (self.cache.clone(), self.lexical.clone());
        if !scope.is_narrowed() && !cache.has(tenant, &key) {
            count("miss");
            return Ok(Looked::Missing(Some(Ticket { tenant, key, reached, seen: None })));
        }
        let read = self.database.read(tenant, move |connection| {
            Box::pin(async move {
                let seen = seen(connection).await?;
                let Some(now) = lexical.reached(tenant) else { return Ok(Looked::Missing(None)) };
                let place = Place { tenant, key, state: State { seen, reached: now } };
                let found = match cache.get(&place) {
                    Some(hits) if are_visible(connection, &scope, &hits).await? => Looked::Found(hits.to_vec()),
                    _ => Looked::Missing(Some(Ticket { tenant, key: place.key, reached, seen: Some(seen) })),
                };
                Ok(found)
            })
        });
        let looked = read.await?;
        count(if matches!(looked, Looked::Found(_)) { "hit" } else { "miss" });
        Ok(looked)
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("docmill_search_cache_total", "outcome" => outcome).increment(1);
}

/// What tells requests apart: all of the request, and the labels of who asks.
fn key(caller: &Caller, request: &SearchRequest) -> Result<Sha256Hex, Failure> {
    let mut labels = caller.labels.clone();
    labels.sort_unstable();
    labels.dedup();
    let unwritable = |_| Failure::new(docmill_model::Code::Internal, "a search cannot be written as JSON");
    Ok(Sha256Hex::of(&serde_json::to_vec(&(labels, request)).map_err(unwritable)?))
}

/// What this snapshot says.
pub(super) async fn seen(connection: &mut PgConnection) -> Result<Seen, DbError> {
    Ok(seen_beside(connection, None).await?.0)
}

/// What this snapshot says, and whether `space` is the one that answers in it.
pub(super) async fn seen_beside(connection: &mut PgConnection, space: Option<&Space>) -> Result<(Seen, bool), DbError> {
    #[derive(sqlx::FromRow)]
    struct Row {
        #[sqlx(flatten)]
        seen: Seen,
        is_active: bool,
    }
    let row = sqlx::query_as(
        "SELECT coalesce((SELECT corpus FROM index_heads WHERE tenant_id = current_tenant()), 0) AS corpus, s.id AS space,
                (s.id, s.created_at, s.fingerprint) IS NOT DISTINCT FROM ($1::int, $2::timestamptz, $3::text) AS is_active
         FROM active_spaces a JOIN embedding_spaces s ON s.id = a.space_id",
    );
    let row = row.bind(space.map(|space| space.id)).bind(space.map(|space| space.created_at));
    let row: Row = row.bind(space.and_then(|space| space.fingerprint.as_ref())).fetch_one(connection).await?;
    Ok((row.seen, row.is_active))
}

/// True when every passage that `hits` show is visible in `scope`.
async fn are_visible(connection: &mut PgConnection, scope: &SearchScope, hits: &[Hit]) -> Result<bool, DbError> {
    let copies = hits.iter().flat_map(|hit| hit.copies.iter().flatten().map(|copy| copy.chunk_id.0));
    let mut ids: Vec<Uuid> = hits.iter().map(|hit| hit.chunk_id.0).chain(copies).collect();
    ids.sort_unstable();
    ids.dedup();
    let visible = rows::visible_chunks(connection, scope, &ids).await?;
    Ok(visible.len() == ids.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Filters, LexicalConfig};
    use docmill_model::PrincipalId;
    use docmill_platform::database::DatabaseConfig;
    use docmill_platform::feed;
    use std::time::Duration;
    use tokio::sync::oneshot;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_index_has_reached_is_read_after_the_corpus() {
        let world = docmill_testkit::world().await;
        let tenant = world.tenant().await;
        // One connection reads.
        let config = DatabaseConfig {
            app_url: world.app_url.clone(),
            engine_url: world.engine_url.clone(),
            max_connections: 2,
            acquire_timeout: Duration::from_secs(20),
        };
        let database = Database::connect(&config).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lexical = LexicalIndexes::new(LexicalConfig::new(folder.path())).unwrap();
        let index = lexical.recreate(tenant).await.unwrap();
        index.commit(1).await.unwrap();
        database.write(tenant, |connection| Box::pin(feed::corpus_changed(connection))).await.unwrap();
        let after = database.read(tenant, |connection| Box::pin(seen(connection))).await.unwrap();

        // Found in the words of before and the corpus of after.
        let caller = Caller { tenant_id: tenant, principal_id: PrincipalId::fresh(), labels: Vec::new() };
        let filters = Filters { collection: Some("north".to_owned()), ..Filters::default() };
        let request = SearchRequest { filters, ..SearchRequest::new("harbour") };
        let scope = SearchScope::new(&caller, &request.filters);
        let cache = Arc::new(ResultCache::new(1 << 20));
        let state = State { seen: after, reached: 1 };
        cache.put(Place { tenant, key: key(&caller, &request).unwrap(), state }, &[]);
        let recall = Recall { cache: &cache, database: &database, lexical: &lexical };
        let at_rest = recall.look(&caller, &request, &scope).await.unwrap();
        assert!(matches!(at_rest, Looked::Found(_)), "it holds while the index has not gone on");

        let ((hold, held), (release, released)) = (oneshot::channel::<()>(), oneshot::channel::<()>());
        let reader = database.clone();
        let holder = tokio::spawn(async move {
            let read = reader.read(tenant, move |_| {
                Box::pin(async move {
                    let _ = hold.send(());
                    let _ = released.await;
                    Ok(())
                })
            });
            read.await
        });
        held.await.unwrap();
        let (looked, ()) = tokio::join!(recall.look(&caller, &request, &scope), async {
            // It waits for the connection by now.
            tokio::task::yield_now().await;
            index.commit(2).await.unwrap();
            release.send(()).unwrap();
        });
        assert!(matches!(looked.unwrap(), Looked::Missing(Some(_))), "the index has gone on, with what became visible");
        holder.await.unwrap().unwrap();
    }
}
