//! A change costs what changed: the real engine over the real stages, every computed job and every embedded text counted.

use crate::bench::{Bench, Document};
use docmill_model::{Sha256Hex, TenantId};
use docmill_runtime::pipeline::{Pipeline, Pipelines, parse};
use docmill_runtime::replay::{self, ReplayFilter};
use docmill_runtime::runs::{Cause, StartRun, start_run};
use docmill_runtime::{Engine, EngineConfig, Registry};
use docmill_stages::registry;
use docmill_testkit::{Accepted, eventually};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(180);
/// Sections of about a page each.
const PAGES: usize = 500;

/// An engine over one pipeline, started anew for every step: to restart is one of the things that cost nothing.
struct Running {
    pipelines: Arc<Pipelines>,
    registry: Arc<Registry>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    async fn start(bench: &Bench, pipeline: &Pipeline) -> Self {
        let (world, registry) = (&bench.world, Arc::new(registry(bench.deps.clone())));
        let pipelines = Arc::new(Pipelines::of(vec![pipeline.clone()]).unwrap());
        pipelines.register(&world.database).await.unwrap();
        let config = EngineConfig::new("paid", &world.stream_prefix, world.nats_url.clone());
        let (database, artifacts) = (world.database.clone(), world.artifacts.clone());
        let engine = Engine::new(config, database, artifacts, registry.clone(), pipelines.clone());
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let ((worker, relay), (work, send, heal)) =
            ((engine.clone(), engine.clone()), (stop.clone(), stop.clone(), stop.clone()));
        tasks.spawn(async move { worker.run_worker(work).await.unwrap() });
        tasks.spawn(async move { relay.run_relay(send).await.unwrap() });
        tasks.spawn(async move { engine.run_reconciler(heal).await.unwrap() });
        Self { pipelines, registry, stop, tasks }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

/// What a step cost.
#[derive(Debug, PartialEq)]
struct Paid {
    /// Stages that may be remembered and had to compute.
    computed: Vec<String>,
    /// Texts embedded for chunks and sentences.
    embedded: usize,
}

/// Waits until all runs of a cause or replay are over, and counts.
async fn paid(bench: &Bench, tenant: TenantId, run_or_replay: Uuid) -> Paid {
    eventually("the step is over", PATIENCE, || async {
        let (runs, open): (i64, i64) = sqlx::query_as(
            "SELECT count(DISTINCT r.id), count(*) FILTER (WHERE j.state NOT IN ('done', 'dead', 'cancelled'))
             FROM runs r JOIN jobs j ON j.tenant_id = r.tenant_id AND j.run_id = r.id
             WHERE r.tenant_id = $1 AND (r.id = $2 OR r.replay_id = $2)",
        )
        .bind(tenant.0)
        .bind(run_or_replay)
        .fetch_one(bench.world.database.engine())
        .await
        .unwrap();
        runs > 0 && open == 0
    })
    .await;
    let computed = sqlx::query_scalar(
        "SELECT j.stage FROM runs r JOIN jobs j ON j.tenant_id = r.tenant_id AND j.run_id = r.id
         WHERE r.tenant_id = $1 AND (r.id = $2 OR r.replay_id = $2) AND j.state = 'done' AND NOT j.cached
           AND j.stage IN ('ingest', 'chunk', 'extract', 'summarize') ORDER BY j.stage",
    );
    let computed = computed.bind(tenant.0).bind(run_or_replay).fetch_all(bench.world.database.engine()).await.unwrap();
    Paid { computed, embedded: bench.embedded().len() }
}

/// Writes a version as `complete` does and starts its run.
async fn upload(bench: &Bench, tenant: TenantId, ids: Document, number: i32, pipeline: &Pipeline, text: &str) -> Uuid {
    let sha256 = Sha256Hex::of(text.as_bytes());
    let key = format!("{tenant}/accepted/{sha256}");
    bench.world.blobs.put(&key, bytes::Bytes::copy_from_slice(text.as_bytes()), &sha256).await.unwrap();
    let accepted = Accepted {
        document: ids.document,
        version: ids.version,
        number,
        name: "book.md".to_owned(),
        content_type: "text/markdown".to_owned(),
        size: text.len() as i64,
        sha256,
        key,
        pipeline_version: pipeline.version.clone(),
    };
    let pipeline = pipeline.clone();
    let started = bench.world.database.write(tenant, move |connection| {
        Box::pin(async move {
            accepted.insert(connection).await?;
            let run = StartRun {
                document_id: ids.document,
                version_id: ids.version,
                pipeline: &pipeline,
                cause: Cause::Upload,
                parent_run: None,
                priority: 0,
                traceparent: None,
            };
            start_run(connection, run).await
        })
    });
    started.await.unwrap().0
}

async fn replayed(bench: &Bench, tenant: TenantId, running: &Running) -> Uuid {
    let (database, filter) = (&bench.world.database, ReplayFilter::default());
    let started = replay::start(database, &running.registry, &running.pipelines, tenant, None, &filter, None).await;
    started.unwrap().0
}

/// About a page of words that no other page has.
fn page(number: usize) -> String {
    let sentence = |line: usize| {
        format!(
            "Berth {number}-{line} was inspected by crew {} and its bollard {} holds {line} tonnes.",
            number * 7 + line,
            number * line
        )
    };
    format!("## Section {number}\n\n{}\n", (0..24).map(sentence).collect::<Vec<_>>().join(" "))
}

/// The default pipeline with another entry for the summary.
fn pipeline(bench: &Bench, summary: &str) -> Pipeline {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines");
    let text = std::fs::read_to_string(folder.join("default.yaml")).unwrap();
    let schema = |name: &str| {
        let schema = std::fs::read_to_string(folder.join(format!("schemas/{name}.json")));
        Ok(serde_json::from_str(&schema.map_err(|error| error.to_string())?).unwrap())
    };
    parse("default.yaml", &text.replace("  summarize:\n    after: [ingest]\n", summary), &bench.registry, &schema)
        .unwrap()
}

pub async fn only_what_changed_is_paid_for(bench: &Bench) {
    let tenant = bench.tenant().await;
    let plain = bench.pipeline.clone();
    let shorter = pipeline(bench, "  summarize:\n    after: [ingest]\n    settings: {sentences: 3}\n");
    assert_ne!(plain.version, shorter.version);
    let pages: Vec<String> = (1..=PAGES).map(page).collect();
    let book = pages.join("\n");
    let nothing = Paid { computed: Vec::new(), embedded: 0 };
    bench.embedded();

    let running = Running::start(bench, &plain).await;
    let ids = Document::fresh();
    let first = paid(bench, tenant, upload(bench, tenant, ids, 1, &plain, &book).await).await;
    assert_eq!(first.computed, ["chunk", "extract", "ingest", "summarize"]);
    let chunks: i64 = {
        let read = bench.world.database.read(tenant, |connection| {
            Box::pin(async move { Ok(sqlx::query_scalar("SELECT count(*) FROM vectors").fetch_one(connection).await?) })
        });
        read.await.unwrap()
    };
    assert!(chunks > 500, "{chunks} chunks");
    running.stop().await;

    let running = Running::start(bench, &plain).await;
    let copy = paid(bench, tenant, upload(bench, tenant, Document::fresh(), 1, &plain, &book).await).await;
    assert_eq!(copy, nothing, "the same bytes again, after a restart");
    let again = paid(bench, tenant, replayed(bench, tenant, &running).await).await;
    assert_eq!(again, nothing, "a replay");
    running.stop().await;

    let running = Running::start(bench, &shorter).await;
    let changed = paid(bench, tenant, replayed(bench, tenant, &running).await).await;
    // Once for both documents, or twice when they came to it at the same time.
    assert!(!changed.computed.is_empty() && changed.computed.iter().all(|stage| stage == "summarize"), "{changed:?}");
    assert_eq!(changed.embedded, 0, "only the settings of the summary changed: nothing is embedded");
    running.stop().await;

    let running = Running::start(bench, &plain).await;
    let back = paid(bench, tenant, replayed(bench, tenant, &running).await).await;
    assert_eq!(back, nothing, "the setting rolled back");
    let edited = book.replace(&pages[249], &pages[249].replace("bollard", "fender"));
    let next = Document { document: ids.document, ..Document::fresh() };
    let edit = upload(bench, tenant, next, 2, &plain, &edited).await;
    let edit = paid(bench, tenant, edit).await;
    running.stop().await;
    let (embedded, fresh) =
        (embedded_for_chunks(bench, tenant, next).await, fresh_texts(bench, tenant, ids, next).await);
    assert!(fresh > 0 && embedded <= fresh + 1, "{fresh} chunks changed, {embedded} were embedded");
    let share = embedded as f64 / chunks as f64;
    println!(
        "figures: {chunks} chunks; first {} texts embedded, copy 0, replay 0, other summary 0, roll back 0; \
         one of {PAGES} pages edited: {} texts with sentences, {:.2} % of the chunks",
        first.embedded,
        edit.embedded,
        share * 100.0
    );
    assert!(share <= 0.02, "one page edited: {share}");
    println!("test only_what_changed_is_paid_for ... ok");
}

/// Chunks of a version whose text the version before does not have.
async fn fresh_texts(bench: &Bench, tenant: TenantId, before: Document, after: Document) -> i64 {
    let read = bench.world.database.read(tenant, move |connection| {
        Box::pin(async move {
            let changed = sqlx::query_scalar(
                "SELECT count(*) FROM chunks c JOIN generations g ON g.id = c.generation_id WHERE g.version_id = $2
                   AND NOT EXISTS (SELECT 1 FROM chunks b JOIN generations f ON f.id = b.generation_id
                                   WHERE f.version_id = $1 AND b.text = c.text)",
            );
            Ok(changed.bind(before.version.0).bind(after.version.0).fetch_one(connection).await?)
        })
    });
    read.await.unwrap()
}

/// Rows of vectors that the run of a version inserted, by the ledger.
async fn embedded_for_chunks(bench: &Bench, tenant: TenantId, ids: Document) -> i64 {
    let version = ids.version.0;
    let read = bench.world.database.read(tenant, move |connection| {
        Box::pin(async move {
            let units = sqlx::query_scalar(
                "SELECT sum(l.units)::bigint FROM ledger l JOIN jobs j ON j.id = l.job_id JOIN runs r ON r.id = j.run_id
                 WHERE r.version_id = $1 AND l.feature = 'embed' AND l.task = 'chunks'",
            );
            Ok(units.bind(version).fetch_one(connection).await?)
        })
    });
    read.await.unwrap()
}
