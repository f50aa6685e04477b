//! A file that did not change is recognised by what is declared of it: no byte is sent or read, nothing is processed.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use serde_json::json;
use std::time::Instant;
use support::{Api, declaration, publish};

/// Declarations measured.
const TIMES: usize = 200;
/// Many times what it takes on an idle machine (see the printed figure), for one that is busy.
const LIMIT_MILLIS: f64 = 50.0;

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_file_costs_one_declaration() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let text = "The pier is closed on Mondays.";
    let published = publish(&api, &tenant, "pier.txt", &[text]).await;
    // Without its bytes: whoever read them would fail.
    for prefix in docmill_platform::layout::tenant_prefixes(tenant.id) {
        for entry in api.world.blobs.list(&prefix, None).await.unwrap() {
            api.world.blobs.delete(&entry.key).await.unwrap();
        }
    }
    let work = async || -> (i64, i64, i64) {
        let counts = sqlx::query_as(
            "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM jobs), (SELECT count(*) FROM document_versions)",
        );
        counts.fetch_one(api.world.database.engine()).await.unwrap()
    };
    let before = work().await;
    let mut millis = Vec::new();
    for _ in 0..TIMES {
        let started = Instant::now();
        let again = api.post(&tenant.key, "/v1/documents", &declaration("pier.txt", text.as_bytes())).await;
        millis.push(started.elapsed().as_secs_f64() * 1e3);
        assert_eq!(again.status, 200);
        let again = again.ok();
        assert_eq!((&again["id"], &again["deduplicated"]), (&json!(published.document), &json!(true)));
        assert!(again["upload"].is_null(), "there is nothing to send");
    }
    assert_eq!(work().await, before, "no run, no job, no version");
    millis.sort_by(f64::total_cmp);
    let (median, late) = (millis[TIMES / 2], millis[TIMES * 99 / 100]);
    println!("figures: an unchanged file is recognised in {median:.2} ms (p50), {late:.2} ms (p99), n = {TIMES}");
    assert!(median < LIMIT_MILLIS, "{median} ms");
}
