//! Replays: which documents each filter chooses, what a plan expects them to take and cost, and what a report says in the end.

#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::{Code, JobId, TenantId};
use docmill_runtime::dead;
use docmill_runtime::pipeline::{Pipeline, Pipelines};
use docmill_runtime::replay::{self, ReplayFilter, ReplayPlan, ReplayReport};
use docmill_runtime::runs::cancel_run;
use docmill_testkit::eventually;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use support::{Bench, Document, PATIENCE, PIPELINE, Running, Step};
use time::OffsetDateTime;
use uuid::Uuid;

/// What the toys were before they had all their stages.
const OLD: &str = "
name: toys
stages:
  alpha: {}
  beta:  {after: [alpha]}
";

const SHORT: &str = "
name: short
stages:
  alpha: {}
";

async fn execute(bench: &Bench, tenant: TenantId, sql: &'static str) {
    let write = bench
        .world
        .database
        .write(tenant, move |connection| Box::pin(async move { Ok(sqlx::query(sql).execute(connection).await?) }));
    write.await.unwrap();
}

/// Runs a statement about one document.
async fn change(bench: &Bench, document: Document, sql: &'static str) {
    let write = bench.world.database.write(document.tenant, move |connection| {
        Box::pin(async move { Ok(sqlx::query(sql).bind(document.id.0).execute(connection).await?) })
    });
    write.await.unwrap();
}

async fn planned(bench: &Bench, tenant: TenantId, filter: &ReplayFilter) -> ReplayPlan {
    replay::plan(&bench.world.database, &bench.registry, &bench.pipelines, tenant, filter).await.unwrap()
}

async fn started(bench: &Bench, tenant: TenantId, filter: &ReplayFilter) -> Uuid {
    let (database, registry, pipelines) = (&bench.world.database, &bench.registry, &bench.pipelines);
    replay::start(database, registry, pipelines, tenant, None, filter, None).await.unwrap().0
}

/// Waits until a replay is done; its report.
async fn done(bench: &Bench, tenant: TenantId, id: Uuid) -> ReplayReport {
    let report = || async { replay::report(&bench.world.database, tenant, id).await.unwrap() };
    eventually("the replay is done", PATIENCE, || async { report().await.state == "done" }).await;
    report().await
}

/// Documents by what became of them, and an engine.
struct Shelf {
    bench: Bench,
    engine: Running,
    mine: TenantId,
    theirs: TenantId,
    documents: BTreeMap<&'static str, Document>,
    /// Version of the pipeline that `old` went through.
    old: String,
    /// When the run of `short` began; that of `old` began before it, all others after it.
    moment: OffsetDateTime,
}

fn pipeline(bench: &Bench, text: &str) -> Pipeline {
    (*Pipelines::from_text(text, &bench.registry).unwrap().all()[0]).clone()
}

/// Two pipelines as they are today, and a version of one that no file has any more.
async fn bench_of_two_pipelines() -> (Bench, Arc<Pipeline>) {
    let mut bench = Bench::new().await;
    let old = pipeline(&bench, OLD);
    Pipelines::of(vec![old.clone()]).unwrap().register(&bench.world.database).await.unwrap();
    bench.pipelines = Arc::new(Pipelines::of(vec![pipeline(&bench, PIPELINE), pipeline(&bench, SHORT)]).unwrap());
    bench.pipelines.register(&bench.world.database).await.unwrap();
    (bench, Arc::new(old))
}

impl Shelf {
    async fn stocked() -> Self {
        let (bench, old) = bench_of_two_pipelines().await;
        let (mine, theirs) = (bench.world.tenant().await, bench.world.tenant().await);
        let mut documents = BTreeMap::new();
        for name in ["done", "failed", "mended", "partial", "cancelled", "running", "deleted"] {
            documents.insert(name, bench.document(mine).await);
        }
        documents.insert("old", bench.document_by(mine, old.clone()).await);
        documents.insert("short", bench.document_by(mine, bench.pipelines.get("short").unwrap()).await);
        documents.insert("theirs", bench.document(theirs).await);
        let toys = &bench.toys;
        toys.next_of("beta", documents["failed"].id, Step::Fail(Code::PdfMalformed));
        toys.next_of("beta", documents["mended"].id, Step::Fail(Code::PdfMalformed));
        toys.next_of("side", documents["partial"].id, Step::Fail(Code::OcrEmpty));
        toys.next_of("alpha", documents["running"].id, Step::Snooze(Duration::from_secs(600)));
        let cancelled = documents["cancelled"].run;
        let cancel = bench
            .world
            .database
            .write(mine, move |connection| Box::pin(async move { cancel_run(connection, cancelled).await }));
        assert!(cancel.await.unwrap());
        let engine = bench.start(bench.config("one"));
        let moment = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap() - time::Duration::DAY;
        let shelf = Self { bench, engine, mine, theirs, documents, old: old.version.clone(), moment };
        shelf.settle().await;
        shelf
    }

    /// Waits until each document is what its name says.
    async fn settle(&self) {
        let Self { bench, mine, documents, moment, .. } = self;
        let ending = documents.iter().filter(|(name, _)| **name != "running");
        bench.all_final(&ending.map(|(_, document)| document.run).collect::<Vec<_>>()).await;
        bench.job_is(documents["running"].run, "alpha", "waiting").await;
        let beta = JobId(bench.job(documents["mended"].run, "beta").await.id);
        let again = dead::retry(&bench.world.database, &bench.pipelines, *mine, beta).await.unwrap();
        assert_eq!(bench.settled(again).await, "done");
        for name in ["done", "failed", "partial", "cancelled"] {
            assert_eq!(bench.run_state(documents[name].run).await, name);
        }
        change(bench, documents["deleted"], "UPDATE documents SET deleted_at = now() WHERE id = $1").await;
        for (name, began) in [("old", *moment - time::Duration::DAY), ("short", *moment)] {
            let run = documents[name].run;
            let age = bench.world.database.write(*mine, move |connection| {
                Box::pin(async move {
                    let age = sqlx::query("UPDATE runs SET created_at = $2 WHERE id = $1").bind(run.0).bind(began);
                    Ok(age.execute(connection).await?)
                })
            });
            age.await.unwrap();
        }
    }

    /// The documents that a replay gives a run, by name; its plan counts as many. The runs are taken back, so that the next
    /// one finds the shelf as it was.
    async fn chosen(&self, tenant: TenantId, filter: &ReplayFilter) -> String {
        let plan = planned(&self.bench, tenant, filter).await;
        if plan.documents == 0 {
            return String::new();
        }
        let id = started(&self.bench, tenant, filter).await;
        done(&self.bench, tenant, id).await;
        let take_back = self.bench.world.database.write(tenant, move |connection| {
            Box::pin(async move {
                let gone = sqlx::query_scalar::<_, Uuid>("DELETE FROM runs WHERE replay_id = $1 RETURNING document_id");
                Ok(gone.bind(id).fetch_all(connection).await?)
            })
        });
        let had_a_run = take_back.await.unwrap();
        assert_eq!(had_a_run.len() as i64, plan.documents, "as many as planned: {filter:?}");
        let chosen = self.documents.iter().filter(|(_, document)| had_a_run.contains(&document.id.0));
        chosen.map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_filter_chooses_exactly_the_documents_it_names() {
    let shelf = Shelf::stocked().await;
    let (any, text) = (ReplayFilter::default, |text: &str| Some(text.to_owned()));
    let current = shelf.bench.pipelines.get("toys").unwrap().version.clone();
    let moment = Some(shelf.moment);
    let table = [
        (any(), "cancelled done failed mended old partial short"),
        (ReplayFilter { stage: text("side"), ..any() }, "cancelled done failed mended partial"),
        (ReplayFilter { pipeline: text("toys"), ..any() }, "cancelled done failed mended old partial"),
        (ReplayFilter { pipeline: text("short"), ..any() }, "short"),
        (ReplayFilter { pipeline_version: text(&current), ..any() }, "cancelled done failed mended partial"),
        (ReplayFilter { pipeline_version: text(&shelf.old[..12]), ..any() }, "old"),
        // The first moment counts, the last one does not.
        (ReplayFilter { since: moment, ..any() }, "cancelled done failed mended partial short"),
        (ReplayFilter { until: moment, ..any() }, "old"),
        (ReplayFilter { since: moment, until: moment.map(|moment| moment + time::Duration::SECOND), ..any() }, "short"),
        (ReplayFilter { status: text("done"), ..any() }, "done mended old short"),
        (ReplayFilter { status: text("failed"), ..any() }, "failed partial"),
        (ReplayFilter { status: text("partial"), ..any() }, "partial"),
        (ReplayFilter { status: text("cancelled"), ..any() }, "cancelled"),
        (ReplayFilter { code: text("PDF_MALFORMED"), ..any() }, "failed"),
        (ReplayFilter { code: text("OCR_EMPTY"), ..any() }, "partial"),
        (ReplayFilter { document_id: Some(shelf.documents["done"].id), ..any() }, "done"),
        // With a stage it is the stage's own end that counts.
        (ReplayFilter { stage: text("side"), status: text("failed"), ..any() }, "partial"),
        (ReplayFilter { stage: text("gamma"), status: text("cancelled"), ..any() }, "cancelled failed"),
        (ReplayFilter { stage: text("beta"), code: text("PDF_MALFORMED"), ..any() }, "failed"),
        (ReplayFilter { pipeline: text("toys"), since: moment, status: text("done"), ..any() }, "done mended"),
        (ReplayFilter { document_id: Some(shelf.documents["failed"].id), status: text("done"), ..any() }, ""),
        (ReplayFilter { document_id: Some(shelf.documents["theirs"].id), ..any() }, ""),
    ];
    for (filter, expected) in &table {
        assert_eq!(shelf.chosen(shelf.mine, filter).await, *expected, "{filter:?}");
    }
    assert_eq!(shelf.chosen(shelf.theirs, &any()).await, "theirs", "a tenant has its own documents only");
    shelf.engine.stop().await;
}

/// What a plan expects of each stage: seconds and millionths of a dollar.
fn expected(plan: &ReplayPlan) -> Vec<(&str, f64, i64)> {
    plan.stages.iter().map(|stage| (stage.stage.as_str(), stage.work_secs, stage.cost_microusd)).collect()
}

/// Gives the runs of `beta` one, two, three seconds and so on, and each two calls of a model: 250 millionths of a dollar.
async fn measure(bench: &Bench, tenant: TenantId) {
    for sql in [
        "UPDATE attempts a SET run_millis = 1000 * measured.turn
         FROM (SELECT id, row_number() OVER (ORDER BY id) AS turn FROM jobs WHERE stage = 'beta') AS measured
         WHERE a.job_id = measured.id",
        "INSERT INTO ledger (tenant_id, feature, task, provider, model, job_id, cost_microusd)
         SELECT current_tenant(), 'summarize', 'x', 'p', 'm', j.id, calls.cost
         FROM jobs j CROSS JOIN (VALUES (200), (50)) AS calls (cost) WHERE j.stage = 'beta'",
    ] {
        execute(bench, tenant, sql).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_expects_what_such_units_took_and_cost_before() {
    let bench = Bench::new().await;
    let (tenant, other) = (bench.world.tenant().await, bench.world.tenant().await);
    let mut documents = bench.documents(tenant, 3).await;
    documents.extend(bench.documents(other, 1).await);
    let engine = bench.start(bench.config("one"));
    bench.all_final(&documents.iter().map(|document| document.run).collect::<Vec<_>>()).await;
    engine.stop().await;
    measure(&bench, tenant).await;
    execute(&bench, other, "UPDATE attempts SET run_millis = NULL").await;

    let anew = ReplayFilter { stage: Some("beta".to_owned()), recompute: true, ..Default::default() };
    let plan = planned(&bench, tenant, &anew).await;
    let nothing = |stage| (stage, 0.0, 0);
    let stages = [nothing("alpha"), ("beta", 6.0, 750), nothing("gamma"), nothing("side"), nothing("tail")];
    assert_eq!(expected(&plan), stages, "three units of two seconds and 250 each; what is remembered takes nothing");
    assert_eq!((plan.work_secs, plan.cost_microusd), (6.0, 750));
    let one = ReplayFilter { document_id: Some(documents[0].id), ..anew.clone() };
    let plan = planned(&bench, tenant, &one).await;
    assert_eq!((plan.work_secs, plan.cost_microusd), (2.0, 250), "the average, whatever this one took");

    let plan = planned(&bench, tenant, &ReplayFilter::default()).await;
    assert_eq!((plan.documents, plan.work_secs, plan.cost_microusd), (3, 0.0, 0), "all of it is remembered");
    let plan = planned(&bench, other, &anew).await;
    assert_eq!((plan.documents, plan.work_secs, plan.cost_microusd), (1, 0.0, 0), "nothing of it was measured there");
    let none = planned(&bench, tenant, &ReplayFilter { status: Some("failed".to_owned()), ..anew.clone() }).await;
    assert_eq!(none, ReplayPlan::default());
    assert!(none.work_secs.is_sign_positive(), "nothing is not less than nothing");
    for (why, sql) in [
        ("it came from the cache", "UPDATE attempts SET cached = true"),
        ("it was too long ago", "UPDATE attempts SET cached = false, started_at = now() - interval '31 days'"),
    ] {
        execute(&bench, tenant, sql).await;
        let plan = planned(&bench, tenant, &anew).await;
        assert_eq!((plan.documents, plan.work_secs, plan.cost_microusd), (3, 0.0, 0), "{why}");
    }
}

/// What a report counts at one stage: computed, cached, dead, open.
fn counts(report: &ReplayReport, stage: &str) -> (i64, i64, i64, i64) {
    let stage = report.stages.iter().find(|counted| counted.stage == stage).unwrap();
    (stage.computed, stage.cached, stage.dead, stage.open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_tells_by_code_what_failed_and_what_was_left_alone() {
    let bench = Bench::new().await;
    let tenant = bench.world.tenant().await;
    let documents = bench.documents(tenant, 5).await;
    let [_, broken, half, unread, deleted] = documents[..] else { unreachable!("there are five") };
    // What is optional fails each time, so nothing of it is remembered.
    bench.toys.next_of("side", half.id, Step::Fail(Code::OcrEmpty));
    bench.toys.next_of("side", half.id, Step::Fail(Code::OcrEmpty));
    let engine = bench.start(bench.config("before"));
    bench.all_final(&documents.iter().map(|document| document.run).collect::<Vec<_>>()).await;
    engine.stop().await;

    bench.toys.next_of("alpha", broken.id, Step::Fail(Code::PdfMalformed));
    change(&bench, unread, "UPDATE document_versions SET raw_removed_at = now() WHERE document_id = $1").await;
    let anew = ReplayFilter { stage: Some("alpha".to_owned()), recompute: true, ..Default::default() };
    let plan = planned(&bench, tenant, &anew).await;
    assert_eq!((plan.documents, json!(plan.skipped)), (4, json!({"FILE_REMOVED": 1})));
    let id = started(&bench, tenant, &anew).await;
    change(&bench, deleted, "UPDATE documents SET deleted_at = now() WHERE id = $1").await;
    let engine = bench.start(bench.config("one"));
    let report = done(&bench, tenant, id).await;
    engine.stop().await;
    assert_eq!((report.documents, report.without_run), (4, 1), "one was deleted meanwhile");
    assert_eq!(json!(report.runs), json!({"done": 1, "failed": 1, "partial": 1}));
    assert_eq!(json!(report.failures), json!({"OCR_EMPTY": 1, "PDF_MALFORMED": 1}));
    assert_eq!(json!(report.skipped), json!({"FILE_REMOVED": 1}));
    assert_eq!((counts(&report, "alpha"), counts(&report, "side")), ((2, 0, 1, 0), (0, 1, 1, 0)));
    assert_eq!(report.code, None, "what fails does not stop a replay");
}
