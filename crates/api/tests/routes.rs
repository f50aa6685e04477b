//! What the routes give when all is well.
#![allow(clippy::unwrap_used)]

mod support;

use axum::body::Body;
use axum::http::{Request, header};
use docmill_api::ApiConfig;
use docmill_lifecycle::sweep;
use docmill_model::document::{Format, Page, PageOutcome, ParsedDocument, Rect, Word};
use docmill_model::scope::Scope;
use docmill_model::{Span, TenantId};
use docmill_platform::artifacts::Artifacts;
use docmill_platform::blobs::{S3Blobs, S3Config};
use docmill_testkit::Told;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use support::{Api, Tenant, config, publish};

#[tokio::test(flavor = "multi_thread")]
async fn results_point_into_the_text() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let published = publish(&api, &tenant, "größe.txt", &["Größe zählt.", "Die Größe ist 7.", "Ende."]).await;
    let path = format!("/v1/documents/{}", published.document);
    let text = api.get(&tenant.key, &format!("{path}/text")).await.ok();
    assert_eq!(text["text"], "Größe zählt.\n\nDie Größe ist 7.\n\nEnde.");
    assert_eq!((&text["characters"], &text["version"]), (&json!(37), &json!(1)));
    let part = api.get(&tenant.key, &format!("{path}/text?char_start=14&char_end=30")).await.ok();
    assert_eq!(part["text"], "Die Größe ist 7.");
    let chunks = api.get(&tenant.key, &format!("{path}/chunks?limit=2")).await.ok();
    let second = &chunks["chunks"][1];
    assert_eq!(
        (&second["text"], &second["char_start"], &second["char_end"]),
        (&json!("Die Größe ist 7."), &json!(14), &json!(30))
    );
    let cursor = chunks["next_cursor"].as_str().unwrap();
    let rest = api.get(&tenant.key, &format!("{path}/chunks?limit=2&cursor={cursor}")).await.ok();
    assert_eq!((rest["chunks"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
    assert_eq!(api.get(&tenant.key, &format!("{path}/summary")).await.ok()["sentences"][0]["text"], "Größe zählt.");
    assert_eq!(
        api.get(&tenant.key, &format!("{path}/extraction")).await.ok()["data"],
        json!({"title": "Größe zählt."})
    );
    assert_eq!(api.get(&tenant.key, &format!("{path}/versions")).await.ok()[0]["format"], "text");
    assert_eq!(api.get(&tenant.key, &format!("{path}/jobs")).await.ok()[0]["state"], "done");
    let kinds: Vec<Value> = api.get(&tenant.key, &format!("{path}/events")).await.ok()["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["kind"].clone())
        .collect();
    assert_eq!(kinds, ["upload.created", "upload.accepted", "run.started"]);
    for (query, status) in [
        ("page=1", 422),
        ("char_start=99", 422),
        ("char_start=5&char_end=2", 422),
        ("page=1&char_start=1", 422),
        ("version=2", 404),
    ] {
        assert_eq!(api.get(&tenant.key, &format!("{path}/text?{query}")).await.status, status, "{query}");
    }
    let collections = api.get(&tenant.key, "/v1/collections").await.ok();
    assert_eq!(
        (&collections["collections"][0]["name"], &collections["collections"][0]["searchable"]),
        (&json!("default"), &json!(1))
    );
}

/// Replaces what ingest read of a document by an image of one page with two words.
async fn make_an_image(api: &Api, tenant: &Tenant, document: &str) {
    let word = |start: u32, x0: f32| Word {
        span: Span::new(start, start + 3),
        page: 1,
        rect: Rect { x0, y0: 10.0, x1: x0 + 30.0, y1: 20.0 },
        confidence: 0.9,
    };
    let outcome = PageOutcome::Ocr { confidence: 0.9 };
    let page = Page { number: 1, width: 500.0, height: 100.0, rotation: 0, span: Span::new(0, 7), outcome };
    let parsed = ParsedDocument {
        format: Format::Image,
        text: "one two".to_owned(),
        pages: vec![page],
        words: vec![word(0, 10.0), word(4, 50.0)],
        ..support::parsed("")
    };
    let artifact = api.world.artifacts.put(tenant.id, serde_json::to_vec(&parsed).unwrap().into()).await.unwrap();
    let id: uuid::Uuid = document.parse().unwrap();
    let write = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE document_versions SET parsed_sha256 = $2, format = 'image' WHERE document_id = $1")
                .bind(id)
                .bind(artifact.sha256.as_str())
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    write.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_drawn_with_a_citation_marked() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let published = publish(&api, &tenant, "a.png", &["Some <b>words</b> here."]).await;
    let path = format!("/v1/documents/{}/pages", published.document);
    let excerpt = api.get(&tenant.key, &format!("{path}/1.png?highlight=5-10")).await;
    assert_eq!(excerpt.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(excerpt.headers[header::CONTENT_SECURITY_POLICY], "default-src 'none'; sandbox");
    assert!(excerpt.text.contains("Some <mark>&lt;b&gt;wo</mark>rds&lt;/b&gt; here."), "{}", excerpt.text);
    make_an_image(&api, &tenant, &published.document).await;
    let drawn = api.get(&tenant.key, &format!("{path}/1.png?highlight=4-7")).await;
    assert_eq!(drawn.headers[header::CONTENT_TYPE], "image/png");
    assert_eq!(drawn.text, "page 1 of 23 bytes at 2, marked [(50.0, 10.0, 80.0, 20.0)]");
    let whole = api.get(&tenant.key, &format!("{path}/1.png?width=250")).await;
    assert_eq!(whole.text, "page 1 of 23 bytes at 0.5, marked []");
    for (page, status) in [
        ("2.png", 404),
        ("1.gif", 404),
        ("x.png", 404),
        ("1.png?highlight=4-8", 422),
        ("1.png?highlight=7-4", 422),
        ("1.png?highlight=word", 422),
        ("1.png?width=49", 422),
        ("1.png?width=50", 200),
        ("1.png?width=2000", 200),
        ("1.png?width=2001", 422),
        ("1.png?version=2", 404),
    ] {
        assert_eq!(api.get(&tenant.key, &format!("{path}/{page}")).await.status, status, "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_are_not_there_yet_say_so() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let path = format!("/v1/documents/{}", api.upload(&tenant.key, "a.txt", b"some bytes").await);
    for what in ["text", "summary", "extraction", "chunks", "pages/1.png"] {
        assert_eq!(
            api.get(&tenant.key, &format!("{path}/{what}")).await.error(),
            (409, "NOT_READY".to_owned()),
            "{what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_steer_runs_dead_letters_and_pauses() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let document = api.upload(&tenant.key, "a.txt", b"some bytes").await;
    let jobs = api.get(&tenant.key, &format!("/v1/operate/jobs?document={document}&state=ready")).await.ok();
    let (job, run) = (jobs["jobs"][0]["id"].as_str().unwrap(), jobs["jobs"][0]["run_id"].as_str().unwrap());
    assert_eq!(api.get(&tenant.key, &format!("/v1/operate/jobs/{job}")).await.ok()["attempts"], json!([]));
    assert_eq!(api.get(&tenant.key, "/v1/operate/backlog").await.ok()["stages"][0]["ready"], 1);
    let cancelled = api.post(&tenant.key, &format!("/v1/operate/runs/{run}/cancel"), &Value::Null).await.ok();
    assert_eq!(cancelled["state"], "cancelled");
    let again = api.post(&tenant.key, &format!("/v1/operate/runs/{run}/cancel"), &Value::Null).await;
    assert_eq!(again.error(), (409, "CONFLICT".to_owned()));
    assert_eq!(api.get(&tenant.key, &format!("/v1/documents/{document}")).await.ok()["state"], "cancelled");

    let id: uuid::Uuid = job.parse().unwrap();
    let kill = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE jobs SET state = 'dead', code = 'PDF_MALFORMED' WHERE id = $1")
                .bind(id)
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    kill.await.unwrap();
    assert_eq!(api.get(&tenant.key, "/v1/operate/dead?code=PDF_MALFORMED").await.ok()["jobs"][0]["job_id"], job);
    let shown = api.get(&tenant.key, &format!("/v1/operate/dead/{job}")).await.ok();
    assert!(shown["upload"]["object_key"].is_string() && shown["upload"]["sha256"].is_string(), "{shown}");
    assert!(shown["help"].as_str().unwrap().contains("damaged"));
    let retried = api.post(&tenant.key, &format!("/v1/operate/dead/{job}/retry"), &Value::Null).await.ok();
    assert_eq!(
        api.get(&tenant.key, &format!("/v1/operate/runs/{}", retried["run_id"].as_str().unwrap())).await.ok()["cause"],
        "operator"
    );
    assert_eq!(api.post(&tenant.key, &format!("/v1/operate/dead/{job}/discard"), &Value::Null).await.status, 409);

    assert_eq!(api.post(&tenant.key, "/v1/operate/pauses", &json!({"kind": "tenant"})).await.status, 204);
    let stage = json!({"kind": "stage", "subject": "ingest"});
    assert_eq!(api.post(&tenant.key, "/v1/operate/pauses", &stage).await.error(), (403, "SCOPE_MISSING".to_owned()));
    assert_eq!(api.get(&tenant.key, "/v1/operate/pauses").await.ok()["pauses"][0]["subject"], tenant.id.to_string());
    assert_eq!(api.delete(&tenant.key, &format!("/v1/operate/pauses/tenant/{}", tenant.id)).await.status, 204);
    let actions: Vec<Value> = api.get(&tenant.key, "/v1/audit").await.ok()["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].clone())
        .collect();
    assert_eq!(
        actions,
        ["pause.delete", "pause.create", "dead.retry", "run.cancel", "document.complete", "document.create"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_its_receiver_switched_off_is_switched_on_again() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let created = api.post(&tenant.key, "/v1/webhooks", &json!({"url": "https://example.com/hook"})).await.ok();
    let (id, path) = (created["id"].clone(), format!("/v1/webhooks/{}", created["id"].as_str().unwrap()));
    let endpoint: uuid::Uuid = id.as_str().unwrap().parse().unwrap();
    let gone = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'the receiver answered 410'
                 WHERE tenant_id = current_tenant() AND id = $1",
            )
            .bind(endpoint)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    gone.await.unwrap();
    let listed = async || api.get(&tenant.key, "/v1/webhooks").await.ok()["webhooks"][0].clone();
    let off = listed().await;
    assert!(off["disabled_at"].is_string() && off["disabled_reason"] == "the receiver answered 410", "{off}");

    let on = api.post(&tenant.key, &format!("{path}/enable"), &Value::Null).await;
    assert!(!on.text.contains("whsec_"), "a secret is shown once");
    let on = on.ok();
    assert_eq!((&on["id"], &on["disabled_at"], &on["disabled_reason"]), (&id, &Value::Null, &Value::Null));
    assert_eq!(on, listed().await);
    let again = api.post(&tenant.key, &format!("{path}/enable"), &Value::Null).await.ok();
    assert_eq!(again, on, "one that is on stays on");

    let others: Vec<Scope> = Scope::ALL.into_iter().filter(|scope| *scope != Scope::Admin).collect();
    let other = api.key(tenant.id, &others, &[]).await;
    let refused = api.post(&other, &format!("{path}/enable"), &Value::Null).await;
    assert_eq!(refused.error(), (403, "SCOPE_MISSING".to_owned()));
    let unknown = format!("/v1/webhooks/{}/enable", uuid::Uuid::now_v7());
    assert_eq!(api.post(&tenant.key, &unknown, &Value::Null).await.error(), (404, "NOT_FOUND".to_owned()));
    let log = api.get(&tenant.key, "/v1/audit").await.ok();
    let rows = log["entries"].as_array().unwrap().iter().filter(|row| row["subject"] == id);
    let actions: Vec<Value> = rows.map(|row| row["action"].clone()).collect();
    assert_eq!(actions, ["webhook.enable", "webhook.enable", "webhook.create"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_are_planned_started_and_stopped() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    publish(&api, &tenant, "a.txt", &["Some words."]).await;
    let plan = api.post(&tenant.key, "/v1/operate/replays/plan", &json!({"select": {"stage": "ingest"}})).await.ok();
    assert_eq!(plan["documents"], 1);
    let unknown = api.post(&tenant.key, "/v1/operate/replays/plan", &json!({"select": {"stage": "nosuch"}})).await;
    assert_eq!(unknown.error(), (422, "FIELD_INVALID".to_owned()));
    let started = api.post(&tenant.key, "/v1/operate/replays", &json!({"select": {"stage": "ingest"}})).await.ok();
    let path = format!("/v1/operate/replays/{}", started["id"].as_str().unwrap());
    assert_eq!(api.get(&tenant.key, &path).await.ok()["state"], "running");
    let state = |state: &str| json!({"state": state});
    assert_eq!(api.post(&tenant.key, &format!("{path}/state"), &state("paused")).await.ok()["state"], "paused");
    assert_eq!(api.post(&tenant.key, &format!("{path}/state"), &state("cancelled")).await.ok()["state"], "cancelled");
    assert_eq!(api.post(&tenant.key, &format!("{path}/state"), &state("running")).await.status, 409);
    assert_eq!(api.post(&tenant.key, &format!("{path}/state"), &state("asleep")).await.status, 422);
    assert_eq!(api.get(&tenant.key, "/v1/operate/replays").await.ok()["replays"].as_array().unwrap().len(), 1);
    let nothing = json!({"select": {"document_id": uuid::Uuid::now_v7()}});
    assert_eq!(api.post(&tenant.key, "/v1/operate/replays", &nothing).await.error(), (404, "NOT_FOUND".to_owned()));
}

/// Makes a tenant the one that operates the installation.
fn operate(api: &mut Api, operator: &Tenant) {
    api.state.config = Arc::new(ApiConfig { operator_tenant: Some(operator.id), ..config() });
    api.router = docmill_api::router(api.state.clone());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_tenant_examines_and_stops_the_installation() {
    let mut api = Api::start().await;
    let operator = api.tenant().await;
    operate(&mut api, &operator);
    let report = api.get(&operator.key, "/v1/operate/doctor").await.ok();
    assert_eq!(report["healthy"], true, "{report}");
    assert!(report["invariants"].as_array().unwrap().len() >= 10);
    let stage = json!({"kind": "stage", "subject": "ingest"});
    assert_eq!(api.post(&operator.key, "/v1/operate/pauses", &stage).await.status, 204);
    let other = api.tenant().await;
    assert_eq!(
        api.get(&other.key, "/v1/operate/pauses").await.ok()["pauses"][0]["subject"],
        "ingest",
        "whom it stops may know"
    );
    assert_eq!(api.delete(&other.key, "/v1/operate/pauses/stage/ingest").await.status, 403);
    assert_eq!(api.delete(&operator.key, "/v1/operate/pauses/stage/ingest").await.status, 204);
    assert_eq!(api.delete(&operator.key, "/v1/operate/pauses/stage/ingest").await.status, 404);
    assert_eq!(api.get(&other.key, "/v1/operate/backlog?all=true").await.status, 403);
    // Any tenant can be stopped and released by whoever operates the installation, and sees it.
    let stop = json!({"kind": "tenant", "subject": other.id.to_string()});
    assert_eq!(api.post(&operator.key, "/v1/operate/pauses", &stop).await.status, 204);
    assert_eq!(api.get(&other.key, "/v1/operate/pauses").await.ok()["pauses"][0]["subject"], other.id.to_string());
    assert_eq!(api.get(&operator.key, "/v1/operate/pauses").await.ok()["pauses"], json!([]));
    assert_eq!(
        api.get(&operator.key, "/v1/operate/pauses?all=true").await.ok()["pauses"][0]["subject"],
        other.id.to_string()
    );
    assert_eq!(api.get(&other.key, "/v1/operate/pauses?all=true").await.status, 403);
    let lift = format!("/v1/operate/pauses/tenant/{}", other.id);
    assert_eq!(api.delete(&operator.key, &lift).await.status, 204);
    assert_eq!(api.delete(&operator.key, &lift).await.status, 404);
    let nobody = json!({"kind": "tenant", "subject": uuid::Uuid::now_v7().to_string()});
    assert_eq!(api.post(&operator.key, "/v1/operate/pauses", &nobody).await.status, 404);
    let foreign = json!({"kind": "tenant", "subject": operator.id.to_string()});
    assert_eq!(api.post(&other.key, "/v1/operate/pauses", &foreign).await.status, 404);
    api.get(&operator.key, "/v1/operate/backlog?all=true").await.ok();
    // A replay of another tenant is started, seen and stopped by whoever operates the installation.
    publish(&api, &other, "a.txt", &["Some words."]).await;
    let select = json!({"select": {"tenant_id": other.id, "stage": "ingest"}});
    let started = api.post(&operator.key, "/v1/operate/replays", &select).await.ok();
    let (replay, whose) =
        (format!("/v1/operate/replays/{}", started["id"].as_str().unwrap()), format!("?tenant_id={}", other.id));
    assert_eq!(api.get(&operator.key, &replay).await.status, 404);
    assert_eq!(api.get(&operator.key, &format!("{replay}{whose}")).await.ok()["state"], "running");
    let paused = api.post(&operator.key, &format!("{replay}/state{whose}"), &json!({"state": "paused"})).await.ok();
    assert_eq!(paused["state"], "paused");
    assert_eq!(
        api.get(&operator.key, &format!("/v1/operate/replays{whose}")).await.ok()["replays"][0]["id"],
        started["id"]
    );
    let foreign = format!("/v1/operate/replays?tenant_id={}", operator.id);
    assert_eq!(api.get(&other.key, &foreign).await.status, 403);
}

/// Runs statements as a tenant.
async fn execute(api: &Api, tenant: TenantId, statements: &'static [&'static str]) {
    let write = api.world.database.write(tenant, move |connection| {
        Box::pin(async move {
            for statement in statements {
                sqlx::query(*statement).execute(&mut *connection).await?;
            }
            Ok(())
        })
    });
    write.await.unwrap();
}

/// Two vectors that no chunk needs.
const UNUSED_VECTORS: &str = "INSERT INTO vectors (tenant_id, space_id, embed_hash, embedding, created_at)
    SELECT current_tenant(), 1, sha256(age::bytea), array_fill(0.1::real, ARRAY[384])::vector, now() - age::interval
    FROM unnest(ARRAY['23 hours', '2 days']) AS age";
/// A collection that does not end, and one that has not ended for two days and was to remove the older of them.
const STUCK: &[&str] = &[
    "INSERT INTO deletions (tenant_id, id, cause, subject) VALUES (current_tenant(), gen_random_uuid(), 'collect', '')",
    "WITH stuck AS (
        INSERT INTO deletions (tenant_id, id, cause, subject, created_at)
        VALUES (current_tenant(), gen_random_uuid(), 'collect', '', now() - interval '2 days') RETURNING tenant_id, id)
     INSERT INTO condemned (tenant_id, deletion_id, kind, name)
     SELECT tenant_id, id, 'vector', encode(sha256('2 days'::bytea), 'hex') FROM stuck",
];

/// On one thread: what is told on others reaches no recorder.
#[tokio::test]
async fn a_vector_that_nothing_uses_is_found_and_collected_and_a_request_tells_no_metric() {
    let told = Told::nothing();
    let _heard = told.listen();
    let mut api = Api::start().await;
    let (operator, removed) = (api.tenant().await, api.tenant().await);
    operate(&mut api, &operator);
    let report = api.get(&operator.key, "/v1/operate/doctor").await.ok();
    assert_eq!(report["healthy"], true, "{report}");
    let removal = sqlx::query("INSERT INTO tenant_deletions (tenant) VALUES ($1)").bind(removed.id.0);
    removal.execute(api.world.database.engine()).await.unwrap();
    execute(&api, removed.id, &[UNUSED_VECTORS]).await;
    execute(&api, operator.id, &[UNUSED_VECTORS]).await;
    let name = "unused_vector_is_collected";
    for more in [&[] as &[&str], STUCK] {
        execute(&api, operator.id, more).await;
        let report = api.get(&operator.key, "/v1/operate/doctor").await.ok();
        let mut invariants = report["invariants"].as_array().unwrap().iter();
        let invariant = invariants.find(|invariant| invariant["name"] == name).unwrap();
        let expected = json!([{"subject": format!("tenant {}", operator.id), "detail": "1 vectors without a chunk"}]);
        assert_eq!((&report["healthy"], &invariant["violations"]), (&json!(false), &expected));
    }
    let repaired = api.post(&operator.key, "/v1/operate/doctor/repair", &json!({})).await.ok();
    assert_eq!((&repaired["found"], &repaired["repairs"][0]["invariant"]), (&json!(1), &json!(name)), "{repaired}");
    let entry = api.get(&operator.key, "/v1/audit").await.ok()["entries"][0].clone();
    assert_eq!((&entry["action"], &entry["data"]["repairs"][0]["invariant"]), (&json!("doctor.repair"), &json!(name)));
    let report = api.get(&operator.key, "/v1/operate/doctor").await.ok();
    assert_eq!(report["healthy"], true, "{report}");
    for invariant in report["invariants"].as_array().unwrap() {
        assert_eq!(told.violations_of(invariant["name"].as_str().unwrap()), None, "{invariant}");
    }
    sweep::open_deletions(&api.state.stores(), &Default::default()).await.unwrap();
    let left = api.world.database.read(operator.id, |connection| {
        Box::pin(async move { Ok(sqlx::query_scalar("SELECT count(*) FROM vectors").fetch_one(connection).await?) })
    });
    let left: i64 = left.await.unwrap();
    assert_eq!(left, 0, "also the younger one, which is older than an hour");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_store_that_refuses_it_is_not_known_what_is_gone() {
    let mut api = Api::start().await;
    let operator = api.tenant().await;
    api.upload(&operator.key, "a.txt", b"some bytes").await;
    let refused = S3Blobs::new(&S3Config { secret_key: "other".into(), ..api.world.s3.clone() });
    api.state.artifacts = Artifacts::new(api.world.database.clone(), Arc::new(refused));
    operate(&mut api, &operator);
    let report = api.get(&operator.key, "/v1/operate/doctor").await.ok();
    assert_eq!((&report["healthy"], &report["unfinished"]), (&json!(false), &json!(["object_is_there"])), "{report}");
    let mut invariants = report["invariants"].as_array().unwrap().iter();
    assert!(invariants.all(|invariant| invariant["violations"] == json!([])), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_audit_row_is_found() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    for name in ["a", "b", "c"] {
        api.post(&tenant.key, "/v1/keys", &json!({"name": name, "scopes": ["query"]})).await.ok();
    }
    let whole = api.get(&tenant.key, "/v1/audit/verify").await.ok();
    assert_eq!(whole, json!({"rows": 3, "first_broken": null}));
    let mut owner = PgConnection::connect(api.world.owner_url.expose_secret()).await.unwrap();
    for (change, undo) in [
        ("UPDATE audit_log SET data = '{}' WHERE seq = 2", None),
        ("UPDATE audit_log SET seq = 9 WHERE seq = 2", Some("UPDATE audit_log SET seq = 2 WHERE seq = 9")),
        ("DELETE FROM audit_log WHERE seq = 2", None),
    ] {
        sqlx::query(change).execute(&mut owner).await.unwrap();
        let broken = api.get(&tenant.key, "/v1/audit/verify").await.ok();
        assert_eq!(broken["first_broken"], 2, "{change}");
        if let Some(undo) = undo {
            sqlx::query(undo).execute(&mut owner).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_its_headers() {
    let api = Api::start_with(ApiConfig { cors_origins: vec!["https://console.example".to_owned()], ..config() }).await;
    let get = |path: &str, headers: &[(&'static str, &str)]| {
        let builder = headers.iter().fold(Request::get(path), |b, (name, value)| b.header(*name, *value));
        api.send(builder.body(Body::empty()).unwrap())
    };
    let reply = get("/healthz", &[("x-request-id", "my-id.1"), ("origin", "https://console.example")]).await;
    assert_eq!(reply.headers["x-request-id"], "my-id.1", "a caller's id is kept");
    assert_eq!(reply.headers["x-content-type-options"], "nosniff");
    assert_eq!(reply.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(reply.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://console.example");
    let reply =
        get("/v1/keys", &[("x-request-id", "spoofed id\twith blanks"), ("origin", "https://evil.example")]).await;
    assert_eq!(reply.headers["x-request-id"].len(), 36, "an odd id is replaced");
    assert!(!reply.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "only configured origins may call");
    assert_eq!((reply.status.as_u16(), &reply.headers[header::WWW_AUTHENTICATE]), (401, &"Bearer".parse().unwrap()));
    let document = get("/openapi.json", &[]).await;
    assert_eq!(document.ok()["info"]["title"], "Docmill");
    let zipped = Request::get("/openapi.json").header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(api.router.clone(), zipped).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip");
}
