//! What rules let go, and what nothing uses any more: exactly that, and nothing that is needed.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_lifecycle::collect::{self, Ages};
use docmill_lifecycle::retention::{self, PipelineRules};
use docmill_lifecycle::{Counts, Rules, Stores};
use docmill_model::TenantId;
use serde_json::{Value, json};
use std::time::Duration;
use support::{Api, MARKER, Tenant, declaration, parsed, publish, put, request};

fn stores(api: &Api) -> Stores {
    Stores { database: api.world.database.clone(), artifacts: api.world.artifacts.clone() }
}

async fn execute(api: &Api, tenant: TenantId, sql: &'static str) {
    let write = api
        .world
        .database
        .write(tenant, move |connection| Box::pin(async move { Ok(sqlx::query(sql).execute(connection).await?) }));
    write.await.unwrap();
}

async fn objects(api: &Api, tenant: &Tenant) -> Vec<String> {
    let mut keys = Vec::new();
    for prefix in docmill_platform::layout::tenant_prefixes(tenant.id) {
        keys.extend(api.world.blobs.list(&prefix, None).await.unwrap().into_iter().map(|entry| entry.key));
    }
    keys
}

fn rules(rules: Rules) -> PipelineRules {
    PipelineRules::from([("default".to_owned(), rules)])
}

async fn set(api: &Api, tenant: &Tenant, rules: Value) -> Value {
    api.send(request(axum::http::Method::PUT, "/v1/retention", &tenant.key, Some(&rules))).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_when_its_time_is_over_and_what_was_made_of_it_stays() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let published = publish(&api, &tenant, "a.txt", &["The reactor is painted green."]).await;
    let view = set(&api, &tenant, json!({"raw_days": 30})).await;
    assert_eq!((&view["tenant"]["raw_days"], &view["pipelines"]["default"]["raw_days"]), (&json!(30), &json!(30)));
    let apply =
        async |dry_run: bool| api.post(&tenant.key, "/v1/retention/apply", &json!({"dry_run": dry_run})).await.ok();
    assert_eq!(apply(false).await["raw"], json!([]), "it is young");
    execute(&api, tenant.id, "UPDATE document_versions SET accepted_at = now() - interval '31 days'").await;
    let before = objects(&api, &tenant).await.len();
    let planned = apply(true).await;
    assert_eq!((planned["raw"].as_array().unwrap().len(), objects(&api, &tenant).await.len()), (1, before));
    let applied = apply(false).await;
    assert_eq!((&applied["raw"], &applied["removed"]["objects"]), (&planned["raw"], &json!(1)), "{applied}");
    assert!(objects(&api, &tenant).await.iter().all(|key| !key.contains("/accepted/")));
    let path = format!("/v1/documents/{}", published.document);
    assert_eq!(api.get(&tenant.key, &format!("{path}/text")).await.ok()["text"], "The reactor is painted green.");
    assert_eq!(api.get(&tenant.key, &format!("{path}/versions")).await.ok()[0]["file_removed"], true);
    assert_eq!(apply(false).await["raw"], json!([]), "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_goes_whole_by_the_tighter_rule_but_not_while_it_is_worked_on() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let published = publish(&api, &tenant, "a.txt", &[&format!("An old story of {MARKER}.")]).await;
    let _following = api.index(&tenant, &[&published]).await;
    api.upload(&tenant.key, "b.txt", b"under way").await;
    let open = api.post(&tenant.key, "/v1/documents", &declaration("c.txt", MARKER.as_bytes())).await.ok();
    put(&open["upload"], MARKER.as_bytes()).await;
    api.holds_marker(&["table chunks", "object ", "file "]).await;
    set(&api, &tenant, json!({"document_days": 10})).await;
    execute(
        &api,
        tenant.id,
        "UPDATE document_versions SET accepted_at = now() - interval '11 days' WHERE upload_state = 'accepted'",
    )
    .await;
    execute(
        &api,
        tenant.id,
        "UPDATE documents SET state = 'expired', updated_at = now() - interval '8 days' WHERE state = 'uploading'",
    )
    .await;
    execute(&api, tenant.id, "UPDATE document_versions SET upload_state = 'expired' WHERE upload_state = 'pending'")
        .await;
    let pipelines = rules(Rules { document_days: Some(90), ..Rules::default() });
    let plan = retention::plan(&api.world.database, tenant.id, &pipelines).await.unwrap();
    assert_eq!(plan.documents.len(), 2, "the old one and the abandoned one");
    let counts = retention::apply(&stores(&api), tenant.id, plan).await.unwrap();
    assert_eq!((counts.documents, counts.chunks), (2, 1));
    let left = api.get(&tenant.key, "/v1/documents").await.ok();
    assert_eq!((left["documents"].as_array().unwrap().len(), &left["documents"][0]["name"]), (1, &json!("b.txt")));
    let retained = api.get(&tenant.key, "/v1/deletions").await.ok();
    assert!(retained["deletions"].as_array().unwrap().iter().all(|receipt| receipt["cause"] == "retention"));
    // The open run might have used what both have; nothing has to wait for it any more.
    execute(&api, tenant.id, "UPDATE runs SET state = 'cancelled', settled_at = now() WHERE state = 'running'").await;
    docmill_lifecycle::sweep::open_deletions(&stores(&api), &Default::default()).await.unwrap();
    api.holds_no_marker_of(&tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn intermediate_results_go_and_the_text_that_answers_stays() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let published = publish(&api, &tenant, "a.txt", &["Some passage."]).await;
    execute(&api, tenant.id, "UPDATE runs SET settled_at = now() - interval '8 days'").await;
    let pipelines = rules(Rules { artifacts_days: Some(7), ..Rules::default() });
    let plan = retention::plan(&api.world.database, tenant.id, &pipelines).await.unwrap();
    let counts = retention::apply(&stores(&api), tenant.id, plan).await.unwrap();
    assert_eq!((counts.artifacts, counts.objects), (1, 1), "the list of chunks; quotes are read from the text");
    let text = api.get(&tenant.key, &format!("/v1/documents/{}/text", published.document)).await.ok();
    assert_eq!(text["text"], "Some passage.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_answers_quote_outlives_a_replay_and_goes_with_its_document() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let published =
        publish(&api, &tenant, "lease.txt", &["The monthly rent is 4,250 euros.", "Beeblebrox lives there."]).await;
    let _following = api.index(&tenant, &[&published]).await;
    let answer = api.post(&tenant.key, "/v1/answers", &json!({"question": "How much is the monthly rent?"})).await.ok();
    assert_eq!(answer["found"], true, "{answer}");
    // A replay read the file otherwise; nothing but the answer uses the text as it was before.
    let anew =
        serde_json::to_vec(&parsed("Page 1\n\nThe monthly rent is 4,250 euros.\n\nBeeblebrox lives there.")).unwrap();
    let anew = api.world.artifacts.put(tenant.id, anew.into()).await.unwrap().sha256;
    let replayed = api.world.database.write(tenant.id, move |connection| {
        Box::pin(async move {
            for sql in [
                "UPDATE document_versions SET parsed_sha256 = $1",
                "UPDATE generations SET parsed_sha256 = $1",
                "UPDATE jobs SET manifest = NULL WHERE $1 <> ''",
            ] {
                sqlx::query(sql).bind(anew.as_str()).execute(&mut *connection).await?;
            }
            Ok(())
        })
    });
    replayed.await.unwrap();
    let ages = Ages { unreferenced: Duration::ZERO, cached: Duration::from_secs(3_600) };
    let collected = collect::pass(&stores(&api), tenant.id, ages).await.unwrap();
    assert_eq!(collected.artifacts, 1, "the list of chunks");
    let stored = api.get(&tenant.key, &format!("/v1/answers/{}", answer["id"].as_str().unwrap())).await.ok();
    assert_eq!(stored["sentences"], answer["sentences"]);
    assert_eq!(api.delete(&tenant.key, &format!("/v1/documents/{}", published.document)).await.status, 200);
    assert_eq!(objects(&api, &tenant).await, Vec::<String>::new());
    api.holds_no_marker_of(&tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_nothing_uses_is_collected_and_only_once_no_open_run_may_need_it() {
    let api = Api::start().await;
    let tenant = api.tenant().await;
    let kept = publish(&api, &tenant, "kept.txt", &["A passage in use."]).await;
    let (ages, young) = (
        Ages { unreferenced: Duration::ZERO, cached: Duration::from_secs(3_600) },
        Ages { unreferenced: Duration::from_secs(3_600), cached: Duration::from_secs(3_600) },
    );
    let before = objects(&api, &tenant).await;
    assert_eq!(collect::pass(&stores(&api), tenant.id, ages).await.unwrap(), Counts::default(), "all is in use");

    // Leftovers of a run that failed: an artifact, a vector, an object without a row, a generation nothing shows.
    api.world.artifacts.put(tenant.id, bytes::Bytes::from_static(b"of a failed run")).await.unwrap();
    let stray = docmill_platform::layout::accepted_key(tenant.id, &"0".repeat(64));
    let nothing = docmill_model::Sha256Hex::of(b"");
    api.world.blobs.put(&stray, bytes::Bytes::new(), &nothing).await.unwrap();
    execute(
        &api,
        tenant.id,
        "INSERT INTO vectors (tenant_id, space_id, embed_hash, embedding)
         SELECT current_tenant(), 1, sha256('lost'), embedding FROM vectors LIMIT 1",
    )
    .await;
    execute(
        &api,
        tenant.id,
        "INSERT INTO generations (tenant_id, id, document_id, version_id, chunks_sha256, chunk_count, state, retired_at)
         SELECT current_tenant(), gen_random_uuid(), document_id, version_id, 'x', 0, 'retired', now() FROM generations LIMIT 1",
    )
    .await;
    assert_eq!(collect::pass(&stores(&api), tenant.id, young).await.unwrap(), Counts::default(), "it is young");

    let running = api.upload(&tenant.key, "running.txt", format!("{MARKER} under way").as_bytes()).await;
    api.holds_marker(&["object ", "file "]).await;
    let open = collect::pass(&stores(&api), tenant.id, ages).await.unwrap();
    assert_eq!((open.generations, open.vectors, open.artifacts, open.objects), (1, 0, 0, 0), "the run may need them");
    execute(&api, tenant.id, "UPDATE runs SET state = 'cancelled', settled_at = now() WHERE state = 'running'").await;
    assert_eq!(api.delete(&tenant.key, &format!("/v1/documents/{running}")).await.status, 200);
    docmill_lifecycle::sweep::open_deletions(&stores(&api), &Default::default()).await.unwrap();
    let receipts = api.get(&tenant.key, "/v1/deletions").await.ok();
    let collected =
        receipts["deletions"].as_array().unwrap().iter().find(|receipt| receipt["cause"] == "collect").unwrap();
    assert_eq!(collected["state"], "finished", "{receipts}");
    let removed = ["generations", "vectors", "artifacts", "objects"].map(|kind| collected["removed"][kind].clone());
    assert_eq!(removed, [json!(1), json!(1), json!(1), json!(2)], "{receipts}");
    assert_eq!(objects(&api, &tenant).await, before, "nothing else went");
    api.holds_no_marker().await;
    let text = api.get(&tenant.key, &format!("/v1/documents/{}/text", kept.document)).await.ok();
    assert_eq!(text["text"], "A passage in use.");
    assert_eq!(collect::pass(&stores(&api), tenant.id, ages).await.unwrap(), Counts::default());
}
