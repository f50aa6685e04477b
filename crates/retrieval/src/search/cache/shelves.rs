//! The memory of the results: bounded in bytes, dropped when nobody asked in five minutes, a tenant's whole shelf as soon as
//! its corpus is seen to have changed.

use super::super::wire::Hit;
use super::Seen;
use docmill_model::{Sha256Hex, TenantId};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a result takes besides its text: keys, places and the parts of a hit. Also an empty one does.
const OVERHEAD_BYTES: usize = 512;
/// How long a result stays that nobody asks for.
const IDLE: Duration = Duration::from_secs(300);

/// What a search could see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) seen: Seen,
    /// What the lexical index had applied of the feed.
    pub(super) reached: i64,
}

/// Where a result is.
#[derive(Clone, Debug)]
pub(in crate::search) struct Place {
    pub(super) tenant: TenantId,
    pub(super) key: Sha256Hex,
    pub(super) state: State,
}

/// Results in memory.
pub(in crate::search) struct ResultCache {
    pub(super) limit_bytes: usize,
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
    pub(in crate::search) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, shelves: Mutex::default() }
    }

    fn locked(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The result of `place`, where there is one of this very state.
    pub(super) fn get(&self, place: &Place) -> Option<Arc<Vec<Hit>>> {
        let mut shelves = self.locked();
        shelves.turn_to(place);
        shelves.use_again(place)
    }

    /// Lets go of what nobody asked for lately, also where nobody asks for anything: it may be the words of something that
    /// was deleted since.
    pub(in crate::search) fn forget_idle(&self) {
        let mut shelves = self.locked();
        shelves.shrink(self.limit_bytes);
        metrics::gauge!("docmill_search_cache_bytes").set(shelves.bytes as f64);
    }

    /// True when there is a result of some state for what is asked: whether it holds, a snapshot has to say.
    pub(super) fn has(&self, tenant: TenantId, key: &Sha256Hex) -> bool {
        self.locked().by_tenant.get(&tenant).is_some_and(|shelf| shelf.results.contains_key(key))
    }

    /// Remembers `hits`, unless the tenant's state has gone on or they are too large.
    pub(in crate::search) fn put(&self, place: Place, hits: &[Hit]) {
        let bytes = serde_json::to_vec(hits).map_or(usize::MAX, |json| json.len() + OVERHEAD_BYTES);
        // One result may take a sixteenth: a few large ones never drive out all others.
        if bytes > self.limit_bytes / 16 {
            return;
        }
        let mut shelves = self.locked();
        shelves.turn_to(&place);
        shelves.put(place, hits.to_vec(), bytes);
        shelves.shrink(self.limit_bytes);
        metrics::gauge!("docmill_search_cache_bytes").set(shelves.bytes as f64);
    }
}

impl Shelves {
    /// Drops what the tenant's older states hold.
    fn turn_to(&mut self, place: &Place) {
        let state = place.state;
        let is_older = |shelf: &Shelf| {
            shelf.state != state && shelf.state.seen.corpus <= state.seen.corpus && shelf.state.reached <= state.reached
        };
        if self.by_tenant.get(&place.tenant).is_some_and(is_older)
            && let Some(shelf) = self.by_tenant.remove(&place.tenant)
        {
            for kept in shelf.results.values() {
                self.uses.remove(&kept.use_number);
                self.bytes -= kept.bytes;
            }
        }
    }

    fn use_again(&mut self, place: &Place) -> Option<Arc<Vec<Hit>>> {
        let shelf = self.by_tenant.get_mut(&place.tenant).filter(|shelf| shelf.state == place.state)?;
        let kept = shelf.results.get_mut(&place.key)?;
        self.uses.remove(&kept.use_number);
        self.clock += 1;
        (kept.use_number, kept.used_at) = (self.clock, Instant::now());
        self.uses.insert(self.clock, (place.tenant, place.key.clone()));
        Some(Arc::clone(&kept.hits))
    }

    fn put(&mut self, place: Place, hits: Vec<Hit>, bytes: usize) {
        if self.by_tenant.get(&place.tenant).is_some_and(|shelf| shelf.state != place.state) {
            return;
        }
        self.remove(place.tenant, &place.key);
        let empty = || Shelf { state: place.state, results: HashMap::new() };
        let shelf = self.by_tenant.entry(place.tenant).or_insert_with(empty);
        self.clock += 1;
        self.bytes += bytes;
        self.uses.insert(self.clock, (place.tenant, place.key.clone()));
        let kept = Kept { hits: Arc::new(hits), bytes, use_number: self.clock, used_at: Instant::now() };
        shelf.results.insert(place.key, kept);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use uuid::Uuid;

    fn place(tenant: u128, name: &str, corpus: i64, reached: i64) -> Place {
        let state = State { seen: Seen { corpus, space: 1 }, reached };
        Place { tenant: TenantId(Uuid::from_u128(tenant)), key: Sha256Hex::of(name.as_bytes()), state }
    }

    /// An empty result is two bytes of JSON, and what every result takes.
    fn cache(limit_bytes: usize, places: &[Place]) -> ResultCache {
        let cache = ResultCache::new(limit_bytes);
        places.iter().for_each(|place| cache.put(place.clone(), &[]));
        cache
    }

    #[test]
    fn a_result_is_found_in_its_own_state_only_and_a_newer_state_empties_the_shelf() {
        let (old, new, deeper) = (place(1, "a", 4, 7), place(1, "a", 5, 7), place(1, "a", 5, 8));
        let cache = cache(16 << 10, &[old.clone(), place(1, "b", 4, 7), place(2, "a", 1, 1)]);
        assert!(cache.get(&old).is_some() && cache.get(&place(1, "c", 4, 7)).is_none());
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
        let places: Vec<Place> = (0..16).map(|n| place(n % 3, &n.to_string(), 1, 1)).collect();
        let cache = cache(16 * 514, &places);
        assert!(cache.get(&places[0]).is_some());
        cache.put(place(0, "more", 1, 1), &[]);
        assert!(cache.get(&places[0]).is_some() && cache.get(&places[1]).is_none());
        let shelves = cache.locked();
        assert_eq!((shelves.bytes, shelves.uses.len()), (16 * 514, 16));
    }

    #[test]
    fn nothing_is_kept_when_it_is_off() {
        let cache = cache(0, &[place(1, "a", 1, 1)]);
        assert!(cache.get(&place(1, "a", 1, 1)).is_none());
        assert!(cache.locked().uses.is_empty());
    }
}
