//! Embedding spaces over the API: who may steer them, what is refused, and what the audit log says.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_api::ApiConfig;
use docmill_retrieval::spaces::{Builder, BuilderConfig};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use support::{Api, Tenant, config, publish};
use tokio_util::sync::CancellationToken;

async fn installation() -> (Api, Tenant) {
    let mut api = Api::start().await;
    let operator = api.tenant().await;
    let mut state = api.state.clone();
    state.config = std::sync::Arc::new(ApiConfig { operator_tenant: Some(operator.id), ..config() });
    api.router = docmill_api::router(state.clone());
    api.state = state;
    (api, operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_is_planned_built_switched_to_and_dropped() {
    let (api, operator) = installation().await;
    let other = api.tenant().await;
    publish(&api, &operator, "a.txt", &["The brass lamp hangs in the hall."]).await;
    publish(&api, &other, "b.txt", &["The green boat lies at the pier.", "It leaks."]).await;
    let (key, spaces) = (&operator.key, "/v1/operate/spaces");

    // Whoever operates one tenant sees which spaces there are, no counts of others, and steers nothing.
    let seen = api.get(&other.key, spaces).await.ok();
    assert_eq!((&seen["spaces"][0]["name"], &seen["spaces"][0]["texts"]), (&json!("all-minilm-l6-v2"), &Value::Null));
    assert_eq!(seen["spaces"][0]["embedded"], Value::Null);
    let seen = api.get(key, spaces).await.ok();
    let (texts, embedded) = (&seen["spaces"][0]["texts"], &seen["spaces"][0]["embedded"]);
    assert_eq!((texts, embedded), (&Value::Null, &json!(0)), "nobody has counted yet");
    let model = json!({"model": "second"});
    assert_eq!(api.post(&other.key, spaces, &model).await.error(), (403, "SCOPE_MISSING".to_owned()));
    assert_eq!(api.post(&other.key, &format!("{spaces}/plan"), &model).await.status, 403);
    assert_eq!(api.post(&other.key, &format!("{spaces}/all-minilm-l6-v2/switch"), &json!({})).await.status, 403);
    assert_eq!(api.delete(&other.key, &format!("{spaces}/all-minilm-l6-v2")).await.status, 403);

    let unknown = api.post(key, spaces, &json!({"model": "nosuch"})).await;
    assert_eq!(unknown.error(), (422, "FIELD_INVALID".to_owned()));
    let plan = api.post(key, &format!("{spaces}/plan"), &model).await.ok();
    assert_eq!(
        (&plan["texts"], &plan["to_embed"], &plan["is_indexed"]),
        (&json!(3), &json!(3), &json!(false)),
        "{plan}"
    );
    let built = api.post(key, spaces, &model).await;
    assert_eq!(built.status, 201);
    assert_eq!(built.ok()["state"], "building");
    assert_eq!(api.post(key, spaces, &model).await.status, 201, "repeating it goes on");

    let second = format!("{spaces}/second");
    let early = api.post(key, &format!("{second}/switch"), &json!({})).await;
    assert_eq!((early.json()["measured"].clone(), early.error()), (json!(3), (409, "SPACE_INCOMPLETE".to_owned())));
    let question = json!({"query": "lamp", "mode": "dense", "space": "second"});
    assert_eq!(api.post(key, "/v1/search", &question).await.error(), (409, "SPACE_INCOMPLETE".to_owned()));
    let paused = api.post(key, &format!("{second}/state"), &json!({"state": "paused"})).await.ok();
    assert_eq!(paused["paused"], true);
    api.post(key, &format!("{second}/state"), &json!({"state": "running"})).await.ok();

    let embedders = api.state.search.embedders().clone();
    let mut builder = Builder::new(api.world.database.clone(), embedders.clone(), BuilderConfig::new("test"));
    builder.round(&CancellationToken::new()).await.unwrap();
    let ready = api.get(key, &second).await.ok();
    assert_eq!(
        (&ready["state"], &ready["missing"], &ready["embedded"]),
        (&json!("ready"), &json!(0), &json!(3)),
        "{ready}"
    );
    let masked = api.get(&other.key, &second).await.ok();
    assert_eq!((&masked["state"], &masked["texts"], &masked["missing"]), (&json!("ready"), &Value::Null, &Value::Null));
    assert_eq!(api.post(key, "/v1/search", &question).await.ok()["hits"][0]["document"], "a.txt");
    let nameless = json!({"query": "lamp", "space": "third"});
    assert_eq!(api.post(key, "/v1/search", &nameless).await.error(), (422, "SPACE_UNKNOWN".to_owned()));
    let asked = json!({"question": "Where does the brass lamp hang?", "space": "third"});
    assert_eq!(api.post(key, "/v1/answers", &asked).await.error(), (422, "SPACE_UNKNOWN".to_owned()));

    let long = "x".repeat(5_000);
    assert_eq!(api.get(key, &format!("{spaces}/{long}")).await.error().0, 404);
    for verb in ["state", "switch"] {
        let body = if verb == "state" { json!({"state": "paused"}) } else { json!({}) };
        assert_eq!(api.post(key, &format!("{spaces}/{long}/{verb}"), &body).await.error().0, 404, "{verb}");
    }
    assert_eq!(api.delete(key, &format!("{spaces}/{long}")).await.error().0, 404);
    assert_eq!(api.post(key, spaces, &json!({"model": long})).await.error().0, 422);
    for (path, asked) in [("search", "query"), ("answers", "question")] {
        let body = json!({asked: "lamp", "space": long});
        assert_eq!(api.post(key, &format!("/v1/{path}"), &body).await.error(), (422, "SPACE_UNKNOWN".to_owned()));
    }

    assert_eq!(api.post(key, &format!("{second}/switch"), &json!({})).await.ok()["state"], "active");
    assert_eq!(
        api.post(key, &format!("{second}/switch"), &json!({})).await.ok()["state"],
        "active",
        "again is nothing"
    );
    assert_eq!(api.delete(key, &second).await.error(), (409, "SPACE_ACTIVE".to_owned()));
    let pause = api.post(key, &format!("{second}/state"), &json!({"state": "paused"})).await;
    assert_eq!(pause.error(), (409, "SPACE_ACTIVE".to_owned()));
    let old = json!({"query": "boat", "mode": "dense", "space": "all-minilm-l6-v2"});
    assert_eq!(api.post(&other.key, "/v1/search", &old).await.ok()["hits"][0]["document"], "b.txt");

    // What the doctor asks for is a vector where answers come from; one in the former space is none.
    let vectorless = async |count: usize| {
        let report = api.get(key, "/v1/operate/doctor").await.ok();
        let invariants = report["invariants"].as_array().unwrap();
        let invariant = invariants.iter().find(|invariant| invariant["name"] == "chunk_has_vector").unwrap();
        assert_eq!(invariant["violations"].as_array().unwrap().len(), count, "{invariant}");
    };
    sqlx::query("UPDATE jobs SET stage = 'embed'").execute(api.world.database.engine()).await.unwrap();
    let indexed = api.world.database.write(other.id, |connection| {
        Box::pin(async move {
            let job = "INSERT INTO jobs SELECT (jsonb_populate_record(j, jsonb_build_object('id', gen_random_uuid(), 'stage', 'index'))).*
                       FROM jobs j";
            sqlx::query(job).execute(connection).await?;
            Ok(())
        })
    });
    indexed.await.unwrap();
    vectorless(0).await;
    let removal = api.world.database.write(other.id, |connection| {
        Box::pin(async move {
            let removal = sqlx::query("DELETE FROM vectors WHERE space_id = (SELECT space_id FROM active_spaces)");
            Ok(removal.execute(connection).await?.rows_affected())
        })
    });
    assert_eq!(removal.await.unwrap(), 2);
    vectorless(1).await;
    let mut builder = Builder::new(api.world.database.clone(), embedders.clone(), BuilderConfig::new("test"));
    builder.round(&CancellationToken::new()).await.unwrap();
    vectorless(0).await;

    // A deletion covers every space.
    let gone = publish(&api, &other, "gone.txt", &["A paragraph of Beeblebrox that goes."]).await;
    let _following = api.index(&other, &[&gone]).await;
    // Documents of this test are on no feed: a builder that has not looked yet finds this one.
    let mut builder = Builder::new(api.world.database.clone(), embedders, BuilderConfig::new("test"));
    builder.round(&CancellationToken::new()).await.unwrap();
    let receipt = api.delete(&other.key, &format!("/v1/documents/{}", gone.document)).await.ok();
    let id = receipt["id"].as_str().unwrap().parse().unwrap();
    docmill_lifecycle::sweep::finish(&api.state.stores(), other.id, id).await.unwrap();
    let receipt = api.get(&other.key, &format!("/v1/deletions/{id}")).await.ok();
    assert_eq!(receipt["removed"]["vectors"], 2, "one in each space: {receipt}");
    api.holds_no_marker_of(&other).await;

    let dropped = api.delete(key, &format!("{spaces}/all-minilm-l6-v2")).await;
    assert_eq!((dropped.status.as_u16(), &dropped.json()["finished_at"]), (202, &Value::Null));
    assert_eq!(api.post(&other.key, "/v1/search", &old).await.error(), (422, "SPACE_UNKNOWN".to_owned()));
    builder.round(&CancellationToken::new()).await.unwrap();
    let list = api.get(key, spaces).await.ok();
    assert_eq!((list["spaces"].as_array().unwrap().len(), &list["dropped"][0]["vectors"]), (1, &json!(3)), "{list}");
    assert_eq!(api.get(key, &format!("{spaces}/all-minilm-l6-v2")).await.status, 404);

    let audit = api.get(key, "/v1/audit").await.ok().to_string();
    for action in ["space.build", "space.state", "space.switch", "space.drop"] {
        assert!(audit.contains(action), "{action}: {audit}");
    }
    assert_eq!(api.get(key, "/v1/audit/verify").await.ok()["first_broken"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_with_an_index_of_another_length_is_not_given_out() {
    let (api, operator) = installation().await;
    // The owner has made an index of another length for the first number without one.
    let mut owner =
        <sqlx::PgConnection as sqlx::Connection>::connect(api.world.owner_url.expose_secret()).await.unwrap();
    let made = sqlx::query("INSERT INTO space_indexes (space_id, dimensions) VALUES (100, 128)");
    made.execute(&mut owner).await.unwrap();
    let built = api.post(&operator.key, "/v1/operate/spaces", &json!({"model": "second"})).await.ok();
    assert_eq!((&built["dimensions"], &built["is_indexed"]), (&json!(64), &json!(false)));
    let id: i32 = sqlx::query_scalar("SELECT id FROM embedding_spaces WHERE name = 'second'")
        .fetch_one(api.world.database.engine())
        .await
        .unwrap();
    assert_eq!(id, 101);
}
