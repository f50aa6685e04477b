//! What a sample made, beside what is shown.
#![allow(clippy::unwrap_used)]

mod support;

use axum::http::Method;
use docmill_model::chunk::ChunkList;
use docmill_model::manifest::{Manifest, kind};
use docmill_model::results::{Extraction, Summary, SummarySentence};
use docmill_model::scope::Scope;
use serde_json::{Value, json};
use support::{Api, Published, Tenant, chunks, parsed, publish};
use uuid::Uuid;

async fn replay(api: &Api, tenant: &Tenant, filter: Value) -> Uuid {
    let id = Uuid::now_v7();
    let write = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO replays (tenant_id, id, filter, plan, state, finished_at)
                 VALUES (current_tenant(), $1, $2, '{\"documents\": 1}', 'done', now())",
            )
            .bind(id)
            .bind(filter)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    write.await.unwrap();
    id
}

/// The run of a sample that made `passages` of a document, or failed.
async fn run(api: &Api, tenant: &Tenant, sample: Uuid, document: &Published, passages: Option<&[&str]>) {
    let manifest = match passages {
        None => Value::Null,
        Some(passages) => {
            let mut manifest = Manifest::default();
            let first = passages[0].to_owned();
            let sentence = SummarySentence { text: first.clone(), citations: Vec::new() };
            let summary = Summary { engine: "extractive".to_owned(), sentences: vec![sentence] };
            let extraction = Extraction { data: json!({"title": first}), ..Extraction::default() };
            for (kind, bytes) in [
                (kind::PARSED, serde_json::to_vec(&parsed(&passages.join("\n\n"))).unwrap()),
                (kind::CHUNKS, serde_json::to_vec(&ChunkList { chunks: chunks(passages) }).unwrap()),
                (kind::EXTRACTION, serde_json::to_vec(&extraction).unwrap()),
                (kind::SUMMARY, serde_json::to_vec(&summary).unwrap()),
            ] {
                let stored = api.world.artifacts.put(tenant.id, bytes.into()).await.unwrap();
                manifest.artifacts.insert(kind.to_owned(), stored);
            }
            serde_json::to_value(&manifest).unwrap()
        }
    };
    let (before, has_failed): (Uuid, _) = (document.run.parse().unwrap(), passages.is_none());
    let write = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "WITH run AS (
                    INSERT INTO runs (tenant_id, id, document_id, version_id, pipeline_version, cause, parent_run, replay_id, state,
                                      code, settled_at)
                    SELECT tenant_id, $2, document_id, version_id, pipeline_version, 'sample', id, $3,
                           CASE WHEN $5 THEN 'failed' ELSE 'done' END, CASE WHEN $5 THEN 'PDF_ENCRYPTED' END, now()
                    FROM runs WHERE tenant_id = current_tenant() AND id = $1 RETURNING id, document_id)
                 INSERT INTO jobs (tenant_id, id, run_id, document_id, stage, required, state, manifest, finished_at)
                 SELECT current_tenant(), gen_random_uuid(), id, document_id, 'ingest', true, 'done', $4, now() FROM run WHERE NOT $5",
            )
            .bind(before)
            .bind(Uuid::now_v7())
            .bind(sample)
            .bind(manifest)
            .bind(has_failed)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    write.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_compared_with_what_is_shown() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let lamp = ["The brass lamp hangs in the hall.", "It is lit at dusk."];
    let boat = ["The green boat lies at the pier.", "It leaks."];
    let same = publish(&api, &tenant, "a.txt", &lamp).await;
    let other = publish(&api, &tenant, "b.txt", &boat).await;
    let failed = publish(&api, &tenant, "c.txt", &["A gate that nobody opens."]).await;
    let sample = replay(&api, &tenant, json!({"sample": 3})).await;
    run(&api, &tenant, sample, &same, Some(&lamp)).await;
    run(&api, &tenant, sample, &other, Some(&["The green ship lies at the pier.", "It leaks."])).await;
    run(&api, &tenant, sample, &failed, None).await;

    let path = format!("/v1/operate/replays/{sample}/difference");
    let questions = json!({"questions": ["Where does the green ship lie?", "When is the lamp lit?"], "k": 1});
    let found = api.post(&tenant.key, &path, &questions).await.ok();
    assert_eq!(
        found["totals"],
        json!({"documents": 3, "same": 1, "text": 1, "chunks": 1, "fields": 1, "summary": 1, "failed": 1, "open": 0, "unmade": 0, "superseded": 0})
    );
    let documents = found["documents"].as_array().unwrap();
    assert_eq!(
        documents.iter().map(|d| d["document"].as_str().unwrap()).collect::<Vec<_>>(),
        ["a.txt", "b.txt", "c.txt"]
    );
    assert_eq!(documents[0]["text"]["is_same"], true);
    let change = json!({"before": "The green boat lies at the pier.", "after": "The green ship lies at the pier."});
    assert_eq!(documents[1]["text"]["changes"], json!([change]));
    let (before, after) = (&change["before"], &change["after"]);
    assert_eq!(
        documents[1]["chunks"],
        json!({"before": 2, "after": 2, "kept": 1, "removed": [before], "added": [after]})
    );
    assert_eq!(documents[1]["fields"], json!([{"field": "title", "before": before, "after": after}]));
    assert_eq!(documents[1]["summary"], json!({"is_same": false, "before": [before], "after": [after]}));
    assert_eq!((&documents[2]["code"], &documents[2]["text"]), (&json!("PDF_ENCRYPTED"), &Value::Null));
    let answers = found["answers"].as_array().unwrap();
    assert_eq!((&answers[0]["kept"], &answers[0]["after"][0]["text"]), (&json!(0), after));
    assert_eq!((&answers[1]["kept"], &answers[1]["before"][0]["text"]), (&json!(1), &json!("It is lit at dusk.")));
    let own = api.post(&tenant.key, &path, &json!({})).await.ok();
    assert_eq!(own["answers"].as_array().unwrap().len(), 3, "one question of each document");

    let blind = api.key(tenant.id, &[Scope::Operate], &[]).await;
    assert_eq!(api.post(&blind, &path, &json!({})).await.error(), (403, "SCOPE_MISSING".to_owned()));
    let stranger = api.tenant().await;
    assert_eq!(api.post(&stranger.key, &path, &json!({})).await.error(), (404, "NOT_FOUND".to_owned()));
    for (wrong, field) in [(json!({"k": 0}), "k"), (json!({"questions": [" "]}), "questions")] {
        let refused = api.post(&tenant.key, &path, &wrong).await;
        assert_eq!(refused.error(), (422, "FIELD_INVALID".to_owned()), "{field}");
    }
    let shown = replay(&api, &tenant, json!({})).await;
    let refused = api.post(&tenant.key, &format!("/v1/operate/replays/{shown}/difference"), &json!({})).await;
    assert_eq!(refused.error(), (409, "CONFLICT".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_the_caller_may_not_see_is_left_out() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let minutes = publish(&api, &tenant, "minutes.txt", &["The board met at noon."]).await;
    let id: Uuid = minutes.document.parse().unwrap();
    let hide = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            let sql = "UPDATE documents SET labels = '{board}' WHERE id = $1";
            Ok(sqlx::query(sql).bind(id).execute(connection).await?.rows_affected())
        })
    });
    assert_eq!(hide.await.unwrap(), 1);
    let sample = replay(&api, &tenant, json!({"sample": 1})).await;
    run(&api, &tenant, sample, &minutes, Some(&["The board met at one."])).await;
    let path = format!("/v1/operate/replays/{sample}/difference");
    let (operate, read) = (Scope::Operate, Scope::ContentRead);
    let outsider = api.key(tenant.id, &[operate, read], &[]).await;
    let found = api.send(support::request(Method::POST, &path, &outsider, Some(&json!({})))).await;
    assert!(!found.text.contains("board"), "{}", found.text);
    assert_eq!((&found.json()["totals"]["documents"], &found.json()["answers"]), (&json!(0), &json!([])));
    let member = api.key(tenant.id, &[operate, read], &["board"]).await;
    assert_eq!(api.post(&member, &path, &json!({})).await.ok()["totals"]["text"], 1);
}
