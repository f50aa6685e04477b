//! Schedules over the API: seen, planned, fired and paused, by each tenant for itself, on record.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::scope::Scope;
use serde_json::{Value, json};
use support::{Api, publish};

const NIGHTLY: &str = "/v1/operate/schedules/default/nightly";

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_planned_fired_by_hand_and_paused() {
    let api = Api::start().await;
    let (tenant, other) = (api.tenant().await, api.tenant().await);
    let first = publish(&api, &tenant, "a.txt", &["The older one."]).await;
    publish(&api, &tenant, "b.txt", &["The newer one."]).await;
    let shown = api.get(&tenant.key, "/v1/operate/schedules").await.ok();
    let nightly = &shown["schedules"][0];
    assert_eq!((&nightly["pipeline"], &nightly["name"]), (&json!("default"), &json!("nightly")));
    assert_eq!((&nightly["state"], &nightly["schedule"]["cron"]), (&json!("waiting"), &json!("0 3 * * *")));
    assert!(nightly["next_at"].as_str().unwrap().ends_with("T03:00:00Z"), "{nightly}");

    let plan = api.post(&tenant.key, &format!("{NIGHTLY}/plan"), &Value::Null).await.ok();
    assert_eq!((&plan["documents"], &plan["beyond_budget"]), (&json!(1), &json!(1)), "{plan}");
    let nobody = api.post(&other.key, &format!("{NIGHTLY}/run"), &Value::Null).await;
    assert_eq!(nobody.error(), (404, "NOT_FOUND".to_owned()), "another tenant has no document");
    let started = api.post(&tenant.key, &format!("{NIGHTLY}/run"), &Value::Null).await;
    assert_eq!(started.status, 201, "{}", started.text);
    let replay = started.ok()["id"].clone();
    let again = api.post(&tenant.key, &format!("{NIGHTLY}/run"), &Value::Null).await;
    assert_eq!(again.error(), (409, "CONFLICT".to_owned()), "one at a time");
    let report = api.get(&tenant.key, &format!("/v1/operate/replays/{}", replay.as_str().unwrap())).await.ok();
    assert_eq!((&report["schedule"], &report["documents"]), (&json!("default/nightly"), &json!(1)));
    let listed = api.get(&tenant.key, "/v1/operate/replays").await.ok();
    assert_eq!((&listed["replays"][0]["id"], &listed["replays"][0]["schedule"]), (&replay, &json!("default/nightly")));
    let chosen = listed["replays"][0]["select"].to_string();
    assert!(chosen.contains("max_documents") && !chosen.contains(&first.document), "{chosen}");

    let paused = api.post(&tenant.key, &format!("{NIGHTLY}/state"), &json!({"state": "paused"})).await.ok();
    assert_eq!(paused["state"], "paused");
    let twice = api.post(&tenant.key, &format!("{NIGHTLY}/state"), &json!({"state": "paused"})).await;
    assert_eq!(twice.error(), (409, "CONFLICT".to_owned()));
    let theirs = api.get(&other.key, "/v1/operate/schedules").await.ok();
    assert_eq!(theirs["schedules"][0]["state"], "waiting", "each tenant for itself");
    let resumed = api.post(&tenant.key, &format!("{NIGHTLY}/state"), &json!({"state": "waiting"})).await.ok();
    let firing = (&resumed["state"], &resumed["last_replay"], &resumed["last_state"]);
    assert_eq!(firing, (&json!("running"), &replay, &json!("running")), "the firing by hand is at work");
    let odd = api.post(&tenant.key, &format!("{NIGHTLY}/state"), &json!({"state": "gone"})).await;
    assert_eq!(odd.error().1, "FIELD_INVALID");
    for (pipeline, name) in [("default", "none"), ("none", "nightly")] {
        let path = format!("/v1/operate/schedules/{pipeline}/{name}/plan");
        assert_eq!(api.post(&tenant.key, &path, &Value::Null).await.status, 404);
    }
    let reader = api.key(tenant.id, &[Scope::Query, Scope::Admin], &[]).await;
    assert_eq!(api.get(&reader, "/v1/operate/schedules").await.error(), (403, "SCOPE_MISSING".to_owned()));
    let audit = api.get(&tenant.key, "/v1/audit?limit=10").await.ok();
    let actions: Vec<&Value> = audit["entries"].as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions.iter().filter(|action| **action == "schedule.state").count(), 2, "{audit}");
    assert!(actions.contains(&&json!("schedule.run")), "{audit}");
}
