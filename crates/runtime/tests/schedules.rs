//! Schedules: once for each time, never two at once, within the budget, behind uploads; and replays of documents whose
//! file is gone.

#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::{Code, TenantId};
use docmill_platform::audit::{self, Entry};
use docmill_platform::failpoints::{Action, Failpoints};
use docmill_runtime::control::{self, PauseKind};
use docmill_runtime::{Engine, replay, schedule};
use docmill_testkit::eventually;
use serde_json::json;
use std::sync::OnceLock;
use std::time::Duration;
use support::{Bench, Document, PATIENCE, Running};
use time::OffsetDateTime;
use uuid::Uuid;

/// Once a day, half a day from now: no test meets that time by itself.
fn cron() -> &'static str {
    static CRON: OnceLock<String> = OnceLock::new();
    CRON.get_or_init(|| format!("0 {} * * *", (OffsetDateTime::now_utc().hour() + 12) % 24))
}

/// The toys, with one more entry under `schedules`.
fn pipeline(schedule: &str) -> String {
    format!("{}schedules:\n  nightly: {{cron: \"{}\", {schedule}}}\n", support::PIPELINE, cron())
}

async fn execute(bench: &Bench, tenant: TenantId, sql: &'static str) {
    let write = bench
        .world
        .database
        .write(tenant, move |connection| Box::pin(async move { Ok(sqlx::query(sql).execute(connection).await?) }));
    write.await.unwrap();
}

/// The schedule was due three days ago, and every day since.
async fn make_due(bench: &Bench, tenant: TenantId) {
    execute(bench, tenant, "UPDATE schedules SET next_at = date_trunc('hour', now()) - interval '3 days'").await;
}

#[derive(Debug, sqlx::FromRow)]
struct Fired {
    id: Uuid,
    state: String,
    code: Option<String>,
    slot: Option<OffsetDateTime>,
}

async fn fired(bench: &Bench) -> Vec<Fired> {
    sqlx::query_as("SELECT id, state, code, slot FROM replays WHERE schedule = 'nightly' ORDER BY created_at")
        .fetch_all(bench.world.database.engine())
        .await
        .unwrap()
}

/// Waits until so many firings have ended.
async fn ended(bench: &Bench, count: usize) -> Vec<Fired> {
    eventually("the firings end", PATIENCE, || async {
        let fired = fired(bench).await;
        fired.len() == count && fired.iter().all(|replay| matches!(replay.state.as_str(), "done" | "stopped"))
    })
    .await;
    fired(bench).await
}

async fn documents_of(bench: &Bench, replay: Uuid) -> Vec<(Uuid, String, i16)> {
    sqlx::query_as("SELECT document_id, cause, priority FROM runs WHERE replay_id = $1 ORDER BY document_id")
        .bind(replay)
        .fetch_all(bench.world.database.engine())
        .await
        .unwrap()
}

/// What the audit log of a tenant, whose chain is whole, says; the oldest first.
async fn on_record(bench: &Bench, tenant: TenantId) -> Vec<Entry> {
    let read = bench.world.database.read(tenant, move |connection| {
        Box::pin(async move {
            assert_eq!(audit::verify(connection, tenant).await?.first_broken, None);
            let rows = "SELECT seq, principal_id, action, subject, data, at FROM audit_log ORDER BY seq";
            let rows: Vec<Entry> = sqlx::query_as(rows).fetch_all(connection).await?;
            Ok(rows)
        })
    });
    read.await.unwrap()
}

async fn next_at(bench: &Bench) -> OffsetDateTime {
    sqlx::query_scalar("SELECT next_at FROM schedules").fetch_one(bench.world.database.engine()).await.unwrap()
}

/// A bench with its schedule, a tenant whose row is there, and documents that were processed.
async fn prepared(schedule: &str, count: usize) -> (Bench, TenantId, Vec<Document>) {
    let bench = Bench::with(&pipeline(schedule)).await;
    let tenant = bench.world.tenant().await;
    let documents = bench.documents(tenant, count).await;
    let engine = bench.start(bench.config("before"));
    bench.all_final(&documents.iter().map(|document| document.run).collect::<Vec<_>>()).await;
    eventually("the schedule has its row", PATIENCE, || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM schedules")
            .fetch_one(bench.world.database.engine())
            .await
            .unwrap()
            == 1
    })
    .await;
    engine.stop().await;
    (bench, tenant, documents)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missed_times_are_made_up_for_by_one_firing_within_its_budget_the_oldest_first() {
    let (bench, tenant, documents) = prepared("stage: beta, recompute: true, max_documents: 2", 3).await;
    assert!(next_at(&bench).await > OffsetDateTime::now_utc(), "a new schedule does not fire for the past");
    make_due(&bench, tenant).await;
    let slot = next_at(&bench).await;
    let (one, two) = (bench.start(bench.config("one")), bench.start(bench.config("two")));
    let first = ended(&bench, 1).await;
    assert_eq!((first[0].state.as_str(), first[0].slot), ("done", Some(slot)));
    let mut oldest: Vec<Uuid> = documents[..2].iter().map(|document| document.id.0).collect();
    oldest.sort_unstable();
    let runs = documents_of(&bench, first[0].id).await;
    assert_eq!(runs.iter().map(|(document, ..)| *document).collect::<Vec<_>>(), oldest);
    assert!(runs.iter().all(|(_, cause, priority)| cause == "schedule" && *priority == -20), "{runs:?}");
    assert_eq!((bench.toys.runs("alpha"), bench.toys.runs("beta")), (3, 5), "what came before beta was remembered");
    assert!(next_at(&bench).await > OffsetDateTime::now_utc());
    let report = replay::report(&bench.world.database, tenant, first[0].id).await.unwrap();
    assert_eq!((report.schedule.as_deref(), report.documents), (Some("toys/nightly"), 2));
    let rows = on_record(&bench, tenant).await;
    assert_eq!(rows.len(), 1, "one firing, one row: {rows:?}");
    assert_eq!((rows[0].action.as_str(), rows[0].subject.as_str()), ("schedule.fire", "toys/nightly"));
    assert_eq!((rows[0].principal_id, &rows[0].data), (None, &json!({"replay": first[0].id, "documents": 2})));

    // Not the same time again: that one is served.
    let later = "UPDATE schedules SET next_at = date_trunc('hour', now()) - interval '3 days' + interval '1 hour'";
    execute(&bench, tenant, later).await;
    let both = ended(&bench, 2).await;
    let runs = documents_of(&bench, both[1].id).await;
    assert!(runs.iter().any(|(document, ..)| *document == documents[2].id.0), "the one that was left over: {runs:?}");
    bench.healthy().await;
    one.stop().await;
    two.stop().await;
    let states = schedule::list(&bench.world.database, &bench.pipelines, tenant).await.unwrap();
    assert_eq!((states[0].last_replay, states[0].last_state.as_deref()), (Some(both[1].id), Some("done")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_dies_before_or_after_its_commit_fires_once() {
    let (bench, tenant, _) = prepared("stage: beta, recompute: true", 1).await;
    let folder = std::env::temp_dir().join(Uuid::now_v7().to_string());
    let engine = |failpoints: &Failpoints| {
        let database = bench.world.database.clone().with_failpoints(failpoints.clone());
        let (artifacts, registry) = (bench.world.artifacts.clone(), bench.registry.clone());
        Running::new(Engine::new(bench.config("mortal"), database, artifacts, registry, bench.pipelines.clone()))
    };
    let recorder = Failpoints::default();
    recorder.record(folder.clone());
    make_due(&bench, tenant).await;
    let running = engine(&recorder);
    ended(&bench, 1).await;
    running.stop().await;
    let met = std::fs::read_to_string(&folder).unwrap();
    let points: Vec<&str> = met.lines().filter(|line| line.contains("schedule/fire.rs")).collect();
    assert_eq!(points.len(), 2, "before and after the commit: {met}");
    for (number, point) in points.into_iter().enumerate() {
        execute(&bench, tenant, "UPDATE schedules SET next_at = now() - interval '1 minute'").await;
        let mortal = Failpoints::default();
        assert!(mortal.arm(point, Action::Panic), "{point}");
        engine(&mortal).died().await;
        let running = bench.start(bench.config("next"));
        ended(&bench, number + 2).await;
        running.stop().await;
    }
    std::fs::remove_file(folder).unwrap();
    let fired = fired(&bench).await.into_iter().map(|replay| json!(replay.id));
    let told = on_record(&bench, tenant).await.into_iter().map(|row| row.data["replay"].clone());
    assert_eq!(told.collect::<Vec<_>>(), fired.collect::<Vec<_>>(), "each is on record once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firing_that_is_at_work_is_waited_for_and_a_paused_schedule_does_not_fire() {
    let (bench, tenant, _) = prepared("stage: beta, recompute: true", 1).await;
    let database = &bench.world.database;
    control::pause(database, PauseKind::Stage, "beta").await.unwrap();
    make_due(&bench, tenant).await;
    let engine = bench.start(bench.config("one"));
    eventually("it fired", PATIENCE, || async { fired(&bench).await.len() == 1 }).await;
    execute(&bench, tenant, "UPDATE schedules SET next_at = now() - interval '1 minute'").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(fired(&bench).await.len(), 1, "the first is at work");
    let pipeline = bench.pipelines.get("toys").unwrap();
    let planned = schedule::plan(database, &bench.registry, &bench.pipelines, tenant, &pipeline, "nightly").await;
    let (filter, mut plan) = planned.unwrap();
    // Its one document is being processed; as if another were there.
    plan.documents = 1;
    let by_hand = database.write(tenant, move |connection| {
        Box::pin(async move {
            schedule::run_in(connection, docmill_model::PrincipalId::fresh(), "toys", "nightly", &filter, &plan).await
        })
    });
    assert_eq!(by_hand.await.unwrap_err().into_failure().code, Code::Conflict, "not by hand either");
    control::resume(database, PauseKind::Stage, "beta").await.unwrap();
    ended(&bench, 2).await;

    let set = async |paused: bool| {
        let schedule = pipeline.schedules["nightly"].clone();
        let set = database.write(tenant, move |connection| {
            Box::pin(async move { schedule::set_paused_in(connection, "toys", "nightly", &schedule, paused).await })
        });
        set.await.unwrap()
    };
    assert!(set(true).await && !set(true).await, "twice is once");
    execute(&bench, tenant, "UPDATE schedules SET next_at = now() - interval '1 minute'").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(fired(&bench).await.len(), 2);
    assert!(set(false).await);
    assert!(next_at(&bench).await > OffsetDateTime::now_utc(), "times that passed meanwhile are not made up for");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firing_by_hand_before_the_schedule_has_its_row_is_remembered() {
    let (bench, tenant, _) = prepared("stage: beta, recompute: true", 1).await;
    let database = &bench.world.database;
    make_due(&bench, tenant).await;
    let engine = bench.start(bench.config("one"));
    // The scheduler looks at which tenants there are before it fires, and again in a minute only.
    ended(&bench, 1).await;
    let late = bench.world.tenant().await;
    let documents = bench.documents(late, 1).await;
    bench.all_final(&[documents[0].run]).await;
    let rows = "SELECT count(*) FROM schedules WHERE tenant_id = $1 AND ($2 OR next_at > now())";
    let count = async |any: bool| {
        let count = sqlx::query_scalar::<_, i64>(rows).bind(late.0).bind(any);
        count.fetch_one(database.engine()).await.unwrap()
    };
    assert_eq!(count(true).await, 0, "it has no row yet");
    let pipeline = bench.pipelines.get("toys").unwrap();
    let planned = schedule::plan(database, &bench.registry, &bench.pipelines, late, &pipeline, "nightly").await;
    let (filter, plan) = planned.unwrap();
    let by_hand = database.write(late, move |connection| {
        Box::pin(async move {
            schedule::run_in(connection, docmill_model::PrincipalId::fresh(), "toys", "nightly", &filter, &plan).await
        })
    });
    let replay = by_hand.await.unwrap();
    engine.stop().await;
    let next = bench.start(bench.config("next"));
    eventually("its time is reckoned", PATIENCE, || async { count(false).await == 1 }).await;
    let states = schedule::list(database, &bench.pipelines, late).await.unwrap();
    assert_eq!(states[0].last_replay, Some(replay));
    next.stop().await;
}

/// Waits until schedules have started one run that is in `state`.
async fn one_run(bench: &Bench, state: &'static str) {
    eventually("there is one run", PATIENCE, || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM runs WHERE cause = 'schedule' AND state = $1")
            .bind(state)
            .fetch_one(bench.world.database.engine())
            .await
            .unwrap()
            == 1
    })
    .await;
}

/// Enters half a dollar for each scheduled job of the stage `beta`.
async fn spend_half_a_dollar(bench: &Bench, tenant: TenantId) {
    execute(
        bench,
        tenant,
        "INSERT INTO ledger (tenant_id, feature, task, provider, model, job_id, cost_microusd)
         SELECT current_tenant(), 'summarize', 'x', 'p', 'm', j.id, 500000 FROM jobs j JOIN runs r ON r.id = j.run_id
         WHERE r.cause = 'schedule' AND j.stage = 'beta'",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firing_stops_when_its_money_is_spent() {
    let (bench, tenant, _) = prepared("stage: beta, recompute: true, max_cost_usd: 0.5, per_minute: 1", 3).await;
    make_due(&bench, tenant).await;
    let engine = bench.start(bench.config("one"));
    one_run(&bench, "done").await;
    spend_half_a_dollar(&bench, tenant).await;
    let fired = ended(&bench, 1).await;
    assert_eq!((fired[0].state.as_str(), fired[0].code.as_deref()), ("stopped", Some("BUDGET_EXCEEDED")));
    assert_eq!(documents_of(&bench, fired[0].id).await.len(), 1);
    let report = replay::report(&bench.world.database, tenant, fired[0].id).await.unwrap();
    assert_eq!((report.code.as_deref(), report.without_run), (Some("BUDGET_EXCEEDED"), 2));
    bench.healthy().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_go_before_what_a_schedule_asks_for() {
    let (bench, tenant, _) = prepared("stage: alpha, recompute: true", 20).await;
    control::pause(&bench.world.database, PauseKind::Stage, "alpha").await.unwrap();
    make_due(&bench, tenant).await;
    let engine = bench.start(bench.config("one"));
    eventually("all wait", PATIENCE, || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM runs WHERE cause = 'schedule'")
            .fetch_one(bench.world.database.engine())
            .await
            .unwrap()
            == 20
    })
    .await;
    let upload = bench.document(tenant).await;
    let before = bench.toys.order("alpha").len();
    control::resume(&bench.world.database, PauseKind::Stage, "alpha").await.unwrap();
    ended(&bench, 1).await;
    let order = &bench.toys.order("alpha")[before..];
    let place = order.iter().position(|document| *document == upload.id).unwrap();
    assert!(place < 6, "the upload was number {place} of {}", order.len());
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_whose_file_is_gone_is_left_alone_unless_its_reading_is_remembered() {
    let (bench, tenant, documents) = prepared("stage: beta", 2).await;
    let (database, registry, pipelines) = (&bench.world.database, &bench.registry, &bench.pipelines);
    let gone = documents[0].id;
    let remove = database.write(tenant, move |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE document_versions SET raw_removed_at = now() WHERE document_id = $1")
                .bind(gone.0)
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    remove.await.unwrap();
    let all = replay::ReplayFilter::default();
    let plan = replay::plan(database, registry, pipelines, tenant, &all).await.unwrap();
    assert_eq!((plan.documents, plan.skipped.len()), (2, 0), "what alpha made of it is remembered");

    let anew = replay::ReplayFilter { stage: Some("alpha".to_owned()), recompute: true, ..Default::default() };
    let plan = replay::plan(database, registry, pipelines, tenant, &anew).await.unwrap();
    assert_eq!((plan.documents, plan.skipped.get("FILE_REMOVED")), (1, Some(&1)));
    assert_eq!(plan.stages.iter().find(|stage| stage.stage == "alpha").unwrap().compute, 1);
    let (id, _) = replay::start(database, registry, pipelines, tenant, None, &anew, None).await.unwrap();
    let engine = bench.start(bench.config("one"));
    eventually("the replay is done", PATIENCE, || async {
        replay::report(database, tenant, id).await.unwrap().state == "done"
    })
    .await;
    let report = replay::report(database, tenant, id).await.unwrap();
    assert_eq!((report.runs["done"], report.skipped["FILE_REMOVED"], report.failures.len()), (1, 1, 0));
    let notes = database.read(tenant, |connection| {
        Box::pin(async move {
            Ok(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM replay_skips").fetch_one(connection).await?)
        })
    });
    assert_eq!(notes.await.unwrap(), 0, "of a replay that has ended the count is kept, not a row for each document");
    let only = replay::ReplayFilter { document_id: Some(gone), ..anew };
    let refused = replay::start(database, registry, pipelines, tenant, None, &only, None).await.unwrap_err();
    assert_eq!(refused.code, Code::FileRemoved);
    bench.healthy().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_whose_file_is_gone_take_no_room_in_a_budget() {
    let (bench, tenant, documents) = prepared("stage: alpha, recompute: true, max_documents: 1", 3).await;
    execute(
        &bench,
        tenant,
        "UPDATE document_versions SET raw_removed_at = now() WHERE id IN (
            SELECT version_id FROM runs ORDER BY created_at LIMIT 2)",
    )
    .await;
    make_due(&bench, tenant).await;
    let engine = bench.start(bench.config("one"));
    let fired = ended(&bench, 1).await;
    let runs = documents_of(&bench, fired[0].id).await;
    assert_eq!(runs.iter().map(|(document, ..)| *document).collect::<Vec<_>>(), [documents[2].id.0]);
    bench.healthy().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_one_moment_are_worked_off_within_the_budget() {
    let (bench, tenant, _) = prepared("stage: beta, recompute: true, max_documents: 2", 3).await;
    execute(&bench, tenant, "UPDATE runs SET created_at = (SELECT min(created_at) FROM runs)").await;
    make_due(&bench, tenant).await;
    let engine = bench.start(bench.config("one"));
    let fired = ended(&bench, 1).await;
    assert_eq!(documents_of(&bench, fired[0].id).await.len(), 2);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_firing_that_spends_exactly_its_budget_is_done() {
    let (bench, tenant, _) = prepared("stage: beta, recompute: true, max_cost_usd: 0.5", 1).await;
    let database = &bench.world.database;
    control::pause(database, PauseKind::Stage, "beta").await.unwrap();
    make_due(&bench, tenant).await;
    let engine = bench.start(bench.config("one"));
    one_run(&bench, "running").await;
    spend_half_a_dollar(&bench, tenant).await;
    control::resume(database, PauseKind::Stage, "beta").await.unwrap();
    let fired = ended(&bench, 1).await;
    assert_eq!((fired[0].state.as_str(), fired[0].code.as_deref()), ("done", None), "no document was left for money");
    bench.healthy().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_clock_is_behind_reckons_from_what_was_served() {
    let (bench, tenant, _) = prepared("stage: beta, recompute: true", 1).await;
    let schedule = bench.pipelines.get("toys").unwrap().schedules["nightly"].clone();
    // A node whose clock is ahead has served tomorrow's time.
    let served = schedule.cron.after(OffsetDateTime::now_utc()).unwrap();
    let serve = "UPDATE schedules SET last_slot = $1";
    let write = bench.world.database.write(tenant, move |connection| {
        Box::pin(async move { Ok(sqlx::query(serve).bind(served).execute(connection).await?) })
    });
    write.await.unwrap();
    for paused in [true, false] {
        let schedule = schedule.clone();
        let set = bench.world.database.write(tenant, move |connection| {
            Box::pin(async move { schedule::set_paused_in(connection, "toys", "nightly", &schedule, paused).await })
        });
        assert!(set.await.unwrap());
        assert!(next_at(&bench).await > served, "a pause does not lead back");
    }
    execute(&bench, tenant, "UPDATE schedules SET cron = '1 1 * * *'").await;
    let engine = bench.start(bench.config("one"));
    eventually("the row is reckoned anew", PATIENCE, || async {
        let cron: String =
            sqlx::query_scalar("SELECT cron FROM schedules").fetch_one(bench.world.database.engine()).await.unwrap();
        cron == self::cron()
    })
    .await;
    assert!(next_at(&bench).await > served, "nor does another time in the file");
    make_due(&bench, tenant).await;
    ended(&bench, 1).await;
    assert!(next_at(&bench).await > served, "nor a firing that was late");
    let last: OffsetDateTime =
        sqlx::query_scalar("SELECT last_slot FROM schedules").fetch_one(bench.world.database.engine()).await.unwrap();
    assert_eq!(last, served);
    engine.stop().await;
}
