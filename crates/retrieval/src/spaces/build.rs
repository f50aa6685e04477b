//! The builder: fills the gaps of every standing space, and removes what is dropped.
//!
//! It works from facts: what lacks a vector is found again after any kill, and what has one is not embedded again. One
//! builder works on a space at a time, under a lease. It is polite: between batches it lets the embed stage go first. Its
//! inserts hold the chunks they are for, so that a deletion either finds the vector or forbids it.

use super::empty::empty;
use super::fill::{embed, insert};
use super::gaps;
use super::{all, others, tenants};
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use docmill_platform::embedder::{Embedder, Embedders, Space};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
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
    /// How long a space is left alone whose model failed.
    pub rest: Duration,
}

impl BuilderConfig {
    /// Batches of 64, leases of 30 s, rounds every second.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let secs = Duration::from_secs;
        Self { name: name.into(), batch: 64, lease: secs(30), courtesy: secs(2), pause: secs(1), rest: secs(60) }
    }
}

/// Fills and empties spaces.
pub struct Builder {
    database: Database,
    embedders: Embedders,
    config: BuilderConfig,
    /// How far the feed of a tenant was when a space (by [`Site::key`]) last lacked nothing: what came since is looked at
    /// alone.
    seen: HashMap<(String, TenantId), i64>,
    /// Spaces whose texts this process has counted.
    counted: HashSet<String>,
    /// Spaces whose model failed, and until when they are left alone.
    resting: HashMap<String, Instant>,
}

/// One space that is worked on.
struct Site {
    space: Space,
    others: Vec<i32>,
    model: Arc<dyn Embedder>,
}

/// What a look at a tenant came to.
enum Look {
    /// Nothing is missing but what the model refused, and what a deletion held at that moment.
    Filled { refused: i64, held: i64 },
    /// Paused, dropped, or taken over: not ours any more.
    Stopped,
}

impl Builder {
    /// Over the database and the models of this process.
    #[must_use]
    pub fn new(database: Database, embedders: Embedders, config: BuilderConfig) -> Self {
        let (seen, counted, resting) = (HashMap::new(), HashSet::new(), HashMap::new());
        Self { database, embedders, config, seen, counted, resting }
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

    /// Looks at every space once, and does what there is to do.
    ///
    /// # Errors
    /// `DATABASE_UNAVAILABLE`. What a model fails with is written into its space.
    pub async fn round(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        let spaces = all(&self.database).await?;
        for space in spaces.iter().filter(|space| !space.is_standing()) {
            empty(&self.database, space, stop).await?;
        }
        self.forget_all_but(&spaces);
        // Where there is one space, nothing has a vector elsewhere.
        if spaces.len() < 2 || self.is_paused().await? {
            return Ok(());
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
        let stands = |key: &String| {
            let mut keys = spaces.iter().filter_map(|space| Some(key_of(space, &*self.embedders.of(space)?)));
            keys.any(|standing| standing == *key)
        };
        self.seen.retain(|(key, _), _| stands(key));
        self.counted.retain(stands);
        self.resting.retain(|key, _| stands(key));
    }

    /// Leaves a space alone for a while, and says why.
    async fn rest(&mut self, site: &Site, failure: &Failure) -> Result<(), Failure> {
        let (name, code) = (&site.space.name, failure.code);
        tracing::warn!(space = name, %code, "an embedding space is built on later: {}", failure.message);
        self.resting.insert(site.key(), Instant::now() + self.config.rest);
        let told =
            sqlx::query("UPDATE embedding_spaces SET code = $2 WHERE id = $1").bind(site.space.id).bind(code.as_str());
        told.execute(self.database.engine()).await.map_err(DbError::from)?;
        Ok(())
    }

    /// True while an operator has stopped the embed stage.
    async fn is_paused(&self) -> Result<bool, Failure> {
        let paused =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pauses WHERE kind = 'stage' AND subject = 'embed')");
        Ok(paused.fetch_one(self.database.engine()).await.map_err(DbError::from)?)
    }

    /// Fills what `site` lacks, tenant by tenant.
    async fn fill(&mut self, site: &Site, stop: &CancellationToken) -> Result<(), Failure> {
        let (tenants, heads, paused) =
            (tenants(&self.database).await?, self.heads().await?, self.paused_tenants().await?);
        let head_of = |tenant: &TenantId| heads.get(tenant).copied().unwrap_or(0);
        let is_new = |tenant: &TenantId| self.seen.get(&(site.key(), *tenant)) != Some(&head_of(tenant));
        let (blocked, todo): (Vec<TenantId>, Vec<TenantId>) =
            tenants.iter().copied().filter(is_new).partition(|tenant| paused.contains(&tenant.to_string()));
        let is_building = site.space.state == "building";
        if (todo.is_empty() && !is_building) || !self.hold(&site.space, 0).await? {
            return Ok(());
        }
        self.count(site, &tenants).await?;
        let (mut refused, mut is_whole) = (0, blocked.is_empty());
        for tenant in todo {
            let (head, key) = (head_of(&tenant), (site.key(), tenant));
            let added = match self.seen.get(&key) {
                Some(seen) => self.added(tenant, *seen, head).await?,
                None => None,
            };
            match self.fill_tenant(site, tenant, added, stop).await? {
                Look::Stopped => return Ok(()),
                Look::Filled { refused: 0, held: 0 } => {
                    self.seen.insert(key, head);
                }
                // Looked at again in the next round.
                Look::Filled { refused: some, .. } => {
                    refused += some;
                    is_whole = false;
                }
            }
        }
        match refused {
            0 if is_whole => self.finish(&site.space).await,
            0 => Ok(()),
            _ => Err(Failure::new(Code::EmbeddingInvalid, format!("the model fails on {refused} texts"))),
        }
    }

    /// Fills what one tenant lacks, of the generations that were `added`, or of all.
    async fn fill_tenant(
        &self,
        site: &Site,
        tenant: TenantId,
        added: Option<Vec<Uuid>>,
        stop: &CancellationToken,
    ) -> Result<Look, Failure> {
        let (mut after, mut refused, mut held) = (Vec::new(), 0, 0);
        loop {
            let (id, others, generations, from) = (site.space.id, site.others.clone(), added.clone(), after.clone());
            let limit = self.config.batch as i64;
            let read = self.database.read(tenant, move |connection| {
                Box::pin(
                    async move { Ok(gaps::next(connection, id, &others, generations.as_deref(), &from, limit).await?) },
                )
            });
            let batch = read.await?;
            let Some(last) = batch.last() else { return Ok(Look::Filled { refused, held }) };
            after.clone_from(&last.hash);
            self.give_way(stop).await?;
            if stop.is_cancelled() {
                return Ok(Look::Stopped);
            }
            let embedded = embed(&*site.model, batch).await?;
            refused += embedded.refused;
            let wanted = embedded.gaps.len() as i64;
            let (space, fingerprint) = (site.space.clone(), site.model.fingerprint());
            let write = self
                .database
                .write(tenant, move |connection| Box::pin(insert(connection, space, fingerprint, embedded)));
            let stored = write.await?;
            held += wanted - stored;
            metrics::counter!("docmill_space_vectors_total").increment(stored.unsigned_abs());
            if !self.hold(&site.space, stored).await? {
                return Ok(Look::Stopped);
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

    /// Takes or keeps the space for a lease, and adds what was embedded to its counts; false when it is not ours.
    async fn hold(&self, space: &Space, embedded: i64) -> Result<bool, Failure> {
        let held = sqlx::query(
            "UPDATE embedding_spaces SET builder = $2, lease_until = now() + make_interval(secs => $3),
                    embedded = embedded + $4, missing = greatest(missing - $4, 0)
             WHERE id = $1 AND fingerprint IS NOT DISTINCT FROM $5 AND state <> 'dropping' AND NOT is_paused
               AND (builder = $2 OR lease_until IS NULL OR lease_until < now())",
        )
        .bind(space.id)
        .bind(&self.config.name)
        .bind(self.config.lease.as_secs_f64())
        .bind(embedded)
        .bind(&space.fingerprint)
        .execute(self.database.engine())
        .await
        .map_err(DbError::from)?;
        Ok(held.rows_affected() == 1)
    }

    /// Counts what the space has and lacks, once before its first look.
    async fn count(&mut self, site: &Site, tenants: &[TenantId]) -> Result<(), Failure> {
        if !self.counted.insert(site.key()) {
            return Ok(());
        }
        let (mut texts, mut missing) = (0, 0);
        for tenant in tenants {
            let (id, others) = (site.space.id, site.others.clone());
            let read = self.database.read(*tenant, move |connection| {
                Box::pin(async move { Ok(gaps::count(connection, id, &others).await?) })
            });
            let counted = read.await?;
            texts += counted.texts;
            missing += counted.missing;
        }
        sqlx::query(
            "UPDATE embedding_spaces SET texts = $2, missing = $3, counted_at = now() WHERE id = $1 AND builder = $4",
        )
        .bind(site.space.id)
        .bind(texts)
        .bind(missing)
        .bind(&self.config.name)
        .execute(self.database.engine())
        .await
        .map_err(DbError::from)?;
        Ok(())
    }

    /// Nothing is missing.
    async fn finish(&self, space: &Space) -> Result<(), Failure> {
        let finished = sqlx::query(
            "UPDATE embedding_spaces SET state = 'ready', ready_at = coalesce(ready_at, now()), missing = 0, code = NULL
             WHERE id = $1 AND builder = $2 AND state <> 'dropping' AND (state = 'building' OR missing > 0 OR code IS NOT NULL)",
        );
        let finished = finished.bind(space.id).bind(&self.config.name).execute(self.database.engine()).await;
        if finished.map_err(DbError::from)?.rows_affected() > 0 {
            tracing::info!(space = space.name, "the embedding space is complete");
        }
        Ok(())
    }

    /// How far the feeds are: a generation is on its tenant's feed once its chunks are written.
    async fn heads(&self) -> Result<HashMap<TenantId, i64>, Failure> {
        let heads: Vec<(Uuid, i64)> = sqlx::query_as("SELECT tenant_id, seq FROM index_heads")
            .fetch_all(self.database.engine())
            .await
            .map_err(DbError::from)?;
        Ok(heads.into_iter().map(|(tenant, seq)| (TenantId(tenant), seq)).collect())
    }

    async fn paused_tenants(&self) -> Result<Vec<String>, Failure> {
        let paused = sqlx::query_scalar("SELECT subject FROM pauses WHERE kind = 'tenant'");
        Ok(paused.fetch_all(self.database.engine()).await.map_err(DbError::from)?)
    }

    /// Generations that came onto the feed; `None` when it no longer tells.
    async fn added(&self, tenant: TenantId, seen: i64, head: i64) -> Result<Option<Vec<Uuid>>, Failure> {
        let rows: Vec<(Uuid, bool)> = sqlx::query_as(
            "SELECT generation_id, op = 'add' FROM index_ops WHERE tenant_id = $1 AND seq > $2 AND seq <= $3",
        )
        .bind(tenant.0)
        .bind(seen)
        .bind(head)
        .fetch_all(self.database.engine())
        .await
        .map_err(DbError::from)?;
        let is_whole = rows.len() as i64 == head - seen;
        Ok(is_whole.then(|| rows.into_iter().filter(|(_, is_add)| *is_add).map(|(id, _)| id).collect()))
    }
}

impl Site {
    fn key(&self) -> String {
        key_of(&self.space, &*self.model)
    }
}

fn key_of(space: &Space, model: &dyn Embedder) -> String {
    format!("{} {} {}", space.id, space.created_at.unix_timestamp_nanos(), model.fingerprint())
}
