//! What breaks: workers die, leases are lost, the stream is wiped, events repeat or are garbage, processes stop.

#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::event::JobEvent;
use docmill_model::{JobId, TenantId};
use docmill_runtime::control::{self, PauseKind};
use docmill_runtime::{Engine, doctor};
use docmill_testkit::{Told, eventually};
use std::sync::Arc;
use std::time::Duration;
use support::{Bench, Frozen, LEASE, PATIENCE, Step};
use time::OffsetDateTime;
use tokio::sync::Notify;

/// Waits until the database's clock is past a moment.
async fn is_past(bench: &Bench, moment: OffsetDateTime) {
    eventually("time passes", PATIENCE, || async {
        sqlx::query_scalar("SELECT now() > $1").bind(moment).fetch_one(bench.world.database.engine()).await.unwrap()
    })
    .await;
}

async fn jetstream(bench: &Bench) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(bench.world.nats().await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_anywhere_is_replaced_and_effects_happen_once() {
    for point in ["claim.after", "run.after", "commit.before", "commit.inside", "commit.after", "publish.after"] {
        let bench = Bench::new().await;
        let frozen = Frozen::at(&if point.starts_with("publish") { point.to_owned() } else { format!("{point}@beta") });
        let mut config = bench.config("dies");
        config.failpoints = frozen.failpoints.clone();
        let dying = bench.start(config);
        let document = bench.document(bench.world.tenant().await).await;
        frozen.reached().await;
        dying.kill();
        bench.close_open_transactions().await;
        bench.lose_leases(document.run).await;
        let engine = bench.start(bench.config("lives"));
        assert_eq!(bench.settled(document.run).await, "done", "{point}");
        bench.exactly_once(&[document]).await;
        match point {
            "claim.after" | "run.after" | "commit.before" | "commit.inside" => {
                assert_eq!(bench.attempts(document.run, "beta").await, ["lost", "done"], "{point}");
            }
            _ => assert_eq!(bench.attempts(document.run, "beta").await, ["done"], "{point}"),
        }
        engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_lost_its_lease_cannot_commit() {
    let bench = Bench::new().await;
    let go = Arc::new(Notify::new());
    bench.toys.next("beta", Step::Deaf(go.clone()));
    let engine = bench.start(bench.config("one"));
    let document = bench.document(bench.world.tenant().await).await;
    eventually("beta runs", PATIENCE, || async { bench.toys.runs("beta") == 1 }).await;
    // As if the process had been stopped for longer than its lease.
    eventually("the lease is lost", PATIENCE, || async {
        sqlx::query("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE run_id = $1 AND stage = 'beta' AND fence = 1 AND state = 'leased'")
            .bind(document.run.0)
            .execute(bench.world.database.engine())
            .await
            .unwrap();
        bench.job(document.run, "beta").await.lost == 1
    })
    .await;
    go.notify_one();
    assert_eq!(bench.settled(document.run).await, "done");
    assert_eq!(bench.attempts(document.run, "beta").await, ["lost", "done"]);
    bench.exactly_once(&[document]).await;
    engine.stop().await;
    assert_eq!(bench.toys.runs("beta"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_job_keeps_its_lease() {
    let bench = Bench::new().await;
    let go = Arc::new(Notify::new());
    bench.toys.next("beta", Step::Deaf(go.clone()));
    let engine = bench.start(bench.config("one"));
    let document = bench.document(bench.world.tenant().await).await;
    eventually("beta runs", PATIENCE, || async { bench.toys.runs("beta") == 1 }).await;
    let claimed_until: OffsetDateTime =
        sqlx::query_scalar("SELECT lease_until FROM jobs WHERE run_id = $1 AND stage = 'beta'")
            .bind(document.run.0)
            .fetch_one(bench.world.database.engine())
            .await
            .unwrap();
    is_past(&bench, claimed_until + Duration::from_secs(1)).await;
    go.notify_one();
    assert_eq!(bench.settled(document.run).await, "done");
    assert_eq!(bench.attempts(document.run, "beta").await, ["done"], "renewed beyond the lease it was claimed with");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_stream_and_a_deleted_consumer_lose_nothing() {
    let bench = Bench::new().await;
    let engine = bench.start(bench.config("one"));
    let tenant = bench.world.tenant().await;
    let mut documents = bench.documents(tenant, 10).await;
    let context = jetstream(&bench).await;
    let stream = format!("{}-jobs", bench.world.stream_prefix);
    eventually("work began", PATIENCE, || async { bench.toys.runs("alpha") > 2 }).await;
    context.delete_stream(&stream).await.unwrap();
    documents.extend(bench.documents(tenant, 10).await);
    eventually("the stream is back", PATIENCE, || async { context.get_stream(&stream).await.is_ok() }).await;
    context.delete_consumer_from_stream("stage-beta", &stream).await.ok();
    bench.all_final(&documents.iter().map(|document| document.run).collect::<Vec<_>>()).await;
    bench.exactly_once(&documents).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_shuffled_and_unreadable_events_change_nothing() {
    let bench = Bench::new().await;
    let (one, two) = (bench.start(bench.config("one")), bench.start(bench.config("two")));
    let documents = bench.documents(bench.world.tenant().await, 8).await;
    let context = jetstream(&bench).await;
    let prefix = &bench.world.stream_prefix;
    let stream = format!("{prefix}-jobs");
    eventually("the stream is there", PATIENCE, || async { context.get_stream(&stream).await.is_ok() }).await;
    for round in 0..10 {
        let jobs: Vec<(uuid::Uuid, uuid::Uuid, String)> =
            sqlx::query_as("SELECT tenant_id, id, stage FROM jobs ORDER BY random()")
                .fetch_all(bench.world.database.engine())
                .await
                .unwrap();
        for (tenant, job, stage) in jobs {
            let event = JobEvent {
                v: 1,
                tenant_id: TenantId(tenant),
                job_id: JobId(job),
                stage: stage.clone(),
                emission: round,
                traceparent: None,
            };
            let body = serde_json::to_vec(&event).unwrap();
            context.publish(format!("{prefix}.job.{stage}"), body.into()).await.unwrap().await.ok();
        }
    }
    let garbage: [&[u8]; 4] = [
        b"not json",
        b"{\"v\":9,\"tenant_id\":\"00000000-0000-0000-0000-000000000000\",\"job_id\":\"00000000-0000-0000-0000-000000000000\",\"stage\":\"beta\",\"emission\":0}",
        b"{\"v\":1,\"surprise\":true}",
        b"",
    ];
    for body in garbage {
        context.publish(format!("{prefix}.job.beta"), body.into()).await.unwrap().await.unwrap();
    }
    bench.all_final(&documents.iter().map(|document| document.run).collect::<Vec<_>>()).await;
    eventually("garbage is parked", PATIENCE, || async {
        let parked: i64 = sqlx::query_scalar("SELECT count(*) FROM parked_events")
            .fetch_one(bench.world.database.engine())
            .await
            .unwrap();
        parked == 4
    })
    .await;
    bench.exactly_once(&documents).await;
    for document in &documents {
        assert_eq!(bench.attempts(document.run, "beta").await, ["done"], "claimed once");
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_burns_no_attempt() {
    let bench = Bench::new().await;
    bench.toys.next("beta", Step::Hang);
    let engine = bench.start(bench.config("one"));
    let document = bench.document(bench.world.tenant().await).await;
    eventually("beta runs", PATIENCE, || async { bench.toys.runs("beta") == 1 }).await;
    let began = std::time::Instant::now();
    engine.stop().await;
    assert!(began.elapsed() < Duration::from_secs(30), "took {:?}", began.elapsed());
    let beta = bench.job(document.run, "beta").await;
    assert_eq!((beta.state.as_str(), beta.failed, beta.lost), ("ready", 0, 0));
    let engine = bench.start(bench.config("two"));
    assert_eq!(bench.settled(document.run).await, "done");
    assert_eq!(bench.attempts(document.run, "beta").await, ["released", "done"]);
    bench.exactly_once(&[document]).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_that_kills_workers_is_parked_alone() {
    let bench = Bench::new().await;
    let document = bench.document(bench.world.tenant().await).await;
    // Nine workers have died of it already.
    sqlx::query("UPDATE jobs SET lost = 9 WHERE run_id = $1 AND stage = 'alpha'")
        .bind(document.run.0)
        .execute(bench.world.database.engine())
        .await
        .unwrap();
    let frozen = Frozen::at("run.before@alpha");
    let mut config = bench.config("dies");
    config.failpoints = frozen.failpoints.clone();
    let dying = bench.start(config);
    frozen.reached().await;
    dying.kill();
    bench.lose_leases(document.run).await;
    let engine = bench.start(bench.config("lives"));
    assert_eq!(bench.settled(document.run).await, "failed");
    let alpha = bench.job(document.run, "alpha").await;
    assert_eq!((alpha.state.as_str(), alpha.lost, alpha.code.as_deref()), ("dead", 10, Some("WORKER_LOST")));
    bench.healthy().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_turn_beside_a_killer_holds_no_lease() {
    let bench = Bench::new().await;
    let tenant = bench.world.tenant().await;
    let go = Arc::new(Notify::new());
    bench.toys.next("alpha", Step::Deaf(go.clone()));
    let mut config = bench.config("one");
    // What waits is heard of at each third of a lease: a slow machine has the rest to do it in.
    config.reemit_after = LEASE;
    let engine = bench.start(config);
    let running = bench.document(tenant).await;
    eventually("one job runs", PATIENCE, || async { bench.toys.runs("alpha") == 1 }).await;
    // It has killed workers before, so it waits until nothing else runs here.
    let database = &bench.world.database;
    let paused = bench.world.tenant().await;
    control::pause(database, PauseKind::Tenant, &paused.to_string()).await.unwrap();
    let killer = bench.document(paused).await;
    sqlx::query("UPDATE jobs SET lost = 5 WHERE run_id = $1 AND stage = 'alpha'")
        .bind(killer.run.0)
        .execute(database.engine())
        .await
        .unwrap();
    control::resume(database, PauseKind::Tenant, &paused.to_string()).await.unwrap();
    let emitted = || async {
        sqlx::query_scalar::<_, Option<OffsetDateTime>>(
            "SELECT emitted_at FROM jobs WHERE run_id = $1 AND stage = 'alpha'",
        )
        .bind(killer.run.0)
        .fetch_one(database.engine())
        .await
        .unwrap()
    };
    eventually("its event is sent", PATIENCE, || async { emitted().await.is_some() }).await;
    let sent = emitted().await;
    eventually("it is heard of while it waits", PATIENCE, || async { emitted().await > sent }).await;
    let others = bench.documents(tenant, 4).await;
    is_past(&bench, sent.unwrap() + LEASE + Duration::from_secs(1)).await;
    // Another process may take any of them; before, each held its lease while it waited.
    let states: Vec<(String, i64)> =
        sqlx::query_as("SELECT state, count(*) FROM jobs WHERE stage = 'alpha' GROUP BY state ORDER BY state")
            .fetch_all(database.engine())
            .await
            .unwrap();
    assert_eq!(states, [("leased".to_owned(), 1), ("ready".to_owned(), 5)]);
    let emission: i32 = sqlx::query_scalar("SELECT emission FROM jobs WHERE run_id = $1 AND stage = 'alpha'")
        .bind(killer.run.0)
        .fetch_one(database.engine())
        .await
        .unwrap();
    assert_eq!(emission, 1, "what waits for its turn was heard, and nobody released it again");
    // A pause that comes while a job waits for its turn holds it back as well.
    control::pause(database, PauseKind::Tenant, &paused.to_string()).await.unwrap();
    go.notify_one();
    for document in others.iter().chain([&running]) {
        assert_eq!(bench.settled(document.run).await, "done");
    }
    assert_eq!(bench.attempts(killer.run, "alpha").await, Vec::<String>::new());
    control::resume(database, PauseKind::Tenant, &paused.to_string()).await.unwrap();
    for document in others.iter().chain([&killer, &running]) {
        assert_eq!(bench.settled(document.run).await, "done");
        assert_eq!(bench.attempts(document.run, "alpha").await, ["done"]);
    }
    bench.healthy().await;
    engine.stop().await;
}

/// On one thread: what is told on others reaches no recorder.
#[tokio::test]
async fn an_injected_orphan_is_found_and_healed() {
    let told = Told::nothing();
    let _heard = told.listen();
    let bench = Bench::new().await;
    let engine: Engine = bench.engine(bench.config("one"));
    let document = bench.document(bench.world.tenant().await).await;
    // Its event was never written, and nobody noticed for a minute.
    sqlx::query("DELETE FROM outbox").execute(bench.world.database.engine()).await.unwrap();
    sqlx::query("UPDATE jobs SET updated_at = now() - interval '1 minute'")
        .execute(bench.world.database.engine())
        .await
        .unwrap();
    let found = doctor::examine(&bench.world.database).await.unwrap();
    assert_eq!(found.violations.len(), 1, "{found:?}");
    assert_eq!(found.violations[0].invariant, "ready_job_has_event");
    let violations = || ["ready_job_has_event", "lease_is_live"].map(|name| told.violations_of(name));
    assert_eq!(violations(), [None, None], "to examine tells nobody");
    found.publish();
    assert_eq!(violations(), [Some(1.0), Some(0.0)]);
    let running = support::Running::new(engine);
    assert_eq!(bench.settled(document.run).await, "done");
    bench.exactly_once(&[document]).await;
    eventually("the reconciler tells that it is healed", PATIENCE, || async { violations() == [Some(0.0); 2] }).await;
    running.stop().await;
}

/// On one thread: what is told on others reaches no recorder.
#[tokio::test]
async fn what_there_is_no_time_for_is_neither_judged_nor_told_and_takes_turns() {
    let told = Told::nothing();
    let _heard = told.listen();
    let bench = Bench::new().await;
    let (database, over) = (&bench.world.database, tokio::time::Instant::now());
    bench.world.tenant().await;
    let (mut unfinished, plenty) = (Vec::new(), over + Duration::from_secs(60));
    for first in [0, 1, 7] {
        let examined = doctor::examine_content(database, over, first).await.unwrap();
        examined.publish();
        assert_eq!((examined.violations, examined.judged, examined.in_turn), (vec![], vec![], 0));
        unfinished.push(examined.unfinished);
    }
    let examined = doctor::examine_content(database, plenty, 1).await.unwrap();
    assert_eq!((examined.judged, examined.unfinished, examined.in_turn), (unfinished[1].clone(), vec![], 6));
    assert_eq!(unfinished[1], unfinished[2], "any number will do");
    // Two cost nothing and are looked at always; the others begin with another one each time.
    unfinished[0][2..].rotate_left(1);
    assert_eq!(unfinished[0], unfinished[1]);
    for name in &unfinished[0] {
        assert_eq!(told.violations_of(name), None, "{name}");
    }
}
