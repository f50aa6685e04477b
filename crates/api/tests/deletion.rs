//! A deleted document is gone everywhere, what it shared with others stays, and the deletion is on record.
#![allow(clippy::unwrap_used)]

mod support;

use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use support::{Api, Tenant, declaration, publish, put};

const MARKER: &str = "Zaphod Beeblebrox";

/// Tables that hold the marker in any column, read as the owner.
async fn tables_with_marker(api: &Api) -> Vec<String> {
    let mut owner = PgConnection::connect(api.world.owner_url.expose_secret()).await.unwrap();
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'")
            .fetch_all(&mut owner)
            .await
            .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT count(*) FROM {table} t WHERE t::text LIKE '%{MARKER}%'"
        )))
        .fetch_one(&mut owner)
        .await
        .unwrap();
        if count > 0 {
            found.push(table);
        }
    }
    found
}

async fn objects(api: &Api, tenant: &Tenant) -> usize {
    api.world.blobs.list(&format!("{}/", tenant.id), None).await.unwrap().len()
}

async fn vectors(api: &Api, tenant: &Tenant) -> i64 {
    let read = api.world.database.read(tenant.id, |connection| {
        Box::pin(async move { Ok(sqlx::query_scalar("SELECT count(*) FROM vectors").fetch_one(connection).await?) })
    });
    read.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_deleted_document_stays() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let passage = format!("The password of {MARKER} is heart of gold.");
    let published =
        publish(&api, &tenant, "secret.txt", &[&passage, "A passage that another document also has."]).await;
    let kept = publish(&api, &tenant, "other.txt", &["A passage that another document also has."]).await;
    let answer = api
        .post(&tenant.key, "/v1/answers", &json!({"question": format!("What is the password of {MARKER}?")}))
        .await
        .ok();
    assert_eq!(answer["found"], true, "{answer}");
    let answer = format!("/v1/answers/{}", answer["id"].as_str().unwrap());
    assert!(!tables_with_marker(&api).await.is_empty());
    assert_eq!((objects(&api, &tenant).await, vectors(&api, &tenant).await), (6, 2));

    let path = format!("/v1/documents/{}", published.document);
    assert_eq!(api.delete(&tenant.key, &path).await.status, 204);
    assert_eq!(api.delete(&tenant.key, &path).await.error(), (404, "NOT_FOUND".to_owned()));

    for what in ["", "/events", "/jobs", "/versions", "/text", "/summary", "/extraction", "/chunks"] {
        assert_eq!(api.get(&tenant.key, &format!("{path}{what}")).await.status, 404, "{what}");
    }
    assert_eq!(tables_with_marker(&api).await, Vec::<String>::new());
    assert_eq!(
        (objects(&api, &tenant).await, vectors(&api, &tenant).await),
        (3, 1),
        "what the other document uses stays"
    );
    let found =
        api.post(&tenant.key, "/v1/search", &json!({"query": "password heart of gold", "mode": "dense"})).await.ok();
    assert!(!found.to_string().contains("gold") && !found.to_string().contains(&published.document), "{found}");
    let shown = api.get(&tenant.key, &answer).await.ok();
    let citation = &shown["sentences"][0]["citations"][0];
    assert_eq!((&citation["withdrawn"], &citation["quote"]), (&json!(true), &Value::Null), "{shown}");
    assert!(!shown.to_string().contains("gold"));
    let text = api.get(&tenant.key, &format!("/v1/documents/{}/text", kept.document)).await.ok();
    assert_eq!(text["text"], "A passage that another document also has.");

    let operations: Vec<(String, uuid::Uuid)> = sqlx::query_as("SELECT op, generation_id FROM index_ops ORDER BY seq")
        .fetch_all(api.world.database.engine())
        .await
        .unwrap();
    assert_eq!(operations, [("remove".to_owned(), published.generation)]);
    let open: i64 = sqlx::query_scalar("SELECT count(*) FROM deletions WHERE finished_at IS NULL")
        .fetch_one(api.world.database.engine())
        .await
        .unwrap();
    assert_eq!(open, 0, "the deletion is finished");
    let audit = api.get(&tenant.key, "/v1/audit?limit=1").await.ok();
    assert_eq!(
        (&audit["entries"][0]["action"], &audit["entries"][0]["subject"]),
        (&json!("document.delete"), &json!(published.document))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_beside_open_runs_is_finished_once_they_have_settled() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let published = publish(&api, &tenant, "secret.txt", &["One passage."]).await;
    let running: uuid::Uuid = api.upload(&tenant.key, "running.txt", b"still under way").await.parse().unwrap();
    assert_eq!(api.delete(&tenant.key, &format!("/v1/documents/{}", published.document)).await.status, 204);
    assert_eq!(vectors(&api, &tenant).await, 1, "the open run may rely on it");
    let settle = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE runs SET state = 'cancelled', settled_at = now() WHERE document_id = $1")
                .bind(running)
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    settle.await.unwrap();
    let document = published.document.parse().unwrap();
    let finish = docmill_api::documents::deletions::finish(&api.world.database, &api.world.blobs, tenant.id, document);
    assert!(finish.await.unwrap());
    assert_eq!((objects(&api, &tenant).await, vectors(&api, &tenant).await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_can_be_deleted_before_and_while_it_is_processed() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let created = api.post(&tenant.key, "/v1/documents", &declaration("a.txt", b"some bytes")).await.ok();
    let path = format!("/v1/documents/{}", created["id"].as_str().unwrap());
    put(&created["upload"], b"some bytes").await;
    assert_eq!(api.delete(&tenant.key, &path).await.status, 204);
    assert_eq!(api.post(&tenant.key, &format!("{path}/complete"), &Value::Null).await.status, 404);
    assert_eq!(objects(&api, &tenant).await, 0);
    let open: i64 =
        sqlx::query_scalar("SELECT count(*) FROM deletions WHERE finished_at IS NULL AND finish_after > now()")
            .fetch_one(api.world.database.engine())
            .await
            .unwrap();
    assert_eq!(open, 1, "the signed URL is still good: the deletion is looked at again when it is not");
    let processing = api.upload(&tenant.key, "b.txt", b"more bytes").await;
    assert_eq!(api.delete(&tenant.key, &format!("/v1/documents/{processing}")).await.status, 204);
    let jobs: i64 =
        sqlx::query_scalar("SELECT count(*) FROM jobs").fetch_one(api.world.database.engine()).await.unwrap();
    assert_eq!(jobs, 0);
    // The same bytes may come again: nothing remembers them.
    let again = api.post(&tenant.key, "/v1/documents", &declaration("b.txt", b"more bytes")).await;
    assert_eq!(again.status, 201);
}
