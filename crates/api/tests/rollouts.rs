//! Rollouts of prompts that have to rest on an evaluation: refused, passed, forced for a reason, and never in the way back.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_api::ApiConfig;
use docmill_api::prompts::gate::RolloutGate;
use docmill_platform::gateway::prompts::evaluations;
use docmill_platform::gateway::prompts::{Prompt, Prompts};
use docmill_retrieval::eval::{Gate, Measure, Outcome};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::{Api, Reply, Tenant, config};

const ROLLOUT: &str = "/v1/operate/prompts/greet/rollout";

fn prompt(version: i32) -> Prompt {
    let text =
        format!("name: greet\nversion: {version}\ndescription: Greets.\n\n# system\nHello {version}.\n# user\nx\n");
    Prompt::parse(&text).unwrap()
}

/// An installation whose prompt `greet` has three versions, the first in use, and a gate.
async fn gated() -> (Api, Tenant) {
    let mut api = Api::start().await;
    let operator = api.tenant().await;
    Prompts::register(api.world.database.clone(), vec![prompt(1)]).await.unwrap();
    Prompts::register(api.world.database.clone(), vec![prompt(1), prompt(2), prompt(3)]).await.unwrap();
    let gate =
        RolloutGate { evaluation: "nightly".to_owned(), fail_if: vec![Gate::parse("faq.token_f1 < 0.5").unwrap()] };
    let mut state = api.state.clone();
    state.config = std::sync::Arc::new(ApiConfig {
        operator_tenant: Some(operator.id),
        rollout_gates: BTreeMap::from([("greet".to_owned(), gate)]),
        ..config()
    });
    api.router = docmill_api::router(state.clone());
    api.state = state;
    (api, operator)
}

async fn measured(api: &Api, version: i32, f1: f64) {
    let measures = vec![Measure::plain("token_f1", f1)];
    let suites = json!([Outcome { suite: "faq".to_owned(), measures, ..Outcome::default() }]);
    evaluations::record(&api.world.database, "greet", version, "nightly", &suites, &[]).await.unwrap();
}

fn refused(reply: &Reply, code: &str, words: &[&str]) {
    assert_eq!(reply.error(), (409, code.to_owned()));
    let message = reply.json()["message"].as_str().unwrap().to_owned();
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

async fn in_use(api: &Api, key: &str) -> Value {
    api.get(key, "/v1/operate/prompts/greet").await.ok()["rule"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_rolled_out_when_it_passed_and_is_told_what_it_measured_when_not() {
    let (api, operator) = gated().await;
    let key = &operator.key;
    let missing = api.post(key, ROLLOUT, &json!({"version": 2})).await;
    refused(&missing, "EVALUATION_MISSING", &["greet@2", "`nightly`", "docmill eval run FILE --prompt greet@2"]);
    measured(&api, 2, 0.4125).await;
    let below = ["greet@2", "faq.token_f1 < 0.5", "faq.token_f1 is 0.4125"];
    for rule in [
        json!({"version": 2}),
        json!({"version": 1, "share": {"version": 2, "percent": 1}}),
        json!({"version": 1, "tenants": {operator.id.to_string(): 2}}),
    ] {
        refused(&api.post(key, ROLLOUT, &rule).await, "EVALUATION_FAILED", &below);
    }
    assert_eq!(in_use(&api, key).await, json!({"version": 1}), "a refused rollout leaves nothing behind");
    assert_eq!(api.post(key, ROLLOUT, &json!({"version": 9})).await.error(), (422, "FIELD_INVALID".to_owned()));
    api.post(key, ROLLOUT, &json!({"version": 1})).await.ok();

    // The newest run counts, and what is in use already asks for nothing.
    measured(&api, 2, 0.5).await;
    api.post(key, ROLLOUT, &json!({"version": 1, "share": {"version": 2, "percent": 10}})).await.ok();
    measured(&api, 2, 0.3).await;
    let more = api.post(key, ROLLOUT, &json!({"version": 1, "share": {"version": 2, "percent": 11}})).await;
    refused(&more, "EVALUATION_FAILED", &["is 0.3000"]);
    api.post(key, ROLLOUT, &json!({"version": 1, "share": {"version": 2, "percent": 5}})).await.ok();

    let shown = api.get(key, "/v1/operate/prompts/greet").await.ok();
    assert_eq!(shown["gate"], json!({"evaluation": "nightly", "fail_if": ["faq.token_f1 < 0.5"]}));
    assert_eq!(shown["evaluations"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(shown["evaluations"][0]["figures"], json!({"faq.token_f1": 0.3}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_forces_a_rollout_and_is_audited_and_a_rollback_needs_none() {
    let (api, operator) = gated().await;
    let key = &operator.key;
    for reason in ["", "   ", &"x".repeat(501)] {
        let reply = api.post(key, ROLLOUT, &json!({"version": 2, "force": reason})).await;
        assert_eq!(reply.error(), (422, "FIELD_INVALID".to_owned()), "{reason:?}");
    }
    let longest = "x".repeat(500);
    for (version, reason) in [(2, "the provider withdrew the old model"), (3, longest.as_str())] {
        let forced = api.post(key, ROLLOUT, &json!({"version": version, "force": reason})).await.ok();
        assert_eq!(forced, json!({"version": version}));
    }
    assert_eq!(api.post(key, "/v1/operate/prompts/greet/rollback", &json!(null)).await.ok(), json!({"version": 2}));
    measured(&api, 3, 0.9).await;
    api.post(key, ROLLOUT, &json!({"version": 3, "force": "not needed"})).await.ok();

    let log = api.get(key, "/v1/audit").await.ok();
    let entries: Vec<&Value> = log["entries"].as_array().unwrap().iter().collect();
    let rollouts: Vec<&Value> = entries.into_iter().filter(|row| row["action"] == "prompt.rollout").collect();
    let forced: Vec<&Value> =
        rollouts.iter().map(|row| &row["data"]["forced"]).filter(|forced| !forced.is_null()).collect();
    assert_eq!((rollouts.len(), forced.len()), (3, 2), "what passes is not forced: {log}");
    let first = forced.iter().find(|forced| forced["reason"] == "the provider withdrew the old model").unwrap();
    assert_eq!(first["code"], "EVALUATION_MISSING");
    assert!(first["refusal"].as_str().unwrap().contains("greet@2"), "{first}");
}
