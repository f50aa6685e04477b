//! The builder: fills the gaps of every standing space, and removes what is dropped.
//!
//! It works from facts: what lacks a vector is found again after any kill, and what has one is not embedded again. One
//! builder works on a space at a time, under a lease. It is polite: between batches it lets the embed stage go first. Its
//! inserts hold the chunks they are for, so that a deletion either finds the vector or forbids it. A round gives every
//! space and tenant a slice of time and ends: a large space keeps no other waiting.

use super::empty::empty;
use super::fill::{Embedded, Stored, embed, forget_refused, insert};
use super::gaps::{self, Gap, Looked};
use super::{all, others, tenants};
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use docmill_platform::embedder::{Embedder, Embedders, Space};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How a builder works.
#[derive(Clone, Debug)]
pub struct BuilderConfig {
    /// Name of this process in leases.
    pub name: String,
    /// Texts handed to the model at once and stored in one transaction.
    pub batch: usize,
    /// How long a silent builder keeps a space.
    pub lease: Duration,
    /// Longest wait of a batch for the embed stage to have nothing to do.
    pub courtesy: Duration,
    /// Pause between two rounds.
    pub pause: Duration,
    /// How long a space is left alone whose model failed, and a tenant whose texts it refuses.
    pub rest: Duration,
    /// Longest work of one round on one tenant of a space, and on a space that is emptied.
    pub slice: Duration,
}

impl BuilderConfig {
    /// Batches of 64, leases of 30 s, rounds every second.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let secs = Duration::from_secs;
        let (lease, courtesy, pause, rest, slice) = (secs(30), secs(2), secs(1), secs(60), secs(10));
        Self { name: name.into(), batch: 64, lease, courtesy, pause, rest, slice }
    }
}

/// Fills and empties spaces.
pub struct Builder {
    pub(super) database: Database,
    pub(super) embedders: Embedders,
    pub(super) config: BuilderConfig,
    /// How far the feed of a tenant was when a space (by [`Site::key`]) last lacked nothing: what came since is looked at
    /// alone.
    pub(super) seen: HashMap<(String, TenantId), i64>,
    /// Where the next slice of a tenant goes on.
    passes: HashMap<(String, TenantId), Pass>,
    /// Spaces whose texts this process has counted.
    pub(super) counted: HashSet<String>,
    /// Spaces whose model failed, and until when they are left alone.
    resting: HashMap<String, Instant>,
    /// The same for tenants some of whose texts the model refused.
    refused: HashMap<(String, TenantId), Instant>,
}

/// One space that is worked on.
pub(super) struct Site {
    pub space: Space,
    pub others: Vec<i32>,
    pub model: Arc<dyn Embedder>,
}

/// One way through the gaps of a tenant, of the generations that were `added`, or of all.
struct Pass {
    added: Option<Vec<Uuid>>,
    /// How far the feed was when it began.
    head: i64,
    /// When it began, by the database's clock.
    began: OffsetDateTime,
    /// The last hash that was looked at.
    after: Vec<u8>,
    /// Texts that the model refused.
    refused: i64,
    /// Texts that a deletion held at that moment.
    held: i64,
}

/// What a look at a tenant came to.
enum Look {
    /// Nothing is missing but what the pass has counted.
    Filled,
    /// The slice is over.
    Unfinished,
    /// Paused, dropped, or taken over: not ours any more.
    Stopped,
}

impl Builder {
    /// Over the database and the models of this process.
    #[must_use]
    pub fn new(database: Database, embedders: Embedders, config: BuilderConfig) -> Self {
        let (seen, passes, counted) = (HashMap::new(), HashMap::new(), HashSet::new());
        let (resting, refused) = (HashMap::new(), HashMap::new());
        Self { database, embedders, config, seen, passes, counted, resting, refused }
    }

    /// Rounds until `stop`. Failures are logged and tried again.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            if let Err(failure) = self.round(&stop).await {
                tracing::warn!(code = %failure.code, "embedding spaces are looked at again later: {}", failure.message);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(self.config.pause) => {}
            }
        }
        let released = sqlx::query("UPDATE embedding_spaces SET lease_until = now() WHERE builder = $1");
        let _ = released.bind(&self.config.name).execute(self.database.engine()).await;
    }

    /// Looks at every space once, and does what there is to do, a slice of time for each.
    ///
    /// # Errors
    /// `DATABASE_UNAVAILABLE`. What a model fails with is written into its space.
    pub async fn round(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        let spaces = all(&self.database).await?;
        for space in spaces.iter().filter(|space| !space.is_standing()) {
            empty(&self.database, space, self.config.slice, stop).await?;
        }
        self.forget_all_but(&spaces);
        // Where there is one space, nothing has a vector elsewhere.
        if spaces.len() < 2 || self.is_paused().await? {
            return Ok(());
        }
        for space in spaces.iter().filter(|space| space.is_standing() && space.is_paused) {
            self.look_at_paused(space, &others(&spaces, space.id)).await?;
        }
        for space in spaces.iter().filter(|space| space.is_standing() && !space.is_paused) {
            let Some(model) = self.embedders.of(space) else { continue };
            let site = Site { space: space.clone(), others: others(&spaces, space.id), model };
            if self.resting.get(&site.key()).is_some_and(|until| Instant::now() < *until) {
                continue;
            }
            match self.fill(&site, stop).await {
                Err(failure) if failure.code == Code::DatabaseUnavailable => return Err(failure),
                Err(failure) => self.rest(&site, &failure).await?,
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Forgets what is gone: a space of the same number starts anew.
    fn forget_all_but(&mut self, spaces: &[Space]) {
        let standing: HashSet<String> =
            spaces.iter().filter_map(|space| Some(key_of(space, &*self.embedders.of(space)?))).collect();
        let stands = |key: &String| standing.contains(key);
        self.seen.retain(|(key, _), _| stands(key));
        self.passes.retain(|(key, _), _| stands(key));
        self.refused.retain(|(key, _), _| stands(key));
        self.counted.retain(stands);
        self.resting.retain(|key, _| stands(key));
    }

    /// Leaves a space alone for a while, and says why.
    async fn rest(&mut self, site: &Site, failure: &Failure) -> Result<(), Failure> {
        self.resting.insert(site.key(), Instant::now() + self.config.rest);
        self.tell(&site.space, failure).await
    }

    /// Says why something of a space is built later.
    async fn tell(&self, space: &Space, failure: &Failure) -> Result<(), Failure> {
        let (name, code) = (&space.name, failure.code);
        tracing::warn!(space = name, %code, "an embedding space is built on later: {}", failure.message);
        let told =
            sqlx::query("UPDATE embedding_spaces SET code = $2 WHERE id = $1").bind(space.id).bind(code.as_str());
        told.execute(self.database.engine()).await.map_err(DbError::from)?;
        Ok(())
    }

    /// Fills what `site` lacks, a slice for each tenant.
    async fn fill(&mut self, site: &Site, stop: &CancellationToken) -> Result<(), Failure> {
        let (tenants, heads, paused) =
            (tenants(&self.database).await?, self.heads().await?, self.paused_tenants().await?);
        let head_of = |tenant: &TenantId| heads.get(tenant).copied().unwrap_or(0);
        let is_new = |tenant: &TenantId| self.seen.get(&(site.key(), *tenant)) != Some(&head_of(tenant));
        let is_blocked = |tenant: &TenantId| {
            let until = self.refused.get(&(site.key(), *tenant));
            paused.contains(&tenant.to_string()) || until.is_some_and(|until| Instant::now() < *until)
        };
        let (blocked, todo): (Vec<TenantId>, Vec<TenantId>) =
            tenants.iter().copied().filter(is_new).partition(is_blocked);
        let is_building = site.space.state == "building";
        if (todo.is_empty() && !is_building) || !self.hold(&site.space, 0).await? {
            return Ok(());
        }
        self.count(site, &tenants).await?;
        let (mut refused, mut is_whole) = (0, blocked.is_empty());
        for tenant in todo {
            let key = (site.key(), tenant);
            let mut pass = match self.passes.remove(&key) {
                Some(pass) => pass,
                None => self.begin(&key, head_of(&tenant)).await?,
            };
            match self.fill_tenant(site, tenant, &mut pass, stop).await? {
                Look::Stopped => return Ok(()),
                Look::Unfinished => {
                    is_whole = false;
                    self.passes.insert(key, pass);
                }
                Look::Filled if pass.refused + pass.held == 0 => {
                    self.forget_refused(site, tenant, pass.began).await?;
                    self.seen.insert(key, pass.head);
                    is_whole &= pass.head == head_of(&tenant);
                }
                // Looked at again from the beginning.
                Look::Filled => {
                    is_whole = false;
                    self.forget_refused(site, tenant, pass.began).await?;
                    if pass.refused > 0 {
                        refused += pass.refused;
                        self.refused.insert(key, Instant::now() + self.config.rest);
                    }
                }
            }
        }
        if refused > 0 {
            let failure = Failure::new(Code::EmbeddingInvalid, format!("the model fails on {refused} texts"));
            self.tell(&site.space, &failure).await?;
        }
        if is_whole { self.finish(&site.space).await } else { Ok(()) }
    }

    async fn begin(&self, (key, tenant): &(String, TenantId), head: i64) -> Result<Pass, Failure> {
        let added = match self.seen.get(&(key.clone(), *tenant)) {
            Some(seen) => self.added(*tenant, *seen, head).await?,
            None => None,
        };
        let began = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(self.database.engine()).await;
        Ok(Pass { added, head, began: began.map_err(DbError::from)?, after: Vec::new(), refused: 0, held: 0 })
    }

    /// Takes out of the refused texts what a whole pass has not met again.
    async fn forget_refused(&self, site: &Site, tenant: TenantId, began: OffsetDateTime) -> Result<(), Failure> {
        let space = site.space.id;
        let write = self
            .database
            .write(tenant, move |connection| Box::pin(async move { forget_refused(connection, space, began).await }));
        Ok(write.await?)
    }

    /// Goes on with a pass until its end or that of the slice.
    async fn fill_tenant(
        &self,
        site: &Site,
        tenant: TenantId,
        pass: &mut Pass,
        stop: &CancellationToken,
    ) -> Result<Look, Failure> {
        let started = Instant::now();
        loop {
            let (id, others, generations, from) =
                (site.space.id, site.others.clone(), pass.added.clone(), pass.after.clone());
            let limit = self.config.batch as i64;
            let read = self.database.read(tenant, move |connection| {
                Box::pin(
                    async move { Ok(gaps::next(connection, id, &others, generations.as_deref(), &from, limit).await?) },
                )
            });
            let Looked { gaps, last } = read.await?;
            let Some(last) = last else { return Ok(Look::Filled) };
            let mut stored = Stored::default();
            if !gaps.is_empty() {
                self.give_way(stop).await?;
                if stop.is_cancelled() {
                    return Ok(Look::Stopped);
                }
                let embedded = self.embed(site, gaps).await?;
                pass.refused += embedded.refused.len() as i64;
                let (space, fingerprint) = (site.space.clone(), site.model.fingerprint());
                let write = self
                    .database
                    .write(tenant, move |connection| Box::pin(insert(connection, space, fingerprint, embedded)));
                stored = write.await?;
                metrics::counter!("docmill_space_vectors_total").increment(stored.new.unsigned_abs());
            }
            pass.held += stored.held;
            pass.after = last;
            if !self.hold(&site.space, stored.new).await? {
                return Ok(Look::Stopped);
            }
            if started.elapsed() >= self.config.slice {
                return Ok(Look::Unfinished);
            }
        }
    }

    /// The vectors of a batch. A model may take longer than a lease, so it is kept meanwhile; what was embedded when it was
    /// lost is stored all the same.
    async fn embed(&self, site: &Site, batch: Vec<Gap>) -> Result<Embedded, Failure> {
        let mut embedding = std::pin::pin!(embed(&*site.model, batch));
        loop {
            tokio::select! {
                embedded = &mut embedding => return embedded,
                () = tokio::time::sleep(self.config.lease / 3) => {
                    self.hold(&site.space, 0).await?;
                }
            }
        }
    }

    /// Waits for the embed stage to have nothing to do, but not for ever.
    async fn give_way(&self, stop: &CancellationToken) -> Result<(), Failure> {
        let started = Instant::now();
        while started.elapsed() < self.config.courtesy && !stop.is_cancelled() {
            let busy = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM jobs WHERE stage = 'embed' AND state IN ('ready', 'leased'))",
            );
            let is_busy: bool = busy.fetch_one(self.database.engine()).await.map_err(DbError::from)?;
            if !is_busy {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

impl Site {
    pub fn key(&self) -> String {
        key_of(&self.space, &*self.model)
    }
}

fn key_of(space: &Space, model: &dyn Embedder) -> String {
    format!("{} {} {}", space.id, space.created_at.unix_timestamp_nanos(), model.fingerprint())
}
