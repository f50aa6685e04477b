//! Requests that race, are dropped half-way, or come too many at once.
#![allow(clippy::unwrap_used)]

mod support;

use axum::http::Method;
use docmill_api::ApiConfig;
use docmill_api::limits::Rate;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::collections::BTreeSet;
use std::time::Duration;
use support::{Api, config, declaration, put, put_status, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_requests_with_one_key_make_one_resource() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let body = declaration("a.txt", b"some bytes");
    let requests = (0..100).map(|_| {
        let mut request = request(Method::POST, "/v1/documents", &tenant.key, Some(&body));
        request.headers_mut().insert("idempotency-key", "one".parse().unwrap());
        api.send(request)
    });
    let replies = futures::future::join_all(requests).await;
    let answers: BTreeSet<(u16, String)> = replies
        .into_iter()
        .map(|reply| (reply.status.as_u16(), reply.text))
        .filter(|(status, _)| *status != 503)
        .collect();
    assert_eq!(answers.len(), 1, "identical answers: {answers:?}");
    assert_eq!(answers.first().unwrap().0, 201);
    let listed = api.get(&tenant.key, "/v1/documents").await.ok();
    assert_eq!(listed["documents"].as_array().unwrap().len(), 1);
    let audit = api.get(&tenant.key, "/v1/audit").await.ok();
    assert_eq!(audit["entries"].as_array().unwrap().len(), 1, "one change, one row");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_declares_the_same_again_goes_on_with_the_open_declaration() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let bytes = b"an upload that was cut off";
    let declare = async |body: Value| api.post(&tenant.key, "/v1/documents", &body).await;
    let one_of = async |bodies: Vec<Value>| {
        let replies = futures::future::join_all(bodies.into_iter().map(&declare)).await;
        assert!(replies.iter().all(|reply| reply.status == 201), "all are given a URL");
        let created: Vec<Value> = replies.iter().map(|reply| reply.json().clone()).collect();
        assert!(created.iter().all(|reply| reply["deduplicated"] == false && reply["upload"]["url"].is_string()));
        let versions: BTreeSet<String> = created.iter().map(|reply| reply["version_id"].to_string()).collect();
        assert_eq!(versions.len(), 1, "whoever came first has declared it");
        created.into_iter().next().unwrap()
    };
    let plain = declaration("a.txt", bytes);
    let first = one_of(vec![plain.clone(); 20]).await;

    // What is not the same stays another.
    let mut ids = BTreeSet::from([first["id"].to_string()]);
    for (field, value) in [
        ("name", json!("b.txt")),
        ("content_type", json!("text/markdown")),
        ("metadata", json!({"year": 2025})),
        ("collection", json!("reports")),
        ("external_id", json!("contract-7")),
    ] {
        let mut other = plain.clone();
        other[field] = value;
        ids.insert(one_of(vec![other]).await["id"].to_string());
    }
    assert_eq!(ids.len(), 6);

    // Under an external id only the newest version can be completed.
    let mut named = plain.clone();
    named["external_id"] = json!("contract-7");
    let mut others = declaration("a.txt", b"other bytes");
    others["external_id"] = json!("contract-7");
    assert_eq!(one_of(vec![named.clone(); 2]).await["version"], 1);
    assert_eq!(one_of(vec![others.clone(); 2]).await["version"], 2);
    assert_eq!(one_of(vec![named.clone(); 2]).await["version"], 3);

    // One has as long as a new one again, and one that has expired is over.
    let mut owner = PgConnection::connect(api.world.owner_url.expose_secret()).await.unwrap();
    let version: uuid::Uuid = first["version_id"].as_str().unwrap().parse().unwrap();
    let brief = "UPDATE document_versions SET upload_expires_at = now() + interval '1 minute' WHERE id = $1";
    sqlx::query(brief).bind(version).execute(&mut owner).await.unwrap();
    assert_eq!(one_of(vec![plain.clone()]).await["id"], first["id"]);
    let hours = "SELECT upload_expires_at > now() + interval '23 hours' FROM document_versions WHERE id = $1";
    assert!(sqlx::query_scalar::<_, bool>(hours).bind(version).fetch_one(&mut owner).await.unwrap());
    let expired = "UPDATE document_versions SET upload_state = 'expired' WHERE id = $1";
    sqlx::query(expired).bind(version).execute(&mut owner).await.unwrap();
    let fresh = one_of(vec![plain.clone(); 2]).await;
    assert_ne!(fresh["id"], first["id"]);

    put(&fresh["upload"], bytes).await;
    let again = one_of(vec![plain.clone()]).await;
    assert_eq!(put_status(&again["upload"], bytes).await, 412, "the bytes had come before");
    let complete = format!("/v1/documents/{}/complete", again["id"].as_str().unwrap());
    api.post(&tenant.key, &complete, &Value::Null).await.ok();
    let held = declare(plain).await;
    assert_eq!((held.status.as_u16(), &held.json()["id"]), (200, &fresh["id"]), "{}", held.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_under_one_external_id_become_versions_without_gaps() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let requests = (0..20).map(|n| {
        let mut body = declaration("a.txt", format!("bytes {n}").as_bytes());
        body["external_id"] = json!("contract-7");
        let (api, key) = (&api, tenant.key.clone());
        async move { api.post(&key, "/v1/documents", &body).await.ok() }
    });
    let created = futures::future::join_all(requests).await;
    let ids: BTreeSet<String> = created.iter().map(|c| c["id"].to_string()).collect();
    let versions: BTreeSet<i64> = created.iter().map(|c| c["version"].as_i64().unwrap()).collect();
    assert_eq!((ids.len(), versions), (1, (1..=20).collect()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_request_leaves_all_or_nothing_and_no_open_transaction() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    for n in 0..300u64 {
        let body = declaration(&format!("{n}.txt"), format!("bytes {n}").as_bytes());
        let send = api.post(&tenant.key, "/v1/documents", &body);
        let _ = tokio::time::timeout(Duration::from_micros(n * 37 % 9_000), send).await;
    }
    // Whoever comes after a dropped request must find its own writes: an acknowledged write is never lost.
    let mut acknowledged = Vec::new();
    for n in 0..50 {
        let created = api
            .post(&tenant.key, "/v1/documents", &declaration("after.txt", format!("after {n}").as_bytes()))
            .await
            .ok();
        acknowledged.push(created["id"].as_str().unwrap().to_owned());
    }
    for id in &acknowledged {
        api.get(&tenant.key, &format!("/v1/documents/{id}")).await.ok();
    }
    let idle =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
    docmill_testkit::eventually("no session stays in a transaction", Duration::from_secs(60), || async {
        sqlx::query_scalar::<_, i64>(idle).fetch_one(api.world.database.engine()).await.unwrap() == 0
    })
    .await;
    let halves: i64 = api
        .world
        .database
        .read(tenant.id, |connection| {
            Box::pin(async move {
                Ok(sqlx::query_scalar(
                    "SELECT count(*) FROM documents d
                     WHERE (SELECT count(*) FROM document_versions v WHERE v.document_id = d.id) <> 1
                        OR (SELECT count(*) FROM document_events e WHERE e.document_id = d.id) <> 1
                        OR (SELECT count(*) FROM audit_log a WHERE a.subject = d.id::text) <> 1",
                )
                .fetch_one(connection)
                .await?)
            })
        })
        .await
        .unwrap();
    assert_eq!(halves, 0, "documents with a part missing");
    let verified = api.get(&tenant.key, "/v1/audit/verify").await.ok();
    assert_eq!(verified["first_broken"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_told_when_to_come_back() {
    let rate = Rate { per_sec: 0.001, burst: 3.0 };
    let api = Api::start_with(ApiConfig { rate, ..config() }).await;
    let (tenant, other) = (api.tenant().await, api.tenant().await);
    for _ in 0..3 {
        api.get(&tenant.key, "/v1/documents").await.ok();
    }
    let refused = api.get(&tenant.key, "/v1/documents").await;
    assert_eq!(refused.error(), (429, "RATE_LIMITED".to_owned()));
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    api.get(&other.key, "/v1/documents").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_process_says_so_and_still_tells_its_health() {
    let api = Api::start_with(ApiConfig { max_concurrent_requests: 0, ..config() }).await;
    let tenant = api.tenant().await;
    let refused = api.get(&tenant.key, "/v1/documents").await;
    assert_eq!(refused.error(), (503, "OVERLOADED".to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(api.get("", "/healthz").await.status, 200);
    assert_eq!(api.get("", "/readyz").await.ok()["database"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_request_ends_at_its_limit() {
    let api = Api::start_with(ApiConfig { request_timeout: Duration::ZERO, ..config() }).await;
    let tenant = api.tenant().await;
    let refused = api.get(&tenant.key, "/v1/documents").await;
    assert_eq!(refused.error(), (504, "REQUEST_TIMEOUT".to_owned()));
}
