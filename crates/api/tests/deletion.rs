//! A deleted document is gone everywhere, what it shared with others stays, and the deletion is on record.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_lifecycle::{Stores, sweep};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use support::{Api, MARKER, Tenant, declaration, publish, put};
use tokio_util::sync::CancellationToken;

/// Words of a document where they end up without being its rows: what a model answered, readers remarked, conversations
/// hold, receivers are told.
async fn say(api: &Api, tenant: &Tenant, answer: &str, published: &support::Published) {
    let (answer, document, run): (uuid::Uuid, uuid::Uuid, uuid::Uuid) =
        (answer.parse().unwrap(), published.document.parse().unwrap(), published.run.parse().unwrap());
    let said = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            for sql in [
                "INSERT INTO answer_feedback (tenant_id, id, answer_id, principal_id, verdict, comment)
                 VALUES (current_tenant(), gen_random_uuid(), $1, gen_random_uuid(), 'helpful', $4 || $2 || $3)",
                "INSERT INTO conversations (tenant_id, id, principal_id, notes, messages, ttl_secs, expires_at)
                 VALUES (current_tenant(), $1, gen_random_uuid(), $4 || $2 || $3, 1, 60, now() + interval '1 hour')",
                "INSERT INTO conversation_messages (tenant_id, conversation_id, number, question, standalone, answer_id)
                 VALUES (current_tenant(), $1, 1, $4 || $2 || $3, $4, $1)",
                "INSERT INTO model_cache (tenant_id, key, response, tokens_in, tokens_out, document_ids)
                 VALUES (current_tenant(), 'k' || $1 || $3, $4, 1, 1, ARRAY[$2])",
                "INSERT INTO webhook_endpoints (tenant_id, id, url, secrets)
                 VALUES (current_tenant(), $1, 'https://example.com/' || $2 || $3 || left($4, 0), '{whsec_x}')",
                "INSERT INTO deliveries (tenant_id, id, endpoint_id, document_id, run_id, payload)
                 VALUES (current_tenant(), gen_random_uuid(), $1, $2, $3, jsonb_build_object('title', $4))",
            ] {
                sqlx::query(sql).bind(answer).bind(document).bind(run).bind(MARKER).execute(&mut *connection).await?;
            }
            Ok(())
        })
    });
    said.await.unwrap();
}

async fn objects(api: &Api, tenant: &Tenant) -> usize {
    let mut count = 0;
    for prefix in docmill_platform::layout::tenant_prefixes(tenant.id) {
        count += api.world.blobs.list(&prefix, None).await.unwrap().len();
    }
    count
}

/// Tables that still have a row of the tenant, read as the owner.
async fn rows_of(api: &Api, tenant: &Tenant) -> Vec<String> {
    let mut owner = PgConnection::connect(api.world.owner_url.expose_secret()).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name::text FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'tenant_id'",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let sql = format!("SELECT count(*) FROM {table} WHERE tenant_id = '{}'", tenant.id);
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut owner).await.unwrap();
        if count > 0 {
            found.push(table);
        }
    }
    found
}

fn stores(api: &Api) -> Stores {
    Stores { database: api.world.database.clone(), artifacts: api.world.artifacts.clone() }
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
    let following = api.index(&tenant, &[&published, &kept]).await;
    let answer = api
        .post(&tenant.key, "/v1/answers", &json!({"question": format!("What is the password of {MARKER}?")}))
        .await
        .ok();
    assert_eq!(answer["found"], true, "{answer}");
    let answer_id = answer["id"].as_str().unwrap().to_owned();
    let answer = format!("/v1/answers/{answer_id}");
    say(&api, &tenant, &answer_id, &published).await;
    api.holds_marker(&[
        "table answer_feedback",
        "table chunks",
        "table conversation_messages",
        "table conversations",
        "table deliveries",
        "table extractions",
        "table model_cache",
        "table summaries",
        "object ",
        "file ",
    ])
    .await;
    assert_eq!((objects(&api, &tenant).await, vectors(&api, &tenant).await), (6, 2));
    let refused = api.world.database.write(tenant.id, |connection| {
        Box::pin(async move {
            let refused = "INSERT INTO refused_texts (tenant_id, space_id, embed_hash)
                           SELECT DISTINCT current_tenant(), 1, embed_hash FROM chunks";
            Ok(sqlx::query(refused).execute(connection).await?.rows_affected())
        })
    });
    assert_eq!(refused.await.unwrap(), 2);

    let path = format!("/v1/documents/{}", published.document);
    let receipt = api.delete(&tenant.key, &path).await.ok();
    let expected = json!({"documents": 1, "versions": 1, "runs": 1, "jobs": 1, "generations": 1, "chunks": 2, "results": 2,
                          "answers": 1, "messages": 1, "comments": 1, "model_answers": 1, "dead_letters": 0, "deliveries": 1,
                          "events": 3, "vectors": 1, "cached_results": 0, "artifacts": 2, "objects": 3});
    assert_eq!((&receipt["state"], &receipt["removed"]), (&json!("finished"), &expected), "{receipt}");
    let shown = api.get(&tenant.key, &format!("/v1/deletions/{}", receipt["id"].as_str().unwrap())).await.ok();
    assert_eq!(shown, receipt);
    assert_eq!(api.get(&tenant.key, "/v1/deletions?limit=1").await.ok()["deletions"], json!([receipt]));
    assert_eq!(api.delete(&tenant.key, &path).await.error(), (404, "NOT_FOUND".to_owned()));

    for what in ["", "/events", "/jobs", "/versions", "/text", "/summary", "/extraction", "/chunks"] {
        assert_eq!(api.get(&tenant.key, &format!("{path}{what}")).await.status, 404, "{what}");
    }
    api.holds_no_marker_of(&tenant).await;
    let refused: i64 = sqlx::query_scalar("SELECT count(*) FROM refused_texts")
        .fetch_one(&mut PgConnection::connect(api.world.owner_url.expose_secret()).await.unwrap())
        .await
        .unwrap();
    assert_eq!(refused, 1, "of the passage that stays");
    drop(following);
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
    assert_eq!(operations.last(), Some(&("remove".to_owned(), published.generation)));
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
    let published = publish(&api, &tenant, "secret.txt", &[&format!("One passage of {MARKER}.")]).await;
    let _following = api.index(&tenant, &[&published]).await;
    let running: uuid::Uuid = api.upload(&tenant.key, "running.txt", b"still under way").await.parse().unwrap();
    let receipt = api.delete(&tenant.key, &format!("/v1/documents/{}", published.document)).await.ok();
    assert_eq!((&receipt["state"], vectors(&api, &tenant).await), (&json!("open"), 1), "the open run may rely on it");
    // One that begins now sees the condemnation: it is not waited for.
    api.upload(&tenant.key, "later.txt", b"begun later").await;
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
    let id = receipt["id"].as_str().unwrap().parse().unwrap();
    assert!(sweep::finish(&stores(&api), tenant.id, id).await.unwrap());
    assert_eq!((objects(&api, &tenant).await, vectors(&api, &tenant).await), (2, 0));
    api.holds_no_marker_of(&tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_stands_still_keeps_its_vectors_and_no_deletion_waiting() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let (own, shared) = (format!("A passage of {MARKER} alone."), "A passage that both have.");
    let published = publish(&api, &tenant, "secret.txt", &[&own, shared]).await;
    let _following = api.index(&tenant, &[&published]).await;
    // Between embed and index, and held: only its list of chunks says what it relies on.
    let held = publish(&api, &tenant, "held.txt", &[shared]).await;
    let (document, run) = (held.document.parse::<uuid::Uuid>().unwrap(), held.run.parse::<uuid::Uuid>().unwrap());
    let hold = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE runs SET state = 'running', settled_at = NULL, created_at = now() - interval '2 hours' WHERE id = $1")
                .bind(run)
                .execute(&mut *connection)
                .await?;
            sqlx::query("DELETE FROM generations WHERE document_id = $1").bind(document).execute(connection).await?;
            Ok(())
        })
    });
    hold.await.unwrap();
    let receipt = api.delete(&tenant.key, &format!("/v1/documents/{}", published.document)).await.ok();
    assert_eq!((&receipt["state"], vectors(&api, &tenant).await), (&json!("open"), 2), "it is waited for a while");
    let age = api.world.database.write(tenant.id, |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE deletions SET waits_for = now() - interval '1 hour' WHERE finished_at IS NULL")
                .execute(&mut *connection)
                .await?;
            sqlx::query("UPDATE vectors SET created_at = now() - interval '2 hours'").execute(&mut *connection).await?;
            sqlx::query("UPDATE artifacts SET created_at = now() - interval '2 hours'").execute(connection).await?;
            Ok(())
        })
    });
    age.await.unwrap();
    let id = receipt["id"].as_str().unwrap().parse().unwrap();
    assert!(sweep::finish(&stores(&api), tenant.id, id).await.unwrap(), "not for ever");
    let left: Vec<Vec<u8>> = {
        let read = api.world.database.read(tenant.id, |connection| {
            Box::pin(
                async move { Ok(sqlx::query_scalar("SELECT embed_hash FROM vectors").fetch_all(connection).await?) },
            )
        });
        read.await.unwrap()
    };
    assert_eq!(left, held.embedded, "what the held run relies on stays, the rest is gone");
    api.holds_no_marker_of(&tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_run_renews_is_spared() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let published = publish(&api, &tenant, "a.txt", &[&format!("{MARKER} once."), &format!("{MARKER} twice.")]).await;
    let _following = api.index(&tenant, &[&published]).await;
    api.upload(&tenant.key, "running.txt", b"still under way").await;
    let receipt = api.delete(&tenant.key, &format!("/v1/documents/{}", published.document)).await.ok();
    let hash = published.embedded[0].clone();
    let renew = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE vectors SET created_at = clock_timestamp() WHERE embed_hash = $1")
                .bind(hash)
                .execute(&mut *connection)
                .await?;
            sqlx::query("UPDATE runs SET state = 'cancelled', settled_at = now()").execute(connection).await?;
            Ok(())
        })
    });
    renew.await.unwrap();
    let again = api.world.artifacts.put(tenant.id, bytes::Bytes::from_static(b"unrelated")).await.unwrap();
    let id = receipt["id"].as_str().unwrap().parse().unwrap();
    assert!(sweep::finish(&stores(&api), tenant.id, id).await.unwrap());
    assert_eq!(vectors(&api, &tenant).await, 1, "the renewed one");
    api.world.artifacts.get(tenant.id, &again.sha256).await.unwrap();
    api.holds_no_marker_of(&tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_goes_in_batches_and_what_comes_later_stays() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let mut published = Vec::new();
    for number in 0..3 {
        let said = format!("{MARKER} says {number}.");
        published.push(publish(&api, &tenant, &format!("{number}.txt"), &[&said]).await);
    }
    let _following = api.index(&tenant, &published.iter().collect::<Vec<_>>()).await;
    api.holds_marker(&["table chunks", "table summaries", "object ", "file "]).await;
    let reader = api.key(tenant.id, &[docmill_model::scope::Scope::Upload], &[]).await;
    assert_eq!(api.delete(&reader, "/v1/collections/default").await.error().0, 403);
    assert_eq!(api.delete(&tenant.key, "/v1/collections/none").await.error(), (404, "NOT_FOUND".to_owned()));
    let accepted = api.delete(&tenant.key, "/v1/collections/default").await;
    assert_eq!(accepted.status, 202);
    let receipt = accepted.ok();
    assert_eq!((&receipt["state"], &receipt["removed"]["documents"]), (&json!("open"), &json!(0)));
    let later = publish(&api, &tenant, "later.txt", &["Something else."]).await;
    sweep::open_deletions(&stores(&api), &CancellationToken::new()).await.unwrap();
    let receipt = api.get(&tenant.key, &format!("/v1/deletions/{}", receipt["id"].as_str().unwrap())).await.ok();
    assert_eq!((&receipt["state"], &receipt["removed"]["documents"]), (&json!("finished"), &json!(3)), "{receipt}");
    assert_eq!((&receipt["removed"]["vectors"], &receipt["removed"]["objects"]), (&json!(3), &json!(9)), "{receipt}");
    api.holds_no_marker_of(&tenant).await;
    let left = api.get(&tenant.key, "/v1/documents").await.ok();
    assert_eq!(left["documents"][0]["id"], json!(later.document));
    assert_eq!((left["documents"].as_array().unwrap().len(), objects(&api, &tenant).await), (1, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cites_documents_of_two_batches_is_counted_once() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let write = api.world.database.write(tenant.id, |connection| {
        Box::pin(async move {
            for sql in [
                "INSERT INTO documents (tenant_id, id, collection, name)
                 SELECT current_tenant(), gen_random_uuid(), 'default', number::text FROM generate_series(1, 120) AS number",
                "INSERT INTO answers (tenant_id, id, principal_id, question_sha256, snapshot, document_ids, engine)
                 SELECT current_tenant(), gen_random_uuid(), gen_random_uuid(), 'x', '{}', array_agg(id), 'x' FROM documents",
                "INSERT INTO answers (tenant_id, id, principal_id, question_sha256, snapshot, document_ids, engine)
                 SELECT current_tenant(), gen_random_uuid(), gen_random_uuid(), 'x', '{}', ARRAY[id], 'x' FROM documents LIMIT 2",
            ] {
                sqlx::query(sql).execute(&mut *connection).await?;
            }
            Ok(())
        })
    });
    write.await.unwrap();
    let receipt = api.delete(&tenant.key, "/v1/collections/default").await.ok();
    sweep::open_deletions(&stores(&api), &CancellationToken::new()).await.unwrap();
    let receipt = api.get(&tenant.key, &format!("/v1/deletions/{}", receipt["id"].as_str().unwrap())).await.ok();
    let removed = &receipt["removed"];
    assert_eq!((&removed["documents"], &removed["answers"]), (&json!(120), &json!(3)), "{receipt}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_goes_with_all_it_has_and_a_receipt_stays() {
    let world = docmill_testkit::world().await;
    let operator = world.tenant().await;
    let api = Api::over(world, docmill_api::ApiConfig { operator_tenant: Some(operator), ..support::config() }).await;
    let operator = Tenant { id: operator, key: api.key(operator, &docmill_model::scope::Scope::ALL, &[]).await };
    let (doomed, other) = (api.tenant().await, api.tenant().await);
    let published = publish(&api, &doomed, "a.txt", &[&format!("{MARKER} was here.")]).await;
    let _following = api.index(&doomed, &[&published]).await;
    api.holds_marker(&["table chunks", "table summaries", "object ", "file "]).await;
    publish(&api, &other, "b.txt", &["Somebody else."]).await;
    api.post(&doomed.key, "/v1/documents", &declaration("open.txt", b"never completed")).await.ok();
    let path = format!("/v1/tenants/{}", doomed.id);
    assert_eq!(api.delete(&other.key, &path).await.error(), (404, "NOT_FOUND".to_owned()));
    assert_eq!(api.delete(&operator.key, &format!("/v1/tenants/{}", operator.id)).await.error().0, 409);
    assert_eq!(api.delete(&operator.key, &path).await.status, 202);
    assert_eq!(api.get(&doomed.key, "/v1/documents").await.error(), (401, "KEY_REVOKED".to_owned()));
    docmill_lifecycle::tenant::advance(&stores(&api), doomed.id).await.unwrap();
    let receipt = api.get(&operator.key, &format!("{path}/deletion")).await.ok();
    assert_eq!(receipt["removed"], json!({"documents": 2, "vectors": 1, "artifacts": 2, "objects": 3}), "{receipt}");
    assert!(receipt["rows_removed_at"].is_string());
    api.holds_no_marker().await;
    assert_eq!(rows_of(&api, &doomed).await, Vec::<String>::new());
    assert_eq!((objects(&api, &doomed).await, objects(&api, &other).await), (0, 3));
    // What is written late is found; an hour later it is over.
    api.world
        .blobs
        .put(&format!("{}/accepted/late", doomed.id), bytes::Bytes::new(), &docmill_model::Sha256Hex::of(b""))
        .await
        .unwrap();
    assert!(!docmill_lifecycle::tenant::advance(&stores(&api), doomed.id).await.unwrap());
    sqlx::query("UPDATE tenant_deletions SET rows_removed_at = now() - interval '2 hours'")
        .execute(api.world.database.engine())
        .await
        .unwrap();
    assert!(docmill_lifecycle::tenant::advance(&stores(&api), doomed.id).await.unwrap());
    assert_eq!(objects(&api, &doomed).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_can_be_deleted_before_and_while_it_is_processed() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let created = api.post(&tenant.key, "/v1/documents", &declaration("a.txt", MARKER.as_bytes())).await.ok();
    let path = format!("/v1/documents/{}", created["id"].as_str().unwrap());
    put(&created["upload"], MARKER.as_bytes()).await;
    api.holds_marker(&["object ", "file "]).await;
    assert_eq!(api.delete(&tenant.key, &path).await.status, 200);
    api.holds_no_marker().await;
    assert_eq!(api.post(&tenant.key, &format!("{path}/complete"), &Value::Null).await.status, 404);
    assert_eq!(objects(&api, &tenant).await, 0);
    let open: i64 =
        sqlx::query_scalar("SELECT count(*) FROM deletions WHERE finished_at IS NULL AND finish_after > now()")
            .fetch_one(api.world.database.engine())
            .await
            .unwrap();
    assert_eq!(open, 1, "the signed URL is still good: the deletion is looked at again when it is not");
    let processing = api.upload(&tenant.key, "b.txt", format!("{MARKER} and more").as_bytes()).await;
    api.holds_marker(&["object ", "file "]).await;
    assert_eq!(api.delete(&tenant.key, &format!("/v1/documents/{processing}")).await.status, 200);
    let jobs: i64 =
        sqlx::query_scalar("SELECT count(*) FROM jobs").fetch_one(api.world.database.engine()).await.unwrap();
    assert_eq!(jobs, 0);
    api.holds_no_marker().await;
    // The same bytes may come again: nothing remembers them.
    let again = format!("{MARKER} and more");
    let again = api.post(&tenant.key, "/v1/documents", &declaration("b.txt", again.as_bytes())).await;
    assert_eq!(again.status, 201);
}
