//! Samples: what a replay would make, without showing any of it.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::Code;
use docmill_runtime::replay::{self, ReplayFilter};
use docmill_testkit::eventually;
use std::collections::BTreeSet;
use std::sync::Arc;
use support::{Bench, Document, PATIENCE, Step};
use tokio::sync::Notify;

fn beta_anew(sample: Option<i64>) -> ReplayFilter {
    ReplayFilter { stage: Some("beta".to_owned()), recompute: true, sample, ..ReplayFilter::default() }
}

async fn started(bench: &Bench, document: Document, filter: &ReplayFilter) -> (uuid::Uuid, replay::ReplayPlan) {
    let (database, registry) = (&bench.world.database, &bench.registry);
    replay::start(database, registry, &bench.pipelines, document.tenant, None, filter, None).await.unwrap()
}

async fn ended(bench: &Bench, document: Document, id: uuid::Uuid) -> replay::ReplayReport {
    let report = || async { replay::report(&bench.world.database, document.tenant, id).await.unwrap() };
    eventually("the replay is done", PATIENCE, || async { report().await.state == "done" }).await;
    report().await
}

async fn count(bench: &Bench, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(bench.world.database.engine()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_computes_what_was_planned_and_shows_nothing() {
    let bench = Bench::new().await;
    let engine = bench.start(bench.config("one"));
    let tenant = bench.world.tenant().await;
    let documents = bench.documents(tenant, 6).await;
    bench.all_final(&documents.iter().map(|document| document.run).collect::<Vec<_>>()).await;
    let told = "SELECT count(*) FROM outbox WHERE topic = 'settled'";
    let settled = count(&bench, told).await;

    bench.toys.next("beta", Step::Fail(Code::PdfMalformed));
    let (id, plan) = started(&bench, documents[0], &beta_anew(Some(3))).await;
    let report = ended(&bench, documents[0], id).await;
    let compute: Vec<(&str, i64)> = plan.stages.iter().map(|stage| (stage.stage.as_str(), stage.compute)).collect();
    assert_eq!(compute, [("alpha", 0), ("beta", 3), ("gamma", 0), ("side", 0)], "nothing that waits for settlement");
    assert_eq!((plan.documents, report.documents), (3, 3));
    assert_eq!((report.runs["done"], report.runs["failed"], report.failures["PDF_MALFORMED"]), (2, 1, 1));
    assert_eq!(bench.toys.runs("beta"), 9);
    assert_eq!(bench.toys.order("beta")[6..].iter().collect::<BTreeSet<_>>().len(), 3, "three documents");

    bench.exactly_once(&documents).await;
    assert_eq!(count(&bench, told).await, settled, "nobody is told");
    let open = "SELECT count(*) FROM jobs WHERE state = 'dead' AND resolved_at IS NULL";
    assert_eq!(count(&bench, open).await, 0, "what failed is in the report, and nobody's to deal with");
    for (status, matching) in [("done", 6), ("failed", 0)] {
        let filter = ReplayFilter { status: Some(status.to_owned()), ..ReplayFilter::default() };
        let (database, registry) = (&bench.world.database, &bench.registry);
        let plan = replay::plan(database, registry, &bench.pipelines, tenant, &filter).await.unwrap();
        assert_eq!(plan.documents, matching, "{status}: the last run is none of the sample");
    }
    // What it computed need not be computed again.
    let (id, plan) = started(&bench, documents[0], &ReplayFilter::default()).await;
    assert_eq!(plan.stages.iter().map(|stage| stage.compute).sum::<i64>(), 0);
    ended(&bench, documents[0], id).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_stands_in_nobodys_way() {
    let bench = Bench::new().await;
    let engine = bench.start(bench.config("one"));
    let tenant = bench.world.tenant().await;
    let document = bench.document(tenant).await;
    bench.settled(document.run).await;
    let go = Arc::new(Notify::new());
    bench.toys.next("beta", Step::Deaf(go.clone()));
    let (sample, _) = started(&bench, document, &beta_anew(Some(1))).await;
    eventually("the sample is at work", PATIENCE, || async { bench.toys.runs("beta") == 2 }).await;
    let (repeat, _) = started(&bench, document, &beta_anew(None)).await;
    let report = ended(&bench, document, repeat).await;
    assert_eq!((report.runs["done"], bench.commits(document, "beta").await), (1, 2));
    assert_eq!(bench.document_state(document).await, "done");
    go.notify_one();
    assert_eq!(ended(&bench, document, sample).await.runs["done"], 1);
    assert_eq!((bench.document_state(document).await, bench.commits(document, "beta").await), ("done".to_owned(), 2));
    engine.stop().await;
    bench.healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_has_bounds() {
    let bench = Bench::new().await;
    let tenant = bench.world.tenant().await;
    for sample in [0, -1, replay::SAMPLE_LIMIT + 1] {
        let (database, registry) = (&bench.world.database, &bench.registry);
        let refused = replay::plan(database, registry, &bench.pipelines, tenant, &beta_anew(Some(sample))).await;
        assert_eq!(refused.unwrap_err().code, Code::FieldInvalid, "{sample}");
    }
}
