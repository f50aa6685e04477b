//! A foreign identifier cannot be told from an unknown one, on any route: same status, same bytes.
#![allow(clippy::unwrap_used)]

mod support;

use axum::http::{HeaderMap, Method};
use docmill_api::ApiConfig;
use docmill_model::scope::Scope;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::{Api, Reply, Tenant, config, publish, request};

/// What tenant A owns, by the parameter that names it: `path prefix {parameter}` → identifier.
async fn possessions(api: &Api, a: &Tenant) -> BTreeMap<&'static str, String> {
    let published = publish(api, a, "secret.txt", &["The marker is Zaphod.", "Nothing else."]).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let answer = api.post(&a.key, "/v1/answers", &json!({"question": "What is the marker?"})).await.ok();
    let conversation = api.post(&a.key, "/v1/conversations", &json!({})).await.ok();
    let key = api.post(&a.key, "/v1/keys", &json!({"name": "k", "scopes": ["query"]})).await.ok();
    let webhook = api.post(&a.key, "/v1/webhooks", &json!({"url": "https://example.com/hook"})).await.ok();
    let replay = api.post(&a.key, "/v1/operate/replays", &json!({"select": {}})).await.ok();
    let delivery = delivery(api, a, &text(&webhook["id"]), &published).await;
    let dead = dead_job(api, a).await;
    let gone = publish(api, a, "gone.txt", &["Gone."]).await.document;
    let deletion = api.delete(&a.key, &format!("/v1/documents/{gone}")).await.ok();
    BTreeMap::from([
        ("/v1/documents/{id}", published.document),
        ("/v1/documents/{id}/pages/{page}", "1.png".to_owned()),
        ("/v1/answers/{id}", text(&answer["id"])),
        ("/v1/conversations/{id}", text(&conversation["id"])),
        ("/v1/keys/{id}", text(&key["id"])),
        ("/v1/webhooks/{id}", text(&webhook["id"])),
        ("/v1/webhooks/{id}/deliveries/{delivery}", delivery),
        ("/v1/deletions/{id}", text(&deletion["id"])),
        ("/v1/tenants/{id}", a.id.to_string()),
        ("/v1/operate/jobs/{id}", published.job),
        ("/v1/operate/runs/{id}", published.run),
        ("/v1/operate/dead/{id}", dead),
        ("/v1/operate/replays/{id}", text(&replay["id"])),
        ("/v1/operate/pauses/{kind}/{subject}", a.id.to_string()),
    ])
}

async fn delivery(api: &Api, a: &Tenant, webhook: &str, published: &support::Published) -> String {
    let ids: Vec<uuid::Uuid> =
        [webhook, &published.document, &published.run].iter().map(|id| id.parse().unwrap()).collect();
    let id = uuid::Uuid::now_v7();
    let write = api.world.database.write(a.id, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO deliveries (tenant_id, id, endpoint_id, document_id, run_id, payload, state)
                 VALUES (current_tenant(), $1, $2, $3, $4, '{}', 'dead')",
            )
            .bind(id)
            .bind(ids[0])
            .bind(ids[1])
            .bind(ids[2])
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    write.await.unwrap();
    id.to_string()
}

async fn dead_job(api: &Api, a: &Tenant) -> String {
    let document: uuid::Uuid = api.upload(&a.key, "broken.pdf", b"%PDF-broken").await.parse().unwrap();
    let write = api.world.database.write(a.id, move |connection| {
        Box::pin(async move {
            let job: uuid::Uuid = sqlx::query_scalar(
                "UPDATE jobs SET state = 'dead', code = 'PDF_MALFORMED', finished_at = now() WHERE document_id = $1 RETURNING id",
            )
            .bind(document)
            .fetch_one(&mut *connection)
            .await?;
            sqlx::query("UPDATE runs SET state = 'failed', settled_at = now() WHERE document_id = $1")
                .bind(document)
                .execute(connection)
                .await?;
            Ok(job)
        })
    });
    write.await.unwrap().to_string()
}

/// The path with `ids` of A or, where `ids` is empty, with fresh ones.
fn fill(path: &str, ids: &BTreeMap<&'static str, String>) -> Option<String> {
    let mut filled = path.to_owned();
    let mut prefix = String::new();
    for segment in path.split('/').skip(1) {
        prefix = format!("{prefix}/{segment}");
        if !segment.starts_with('{') {
            continue;
        }
        let value = match segment {
            // Pipelines and their schedules belong to the installation, not to a tenant.
            "{name}" | "{pipeline}" => return None,
            "{kind}" => "tenant".to_owned(),
            _ if ids.is_empty() => uuid::Uuid::now_v7().to_string(),
            _ => ids.get(prefix.as_str()).unwrap_or_else(|| panic!("this test owns nothing for {prefix}")).clone(),
        };
        filled = filled.replacen(segment, &value, 1);
    }
    (filled != path).then_some(filled)
}

/// A body that the route accepts.
fn body(path: &str) -> Option<Value> {
    match path.rsplit('/').next().unwrap_or_default() {
        "state" => Some(json!({"state": "paused"})),
        "difference" => Some(json!({})),
        "feedback" => Some(json!({"verdict": "helpful"})),
        "messages" => Some(json!({"question": "What is the marker?"})),
        _ => None,
    }
}

fn comparable(reply: &Reply) -> (u16, String, HeaderMap) {
    let mut headers = reply.headers.clone();
    headers.remove("x-request-id");
    (reply.status.as_u16(), reply.text.clone(), headers)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_foreign_ids_as_unknown_ones() {
    let api = Api::start().await;
    let (a, b) = (api.tenant().await, api.tenant().await);
    let owned = possessions(&api, &a).await;
    let document = serde_json::to_value(docmill_api::openapi()).unwrap();
    let mut walked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let Some(foreign) = fill(path, &owned) else { continue };
            let unknown = fill(path, &BTreeMap::new()).unwrap();
            let method: Method = method.to_uppercase().parse().unwrap();
            let foreign = api.send(request(method.clone(), &foreign, &b.key, body(path).as_ref())).await;
            let unknown = api.send(request(method.clone(), &unknown, &b.key, body(path).as_ref())).await;
            assert_eq!(comparable(&foreign), comparable(&unknown), "{method} {path}");
            assert_eq!(foreign.error(), (404, "NOT_FOUND".to_owned()), "{method} {path}");
            walked += 1;
        }
    }
    assert!(walked >= 20, "only {walked} routes take an identifier");
    // And the owner still has everything: nothing was changed by the walk.
    for (path, id) in owned.iter().filter(|(path, _)| ["/v1/documents/{id}", "/v1/operate/dead/{id}"].contains(path)) {
        api.get(&a.key, &path.replace("{id}", id)).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_ids_in_filters_and_bodies_find_nothing() {
    let api = Api::start().await;
    let (a, b) = (api.tenant().await, api.tenant().await);
    let published = publish(&api, &a, "secret.txt", &["The marker is Zaphod."]).await;
    let search = |key: String, mode: &str, id: &str| {
        let body = json!({"query": "Zaphod marker", "mode": mode, "filters": {"document_ids": [id]}});
        let api = &api;
        async move { api.post(&key, "/v1/search", &body).await.ok()["hits"].as_array().unwrap().len() }
    };
    assert_eq!(search(a.key.clone(), "dense", &published.document).await, 1, "the owner finds it");
    assert_eq!(search(b.key.clone(), "dense", &published.document).await, 0);
    let jobs = api.get(&b.key, &format!("/v1/operate/jobs?document={}", published.document)).await.ok();
    assert_eq!(jobs["jobs"], json!([]));
    let dead = api.get(&b.key, &format!("/v1/operate/dead?document={}", published.document)).await.ok();
    assert_eq!(dead["jobs"], json!([]));
    let plan = json!({"select": {"document_id": published.document}});
    assert_eq!(api.post(&b.key, "/v1/operate/replays/plan", &plan).await.ok()["documents"], 0);
    // A schedule is everybody's, how it stands is each tenant's own: what one does another neither sees nor feels.
    let nightly = "/v1/operate/schedules/default/nightly";
    api.post(&a.key, &format!("{nightly}/state"), &json!({"state": "paused"})).await.ok();
    let run = api.post(&a.key, &format!("{nightly}/run"), &Value::Null).await.ok()["id"].clone();
    let standing = api.get(&b.key, "/v1/operate/schedules").await.ok()["schedules"][0].clone();
    assert_eq!((&standing["state"], &standing["last_replay"]), (&json!("waiting"), &Value::Null), "{standing}");
    assert_eq!(api.post(&b.key, &format!("{nightly}/plan"), &Value::Null).await.ok()["documents"], 0);
    assert_eq!(api.post(&b.key, &format!("{nightly}/run"), &Value::Null).await.error().0, 404);
    let resumed = api.post(&b.key, &format!("{nightly}/state"), &json!({"state": "waiting"})).await;
    assert_eq!(resumed.error(), (409, "CONFLICT".to_owned()), "it is not the other's pause that ends");
    let theirs = api.get(&a.key, "/v1/operate/schedules").await.ok()["schedules"][0].clone();
    assert_eq!((&theirs["state"], &theirs["last_replay"]), (&json!("paused"), &run), "{theirs}");
    for path in [
        "/v1/documents",
        "/v1/collections",
        "/v1/operate/jobs",
        "/v1/operate/dead",
        "/v1/operate/replays",
        "/v1/operate/schedules",
        "/v1/operate/backlog",
    ] {
        let text = api.get(&b.key, path).await.ok().to_string();
        assert!(!text.contains(&published.document) && !text.contains(&a.id.to_string()), "{path}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_hide_a_document_from_callers_without_them() {
    let api = Api::start().await;
    let tenant = api.world.tenant().await;
    let insider = api.key(tenant, &Scope::ALL, &["hr"]).await;
    let outsider = api.key(tenant, &Scope::ALL, &["sales"]).await;
    let mut declared = support::declaration("pay.txt", b"salaries");
    declared["labels"] = json!(["hr"]);
    declared["external_id"] = json!("pay");
    let created = api.post(&insider, "/v1/documents", &declared).await.ok();
    let path = format!("/v1/documents/{}", created["id"].as_str().unwrap());
    api.get(&insider, &path).await.ok();
    for path in [
        path.clone(),
        format!("{path}/events"),
        format!("{path}/jobs"),
        format!("{path}/versions"),
        format!("{path}/text"),
        format!("{path}/pages/1.png"),
    ] {
        assert_eq!(api.get(&outsider, &path).await.error(), (404, "NOT_FOUND".to_owned()), "{path}");
    }
    assert_eq!(api.delete(&outsider, &path).await.status, 404);
    assert_eq!(api.post(&outsider, &format!("{path}/complete"), &Value::Null).await.status, 404);
    assert_eq!(api.get(&outsider, "/v1/documents").await.ok()["documents"], json!([]));
    // Nobody widens a document's labels by uploading under its external id, or locks itself out.
    declared["labels"] = json!([]);
    assert_eq!(api.post(&outsider, "/v1/documents", &declared).await.error(), (409, "CONFLICT".to_owned()));
    declared["labels"] = json!(["hr"]);
    declared["external_id"] = json!("other");
    assert_eq!(api.post(&outsider, "/v1/documents", &declared).await.error(), (422, "FIELD_INVALID".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_scope_opens_its_routes_and_no_other() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let document = publish(&api, &tenant, "a.txt", &["Some words."]).await.document;
    let of = |scope: Scope| api.key(tenant.id, std::slice::from_ref(&scope).to_vec().leak(), &[]);
    let (upload, query, operate) = (of(Scope::Upload).await, of(Scope::Query).await, of(Scope::Operate).await);
    let (content, admin) = (of(Scope::ContentRead).await, of(Scope::Admin).await);
    let path = format!("/v1/documents/{document}");
    let text = format!("{path}/text");
    for (key, path, open) in [
        (&upload, path.as_str(), true),
        (&upload, text.as_str(), false),
        (&upload, "/v1/operate/jobs", false),
        (&upload, "/v1/keys", false),
        (&query, path.as_str(), true),
        (&query, text.as_str(), false),
        (&operate, "/v1/operate/jobs", true),
        (&operate, "/v1/operate/backlog", true),
        (&operate, "/v1/operate/doctor", false),
        (&operate, text.as_str(), false),
        (&operate, path.as_str(), false),
        (&content, text.as_str(), true),
        (&content, "/v1/usage", false),
        (&admin, "/v1/keys", true),
        (&admin, "/v1/usage", true),
        (&admin, text.as_str(), false),
        (&admin, "/v1/operate/jobs", false),
    ] {
        let reply = api.get(key, path).await;
        if open {
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        } else {
            assert_eq!(reply.error(), (403, "SCOPE_MISSING".to_owned()), "{path}");
        }
    }
    let words = api.get(&operate, "/v1/operate/jobs").await.text;
    assert!(!words.contains("Some words") && !words.contains("a.txt"), "an operator sees no text and no name");
}

/// The path with a value that the route could take for each of its parameters.
fn plausible(path: &str) -> String {
    let value = |segment: &str| match segment {
        "{id}" => uuid::Uuid::now_v7().to_string(),
        "{pipeline}" => "default".to_owned(),
        "{name}" => "nightly".to_owned(),
        "{kind}" => "stage".to_owned(),
        "{subject}" => "ingest".to_owned(),
        other if other.starts_with('{') => panic!("this test has no value for {other} of {path}"),
        plain => plain.to_owned(),
    };
    path.split('/').map(value).collect::<Vec<_>>().join("/")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_operators_is_closed_to_a_key_without_their_scope() {
    let mut api = Api::start().await;
    let operator = api.tenant().await;
    // Keys of the operator tenant, so that nothing but the scope can close a route.
    let mut state = api.state.clone();
    state.config = std::sync::Arc::new(ApiConfig { operator_tenant: Some(operator.id), ..config() });
    api.router = docmill_api::router(state);
    let others: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| *scope != Scope::Operate).collect();
    let without = api.key(operator.id, &others, &[]).await;
    let document = api.get("", "/openapi.json").await.ok();
    let mut walked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/v1/operate/") {
            continue;
        }
        for method in methods.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let (filled, body) = (plausible(path), (method == Method::POST).then(|| json!({})));
            let refused = api.send(request(method.clone(), &filled, &without, body.as_ref())).await;
            assert_eq!(refused.status, 403, "{method} {path}: {}", refused.text);
            assert_eq!(refused.code(), "SCOPE_MISSING", "{method} {path}");
            assert!(refused.text.contains("the scope `operate`"), "{method} {path}: {}", refused.text);
            let let_in = api.send(request(method.clone(), &filled, &operator.key, body.as_ref())).await;
            assert!(![401, 403].contains(&let_in.status.as_u16()), "{method} {path}: {}", let_in.text);
            walked += 1;
        }
    }
    assert!(walked >= 34, "only {walked} routes are for operators");
}
