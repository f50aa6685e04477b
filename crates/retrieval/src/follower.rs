//! The index node: keeps this node's lexical indexes a projection of Postgres.
//!
//! One loop follows the feed of every tenant in its own sequence and reports how far it got; a second one renews the
//! node's lease while the first keeps up. A node that falls behind lets its lease run out: it leaves rotation and
//! blocks nobody. Whatever is wrong with an index on disk (missing, damaged, locked, a panic) is answered by building it
//! again from Postgres. Not here: writing the feed and flipping visibility (the index stage's).

mod feed;
mod node;
mod project;

use crate::lexical::LexicalIndexes;
use docmill_model::{Failure, TenantId};
use docmill_platform::database::Database;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How a node follows.
#[derive(Clone, Debug)]
pub struct FollowerConfig {
    /// Identity of this node and its directory; two running nodes never share one.
    pub node_id: String,
    /// How long the node counts as live after its last renewal.
    pub lease: Duration,
    /// Pause between looks at the feed while it moves.
    pub busy_poll: Duration,
    /// Pause once nothing has moved for [`FollowerConfig::idle_after`].
    pub idle_poll: Duration,
    /// When the feed counts as resting.
    pub idle_after: Duration,
    /// A node that has not caught up for this long stops renewing its lease.
    pub max_lag: Duration,
}

impl FollowerConfig {
    /// The usual cadence: lease 10 s, polls of 25 ms while busy and 200 ms at rest, out of rotation after 30 s.
    #[must_use]
    pub fn new(node_id: impl Into<String>) -> Self {
        Self {
            node_id: node_id.into(),
            lease: Duration::from_secs(10),
            busy_poll: Duration::from_millis(25),
            idle_poll: Duration::from_millis(200),
            idle_after: Duration::from_secs(5),
            max_lag: Duration::from_secs(30),
        }
    }
}

/// What a node's two loops share.
struct Shared {
    config: FollowerConfig,
    caught_up_at: Mutex<Option<Instant>>,
    is_live: AtomicBool,
    /// False until the node's row exists, and again when somebody removed it.
    is_registered: AtomicBool,
}

/// Follows the feed until told to stop.
pub struct Follower {
    database: Database,
    lexical: Arc<LexicalIndexes>,
    shared: Arc<Shared>,
}

/// Tells whether a node is in rotation; for readiness checks.
#[derive(Clone)]
pub struct FollowerStatus(Arc<Shared>);

impl FollowerStatus {
    /// True while the node holds a lease: it has caught up and keeps up.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.0.is_live.load(Ordering::Acquire)
    }
}

/// A tenant that could not be brought up to date, and when to try again.
struct Setback {
    retry_at: Instant,
    pause: Duration,
}

impl Follower {
    /// Over the database and this node's indexes.
    #[must_use]
    pub fn new(database: Database, lexical: Arc<LexicalIndexes>, config: FollowerConfig) -> Self {
        let shared = Shared {
            config,
            caught_up_at: Mutex::new(None),
            is_live: AtomicBool::new(false),
            is_registered: AtomicBool::new(false),
        };
        Self { database, lexical, shared: Arc::new(shared) }
    }

    /// The node's state, for readiness.
    #[must_use]
    pub fn status(&self) -> FollowerStatus {
        FollowerStatus(self.shared.clone())
    }

    /// Follows until `stop`; then gives the lease back, so that nobody waits for this node. Survives a database that is
    /// away: it waits and goes on.
    pub async fn run(self, stop: CancellationToken) {
        let lease = tokio::spawn(node::keep_lease(self.database.clone(), self.shared.clone(), stop.clone()));
        let mut state = Following { reached: HashMap::new(), setbacks: HashMap::new(), writers: HashMap::new() };
        let mut moved_at = Instant::now();
        while !stop.is_cancelled() {
            if !self.shared.is_registered.load(Ordering::Acquire) {
                self.register(&mut state).await;
            }
            match self.pass(&mut state).await {
                Ok(moved) if moved => moved_at = Instant::now(),
                Ok(_) => {}
                Err(failure) => tracing::warn!(code = %failure.code, "the index feed cannot be read; trying again"),
            }
            let resting = moved_at.elapsed() > self.shared.config.idle_after;
            let pause = if resting { self.shared.config.idle_poll } else { self.shared.config.busy_poll };
            let _ = tokio::time::timeout(pause, stop.cancelled()).await;
        }
        let _ = lease.await;
        for tenant in state.writers.into_keys() {
            self.lexical.release_writer(tenant).await;
        }
        node::leave(&self.database, &self.shared.config.node_id).await;
    }

    /// Enters the node's row; every tenant's watermark is then reported afresh.
    async fn register(&self, state: &mut Following) {
        state.reached.clear();
        match node::register(&self.database, &self.shared.config.node_id).await {
            Ok(()) => self.shared.is_registered.store(true, Ordering::Release),
            Err(error) => tracing::warn!(error = %error, "the index node cannot register; trying again"),
        }
    }

    /// Brings every tenant whose feed moved up to date, those with the least to do first, and reports each at once: its
    /// documents wait for that, and not for what another tenant has uploaded. True when one moved; counts as caught up
    /// when all succeeded.
    async fn pass(&self, state: &mut Following) -> Result<bool, Failure> {
        for tenant in self.lexical.take_suspects() {
            // A tenant never followed has no index: searching it is no sign of loss.
            state.reached.remove(&tenant);
        }
        let mut heads = feed::heads(&self.database).await?;
        state.forget_missing(&heads);
        heads.sort_by_key(|(tenant, head)| head - state.reached.get(tenant).copied().unwrap_or(0));
        self.lexical.retain(&heads.iter().map(|(tenant, _)| *tenant).collect()).await;
        let (mut has_moved, mut all_reached) = (false, true);
        for (tenant, head) in heads {
            if state.reached.get(&tenant).is_some_and(|&reached| reached >= head) {
                continue;
            }
            if state.setbacks.get(&tenant).is_some_and(|setback| setback.retry_at > Instant::now()) {
                all_reached = false;
                continue;
            }
            match project::catch_up(&self.database, &self.lexical, tenant, head).await {
                Ok(reached) => {
                    node::report(&self.database, &self.shared.config.node_id, tenant, reached).await?;
                    state.reach(tenant, reached);
                    has_moved = true;
                    self.database.failpoints().hit("index.reported", "follower").await;
                }
                Err(error) => {
                    all_reached = false;
                    state.set_back(tenant);
                    tracing::warn!(%tenant, error = ?error, "a lexical index could not be brought up to date");
                }
            }
        }
        if all_reached {
            *self.shared.caught_up_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        self.release_idle_writers(state).await;
        Ok(has_moved)
    }

    /// Indexes of tenants that rest lose what was removed, and their writers give their memory back.
    async fn release_idle_writers(&self, state: &mut Following) {
        let idle_after = self.shared.config.idle_after;
        let idle: Vec<TenantId> =
            state.writers.iter().filter(|(_, used)| used.elapsed() > idle_after).map(|(&tenant, _)| tenant).collect();
        for tenant in idle {
            state.writers.remove(&tenant);
            self.lexical.rest(tenant).await;
        }
    }
}

/// Builds a tenant's index from the database once, without following it; for evaluations.
///
/// # Errors
/// Failures of database and index.
pub(crate) async fn build_index(
    database: &Database,
    lexical: &Arc<LexicalIndexes>,
    tenant: TenantId,
) -> Result<(), Failure> {
    Ok(project::rebuild(database, lexical, tenant).await.map(|_| ())?)
}

/// What the loop remembers between passes; all of it can be lost.
struct Following {
    reached: HashMap<TenantId, i64>,
    setbacks: HashMap<TenantId, Setback>,
    writers: HashMap<TenantId, Instant>,
}

impl Following {
    fn reach(&mut self, tenant: TenantId, seq: i64) {
        self.reached.insert(tenant, seq);
        self.setbacks.remove(&tenant);
        self.writers.insert(tenant, Instant::now());
    }

    /// Twice the pause each time, from 0.5 s up to 30 s.
    fn set_back(&mut self, tenant: TenantId) {
        self.reached.remove(&tenant);
        let last = self.setbacks.get(&tenant).map_or(Duration::from_millis(250), |setback| setback.pause);
        let pause = (last * 2).min(Duration::from_secs(30));
        self.setbacks.insert(tenant, Setback { retry_at: Instant::now() + pause, pause });
    }

    fn forget_missing(&mut self, heads: &[(TenantId, i64)]) {
        if self.reached.len() > heads.len() {
            let present: std::collections::HashSet<TenantId> = heads.iter().map(|(tenant, _)| *tenant).collect();
            self.reached.retain(|tenant, _| present.contains(tenant));
        }
    }
}
