//! A bench for the engine: a world of its own, three toy stages whose behaviour a test scripts, and engines that can be
//! started, stopped and killed.
#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::panic)]

mod toys;

use docmill_model::{DocumentId, RunId, TenantId, VersionId};
use docmill_runtime::failpoints::Failpoints;
use docmill_runtime::pipeline::{Pipeline, Pipelines};
use docmill_runtime::runs::{Cause, StartRun, start_run};
use docmill_runtime::{Engine, EngineConfig, Registry, doctor};
use docmill_testkit::{Accepted, World, eventually, world};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
pub use toys::{Step, Toys};

/// Never waited for in full, but where something is broken.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// As in production: a machine that stands still for a few seconds loses none. What has to be lost is taken by
/// [`Bench::lose_leases`].
pub const LEASE: Duration = Duration::from_secs(10);

/// alpha → beta → gamma, beside an optional side, and tail when all has ended.
pub const PIPELINE: &str = "
name: toys
stages:
  alpha: {}
  beta:  {after: [alpha]}
  gamma: {after: [beta]}
  side:  {after: [alpha], required: false}
  tail:  {when: settled}
";

pub struct Bench {
    pub world: World,
    pub toys: Toys,
    pub registry: Arc<Registry>,
    pub pipelines: Arc<Pipelines>,
}

/// One document under way.
#[derive(Clone, Copy, Debug)]
pub struct Document {
    pub tenant: TenantId,
    pub id: DocumentId,
    pub version: VersionId,
    pub run: RunId,
}

#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Job {
    pub id: uuid::Uuid,
    pub state: String,
    pub failed: i32,
    pub lost: i32,
    pub fence: i64,
    pub code: Option<String>,
    pub cached: bool,
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(PIPELINE).await
    }

    pub async fn with(pipeline: &str) -> Self {
        let world = world().await;
        let toys = Toys::default();
        let registry = Arc::new(toys.registry());
        let pipelines = Arc::new(Pipelines::from_text(pipeline, &registry).unwrap());
        pipelines.register(&world.database).await.unwrap();
        Self { world, toys, registry, pipelines }
    }

    pub fn config(&self, worker: &str) -> EngineConfig {
        let mut config = EngineConfig::new(worker, &self.world.stream_prefix, self.world.nats_url.clone());
        config.lease = LEASE;
        config.tick = Duration::from_millis(100);
        config.reemit_after = Duration::from_secs(1);
        config.grace = Duration::from_secs(2);
        config
    }

    pub fn engine(&self, config: EngineConfig) -> Engine {
        let World { database, artifacts, .. } = &self.world;
        Engine::new(config, database.clone(), artifacts.clone(), self.registry.clone(), self.pipelines.clone())
    }

    /// Worker, relay and reconciler in one.
    pub fn start(&self, config: EngineConfig) -> Running {
        Running::new(self.engine(config))
    }

    pub async fn document(&self, tenant: TenantId) -> Document {
        self.document_by(tenant, self.pipelines.get("toys").unwrap()).await
    }

    /// The same by another pipeline, which is registered.
    pub async fn document_by(&self, tenant: TenantId, pipeline: Arc<Pipeline>) -> Document {
        let accepted = Accepted::unread(DocumentId::fresh(), &pipeline.version);
        let (id, version) = (accepted.document, accepted.version);
        let run = self.world.database.write(tenant, move |connection| {
            Box::pin(async move {
                accepted.insert(connection).await?;
                let run = StartRun {
                    document_id: id,
                    version_id: version,
                    pipeline: &pipeline,
                    cause: Cause::Upload,
                    parent_run: None,
                    priority: 0,
                    traceparent: None,
                };
                start_run(connection, run).await
            })
        });
        Document { tenant, id, version, run: run.await.unwrap() }
    }

    pub async fn documents(&self, tenant: TenantId, count: usize) -> Vec<Document> {
        let mut documents = Vec::new();
        for _ in 0..count {
            documents.push(self.document(tenant).await);
        }
        documents
    }

    pub async fn run_state(&self, run: RunId) -> String {
        let state = sqlx::query_scalar("SELECT state FROM runs WHERE id = $1").bind(run.0);
        state.fetch_one(self.world.database.engine()).await.unwrap()
    }

    pub async fn job(&self, run: RunId, stage: &str) -> Job {
        sqlx::query_as("SELECT id, state, failed, lost, fence, code, cached FROM jobs WHERE run_id = $1 AND stage = $2")
            .bind(run.0)
            .bind(stage)
            .fetch_one(self.world.database.engine())
            .await
            .unwrap()
    }

    /// Outcomes of a job's attempts, in order.
    pub async fn attempts(&self, run: RunId, stage: &str) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT coalesce(a.outcome, 'open') FROM attempts a JOIN jobs j ON j.tenant_id = a.tenant_id AND j.id = a.job_id
             WHERE j.run_id = $1 AND j.stage = $2 ORDER BY a.fence",
        )
        .bind(run.0)
        .bind(stage)
        .fetch_all(self.world.database.engine())
        .await
        .unwrap()
    }

    /// Waits until the run settled and everything it released has ended.
    pub async fn settled(&self, run: RunId) -> String {
        self.all_final(&[run]).await;
        self.run_state(run).await
    }

    /// As if whoever works on the run had been stopped for longer than a lease.
    pub async fn lose_leases(&self, run: RunId) {
        sqlx::query("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE run_id = $1 AND state = 'leased'")
            .bind(run.0)
            .execute(self.world.database.engine())
            .await
            .unwrap();
    }

    /// What the kernel does with the sessions of a process that is killed: here one may rest inside a transaction.
    pub async fn close_open_transactions(&self) {
        let closed = self.world.database.read(docmill_model::TenantId::fresh(), |connection| {
            Box::pin(async move {
                let sessions = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                                WHERE usename = current_user AND datname = current_database() AND state = 'idle in transaction'";
                Ok(sqlx::query_scalar::<_, i64>(sessions).fetch_one(connection).await?)
            })
        });
        closed.await.unwrap();
    }

    /// Waits until no job of these runs is open.
    pub async fn all_final(&self, runs: &[RunId]) {
        let runs: Vec<uuid::Uuid> = runs.iter().map(|run| run.0).collect();
        let open = || {
            let query = sqlx::query_scalar::<_, i64>(
                "SELECT count(*) FROM jobs WHERE run_id = ANY ($1) AND state NOT IN ('done', 'dead', 'cancelled')",
            );
            let query = query.bind(runs.clone());
            async { query.fetch_one(self.world.database.engine()).await.is_ok_and(|open| open == 0) }
        };
        eventually("all jobs are final", PATIENCE, open).await;
    }

    pub async fn job_is(&self, run: RunId, stage: &str, state: &str) {
        let what = format!("{stage} is {state}");
        eventually(&what, PATIENCE, || async { self.job(run, stage).await.state == state }).await;
    }

    /// What the stages' commits left behind: one `toy.commit` event for each.
    pub async fn commits(&self, document: Document, stage: &str) -> i64 {
        let stage = stage.to_owned();
        let count = self.world.database.read(document.tenant, move |connection| {
            Box::pin(async move {
                Ok(sqlx::query_scalar(
                    "SELECT count(*) FROM document_events
                     WHERE tenant_id = current_tenant() AND document_id = $1 AND kind = 'toy.commit' AND data ->> 'stage' = $2",
                )
                .bind(document.id.0)
                .bind(stage)
                .fetch_one(connection)
                .await?)
            })
        });
        count.await.unwrap()
    }

    pub async fn document_state(&self, document: Document) -> String {
        let state = sqlx::query_scalar("SELECT state FROM documents WHERE id = $1").bind(document.id.0);
        state.fetch_one(self.world.database.engine()).await.unwrap()
    }

    /// Every document done, every commit once, no invariant broken.
    pub async fn exactly_once(&self, documents: &[Document]) {
        for document in documents {
            assert_eq!(self.run_state(document.run).await, "done");
            assert_eq!(self.document_state(*document).await, "done");
            for stage in ["alpha", "beta", "gamma", "side", "tail"] {
                assert_eq!(self.commits(*document, stage).await, 1, "{stage}");
            }
        }
        self.healthy().await;
    }

    pub async fn healthy(&self) {
        assert_eq!(doctor::examine(&self.world.database).await.unwrap().violations, []);
    }
}

/// An engine whose loops run.
pub struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    pub fn new(engine: Engine) -> Self {
        let mut running = Self { stop: CancellationToken::new(), tasks: JoinSet::new() };
        let (worker, relay, reconciler) = (engine.clone(), engine.clone(), engine);
        let stop = running.stop.clone();
        running.tasks.spawn(async move { worker.run_worker(stop).await.unwrap() });
        let stop = running.stop.clone();
        running.tasks.spawn(async move { relay.run_relay(stop).await.unwrap() });
        let stop = running.stop.clone();
        running.tasks.spawn(async move { reconciler.run_reconciler(stop).await.unwrap() });
        running
    }

    /// As SIGTERM: waits for the end.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    /// Waits until a loop met an armed point that panics, then ends the others as SIGKILL does.
    pub async fn died(mut self) {
        let ended = tokio::time::timeout(PATIENCE, self.tasks.join_next()).await.unwrap();
        assert!(ended.unwrap().unwrap_err().is_panic());
    }

    /// As SIGKILL: nothing is handed back.
    pub fn kill(self) {
        drop(self.tasks);
    }
}

/// A failpoint that freezes whoever meets it first.
pub struct Frozen {
    pub failpoints: Failpoints,
    spec: String,
    met: PathBuf,
}

impl Frozen {
    pub fn at(spec: &str) -> Self {
        let (failpoints, met) = (Failpoints::default(), std::env::temp_dir().join(uuid::Uuid::now_v7().to_string()));
        assert!(failpoints.arm(spec, docmill_runtime::failpoints::Action::Halt), "{spec}");
        failpoints.record(met.clone());
        Self { failpoints, spec: spec.to_owned(), met }
    }

    /// Waits until somebody met it.
    pub async fn reached(&self) {
        let met = || async { std::fs::read_to_string(&self.met).is_ok_and(|met| met.contains(&self.spec)) };
        eventually(&self.spec, PATIENCE, met).await;
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.met);
    }
}
