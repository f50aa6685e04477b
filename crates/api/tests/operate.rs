//! Operators at work, told over the API and on record: replays, dead letters and pauses, most of them with an engine that does
//! what is asked for.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_api::ApiConfig;
use docmill_model::manifest::Manifest;
use docmill_model::scope::Scope;
use docmill_model::{Code, DocumentId, Failure};
use docmill_runtime::pipeline::Pipelines;
use docmill_runtime::{Engine, EngineConfig, JobContext, Registry, Stage, StageError};
use docmill_testkit::eventually;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Api, Tenant, config, declaration, publish, put};
use tokio_util::sync::{CancellationToken, DropGuard};

const PATIENCE: Duration = Duration::from_secs(90);
const REPLAYS: &str = "/v1/operate/replays";
const DEAD: &str = "/v1/operate/dead";
const PAUSES: &str = "/v1/operate/pauses";

/// Documents that cannot be read any more.
type Damaged = Arc<Mutex<BTreeSet<DocumentId>>>;

/// Reads whatever is not damaged.
struct Ingest(Damaged);

#[async_trait::async_trait]
impl Stage for Ingest {
    const NAME: &'static str = "ingest";
    const VERSION: u32 = 1;
    type Config = BTreeMap<String, String>;
    type Prepared = ();

    async fn run(&self, job: &JobContext, _: &Self::Config) -> Result<Manifest, StageError> {
        if self.0.lock().unwrap().contains(&job.document_id) {
            return Err(Failure::new(Code::PdfMalformed, "it is damaged").into());
        }
        Ok(Manifest::default())
    }

    async fn prepare(&self, _: &JobContext, _: &Self::Config, _: &Manifest) -> Result<(), StageError> {
        Ok(())
    }

    async fn commit(&self, _: &mut sqlx::PgConnection, _: &JobContext, _: &Manifest, (): ()) -> Result<(), StageError> {
        Ok(())
    }
}

/// An installation at work: an API and an engine over the same rows, and whoever operates both. Documents go through the
/// pipeline `default` or through `beside`, which does the same.
struct Works {
    /// Stops the engine.
    _engine: DropGuard,
    api: Api,
    operator: Tenant,
    damaged: Damaged,
}

impl Works {
    async fn start() -> Self {
        let mut api = Api::start().await;
        let (operator, damaged) = (api.tenant().await, Damaged::default());
        let registry = Arc::new(Registry::builder().with(Ingest(damaged.clone())).build());
        let pipelines = ["default", "beside"].map(|name| {
            let text = format!("name: {name}\nstages:\n  ingest: {{}}\n");
            (*Pipelines::from_text(&text, &registry).unwrap().all()[0]).clone()
        });
        let pipelines = Arc::new(Pipelines::of(pipelines.into()).unwrap());
        pipelines.register(&api.world.database).await.unwrap();
        let mut state = api.state.clone();
        state.config = Arc::new(ApiConfig { operator_tenant: Some(operator.id), ..config() });
        (state.registry, state.pipelines) = (registry, pipelines);
        api.router = docmill_api::router(state.clone());
        api.state = state;
        Self { _engine: engine(&api), api, operator, damaged }
    }

    async fn get(&self, tenant: &Tenant, path: &str) -> Value {
        self.api.get(&tenant.key, path).await.ok()
    }

    /// Waits until an answer is as expected, and gives it.
    async fn until(&self, tenant: &Tenant, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let what = format!("what {path} tells");
        eventually(&what, PATIENCE, || async { is_so(&self.get(tenant, path).await) }).await;
        self.get(tenant, path).await
    }

    /// Waits until a document is in a state.
    async fn settled(&self, tenant: &Tenant, document: &str, state: &str) {
        self.until(tenant, &format!("/v1/documents/{document}"), |document| document["state"] == state).await;
    }

    /// Uploads a file and waits until it is processed; gives the document's id.
    async fn processed(&self, tenant: &Tenant, name: &str) -> String {
        let document = self.api.upload(&tenant.key, name, name.as_bytes()).await;
        self.settled(tenant, &document, "done").await;
        document
    }

    /// Uploads a file that cannot be read and waits until that is known; gives the document's id.
    async fn unreadable(&self, tenant: &Tenant, name: &str) -> String {
        let created = self.api.post(&tenant.key, "/v1/documents", &declaration(name, name.as_bytes())).await.ok();
        let document = created["id"].as_str().unwrap();
        self.damage(document);
        put(&created["upload"], name.as_bytes()).await;
        self.api.post(&tenant.key, &format!("/v1/documents/{document}/complete"), &Value::Null).await.ok();
        self.settled(tenant, document, "failed").await;
        document.to_owned()
    }

    /// From now on the document cannot be read.
    fn damage(&self, document: &str) {
        self.damaged.lock().unwrap().insert(document.parse().unwrap());
    }

    /// Starts a replay; gives its path.
    async fn replay(&self, tenant: &Tenant, body: &Value) -> String {
        let started = self.api.post(&tenant.key, REPLAYS, body).await.ok();
        format!("{REPLAYS}/{}", started["id"].as_str().unwrap())
    }
}

/// Worker, relay and reconciler in one, until the guard is dropped.
fn engine(api: &Api) -> DropGuard {
    let world = &api.world;
    let mut config = EngineConfig::new("test", &world.stream_prefix, world.nats_url.clone());
    config.tick = Duration::from_millis(100);
    let (registry, pipelines) = (api.state.registry.clone(), api.state.pipelines.clone());
    let engine = Engine::new(config, world.database.clone(), world.artifacts.clone(), registry, pipelines);
    let stop = CancellationToken::new();
    let (worker, relay, reconciler) = (engine.clone(), engine.clone(), engine);
    let token = stop.clone();
    tokio::spawn(async move { worker.run_worker(token).await.unwrap() });
    let token = stop.clone();
    tokio::spawn(async move { relay.run_relay(token).await.unwrap() });
    let token = stop.clone();
    tokio::spawn(async move { reconciler.run_reconciler(token).await.unwrap() });
    stop.drop_guard()
}

/// Runs a statement about the row of an id.
async fn change(api: &Api, tenant: &Tenant, sql: &'static str, id: &str) {
    let id: uuid::Uuid = id.parse().unwrap();
    let write = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move { Ok(sqlx::query(sql).bind(id).execute(connection).await?) })
    });
    write.await.unwrap();
}

/// What the audit log of a tenant says of one subject, the oldest first.
async fn on_record(api: &Api, tenant: &Tenant, subject: &str) -> Vec<Value> {
    let log = api.get(&tenant.key, "/v1/audit?limit=200").await.ok();
    let rows = log["entries"].as_array().unwrap().iter().rev();
    rows.filter(|row| row["subject"] == subject).cloned().collect()
}

fn actions(rows: &[Value]) -> Vec<(&str, Value)> {
    rows.iter().map(|row| (row["action"].as_str().unwrap(), row["data"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_replay_starts_nothing_until_it_is_resumed_and_then_ends() {
    let works = Works::start().await;
    let (tenant, other) = (works.api.tenant().await, works.api.tenant().await);
    works.processed(&tenant, "a.txt").await;
    works.processed(&tenant, "b.txt").await;
    works.processed(&other, "c.txt").await;
    let select = json!({"stage": "ingest", "recompute": true});
    let replay = works.replay(&tenant, &json!({"select": select, "per_minute": 1})).await;
    works.until(&tenant, &replay, |report| report["runs"] == json!({"done": 1})).await;
    let set = async |state: &str| {
        works.api.post(&tenant.key, &format!("{replay}/state"), &json!({"state": state})).await.ok()
    };
    assert_eq!(set("paused").await["state"], "paused");

    // The minute is over, and the replay of another tenant runs to its end. The older one would have had its turn before it.
    let id = replay.rsplit('/').next().unwrap();
    let a_minute_later = "UPDATE runs SET created_at = created_at - interval '1 minute' WHERE replay_id = $1";
    change(&works.api, &tenant, a_minute_later, id).await;
    let beside = works.replay(&other, &json!({"select": select})).await;
    works.until(&other, &beside, |report| report["state"] == "done").await;
    let paused = works.get(&tenant, &replay).await;
    assert_eq!((&paused["state"], &paused["runs"]), (&json!("paused"), &json!({"done": 1})), "{paused}");
    assert_eq!((&paused["documents"], &paused["without_run"]), (&json!(2), &json!(1)), "{paused}");

    set("running").await;
    let report = works.until(&tenant, &replay, |report| report["state"] == "done").await;
    assert_eq!((&report["runs"], &report["without_run"]), (&json!({"done": 2}), &json!(0)), "{report}");
    assert_eq!((&report["failures"], &report["skipped"]), (&json!({}), &json!({})), "{report}");
    let computed = json!([{"stage": "ingest", "computed": 2, "cached": 0, "dead": 0, "open": 0}]);
    assert_eq!(report["stages"], computed);
    let refused = works.api.post(&tenant.key, &format!("{replay}/state"), &json!({"state": "paused"})).await;
    assert_eq!(refused.error(), (409, "CONFLICT".to_owned()), "what is done is not paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_of_a_replay_names_what_failed_and_what_was_skipped() {
    let works = Works::start().await;
    let tenant = works.api.tenant().await;
    works.processed(&tenant, "whole.txt").await;
    let broken = works.processed(&tenant, "broken.txt").await;
    let removed = works.processed(&tenant, "removed.txt").await;
    works.damage(&broken);
    let remove = "UPDATE document_versions SET raw_removed_at = now() WHERE document_id = $1";
    change(&works.api, &tenant, remove, &removed).await;
    let wanted = json!({"select": {"stage": "ingest", "recompute": true}});
    let plan = works.api.post(&tenant.key, &format!("{REPLAYS}/plan"), &wanted).await.ok();
    assert_eq!((&plan["documents"], &plan["skipped"]), (&json!(2), &json!({"FILE_REMOVED": 1})), "{plan}");

    let replay = works.replay(&tenant, &wanted).await;
    let report = works.until(&tenant, &replay, |report| report["state"] == "done").await;
    assert_eq!((&report["documents"], &report["without_run"]), (&json!(2), &json!(0)), "{report}");
    assert_eq!(report["runs"], json!({"done": 1, "failed": 1}));
    assert_eq!(report["failures"], json!({"PDF_MALFORMED": 1}));
    assert_eq!(report["skipped"], json!({"FILE_REMOVED": 1}));
    assert_eq!(report["stages"], json!([{"stage": "ingest", "computed": 1, "cached": 0, "dead": 1, "open": 0}]));
    assert_eq!(report["code"], Value::Null, "it was not stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_the_time_and_the_cost_it_expects() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let published = publish(&api, &tenant, "a.txt", &["Some words."]).await;
    let wanted = json!({"select": {}});
    let before = api.post(&tenant.key, &format!("{REPLAYS}/plan"), &wanted).await.ok();
    let stage = json!({"stage": "ingest", "compute": 1, "cached": 0, "work_secs": 0.0, "cost_microusd": 0});
    assert_eq!(before["stages"], json!([stage]));
    assert_eq!((&before["work_secs"], &before["cost_microusd"]), (&json!(0.0), &json!(0)), "nothing was measured yet");
    for sql in [
        "INSERT INTO attempts (tenant_id, job_id, fence, worker, outcome, run_millis) VALUES (current_tenant(), $1, 1, 'w', 'done', 1500)",
        "INSERT INTO ledger (tenant_id, feature, task, provider, model, job_id, cost_microusd)
         VALUES (current_tenant(), 'ocr', 'x', 'p', 'm', $1, 2500)",
    ] {
        change(&api, &tenant, sql, &published.job).await;
    }
    let plan = api.post(&tenant.key, &format!("{REPLAYS}/plan"), &wanted).await.ok();
    assert_eq!((&plan["work_secs"], &plan["cost_microusd"]), (&json!(1.5), &json!(2500)), "{plan}");
    let stage = json!({"stage": "ingest", "compute": 1, "cached": 0, "work_secs": 1.5, "cost_microusd": 2500});
    assert_eq!(plan["stages"], json!([stage]));
    let started = api.post(&tenant.key, REPLAYS, &wanted).await.ok();
    assert_eq!(started["plan"], plan, "what was planned is what is started");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_turn_of_a_replay_is_on_record_with_whoever_made_it() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    publish(&api, &tenant, "a.txt", &["Some words."]).await;
    let started = api.post(&tenant.key, REPLAYS, &json!({"select": {"stage": "ingest"}})).await.ok();
    let id = started["id"].as_str().unwrap();
    let second = api.key(tenant.id, &[Scope::Operate], &[]).await;
    let set = async |key: &str, state: &str| {
        api.post(key, &format!("{REPLAYS}/{id}/state"), &json!({"state": state})).await.status.as_u16()
    };
    let (first, second) = (tenant.key.as_str(), second.as_str());
    for (key, state, status) in [
        (first, "paused", 200),
        (first, "paused", 409),
        (first, "running", 200),
        (first, "asleep", 422),
        (second, "cancelled", 200),
        (second, "running", 409),
    ] {
        assert_eq!(set(key, state).await, status, "{state}");
    }
    let rows = on_record(&api, &tenant, id).await;
    let data = &rows[0]["data"];
    assert_eq!((&data["documents"], &data["filter"]["stage"]), (&json!(1), &json!("ingest")), "{data}");
    let turn = |state: &str| ("replay.state", json!({"state": state}));
    let turns = [("replay.start", data.clone()), turn("paused"), turn("running"), turn("cancelled")];
    assert_eq!(actions(&rows), turns, "what was refused leaves no row");
    let who: Vec<&Value> = rows.iter().map(|row| &row["principal_id"]).collect();
    assert!(who.iter().all(|who| who.is_string()), "{who:?}");
    assert!(who[0] == who[1] && who[1] == who[2] && who[2] != who[3], "the last one had another key: {who:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_dead_letter_is_dealt_with_and_no_longer_listed() {
    let works = Works::start().await;
    let (api, tenant) = (&works.api, works.api.tenant().await);
    let document = works.processed(&tenant, "broken.txt").await;
    works.damage(&document);
    let again = json!({"select": {"document_id": document, "stage": "ingest", "recompute": true}});
    works.replay(&tenant, &again).await;
    works.settled(&tenant, &document, "failed").await;
    let listed = works.get(&tenant, DEAD).await;
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 1, "{listed}");
    let dead = &listed["jobs"][0];
    assert_eq!((&dead["code"], &dead["resolution"]), (&json!("PDF_MALFORMED"), &Value::Null), "{dead}");
    let job = dead["job_id"].as_str().unwrap();

    let discard = format!("{DEAD}/{job}/discard");
    assert_eq!(api.post(&tenant.key, &discard, &Value::Null).await.status, 204);
    assert_eq!(works.get(&tenant, DEAD).await["jobs"], json!([]));
    let resolved = works.get(&tenant, &format!("{DEAD}?resolved=true")).await;
    let resolved = &resolved["jobs"][0];
    assert_eq!((&resolved["job_id"], &resolved["resolution"]), (&json!(job), &json!("discarded")), "{resolved}");
    assert_eq!(works.get(&tenant, &format!("{DEAD}/{job}")).await["job"]["resolution"], "discarded");
    let row: (String, bool) = sqlx::query_as("SELECT state, resolved_at IS NOT NULL FROM jobs WHERE id = $1")
        .bind(job.parse::<uuid::Uuid>().unwrap())
        .fetch_one(api.world.database.engine())
        .await
        .unwrap();
    assert_eq!(row, ("dead".to_owned(), true), "it stays what it is");
    for act in ["discard", "retry"] {
        let refused = api.post(&tenant.key, &format!("{DEAD}/{job}/{act}"), &Value::Null).await;
        assert_eq!(refused.error(), (409, "CONFLICT".to_owned()), "{act}");
    }
    let rows = on_record(api, &tenant, job).await;
    assert_eq!(actions(&rows), [("dead.discard", json!({}))], "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_tells_the_page_of_its_code_and_the_runs_before_it() {
    let works = Works::start().await;
    let (api, tenant, other) = (&works.api, works.api.tenant().await, works.api.tenant().await);
    let document = works.unreadable(&tenant, "broken.txt").await;
    let newest = async || {
        let listed = works.get(&tenant, DEAD).await;
        let path = format!("{DEAD}/{}", listed["jobs"][0]["job_id"].as_str().unwrap());
        assert!(listed["jobs"][0]["code_page"].is_null() && listed["jobs"][0]["earlier_runs"].is_null(), "{listed}");
        (works.get(&tenant, &path).await, path)
    };
    let (first, path) = newest().await;
    let page = Code::PdfMalformed.page();
    let told = json!({"code": "PDF_MALFORMED", "meaning": page.meaning, "remedy": page.remedy,
                      "page": "deploy/codes/PDF_MALFORMED.md"});
    assert_eq!(first["code_page"], told);
    let run = &first["run"];
    assert_eq!((&run["id"], &run["document_id"]), (&first["job"]["run_id"], &json!(document)), "{first}");
    assert_eq!((&run["cause"], &run["state"], &run["code"]), (&json!("upload"), &json!("failed"), &told["code"]));
    assert_eq!(first["earlier_runs"], json!([]));
    assert_eq!(api.get(&other.key, &path).await.error(), (404, "NOT_FOUND".to_owned()));

    let retried = api.post(&tenant.key, &format!("{path}/retry"), &Value::Null).await.ok();
    works.settled(&tenant, &document, "failed").await;
    let (second, _) = newest().await;
    let run = &second["run"];
    assert_eq!((&run["id"], &run["cause"]), (&retried["run_id"], &json!("operator")), "{second}");
    assert_eq!(second["earlier_runs"], json!([first["run"]]));

    let select = json!({"document_id": document, "stage": "ingest", "recompute": true});
    let replay = works.replay(&tenant, &json!({"select": select})).await;
    works.until(&tenant, &replay, |report| report["state"] == "done").await;
    let (third, _) = newest().await;
    assert_eq!((&third["run"]["cause"], &third["run"]["parent_run"]), (&json!("replay"), &retried["run_id"]));
    assert_eq!(third["earlier_runs"], json!([second["run"], first["run"]]), "up to the first");
    assert_eq!(third["code_page"], told);

    // Many repetitions later.
    let many = "INSERT INTO runs (tenant_id, id, document_id, version_id, pipeline_version, cause, parent_run, state, settled_at)
                SELECT tenant_id, md5('run' || n)::uuid, document_id, version_id, pipeline_version, 'operator',
                       md5('run' || n + 1)::uuid, 'failed', now()
                FROM runs, generate_series(1, 30) AS n WHERE id = $1";
    change(api, &tenant, many, third["run"]["id"].as_str().unwrap()).await;
    let after = "UPDATE runs SET parent_run = md5('run1')::uuid WHERE id = $1";
    change(api, &tenant, after, third["run"]["id"].as_str().unwrap()).await;
    let (last, _) = newest().await;
    let earlier = last["earlier_runs"].as_array().unwrap();
    assert_eq!(earlier.len(), 20, "no more are told");
    assert!(earlier.windows(2).all(|pair| pair[0]["parent_run"] == pair[1]["id"]), "{earlier:?}");
    assert!(earlier[19]["parent_run"].is_string(), "and the last says that there are more");
}

/// Uploads a file that goes through the pipeline `beside`; gives the document's id.
async fn upload_beside(api: &Api, tenant: &Tenant) -> String {
    let mut declared = declaration("beside.txt", b"beside");
    declared["pipeline"] = json!("beside");
    let created = api.post(&tenant.key, "/v1/documents", &declared).await.ok();
    put(&created["upload"], b"beside").await;
    let path = format!("/v1/documents/{}", created["id"].as_str().unwrap());
    api.post(&tenant.key, &format!("{path}/complete"), &Value::Null).await.ok();
    created["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pipeline_holds_its_jobs_until_it_is_resumed_and_others_go_on() {
    let works = Works::start().await;
    let (api, operator, tenant) = (&works.api, &works.operator, works.api.tenant().await);
    let pause = json!({"kind": "pipeline", "subject": "default"});
    assert_eq!(api.post(&tenant.key, PAUSES, &pause).await.error(), (403, "SCOPE_MISSING".to_owned()));
    assert_eq!(api.post(&operator.key, PAUSES, &pause).await.status, 204);
    let document = api.upload(&tenant.key, "held.txt", b"held").await;
    let jobs = works.get(&tenant, &format!("/v1/operate/jobs?document={document}")).await;
    let path = format!("/v1/operate/jobs/{}", jobs["jobs"][0]["id"].as_str().unwrap());
    let held = works.until(&tenant, &path, |shown| shown["job"]["state"] == "held").await;
    assert_eq!((&held["job"]["held_reason"], &held["attempts"]), (&json!("paused"), &json!([])), "{held}");
    let beside = upload_beside(api, &tenant).await;
    works.settled(&tenant, &beside, "done").await;
    assert_eq!(works.get(&tenant, &path).await, held, "nothing has moved it meanwhile");
    works.settled(&tenant, &document, "processing").await;

    let resume = format!("{PAUSES}/pipeline/default");
    assert_eq!(api.delete(&tenant.key, &resume).await.error(), (403, "SCOPE_MISSING".to_owned()));
    assert_eq!(api.delete(&operator.key, &resume).await.status, 204);
    works.settled(&tenant, &document, "done").await;
    let shown = works.get(&tenant, &path).await;
    assert_eq!((&shown["job"]["state"], &shown["job"]["held_reason"]), (&json!("done"), &Value::Null), "{shown}");
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(works.get(&tenant, PAUSES).await["pauses"], json!([]));
    let (rows, kind) = (on_record(api, operator, "default").await, json!({"kind": "pipeline"}));
    assert_eq!(actions(&rows), [("pause.create", kind.clone()), ("pause.delete", kind)]);
}
