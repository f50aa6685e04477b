//! What a document is called and who may see it belongs to its version: a declaration changes nothing that answers.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::scope::Scope;
use docmill_testkit::eventually;
use serde_json::{Value, json};
use std::time::Duration;
use support::{Api, declaration, publish, put};

fn described(name: &str, bytes: &[u8], more: &Value) -> Value {
    let mut declaration = declaration(name, bytes);
    for (field, value) in more.as_object().unwrap() {
        declaration[field] = value.clone();
    }
    declaration
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_describes_the_document_when_it_is_visible() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let named = json!({"external_id": "plan", "metadata": {"year": 2024}});
    let created = api.post(&tenant.key, "/v1/documents", &described("plan.txt", b"the first plan", &named)).await.ok();
    let path = format!("/v1/documents/{}", created["id"].as_str().unwrap());
    // Nothing answers from it yet: the newest declaration describes it.
    let renamed = json!({"external_id": "plan", "metadata": {"year": 2025}});
    let again = api.post(&tenant.key, "/v1/documents", &described("plan 2.txt", b"the second", &renamed)).await.ok();
    assert_eq!((&again["id"], &again["version"]), (&created["id"], &json!(2)));
    let shown = api.get(&tenant.key, &path).await.ok();
    assert_eq!((&shown["name"], &shown["metadata"]["year"]), (&json!("plan 2.txt"), &json!(2025)));

    let published = publish(&api, &tenant, "harbour.txt", &["The pier is closed on Mondays."]).await;
    let id: uuid::Uuid = published.document.parse().unwrap();
    let write = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE documents SET external_id = 'harbour' WHERE id = $1")
                .bind(id)
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    write.await.unwrap();
    let wider = json!({"external_id": "harbour", "metadata": {"draft": true}});
    let next = api.post(&tenant.key, "/v1/documents", &described("next.txt", b"another text", &wider)).await.ok();
    assert_eq!((next["id"].as_str(), &next["version"]), (Some(published.document.as_str()), &json!(2)));
    put(&next["upload"], b"another text").await;
    let path = format!("/v1/documents/{}", published.document);
    let shown = api.get(&tenant.key, &path).await.ok();
    assert_eq!((&shown["name"], &shown["metadata"]), (&json!("harbour.txt"), &json!({})), "the old version answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_bytes_may_be_described_anew() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let key = api.key(tenant.id, &[Scope::Upload, Scope::Query, Scope::ContentRead], &["board"]).await;
    let bytes = b"the minutes of the meeting";
    let open = json!({"external_id": "minutes"});
    let created = api.post(&key, "/v1/documents", &described("minutes.txt", bytes, &open)).await.ok();
    let path = format!("/v1/documents/{}", created["id"].as_str().unwrap());
    put(&created["upload"], bytes).await;
    api.post(&key, &format!("{path}/complete"), &Value::Null).await.ok();
    assert_eq!(api.get(&tenant.key, &path).await.status, 200);

    let closed = json!({"external_id": "minutes", "labels": ["board"], "metadata": {"year": 2025}});
    let again = api.post(&key, "/v1/documents", &described("minutes 2025.txt", bytes, &closed)).await.ok();
    assert_eq!((&again["deduplicated"], &again["id"]), (&json!(true), &created["id"]));
    let shown = api.get(&key, &path).await.ok();
    assert_eq!((&shown["name"], &shown["metadata"]["year"]), (&json!("minutes 2025.txt"), &json!(2025)));
    assert_eq!(api.get(&tenant.key, &path).await.status, 404, "whoever lacks the label sees it no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gains_sight_of_a_document_finds_it_by_the_next_search_although_one_was_remembered() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let _following = api.follow();
    let words = "The harbour board meets on Mondays.";
    let published = publish(&api, &tenant, "minutes.txt", &[words]).await;
    let id: uuid::Uuid = published.document.parse().unwrap();
    let write = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE documents SET external_id = 'minutes', labels = '{board}' WHERE id = $1")
                .bind(id)
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    write.await.unwrap();
    api.announce(tenant.id, vec![published.generation]).await;
    let look = || async {
        let found = api.post(&tenant.key, "/v1/search", &json!({"query": "harbour board"})).await;
        if found.status == 200 { found.ok() } else { Value::Null }
    };
    eventually("a search is remembered", Duration::from_secs(90), || async { look().await["cached"] == true }).await;
    assert_eq!(look().await["hits"], json!([]), "the key lacks the label");

    let member = api.key(tenant.id, &[Scope::Upload, Scope::Query, Scope::ContentRead], &["board"]).await;
    let open = json!({"external_id": "minutes", "labels": []});
    let again = api.post(&member, "/v1/documents", &described("minutes.txt", words.as_bytes(), &open)).await.ok();
    assert_eq!((&again["deduplicated"], again["id"].as_str()), (&json!(true), Some(published.document.as_str())));
    let found = look().await;
    assert_eq!((&found["cached"], &found["hits"][0]["document"]), (&Value::Null, &json!("minutes.txt")), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_description_without_an_external_id_is_another_document() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let key = api.key(tenant.id, &[Scope::Upload, Scope::Query], &["board"]).await;
    let bytes = b"one text, two documents";
    let first = api.post(&key, "/v1/documents", &declaration("a.txt", bytes)).await.ok();
    put(&first["upload"], bytes).await;
    let complete = format!("/v1/documents/{}/complete", first["id"].as_str().unwrap());
    api.post(&key, &complete, &Value::Null).await.ok();
    for other in [json!({"labels": ["board"]}), json!({"metadata": {"year": 2025}})] {
        let second = api.post(&key, "/v1/documents", &described("a.txt", bytes, &other)).await.ok();
        assert_eq!(second["deduplicated"], json!(false), "{other}");
        assert_ne!(second["id"], first["id"], "{other}");
    }
    let same = api.post(&key, "/v1/documents", &declaration("b.txt", bytes)).await.ok();
    assert_eq!((&same["deduplicated"], &same["id"]), (&json!(true), &first["id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_of_unchanged_bytes_is_found_and_the_old_one_is_not() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let text = "The pier is closed on Mondays.";
    let published = publish(&api, &tenant, "pilot.txt", &[text]).await;
    let id: uuid::Uuid = published.document.parse().unwrap();
    let write = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE documents SET external_id = 'pier' WHERE id = $1").bind(id).execute(connection).await?;
            Ok(())
        })
    });
    write.await.unwrap();
    let operations = async || {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM index_ops");
        count.fetch_one(api.world.database.engine()).await.unwrap()
    };
    let early = described("harbourmaster.txt", text.as_bytes(), &json!({"external_id": "pier"}));
    api.post(&tenant.key, "/v1/documents", &early).await.ok();
    assert_eq!(operations().await, 0, "whose chunks may still be written is announced when they are all there");
    api.announce(tenant.id, vec![published.generation]).await;
    let _following = api.follow();
    let patience = Duration::from_secs(90);
    let found = async |words: &str| api.found(&tenant.key, words).await == [published.document.clone()];
    eventually("the first name is found", patience, || found("harbourmaster")).await;
    let runs = async || {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM runs");
        count.fetch_one(api.world.database.engine()).await.unwrap()
    };
    let before = runs().await;
    let renamed = described("lighthousekeeper.txt", text.as_bytes(), &json!({"external_id": "pier"}));
    let again = api.post(&tenant.key, "/v1/documents", &renamed).await.ok();
    assert_eq!((&again["deduplicated"], &again["id"]), (&json!(true), &json!(published.document)));
    eventually("the new name is found", patience, || found("lighthousekeeper")).await;
    assert!(api.found(&tenant.key, "harbourmaster").await.is_empty(), "the old one is not");
    assert_eq!(runs().await, before, "nothing was processed");
    // The same description again is no change.
    let announced = operations().await;
    api.post(&tenant.key, "/v1/documents", &renamed).await.ok();
    assert_eq!(operations().await, announced);
}
