//! Jobs per second of the engine with stages that do nothing, beside what this machine's Postgres can do at best.
//!
//! Two things in one run, on one server: the floor (claim with SKIP LOCKED and complete, two commits a job, nothing else)
//! and the engine as it runs, over the broker. `deploy/bench/engine/README.md` says what the figures mean.

#![allow(clippy::unwrap_used)]

use docmill_model::manifest::Manifest;
use docmill_model::{DocumentId, TenantId};
use docmill_runtime::pipeline::{Pipeline, Pipelines};
use docmill_runtime::runs::{Cause, StartRun, start_run};
use docmill_runtime::{Engine, EngineConfig, JobContext, Policy, Registry, Stage, StageError};
use docmill_testkit::{Accepted, World, world};
use secrecy::ExposeSecret;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, PgPool};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Documents, each with two jobs that do nothing.
const DOCUMENTS: usize = 2_000;
/// Workers of each contestant.
const WORKERS: usize = 8;
const PIPELINE: &str = "name: nothing\nstages:\n  first: {}\n  second: {after: [first]}\n";

#[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

macro_rules! idle_stage {
    ($name:ident, $text:literal) => {
        struct $name;

        #[async_trait::async_trait]
        impl Stage for $name {
            const NAME: &'static str = $text;
            const VERSION: u32 = 1;
            type Config = Nothing;
            type Prepared = ();

            fn policy(&self) -> Policy {
                Policy { concurrency: WORKERS / 2, ..Policy::default() }
            }

            fn cacheable(&self) -> bool {
                false
            }

            async fn run(&self, _: &JobContext, _: &Nothing) -> Result<Manifest, StageError> {
                Ok(Manifest::default())
            }

            async fn prepare(&self, _: &JobContext, _: &Nothing, _: &Manifest) -> Result<(), StageError> {
                Ok(())
            }

            async fn commit(
                &self,
                _: &mut PgConnection,
                _: &JobContext,
                _: &Manifest,
                (): (),
            ) -> Result<(), StageError> {
                Ok(())
            }
        }
    };
}

idle_stage!(First, "first");
idle_stage!(Second, "second");

#[tokio::main]
async fn main() {
    let world = world().await;
    let floor = floor(&world).await;
    println!("floor: claim with SKIP LOCKED and complete, two commits a job, {WORKERS} clients: {floor:.0} jobs/s");
    let engine = engine(&world).await;
    println!("engine: two idle stages, {DOCUMENTS} documents, {WORKERS} slots: {engine:.0} jobs/s");
    println!("the guarantee costs: {:.3} of the floor, {:.1} times the time", engine / floor, floor / engine);
}

/// A queue and nothing else: no graph, no attempts, no events, no tenant.
async fn floor(world: &World) -> f64 {
    let owner = PgPoolOptions::new()
        .max_connections(WORKERS as u32 + 1)
        .connect(world.owner_url.expose_secret())
        .await
        .unwrap();
    sqlx::query("CREATE TABLE bare_queue (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state smallint NOT NULL DEFAULT 0)")
        .execute(&owner)
        .await
        .unwrap();
    sqlx::query("CREATE INDEX bare_queue_ready ON bare_queue (id) WHERE state = 0").execute(&owner).await.unwrap();
    let jobs = DOCUMENTS as i64 * 2;
    sqlx::query("INSERT INTO bare_queue (state) SELECT 0 FROM generate_series(1, $1)")
        .bind(jobs)
        .execute(&owner)
        .await
        .unwrap();
    sqlx::query("ANALYZE bare_queue").execute(&owner).await.unwrap();
    let (done, started) = (Arc::new(AtomicI64::new(0)), Instant::now());
    let clients: Vec<_> = (0..WORKERS).map(|_| tokio::spawn(drain(owner.clone(), done.clone()))).collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(done.load(Ordering::Acquire), jobs);
    jobs as f64 / started.elapsed().as_secs_f64()
}

async fn drain(pool: PgPool, done: Arc<AtomicI64>) {
    let mut connection = pool.acquire().await.unwrap();
    loop {
        let claimed: Option<i64> = sqlx::query_scalar(
            "UPDATE bare_queue SET state = 1 WHERE id = (
                SELECT id FROM bare_queue WHERE state = 0 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id",
        )
        .fetch_optional(&mut *connection)
        .await
        .unwrap();
        let Some(id) = claimed else { return };
        sqlx::query("UPDATE bare_queue SET state = 2 WHERE id = $1").bind(id).execute(&mut *connection).await.unwrap();
        done.fetch_add(1, Ordering::AcqRel);
    }
}

async fn engine(world: &World) -> f64 {
    let registry = Arc::new(Registry::builder().with(First).with(Second).build());
    let pipelines = Arc::new(Pipelines::from_text(PIPELINE, &registry).unwrap());
    pipelines.register(&world.database).await.unwrap();
    let pipeline = pipelines.get("nothing").unwrap();
    let tenant = world.tenant().await;
    for _ in 0..DOCUMENTS {
        document(world, tenant, pipeline.clone()).await;
    }
    let mut config = EngineConfig::new("bench", &world.stream_prefix, world.nats_url.clone());
    config.slots = BTreeMap::from([("first".to_owned(), WORKERS / 2), ("second".to_owned(), WORKERS / 2)]);
    let engine = Engine::new(config, world.database.clone(), world.artifacts.clone(), registry, pipelines);
    engine.check().await.unwrap();
    let (stop, started) = (CancellationToken::new(), Instant::now());
    let (worker, relay, healer) = (engine.clone(), engine.clone(), engine.clone());
    let (one, two, three) = (stop.clone(), stop.clone(), stop.clone());
    let loops = [
        tokio::spawn(async move { worker.run_worker(one).await }),
        tokio::spawn(async move { relay.run_relay(two).await }),
        tokio::spawn(async move { healer.run_reconciler(three).await }),
    ];
    while open(world).await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    stop.cancel();
    for ended in loops {
        ended.await.unwrap().unwrap();
    }
    DOCUMENTS as f64 * 2.0 / seconds
}

async fn open(world: &World) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM runs WHERE state = 'running'")
        .fetch_one(world.database.engine())
        .await
        .unwrap()
}

async fn document(world: &World, tenant: TenantId, pipeline: Arc<Pipeline>) {
    let accepted = Accepted::unread(DocumentId::fresh(), &pipeline.version);
    let started = world.database.write(tenant, move |connection| {
        Box::pin(async move {
            accepted.insert(connection).await?;
            let run = StartRun {
                document_id: accepted.document,
                version_id: accepted.version,
                pipeline: &pipeline,
                cause: Cause::Upload,
                parent_run: None,
                priority: 0,
                traceparent: None,
            };
            start_run(connection, run).await
        })
    });
    started.await.unwrap();
}
