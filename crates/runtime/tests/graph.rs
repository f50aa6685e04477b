//! Runs from start to settlement: order, retries, dead letters, cancellation, cache.

#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::manifest::Manifest;
use docmill_model::{Code, JobId, TenantId};
use docmill_runtime::runs::cancel_run;
use docmill_runtime::{dead, doctor, replay};
use docmill_testkit::eventually;
use std::time::Duration;
use support::{Bench, Document, PATIENCE, Step};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_two_tenants_go_through_every_stage_once() {
    let bench = Bench::new().await;
    let engine = bench.start(bench.config("one"));
    let (mine, theirs) = (bench.world.tenant().await, bench.world.tenant().await);
    let mut documents = bench.documents(mine, 3).await;
    documents.extend(bench.documents(theirs, 3).await);
    let runs: Vec<_> = documents.iter().map(|document| document.run).collect();
    bench.all_final(&runs).await;
    bench.exactly_once(&documents).await;
    assert_eq!(
        feed(&bench, documents[0]).await,
        [
            "run.started",
            "stage.done alpha",
            "stage.done beta",
            "stage.done side",
            "stage.done gamma",
            "run.settled",
            "stage.done tail"
        ]
    );
    let manifest: serde_json::Value =
        sqlx::query_scalar("SELECT manifest FROM jobs WHERE run_id = $1 AND stage = 'gamma'")
            .bind(documents[0].run.0)
            .fetch_one(bench.world.database.engine())
            .await
            .unwrap();
    let manifest: Manifest = serde_json::from_value(manifest).unwrap();
    assert_eq!(manifest.facts["inputs"], serde_json::json!(["alpha", "beta"]), "only what comes before, in order");
    // Listeners outside hear of every settled run.
    eventually("settled events are sent", PATIENCE, || async {
        let unsent: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox WHERE sent_at IS NULL")
            .fetch_one(bench.world.database.engine())
            .await
            .unwrap();
        unsent == 0
    })
    .await;
    engine.stop().await;
}

/// The document's feed, with parallel branches in one order.
async fn feed(bench: &Bench, document: Document) -> Vec<String> {
    let rows: Vec<(String, Option<String>)> = bench
        .world
        .database
        .read(document.tenant, move |connection| {
            Box::pin(async move {
                Ok(sqlx::query_as(
                    "SELECT kind, data ->> 'stage' FROM document_events
                     WHERE tenant_id = current_tenant() AND document_id = $1 AND kind <> 'toy.commit' ORDER BY id",
                )
                .bind(document.id.0)
                .fetch_all(connection)
                .await?)
            })
        })
        .await
        .unwrap();
    let mut feed: Vec<String> =
        rows.into_iter().map(|(kind, stage)| stage.map_or(kind.clone(), |stage| format!("{kind} {stage}"))).collect();
    if let Some(at) = feed.iter().position(|line| line == "stage.done side") {
        let side = feed.remove(at);
        feed.insert(3, side);
    }
    feed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transient_failures_are_tried_again_and_panics_are_failures() {
    let bench = Bench::new().await;
    let engine = bench.start(bench.config("one"));
    bench.toys.next("beta", Step::Fail(Code::ProviderError));
    bench.toys.next("beta", Step::Panic);
    bench.toys.next("gamma", Step::Snooze(Duration::from_millis(30)));
    bench.toys.next("side", Step::RefuseCommit(Code::ProviderError));
    let document = bench.document(bench.world.tenant().await).await;
    assert_eq!(bench.settled(document.run).await, "done");
    assert_eq!(bench.attempts(document.run, "beta").await, ["failed", "failed", "done"]);
    assert_eq!(bench.attempts(document.run, "gamma").await, ["snoozed", "done"]);
    assert_eq!(bench.attempts(document.run, "side").await, ["failed", "done"]);
    let beta = bench.job(document.run, "beta").await;
    assert_eq!((beta.failed, beta.lost, beta.code), (2, 0, None), "a done job keeps no failure");
    bench.exactly_once(&[document]).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_has_its_cause_and_a_retry_costs_only_what_is_missing() {
    let bench = Bench::new().await;
    let engine = bench.start(bench.config("one"));
    bench.toys.next("beta", Step::Fail(Code::PdfMalformed));
    let document = bench.document(bench.world.tenant().await).await;
    assert_eq!(bench.settled(document.run).await, "failed");
    assert_eq!(bench.document_state(document).await, "failed");
    assert_eq!(bench.job(document.run, "gamma").await.state, "cancelled");
    assert_eq!(bench.job(document.run, "side").await.state, "done");
    assert_eq!(bench.job(document.run, "tail").await.state, "done", "settlement is told, whatever it is");
    bench.healthy().await;

    let list = dead::list(&bench.world.database, document.tenant, dead::DeadFilter::default()).await.unwrap();
    assert_eq!(list.len(), 1);
    let id = JobId(list[0].job_id);
    let detail = dead::show(&bench.world.database, document.tenant, id).await.unwrap();
    assert_eq!((detail.job.stage.as_str(), detail.job.code.as_deref()), ("beta", Some("PDF_MALFORMED")));
    assert_eq!(detail.attempts.len(), 1);
    assert_eq!(detail.inputs.iter().map(|(stage, _)| stage.as_str()).collect::<Vec<_>>(), ["alpha", "side"]);

    let run = dead::retry(&bench.world.database, &bench.pipelines, document.tenant, id).await.unwrap();
    assert_eq!(bench.settled(run).await, "done");
    assert!(bench.job(run, "alpha").await.cached && bench.job(run, "side").await.cached);
    assert!(!bench.job(run, "beta").await.cached);
    assert_eq!((bench.toys.runs("alpha"), bench.toys.runs("beta")), (1, 2));
    assert_eq!(bench.document_state(document).await, "done");
    let open = dead::list(&bench.world.database, document.tenant, dead::DeadFilter::default()).await.unwrap();
    assert_eq!(open, [], "dealt with");
    let again = dead::retry(&bench.world.database, &bench.pipelines, document.tenant, id).await.unwrap_err();
    assert_eq!(again.code, Code::Conflict);
    let stranger = dead::show(&bench.world.database, TenantId::fresh(), id).await.unwrap_err();
    assert_eq!(stranger.code, Code::NotFound);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_optional_stage_that_dies_makes_the_run_partial() {
    let bench = Bench::new().await;
    let engine = bench.start(bench.config("one"));
    for _ in 0..3 {
        bench.toys.next("side", Step::Fail(Code::Internal));
    }
    let document = bench.document(bench.world.tenant().await).await;
    assert_eq!(bench.settled(document.run).await, "partial");
    assert_eq!(bench.job(document.run, "gamma").await.state, "done");
    let side = bench.job(document.run, "side").await;
    assert_eq!((side.state.as_str(), side.failed, side.code.as_deref()), ("dead", 3, Some("INTERNAL")));
    bench.healthy().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_past_its_time_limit_is_a_dead_letter_after_three() {
    let bench = Bench::new().await;
    bench.toys.limit(Duration::from_secs(1));
    let engine = bench.start(bench.config("one"));
    for _ in 0..3 {
        bench.toys.next("alpha", Step::Deaf(Default::default()));
    }
    let document = bench.document(bench.world.tenant().await).await;
    assert_eq!(bench.settled(document.run).await, "failed");
    let alpha = bench.job(document.run, "alpha").await;
    assert_eq!((alpha.failed, alpha.lost, alpha.code.as_deref()), (3, 0, Some("STAGE_TIMEOUT")));
    bench.healthy().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dependency_that_is_down_burns_no_attempt() {
    let bench = Bench::new().await;
    let engine = bench.start(bench.config("one"));
    for _ in 0..6 {
        bench.toys.next("alpha", Step::Fail(Code::StoreUnavailable));
    }
    let document = bench.document(bench.world.tenant().await).await;
    assert_eq!(bench.settled(document.run).await, "done");
    assert_eq!(bench.job(document.run, "alpha").await.failed, 0);
    bench.exactly_once(&[document]).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_stops_and_its_late_commit_is_fenced_off() {
    let bench = Bench::new().await;
    let engine = bench.start(bench.config("one"));
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    bench.toys.next("beta", Step::Deaf(go.clone()));
    let document = bench.document(bench.world.tenant().await).await;
    bench.job_is(document.run, "beta", "leased").await;
    eventually("beta runs", PATIENCE, || async { bench.toys.runs("beta") == 1 }).await;
    let cancel = |run| {
        bench
            .world
            .database
            .write(document.tenant, move |connection| Box::pin(async move { cancel_run(connection, run).await }))
    };
    assert!(cancel(document.run).await.unwrap());
    assert!(!cancel(document.run).await.unwrap(), "twice is once");
    go.notify_one();
    assert_eq!(bench.settled(document.run).await, "cancelled");
    assert_eq!(bench.document_state(document).await, "cancelled");
    assert_eq!(bench.attempts(document.run, "beta").await, ["cancelled"]);
    assert_eq!(bench.job(document.run, "tail").await.state, "done");
    engine.stop().await;
    assert_eq!(bench.commits(document, "beta").await, 0);
    bench.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_repeats_from_the_cache_and_recomputes_what_is_asked() {
    let bench = Bench::new().await;
    let engine = bench.start(bench.config("one"));
    let tenant = bench.world.tenant().await;
    let documents = bench.documents(tenant, 4).await;
    bench.all_final(&documents.iter().map(|document| document.run).collect::<Vec<_>>()).await;
    let filter = replay::ReplayFilter { stage: Some("beta".to_owned()), recompute: true, ..Default::default() };
    let database = &bench.world.database;
    let plan = replay::plan(database, &bench.registry, &bench.pipelines, tenant, &filter).await.unwrap();
    assert_eq!(plan.documents, 4);
    let compute: Vec<(&str, i64)> = plan.stages.iter().map(|stage| (stage.stage.as_str(), stage.compute)).collect();
    assert_eq!(compute, [("alpha", 0), ("beta", 4), ("gamma", 0), ("side", 0), ("tail", 0)]);

    let (id, planned) =
        replay::start(database, &bench.registry, &bench.pipelines, tenant, None, &filter, None).await.unwrap();
    eventually("the replay is done", PATIENCE, || async {
        replay::report(database, tenant, id).await.unwrap().state == "done"
    })
    .await;
    let tail_done =
        || async { replay::report(database, tenant, id).await.unwrap().stages.iter().all(|stage| stage.open == 0) };
    eventually("what settlement releases is done", PATIENCE, tail_done).await;
    let report = replay::report(database, tenant, id).await.unwrap();
    assert_eq!((report.documents, report.runs.get("done"), report.without_run), (4, Some(&4), 0));
    for stage in &planned.stages {
        let done = report.stages.iter().find(|done| done.stage == stage.stage).unwrap();
        assert_eq!((stage.compute, stage.cached), (done.computed, done.cached), "{}: planned and done", stage.stage);
    }
    assert_eq!((bench.toys.runs("alpha"), bench.toys.runs("beta"), bench.toys.runs("gamma")), (4, 8, 4));
    assert_eq!(doctor::examine(database).await.unwrap().violations, []);
    let nothing = replay::ReplayFilter { status: Some("failed".to_owned()), ..Default::default() };
    let refused =
        replay::start(database, &bench.registry, &bench.pipelines, tenant, None, &nothing, None).await.unwrap_err();
    assert_eq!(refused.code, Code::NotFound);
    engine.stop().await;
}
