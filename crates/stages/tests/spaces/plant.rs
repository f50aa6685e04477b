//! The whole engine in this process, a serving node, a builder, and two models.

use docmill_documents::{ParseOptions, Parser, ParserConfig};
use docmill_model::{Code, DocumentId, Failure, PrincipalId, RunId, Sha256Hex, TenantId, VersionId};
use docmill_platform::embedder::{Embedder, Embedders, HashEmbedder};
use docmill_platform::gateway::prompts::{Prompt, Prompts};
use docmill_platform::tokens::TokenCounter;
use docmill_retrieval::search::SearchMode;
use docmill_retrieval::spaces::{Builder, BuilderConfig, SpaceRow, steer};
use docmill_retrieval::{
    Caller, Follower, FollowerConfig, LexicalConfig, LexicalIndexes, Search, SearchConfig, SearchRequest,
};
use docmill_runtime::control::{PauseKind, pause, resume};
use docmill_runtime::pipeline::Pipelines;
use docmill_runtime::runs::{Cause, StartRun, start_run};
use docmill_runtime::{Engine, EngineConfig, Registry, schedule};
use docmill_stages::{StageDeps, registry};
use docmill_testkit::prober::Probe;
use docmill_testkit::{Accepted, World, eventually, world};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub const SECOND: &str = "second";
const PATIENCE: Duration = Duration::from_secs(120);
/// A schedule that no test runs into, of two documents a firing.
pub const YEARLY: &str = "yearly";
const PIPELINE: &str = "name: default\nschedules:\n  yearly: {cron: \"0 3 29 2 *\", embed_into: second, max_documents: 2}\nstages:\n  ingest: {}\n  chunk: {after: [ingest]}\n  embed: {after: [chunk]}\n  index: {after: [embed]}\n";

/// The second model: other dimensions, and as slow or particular as a test wants.
pub struct Second {
    inner: HashEmbedder,
    is_slow: AtomicBool,
    /// Texts with these words are refused.
    refused: Mutex<Option<&'static str>>,
    is_held: AtomicBool,
    waiting: AtomicUsize,
}

impl Second {
    pub fn throttle(&self) {
        self.is_slow.store(true, Ordering::SeqCst);
    }

    pub fn release(&self) {
        self.is_slow.store(false, Ordering::SeqCst);
    }

    /// Lets no call end from now on.
    pub fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::SeqCst);
    }

    /// Calls that are held.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Refuses texts with these words from now on, `""` every text.
    pub fn refuse(&self, words: Option<&'static str>) {
        *self.refused.lock().unwrap() = words;
    }
}

#[async_trait::async_trait]
impl Embedder for Second {
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        if self.is_slow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while self.is_held.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        let refused = *self.refused.lock().unwrap();
        if refused.is_some_and(|words| texts.iter().any(|text| text.contains(words))) {
            return Err(Failure::new(Code::EmbeddingInvalid, "broken"));
        }
        self.inner.embed(texts).await
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }
}

pub struct Plant {
    pub world: World,
    pub model: Arc<Second>,
    embedders: Embedders,
    pub registry: Arc<Registry>,
    pub pipelines: Arc<Pipelines>,
    pub tenant: TenantId,
    pub lexical: Arc<LexicalIndexes>,
    search: Search,
    folder: PathBuf,
    stop: CancellationToken,
    builder: Option<(CancellationToken, JoinHandle<()>)>,
    tasks: JoinSet<()>,
}

/// The words of a document, the same in every version.
fn words(number: usize) -> String {
    format!("Lantern{number} hangs over berth{number} and keel{number} lies in dock{number}.")
}

impl Plant {
    pub async fn start() -> Self {
        let world = world().await;
        let tenant = world.tenant().await;
        let inner = HashEmbedder::with_dimensions(96);
        let [is_slow, is_held] = [const { AtomicBool::new(false) }; 2];
        let (refused, waiting) = (Mutex::new(None), AtomicUsize::new(0));
        let model = Arc::new(Second { inner, is_slow, refused, is_held, waiting });
        let second: Arc<dyn Embedder> = model.clone();
        let embedders = Embedders::new(world.embedder.clone(), BTreeMap::from([(SECOND.to_owned(), second)]));
        let parser = Parser::new(ParserConfig {
            child: std::env::current_exe().unwrap(),
            child_args: vec!["parse-child".to_owned()],
            pdfium: None,
            tesseract: None,
            slots: 1,
            landlock_required: false,
            options: ParseOptions::default(),
        });
        let registry = Arc::new(registry(StageDeps {
            parser: Arc::new(parser),
            embedders: embedders.clone(),
            tokens: Arc::new(TokenCounter::words()),
            gateway: None,
            prompts: Prompts::of_files(Prompt::committed().unwrap()),
        }));
        let pipelines = Arc::new(Pipelines::from_text(PIPELINE, &registry).unwrap());
        pipelines.register(&world.database).await.unwrap();
        let folder = std::env::temp_dir().join(format!("docmill-spaces-{}", uuid::Uuid::new_v4().simple()));
        let lexical = LexicalIndexes::new(LexicalConfig::new(&folder)).unwrap();
        let follower = Follower::new(world.database.clone(), lexical.clone(), FollowerConfig::new("node"));
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let status = follower.status();
        tasks.spawn(follower.run(stop.clone()));
        eventually("the node is in rotation", PATIENCE, || async { status.is_live() }).await;
        let database = world.database.clone();
        // What a machine that stands still for seconds makes late is no loss.
        let config = SearchConfig { half_timeout: Duration::from_secs(60), ..SearchConfig::default() };
        let search = Search::new(database, embedders.clone(), lexical.clone(), config);
        let builder = None;
        let mut plant = Self {
            world,
            model,
            embedders,
            registry,
            pipelines,
            tenant,
            lexical,
            search,
            folder,
            stop,
            builder,
            tasks,
        };
        plant.run_engine();
        plant.start_builder();
        plant
    }

    fn run_engine(&mut self) {
        let World { database, artifacts, stream_prefix, nats_url, .. } = &self.world;
        let mut config = EngineConfig::new("worker", stream_prefix, nats_url.clone());
        config.tick = Duration::from_millis(100);
        config.reemit_after = Duration::from_secs(1);
        let (registry, pipelines) = (self.registry.clone(), self.pipelines.clone());
        let engine = Engine::new(config, database.clone(), artifacts.clone(), registry, pipelines);
        let (worker, relay, reconciler) = (engine.clone(), engine.clone(), engine);
        let stop = self.stop.clone();
        self.tasks.spawn(async move { worker.run_worker(stop).await.unwrap() });
        let stop = self.stop.clone();
        self.tasks.spawn(async move { relay.run_relay(stop).await.unwrap() });
        let stop = self.stop.clone();
        self.tasks.spawn(async move { reconciler.run_reconciler(stop).await.unwrap() });
    }

    pub fn start_builder(&mut self) {
        let pause = Duration::from_millis(50);
        let config = BuilderConfig { batch: 2, courtesy: pause, pause, rest: pause, ..BuilderConfig::new("builder") };
        let builder = Builder::new(self.world.database.clone(), self.embedders.clone(), config);
        let stop = self.stop.child_token();
        self.builder = Some((stop.clone(), tokio::spawn(builder.run(stop))));
    }

    /// Until it is started again, nobody fills the gaps of a space.
    pub async fn stop_builder(&mut self) {
        if let Some((stop, builder)) = self.builder.take() {
            stop.cancel();
            builder.await.unwrap();
        }
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        self.stop_builder().await;
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    fn document(&self, number: usize) -> DocumentId {
        DocumentId(docmill_model::id::derived_uuid(&[self.tenant.0.as_bytes(), &number.to_be_bytes()]))
    }

    /// Version `version` of document `number`, accepted and with a run.
    pub async fn upload(&self, number: usize, version: i32, more: &str) -> RunId {
        self.accept(number, version, &format!("{}{more}", words(number))).await
    }

    /// A second version of the document that holds no text.
    pub async fn fail(&self, number: usize) {
        self.accept(number, 2, " \n ").await;
    }

    async fn accept(&self, number: usize, version: i32, text: &str) -> RunId {
        let (tenant, document, pipeline) = (self.tenant, self.document(number), self.pipelines.get("default").unwrap());
        let (bytes, sha256) = (bytes::Bytes::copy_from_slice(text.as_bytes()), Sha256Hex::of(text.as_bytes()));
        let (key, size) = (format!("{tenant}/accepted/{sha256}"), bytes.len() as i64);
        self.world.blobs.put(&key, bytes, &sha256).await.unwrap();
        let accepted = Accepted {
            document,
            version: VersionId::fresh(),
            number: version,
            name: format!("doc-{number}.txt"),
            content_type: "text/plain".to_owned(),
            size,
            sha256,
            key,
            pipeline_version: pipeline.version.clone(),
        };
        let write = self.world.database.write(tenant, move |connection| {
            Box::pin(async move {
                accepted.insert(connection).await?;
                let run = StartRun {
                    document_id: document,
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
        write.await.unwrap()
    }

    /// Waits until no run is open.
    pub async fn settled(&self) {
        eventually("every run has settled", PATIENCE, || async {
            let open = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM runs WHERE state = 'running'");
            open.fetch_one(self.world.database.engine()).await.is_ok_and(|open| open == 0)
        })
        .await;
    }

    pub async fn open_replays(&self) -> i64 {
        let open = sqlx::query_scalar("SELECT count(*) FROM replays WHERE state = 'running'");
        open.fetch_one(self.world.database.engine()).await.unwrap()
    }

    pub async fn job(&self, run: RunId, stage: &str) -> String {
        let state =
            sqlx::query_scalar("SELECT state FROM jobs WHERE run_id = $1 AND stage = $2").bind(run.0).bind(stage);
        state.fetch_one(self.world.database.engine()).await.unwrap()
    }

    /// Attempts of the run's index job that were put back.
    pub async fn snoozes(&self, run: RunId) -> i64 {
        let snoozed = sqlx::query_scalar(
            "SELECT count(*) FROM attempts a JOIN jobs j ON j.tenant_id = a.tenant_id AND j.id = a.job_id
             WHERE j.run_id = $1 AND j.stage = 'index' AND a.outcome = 'snoozed'",
        );
        snoozed.bind(run.0).fetch_one(self.world.database.engine()).await.unwrap()
    }

    /// Attempts of any embed job that were put back.
    pub async fn embed_snoozes(&self) -> i64 {
        let snoozed = "SELECT count(*) FROM attempts a JOIN jobs j ON j.tenant_id = a.tenant_id AND j.id = a.job_id
                       WHERE j.stage = 'embed' AND a.outcome = 'snoozed'";
        sqlx::query_scalar(snoozed).fetch_one(self.world.database.engine()).await.unwrap()
    }

    /// In how many spaces the tenant has vectors.
    pub async fn spaces_with_vectors(&self) -> i64 {
        let read = self.world.database.read(self.tenant, |connection| {
            Box::pin(async move {
                let spaces = sqlx::query_scalar("SELECT count(DISTINCT space_id) FROM vectors");
                Ok(spaces.fetch_one(connection).await?)
            })
        });
        read.await.unwrap()
    }

    pub async fn pause(&self, stage: &str) {
        assert!(pause(&self.world.database, PauseKind::Stage, stage).await.unwrap());
    }

    pub async fn resume(&self, stage: &str) {
        assert!(resume(&self.world.database, PauseKind::Stage, stage).await.unwrap());
    }

    pub async fn build(&self) {
        self.enter(false).await;
    }

    /// Enters the second space, to be built by the builder or, when `is_paused`, by its schedule.
    pub async fn enter(&self, is_paused: bool) {
        let model = self.model.clone();
        let write = self.world.database.write(self.tenant, move |connection| {
            Box::pin(async move { steer::create_in(connection, SECOND, &*model, is_paused).await })
        });
        write.await.unwrap();
    }

    /// Enters a paused space of that name whose model nobody here has.
    pub async fn enter_of_another_model(&self) {
        let write = self.world.database.write(self.tenant, move |connection| {
            let model = HashEmbedder::with_dimensions(64);
            Box::pin(async move { steer::create_in(connection, SECOND, &model, true).await })
        });
        write.await.unwrap();
    }

    /// What the schedule would do now: documents, and those beyond its budget.
    pub async fn due(&self) -> (i64, i64) {
        let pipeline = self.pipelines.get("default").unwrap();
        let (database, registry) = (&self.world.database, &self.registry);
        let planned = schedule::plan(database, registry, &self.pipelines, self.tenant, &pipeline, YEARLY).await;
        let (_, plan) = planned.unwrap();
        (plan.documents, plan.beyond_budget)
    }

    /// Lets the schedule be due, and waits until its firing has ended.
    pub async fn fire(&self) {
        self.begin_firing().await;
        self.fired().await;
    }

    /// Waits until the schedule has fired and nothing of it is at work.
    pub async fn fired(&self) {
        eventually("it fired", PATIENCE, || async {
            let late = "SELECT count(*) FROM schedules WHERE next_at < now()";
            self.count(late).await == 0 && self.open_replays().await == 0
        })
        .await;
    }

    /// Makes the firings that are at work an hour older.
    pub async fn age_firings(&self) {
        let older = self.world.database.write(self.tenant, |connection| {
            let sql = "UPDATE replays SET created_at = created_at - interval '1 hour' WHERE state = 'running'";
            Box::pin(async move { Ok(sqlx::query(sql).execute(connection).await?.rows_affected()) })
        });
        assert_eq!(older.await.unwrap(), 1);
    }

    /// Lets the schedule be due.
    pub async fn begin_firing(&self) {
        let sql = "UPDATE schedules SET next_at = now() - interval '1 minute'";
        eventually("the schedule has its row", PATIENCE, || async {
            let due = self.world.database.write(self.tenant, move |connection| {
                Box::pin(async move { Ok(sqlx::query(sql).execute(connection).await?.rows_affected()) })
            });
            due.await.unwrap() == 1
        })
        .await;
    }

    /// Switches; what has just arrived may lack a vector for a moment.
    pub async fn switch(&self, name: &'static str) {
        eventually("the switch is made", PATIENCE, || async {
            let (database, tenant) = (self.world.database.clone(), self.tenant);
            let switched = async {
                let checked = steer::check_switch(&self.world.database, name).await?;
                let write = self.world.database.write(tenant, move |connection| {
                    Box::pin(async move { steer::switch_in(connection, &database, tenant, &checked).await })
                });
                write.await.map_err(docmill_platform::database::DbError::into_failure)
            };
            match switched.await {
                Ok(_) => true,
                Err(failure) => {
                    assert_eq!(failure.code, Code::SpaceIncomplete, "{failure}");
                    false
                }
            }
        })
        .await;
    }

    pub async fn row(&self, name: &str) -> Option<SpaceRow> {
        let read = self.world.database.read(self.tenant, |connection| Box::pin(steer::list(connection)));
        read.await.unwrap().into_iter().find(|row| row.space.name == name)
    }

    /// Visible chunks without a vector in the second space.
    pub async fn lacking(&self) -> i64 {
        let read = self.world.database.read(self.tenant, |connection| {
            Box::pin(async move {
                let lacking = sqlx::query_scalar(
                    "SELECT count(*) FROM documents d JOIN chunks c ON c.generation_id = d.visible_generation
                     WHERE NOT EXISTS (SELECT 1 FROM vectors v JOIN embedding_spaces s ON s.id = v.space_id
                                       WHERE s.name = $1 AND v.embed_hash = c.embed_hash)",
                );
                Ok(lacking.bind(SECOND).fetch_one(connection).await?)
            })
        });
        read.await.unwrap()
    }

    /// Texts that are entered as refused.
    pub async fn refused_texts(&self) -> i64 {
        let read = self.world.database.read(self.tenant, |connection| {
            Box::pin(async move {
                Ok(sqlx::query_scalar("SELECT count(*) FROM refused_texts").fetch_one(connection).await?)
            })
        });
        read.await.unwrap()
    }

    /// Whether the best passage for the words of a document is that document's.
    pub async fn found(&self, mode: SearchMode, number: usize, space: Option<&str>) -> Result<bool, String> {
        found(&self.search, self.tenant, mode, number, space).await
    }

    async fn count(&self, sql: &'static str) -> i64 {
        let read = self.world.database.read(self.tenant, move |connection| {
            Box::pin(async move { Ok(sqlx::query_scalar(sql).fetch_one(connection).await?) })
        });
        read.await.unwrap()
    }

    pub async fn visible_chunks(&self) -> i64 {
        self.count("SELECT count(*) FROM documents d JOIN chunks c ON c.generation_id = d.visible_generation").await
    }

    /// Chunks that are not visible, and vectors that no visible chunk has.
    pub async fn stale(&self) -> (i64, i64) {
        let chunks = "SELECT count(*) FROM chunks c WHERE NOT EXISTS (SELECT 1 FROM documents d WHERE d.visible_generation = c.generation_id)";
        let vectors = "SELECT count(*) FROM vectors v WHERE NOT EXISTS (
             SELECT 1 FROM chunks c JOIN documents d ON d.visible_generation = c.generation_id WHERE c.embed_hash = v.embed_hash)";
        (self.count(chunks).await, self.count(vectors).await)
    }

    /// The passages a search gives.
    pub async fn passages(&self, mode: SearchMode, query: &str) -> Vec<String> {
        let request = SearchRequest { mode, k: 10, ..SearchRequest::new(query) };
        let found = self.search.search(&caller(self.tenant), &request).await.unwrap();
        found.hits.into_iter().map(|hit| hit.text).collect()
    }

    /// A probe for each way of asking: the first `count` documents that are found.
    pub fn probes(&self, count: usize, ways: &[(SearchMode, Option<&'static str>)]) -> Vec<Probe> {
        let probe = |&(mode, space): &(SearchMode, Option<&'static str>)| {
            let (search, tenant) = (self.search.clone(), self.tenant);
            Probe::new(format!("{mode:?} {}", space.unwrap_or("active")), move || {
                let search = search.clone();
                async move {
                    let mut all = BTreeSet::new();
                    for number in 0..count {
                        if found(&search, tenant, mode, number, space).await? {
                            all.insert(number.to_string());
                        }
                    }
                    Ok(all)
                }
            })
        };
        ways.iter().map(probe).collect()
    }
}

fn caller(tenant_id: TenantId) -> Caller {
    Caller { tenant_id, principal_id: PrincipalId::fresh(), labels: Vec::new() }
}

async fn found(
    search: &Search,
    tenant: TenantId,
    mode: SearchMode,
    number: usize,
    space: Option<&str>,
) -> Result<bool, String> {
    let request = SearchRequest { mode, k: 3, space: space.map(str::to_owned), ..SearchRequest::new(words(number)) };
    let found = search.search(&caller(tenant), &request).await.map_err(|failure| failure.to_string())?;
    if let Some(half) = found.degraded {
        return Err(format!("the {half} half did not answer"));
    }
    let right = |hit: &docmill_retrieval::search::Hit| hit.document == format!("doc-{number}.txt");
    Ok(found.hits.first().is_some_and(right))
}
