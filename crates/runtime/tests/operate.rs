//! Fairness, pauses, expiry, deliveries, and how fast the engine is when stages do nothing.

#![allow(clippy::unwrap_used)]

mod support;

use async_trait::async_trait;
use docmill_model::{Code, DeliveryId, EndpointId, Failure};
use docmill_runtime::control::{self, PauseKind};
use docmill_runtime::deliveries::{DeliveryRequest, DeliverySender};
use docmill_runtime::{backlog, control::pauses};
use docmill_testkit::eventually;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Bench, Document, PATIENCE};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_with_many_documents_does_not_starve_one_with_few() {
    let bench = Bench::new().await;
    let (big, small) = (bench.world.tenant().await, bench.world.tenant().await);
    let many = bench.documents(big, 60).await;
    let few = bench.documents(small, 3).await;
    let engine = bench.start(bench.config("one"));
    bench.all_final(&few.iter().chain(&many).map(|document| document.run).collect::<Vec<_>>()).await;
    let few: BTreeSet<_> = few.iter().map(|document| document.id).collect();
    let order = bench.toys.order("alpha");
    let last = order.iter().rposition(|document| few.contains(document)).unwrap();
    assert!(last < 20, "the small tenant's last document was number {last} of {}", order.len());
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_had_nothing_lately_goes_before_one_that_had_much() {
    let bench = Bench::new().await;
    let (big, small) = (bench.world.tenant().await, bench.world.tenant().await);
    let mut documents = bench.documents(big, 60).await;
    let engine = bench.start(bench.config("one"));
    eventually("half is read", PATIENCE, || async { bench.toys.order("alpha").len() >= 30 }).await;
    control::pause(&bench.world.database, PauseKind::Stage, "alpha").await.unwrap();
    // What was released before the pause would run beside the few, or before them.
    eventually("nothing is under way", PATIENCE, || async {
        sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM jobs WHERE stage = 'alpha' AND (state = 'leased' OR (state = 'ready' AND emitted_at IS NOT NULL))",
        )
        .fetch_one(bench.world.database.engine())
        .await
        .unwrap()
            == 0
    })
    .await;
    let few = bench.documents(small, 6).await;
    let before = bench.toys.order("alpha").len();
    control::resume(&bench.world.database, PauseKind::Stage, "alpha").await.unwrap();
    documents.extend(&few);
    bench.all_final(&documents.iter().map(|document| document.run).collect::<Vec<_>>()).await;
    let few: BTreeSet<_> = few.iter().map(|document| document.id).collect();
    let order = &bench.toys.order("alpha")[before..];
    let last = order.iter().rposition(|document| few.contains(document)).unwrap();
    // In turn with the other tenant it would be the twelfth.
    assert!(last < 10, "the small tenant's last document was number {last} of {}", order.len());
    bench.exactly_once(&documents).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_paused_waits_and_goes_on() {
    let bench = Bench::new().await;
    let tenant = bench.world.tenant().await;
    let database = &bench.world.database;
    let subject = tenant.to_string();
    for (kind, subject, held_at) in [
        (PauseKind::Stage, "beta", "beta"),
        (PauseKind::Tenant, subject.as_str(), "alpha"),
        (PauseKind::Pipeline, "toys", "alpha"),
    ] {
        assert!(control::pause(database, kind, subject).await.unwrap());
        assert!(!control::pause(database, kind, subject).await.unwrap(), "twice is once");
        let engine = bench.start(bench.config("one"));
        let document = bench.document(tenant).await;
        if held_at == "beta" {
            bench.job_is(document.run, "alpha", "done").await;
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        let job = bench.job(document.run, held_at).await;
        assert!(matches!(job.state.as_str(), "ready" | "held"), "{kind:?}: {}", job.state);
        assert_eq!(bench.attempts(document.run, held_at).await, Vec::<String>::new());
        bench.healthy().await;
        assert_eq!(pauses(database).await.unwrap().len(), 1);
        assert!(control::resume(database, kind, subject).await.unwrap());
        assert_eq!(bench.settled(document.run).await, "done", "{kind:?}");
        bench.exactly_once(&[document]).await;
        engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_nobody_completes_expires() {
    let bench = Bench::new().await;
    let document = bench.document(bench.world.tenant().await).await;
    bench
        .world
        .database
        .write(document.tenant, move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE documents SET state = 'uploading' WHERE tenant_id = current_tenant()").execute(&mut *connection).await?;
                sqlx::query("DELETE FROM runs WHERE tenant_id = current_tenant()").execute(&mut *connection).await?;
                sqlx::query(
                    "UPDATE document_versions SET upload_state = 'pending', upload_expires_at = now() - interval '1 second'
                     WHERE tenant_id = current_tenant()",
                )
                .execute(connection)
                .await?;
                Ok(())
            })
        })
        .await
        .unwrap();
    let engine = bench.start(bench.config("one"));
    eventually("the upload expires", PATIENCE, || async { bench.document_state(document).await == "expired" }).await;
    bench.healthy().await;
    engine.stop().await;
}

/// Answers from a list, then 200; keeps what it was sent.
#[derive(Default)]
struct ScriptedSender {
    answers: Mutex<Vec<Result<u16, Failure>>>,
    sent: Mutex<Vec<DeliveryRequest>>,
}

#[async_trait]
impl DeliverySender for ScriptedSender {
    async fn send(&self, request: &DeliveryRequest) -> Result<u16, Failure> {
        self.sent.lock().unwrap().push(request.clone());
        self.answers.lock().unwrap().pop().unwrap_or(Ok(200))
    }
}

async fn delivery(bench: &Bench, document: Document) -> (DeliveryId, EndpointId) {
    let (delivery, endpoint) = (DeliveryId::fresh(), EndpointId::fresh());
    let made = bench.world.database.write(document.tenant, move |connection| {
        Box::pin(async move {
            sqlx::query("INSERT INTO webhook_endpoints (tenant_id, id, url, secrets) VALUES (current_tenant(), $1, 'https://example.com/', '{whsec_x}')")
                .bind(endpoint.0)
                .execute(&mut *connection)
                .await?;
            sqlx::query(
                "INSERT INTO deliveries (tenant_id, id, endpoint_id, document_id, run_id, payload)
                 VALUES (current_tenant(), $1, $2, $3, $4, '{\"type\": \"document.settled\"}')",
            )
            .bind(delivery.0)
            .bind(endpoint.0)
            .bind(document.id.0)
            .bind(document.run.0)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    made.await.unwrap();
    (delivery, endpoint)
}

async fn delivery_state(bench: &Bench, id: DeliveryId) -> (String, i32) {
    sqlx::query_as("SELECT state, attempts FROM deliveries WHERE id = $1")
        .bind(id.0)
        .fetch_one(bench.world.database.engine())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_tried_again_under_one_id_and_a_410_ends_them() {
    let bench = Bench::new().await;
    let document = bench.document(bench.world.tenant().await).await;
    let sender = Arc::new(ScriptedSender::default());
    *sender.answers.lock().unwrap() = vec![Err(Failure::new(Code::DeliveryFailed, "no answer"))];
    let stop = CancellationToken::new();
    let engine = bench.engine(bench.config("one"));
    let (running, token) = (sender.clone(), stop.clone());
    let loop_task = tokio::spawn(async move { engine.run_deliveries(running, token).await });

    let (first, _) = delivery(&bench, document).await;
    eventually("the first try failed", PATIENCE, || async {
        // The second follows by itself after a few seconds, on a slow machine before it is looked at.
        matches!(delivery_state(&bench, first).await, (state, tries) if state == "done" || (state == "ready" && tries == 1))
    })
    .await;
    make_due(&bench, document).await;
    eventually("the second try succeeded", PATIENCE, || async {
        delivery_state(&bench, first).await == ("done".to_owned(), 2)
    })
    .await;
    let ids: BTreeSet<DeliveryId> = sender.sent.lock().unwrap().iter().map(|request| request.id).collect();
    assert_eq!(ids, BTreeSet::from([first]), "one id over all tries");

    sender.answers.lock().unwrap().push(Ok(410));
    let (gone, endpoint) = delivery(&bench, document).await;
    eventually("the receiver is gone", PATIENCE, || async {
        delivery_state(&bench, gone).await == ("dead".to_owned(), 1)
    })
    .await;
    let disabled: bool = bench
        .world
        .database
        .read(document.tenant, move |connection| {
            Box::pin(async move {
                Ok(sqlx::query_scalar("SELECT disabled_at IS NOT NULL FROM webhook_endpoints WHERE tenant_id = current_tenant() AND id = $1")
                    .bind(endpoint.0)
                    .fetch_one(connection)
                    .await?)
            })
        })
        .await
        .unwrap();
    assert!(disabled);
    stop.cancel();
    loop_task.await.unwrap().unwrap();
}

/// Turns the clock of the deliveries.
async fn make_due(bench: &Bench, document: Document) {
    let due = bench.world.database.write(document.tenant, |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE deliveries SET next_at = now() WHERE tenant_id = current_tenant() AND state = 'ready'")
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    due.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stages_that_do_nothing_show_the_engines_own_cost() {
    let bench = Bench::new().await;
    let tenant = bench.world.tenant().await;
    let documents = bench.documents(tenant, 100).await;
    let before = backlog::backlog(&bench.world.database, Some(tenant)).await.unwrap();
    assert_eq!(before.iter().find(|row| row.stage == "alpha").map(|row| row.ready), Some(100));
    let began = Instant::now();
    let engine = bench.start(bench.config("one"));
    bench.all_final(&documents.iter().map(|document| document.run).collect::<Vec<_>>()).await;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "engine: {} no-op jobs in {seconds:.2} s, {:.0} jobs/s",
        documents.len() * 5,
        documents.len() as f64 * 5.0 / seconds
    );
    let after = backlog::backlog(&bench.world.database, Some(tenant)).await.unwrap();
    assert!(after.iter().all(|row| row.ready + row.running + row.retrying + row.held + row.dead == 0));
    bench.exactly_once(&documents).await;
    engine.stop().await;
}

/// What the backlog says, less the ages, by one look at every job there ever was.
async fn counted(bench: &Bench) -> Vec<backlog::StageBacklog> {
    sqlx::query_as(
        "SELECT tenant_id, stage, count(*) FILTER (WHERE state = 'blocked') AS blocked,
                count(*) FILTER (WHERE state = 'ready') AS ready, count(*) FILTER (WHERE state = 'leased') AS running,
                count(*) FILTER (WHERE state = 'waiting') AS retrying, count(*) FILTER (WHERE state = 'held') AS held,
                count(*) FILTER (WHERE state = 'dead' AND resolved_at IS NULL) AS dead,
                count(*) FILTER (WHERE state = 'done' AND finished_at > now() - interval '1 minute') AS done_per_minute,
                NULL::float8 AS oldest_ready_secs
         FROM jobs GROUP BY tenant_id, stage
         HAVING NOT bool_and(state = 'cancelled' OR (state = 'dead' AND resolved_at IS NOT NULL)
                             OR (state = 'done' AND finished_at <= now() - interval '1 minute'))
         ORDER BY stage, tenant_id",
    )
    .fetch_all(bench.world.database.engine())
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backlog_is_what_a_count_over_all_jobs_says() {
    let bench = Bench::new().await;
    let tenants = [bench.world.tenant().await, bench.world.tenant().await, bench.world.tenant().await];
    for tenant in tenants {
        bench.documents(tenant, 40).await;
    }
    let change = async |sql: &'static str| {
        sqlx::query(sql).execute(bench.world.database.engine()).await.unwrap();
    };
    // Every state there is, in each stage and tenant; the last tenant is through with everything long ago.
    for sql in [
        "UPDATE jobs SET state = CASE abs(hashtext(id::text)) % 9 WHEN 0 THEN 'ready' WHEN 1 THEN 'leased' WHEN 2 THEN 'waiting'
                WHEN 3 THEN 'held' WHEN 4 THEN 'dead' WHEN 5 THEN 'dead' WHEN 6 THEN 'cancelled' ELSE 'done' END,
            lease_until = CASE WHEN abs(hashtext(id::text)) % 9 = 1 THEN now() END,
            held_reason = CASE WHEN abs(hashtext(id::text)) % 9 = 3 THEN 'paused' END,
            resolved_at = CASE WHEN abs(hashtext(id::text)) % 9 = 5 THEN now() END,
            resolution = CASE WHEN abs(hashtext(id::text)) % 9 = 5 THEN 'discarded' END,
            finished_at = now() - CASE WHEN abs(hashtext(id::text)) % 9 = 7 THEN interval '10 minutes' ELSE interval '1 second' END
         WHERE state = 'ready' OR abs(hashtext(run_id::text)) % 2 = 0",
        "UPDATE jobs SET state = 'done', lease_until = NULL, held_reason = NULL, resolved_at = NULL, resolution = NULL,
            finished_at = now() - interval '1 hour' WHERE tenant_id = (SELECT max(id::text)::uuid FROM tenants)",
    ] {
        change(sql).await;
    }
    let ageless = |rows: Vec<backlog::StageBacklog>| -> Vec<backlog::StageBacklog> {
        rows.into_iter().map(|row| backlog::StageBacklog { oldest_ready_secs: None, ..row }).collect()
    };
    let all = backlog::backlog(&bench.world.database, None).await.unwrap();
    for row in &all {
        assert_eq!(row.oldest_ready_secs.is_some(), row.ready > 0, "{row:?}");
    }
    let sum = |count: fn(&backlog::StageBacklog) -> i64| all.iter().map(count).sum::<i64>();
    let sums = [
        sum(|row| row.blocked),
        sum(|row| row.ready),
        sum(|row| row.running),
        sum(|row| row.retrying),
        sum(|row| row.held),
        sum(|row| row.dead),
        sum(|row| row.done_per_minute),
    ];
    assert!(sums.iter().all(|sum| *sum > 0), "each is counted: {sums:?}");
    let counted = counted(&bench).await;
    assert_eq!(ageless(all), counted);
    let finished = tenants.iter().filter(|tenant| counted.iter().all(|row| row.tenant_id != tenant.0)).count();
    assert_eq!(finished, 1, "who is through is not listed");
    for tenant in tenants {
        let own: Vec<_> = counted.iter().filter(|row| row.tenant_id == tenant.0).cloned().collect();
        assert_eq!(ageless(backlog::backlog(&bench.world.database, Some(tenant)).await.unwrap()), own);
    }
}
