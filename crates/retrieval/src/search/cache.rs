//! Results of searches, remembered until what they could see changes.
//!
//! A result belongs to a tenant, the caller's labels, the whole request, the corpus (a counter that whatever changes what
//! is visible raises in its own transaction), the embedding space that answers and the state of this node's lexical index.
//! Searches in a named space, which may be filling, are not remembered. The cache does not decide about access: the
//! snapshot of the search that finds a result here says whether every passage in it is still visible to this caller, and
//! else it is not used. Degraded results are not kept, nor those that were to be reranked and were not although there is a
//! model, nor those that age with the clock. The model is one for as long as the process runs. What is kept is
//! bounded in bytes and dropped when it was not asked for in five minutes, a tenant's whole shelf as soon as its corpus is
//! seen to have changed.

use super::rows;
use super::scope::SearchScope;
use super::wire::{Hit, SearchRequest};
use crate::Caller;
use crate::lexical::LexicalIndexes;
use docmill_model::{Failure, Sha256Hex, TenantId};
use docmill_platform::database::{Database, DbError};
use docmill_platform::embedder::Space;
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// What a result takes besides its text: keys, places and the parts of a hit. Also an empty one does.
const OVERHEAD_BYTES: usize = 512;
/// How long a result stays that nobody asks for.
const IDLE: Duration = Duration::from_secs(300);

/// What a snapshot of the database says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Seen {
    /// How often what is visible has changed.
    corpus: i64,
    /// The embedding space that answers.
    space: i32,
}

/// What a search could see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    seen: Seen,
    /// What the lexical index had applied of the feed.
    reached: i64,
}

/// Where a result may be put once it is found.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    tenant: TenantId,
    key: Sha256Hex,
    state: State,
}

impl Ticket {
    /// True when all is still as it was before the halves looked: a result in between may lack something.
    pub(super) fn is_of(&self, seen: Seen) -> bool {
        self.state.seen == seen
    }
}

/// Results in memory.
pub(super) struct ResultCache {
    limit_bytes: usize,
    shelves: Mutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    by_tenant: HashMap<TenantId, Shelf>,
    /// The results in the order of their last use.
    uses: BTreeMap<u64, (TenantId, Sha256Hex)>,
    clock: u64,
    bytes: usize,
}

struct Shelf {
    state: State,
    results: HashMap<Sha256Hex, Kept>,
}

struct Kept {
    hits: Arc<Vec<Hit>>,
    bytes: usize,
    use_number: u64,
    used_at: Instant,
}

impl ResultCache {
    /// That remembers about `limit_bytes`, 0 for nothing.
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, shelves: Mutex::default() }
    }

    fn locked(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result for `ticket`, where there is one of this very state.
    fn get(&self, ticket: &Ticket) -> Option<Arc<Vec<Hit>>> {
        let mut shelves = self.locked();
        shelves.turn_to(ticket);
        shelves.use_again(ticket)
    }

    /// Lets go of what nobody asked for lately, also where nobody asks for anything: it may be the words of something that
    /// was deleted since.
    pub(super) fn forget_idle(&self) {
        let mut shelves = self.locked();
        shelves.shrink(self.limit_bytes);
        metrics::gauge!("docmill_search_cache_bytes").set(shelves.bytes as f64);
    }

    /// Remembers `hits`, unless the tenant's state has gone on or they are too large.
    pub(super) fn put(&self, ticket: Ticket, hits: &[Hit]) {
        let bytes = serde_json::to_vec(hits).map_or(usize::MAX, |json| json.len() + OVERHEAD_BYTES);
        // One result may take a sixteenth: a few large ones never drive out all others.
        if bytes > self.limit_bytes / 16 {
            return;
        }
        let mut shelves = self.locked();
        shelves.turn_to(&ticket);
        shelves.put(ticket, hits.to_vec(), bytes);
        shelves.shrink(self.limit_bytes);
        metrics::gauge!("docmill_search_cache_bytes").set(shelves.bytes as f64);
    }
}

impl Shelves {
    /// Drops what the tenant's older states hold.
    fn turn_to(&mut self, ticket: &Ticket) {
        let state = ticket.state;
        let is_older = |shelf: &Shelf| {
            shelf.state != state && shelf.state.seen.corpus <= state.seen.corpus && shelf.state.reached <= state.reached
        };
        if self.by_tenant.get(&ticket.tenant).is_some_and(is_older)
            && let Some(shelf) = self.by_tenant.remove(&ticket.tenant)
        {
            for kept in shelf.results.values() {
                self.uses.remove(&kept.use_number);
                self.bytes -= kept.bytes;
            }
        }
    }

    fn use_again(&mut self, ticket: &Ticket) -> Option<Arc<Vec<Hit>>> {
        let shelf = self.by_tenant.get_mut(&ticket.tenant).filter(|shelf| shelf.state == ticket.state)?;
        let kept = shelf.results.get_mut(&ticket.key)?;
        self.uses.remove(&kept.use_number);
        self.clock += 1;
        (kept.use_number, kept.used_at) = (self.clock, Instant::now());
        self.uses.insert(self.clock, (ticket.tenant, ticket.key.clone()));
        Some(Arc::clone(&kept.hits))
    }

    fn put(&mut self, ticket: Ticket, hits: Vec<Hit>, bytes: usize) {
        if self.by_tenant.get(&ticket.tenant).is_some_and(|shelf| shelf.state != ticket.state) {
            return;
        }
        self.remove(ticket.tenant, &ticket.key);
        let empty = || Shelf { state: ticket.state, results: HashMap::new() };
        let shelf = self.by_tenant.entry(ticket.tenant).or_insert_with(empty);
        self.clock += 1;
        self.bytes += bytes;
        self.uses.insert(self.clock, (ticket.tenant, ticket.key.clone()));
        let kept = Kept { hits: Arc::new(hits), bytes, use_number: self.clock, used_at: Instant::now() };
        shelf.results.insert(ticket.key, kept);
    }

    fn remove(&mut self, tenant: TenantId, key: &Sha256Hex) {
        let Some(shelf) = self.by_tenant.get_mut(&tenant) else { return };
        if let Some(kept) = shelf.results.remove(key) {
            self.uses.remove(&kept.use_number);
            self.bytes -= kept.bytes;
        }
        if shelf.results.is_empty() {
            self.by_tenant.remove(&tenant);
        }
    }

    /// Drops what was used longest ago, until the rest fits and is of the last five minutes.
    fn shrink(&mut self, limit_bytes: usize) {
        while let Some((tenant, key)) = self.uses.first_key_value().map(|(_, place)| place.clone()) {
            let kept = self.by_tenant.get(&tenant).and_then(|shelf| shelf.results.get(&key));
            if self.bytes <= limit_bytes && kept.is_some_and(|kept| kept.used_at.elapsed() < IDLE) {
                return;
            }
            self.remove(tenant, &key);
        }
    }
}

/// What a look into the cache came to.
pub(super) enum Looked {
    /// A result that holds.
    Found(Vec<Hit>),
    /// None; where to put the one that is found, when it may be remembered.
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
        // Read before the corpus: what is searched afterwards is of this state of the index, or of a later one.
        let reached = self.lexical.reached(caller.tenant_id);
        let may_keep = self.cache.limit_bytes > 0 && request.freshness.is_none() && request.space.is_none();
        let (Some(reached), true) = (reached, may_keep) else {
            return Ok(Looked::Missing(None));
        };
        let (tenant, key, cache, scope) = (caller.tenant_id, key(caller, request)?, self.cache.clone(), scope.clone());
        let read = self.database.read(tenant, move |connection| {
            Box::pin(async move {
                let state = State { seen: seen(connection).await?, reached };
                let ticket = Ticket { tenant, key, state };
                let found = match cache.get(&ticket) {
                    Some(hits) if are_visible(connection, &scope, &hits).await? => Looked::Found(hits.to_vec()),
                    _ => Looked::Missing(Some(ticket)),
                };
                Ok(found)
            })
        });
        let looked = read.await?;
        let outcome = if matches!(looked, Looked::Found(_)) { "hit" } else { "miss" };
        metrics::counter!("docmill_search_cache_total", "outcome" => outcome).increment(1);
        Ok(looked)
    }
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

    fn ticket(tenant: u128, name: &str, corpus: i64, reached: i64) -> Ticket {
        let state = State { seen: Seen { corpus, space: 1 }, reached };
        Ticket { tenant: TenantId(Uuid::from_u128(tenant)), key: Sha256Hex::of(name.as_bytes()), state }
    }

    /// An empty result is two bytes of JSON, and what every result takes.
    fn cache(limit_bytes: usize, tickets: &[Ticket]) -> ResultCache {
        let cache = ResultCache::new(limit_bytes);
        tickets.iter().for_each(|ticket| cache.put(ticket.clone(), &[]));
        cache
    }

    #[test]
    fn a_result_is_found_in_its_own_state_only_and_a_newer_state_empties_the_shelf() {
        let (old, new, deeper) = (ticket(1, "a", 4, 7), ticket(1, "a", 5, 7), ticket(1, "a", 5, 8));
        let cache = cache(16 << 10, &[old.clone(), ticket(1, "b", 4, 7), ticket(2, "a", 1, 1)]);
        assert!(cache.get(&old).is_some() && cache.get(&ticket(1, "c", 4, 7)).is_none());
        assert!(cache.get(&new).is_none() && cache.get(&old).is_none(), "the corpus has changed");
        assert_eq!(cache.locked().bytes, 514, "what the other tenant has stays");
        cache.put(new.clone(), &[]);
        cache.put(old.clone(), &[]);
        assert!(cache.get(&old).is_none() && cache.get(&new).is_some(), "a late result is not taken");
        assert!(cache.get(&deeper).is_none() && cache.get(&new).is_none(), "the index has gone on");
        let mut switched = new.clone();
        switched.state.seen.space = 2;
        cache.put(new.clone(), &[]);
        assert!(cache.get(&switched).is_none() && cache.get(&new).is_none(), "another space answers");
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_the_bytes_are_kept() {
        let tickets: Vec<Ticket> = (0..16).map(|n| ticket(n % 3, &n.to_string(), 1, 1)).collect();
        let cache = cache(16 * 514, &tickets);
        assert!(cache.get(&tickets[0]).is_some());
        cache.put(ticket(0, "more", 1, 1), &[]);
        assert!(cache.get(&tickets[0]).is_some() && cache.get(&tickets[1]).is_none());
        let shelves = cache.locked();
        assert_eq!((shelves.bytes, shelves.uses.len()), (16 * 514, 16));
    }

    #[test]
    fn nothing_is_kept_when_it_is_off() {
        let cache = cache(0, &[ticket(1, "a", 1, 1)]);
        assert!(cache.get(&ticket(1, "a", 1, 1)).is_none());
        assert!(cache.locked().uses.is_empty());
    }
}
