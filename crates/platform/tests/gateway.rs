//! The gateway against a scripted model server on a real socket, with its ledger in a real database.
#![allow(clippy::unwrap_used)]

mod script;

use docmill_model::{Code, DocumentId, Failure, TenantId};
use docmill_platform::gateway::{
    Deltas, Dialect, Gateway, GatewayConfig, JsonMode, ModelCall, ModelConfig, Price, Prices, ProviderLimits, UseConfig,
};
use docmill_testkit::{World, eventually, world};
use script::{Answer, Server, server};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// One micro-dollar a token, in and out.
const PRICE: Price = Price { input: 1_000_000, cached: 500_000, output: 1_000_000 };

fn model(server: &Server, name: &str) -> ModelConfig {
    ModelConfig::new("scripted", &server.url, Some("the-provider-key".into()), name)
}

fn config(models: Vec<ModelConfig>) -> GatewayConfig {
    GatewayConfig {
        prices: Prices(BTreeMap::from([("first".to_owned(), PRICE), ("second".to_owned(), PRICE)])),
        backoff: Duration::from_millis(1),
        // Longer than a slow machine stands still: where something has to end in time, the test says so.
        try_timeout: Duration::from_secs(30),
        total_timeout: Duration::from_secs(30),
        stall_timeout: Duration::from_secs(30),
        max_response_bytes: 10_000,
        cache_for: Duration::ZERO,
        ..GatewayConfig::new(models)
    }
}

fn gateway(world: &World, config: GatewayConfig) -> Arc<Gateway> {
    Arc::new(Gateway::new(config, world.database.clone()).unwrap())
}

fn call(tenant: TenantId) -> ModelCall<'static> {
    ModelCall { max_output_tokens: 100, ..ModelCall::new(tenant, "answers", "system text", "user text") }
}

/// Outcomes, costs and models of the tenant's rows, in order.
async fn rows(world: &World, tenant: TenantId) -> Vec<(String, i64, String)> {
    let read = world.database.read(tenant, |connection| {
        Box::pin(async move {
            Ok(sqlx::query_as(
                "SELECT outcome, cost_microusd, model FROM ledger WHERE tenant_id = current_tenant() ORDER BY id",
            )
            .fetch_all(connection)
            .await?)
        })
    });
    read.await.unwrap()
}

async fn outcomes(world: &World, tenant: TenantId) -> Vec<String> {
    rows(world, tenant).await.into_iter().map(|row| row.0).collect()
}

async fn budget(world: &World, tenant: TenantId, budgets: serde_json::Value) {
    let settings = json!({ "budgets": budgets });
    let written = world.database.write(tenant, move |connection| {
        Box::pin(async move {
            sqlx::query("UPDATE tenants SET settings = $1 WHERE id = current_tenant()")
                .bind(settings)
                .execute(connection)
                .await?;
            Ok(())
        })
    });
    written.await.unwrap();
}

#[tokio::test]
async fn a_call_is_sent_as_asked_and_paid_for() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    server.plan([Answer::text("the answer")]);
    let gateway = gateway(&world, config(vec![model(&server, "first")]));
    assert_eq!(gateway.models_of("answers"), ["scripted/first"]);
    let user = "please use sk-proj-abcdefghijklmnopqrstuvwx and answer";
    let done = gateway.complete(ModelCall { user, prompt_version: Some("v1"), ..call(tenant) }).await.unwrap();
    assert_eq!((done.text.as_str(), done.model.as_str(), done.cost_microusd), ("the answer", "scripted/first", 15));
    assert!(!format!("{done:?}").contains("the answer"));
    let (key, body) = server.requests().remove(0);
    assert_eq!(key, "Bearer the-provider-key");
    assert_eq!(body["messages"][0], json!({"role": "system", "content": "system text"}));
    assert_eq!(body["messages"][1]["content"], "please use [redacted api key] and answer");
    assert_eq!((&body["max_tokens"], &body["model"]), (&json!(100), &json!("first")));
    assert_eq!(rows(&world, tenant).await, [("done".to_owned(), 15, "first".to_owned())]);
}

#[tokio::test]
async fn what_fails_for_a_moment_is_tried_again_and_every_request_has_a_row() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let try_timeout = Duration::from_secs(5);
    let gateway = gateway(&world, GatewayConfig { tries: 9, try_timeout, ..config(vec![model(&server, "first")]) });
    server.plan([
        Answer::status(500),
        Answer::status(429).header("retry-after", "0"),
        Answer::text("once").then_error(),
        Answer::raw(r#"{"choices": []}"#),
        Answer::text("fine"),
    ]);
    assert_eq!(gateway.complete(call(tenant)).await.unwrap().text, "fine");
    server.plan([Answer::raw("<html>"), Answer::hang(), Answer::cut(), Answer::text("fine")]);
    assert_eq!(gateway.complete(call(tenant)).await.unwrap().text, "fine");
    let found = rows(&world, tenant).await;
    let outcomes: Vec<&str> = found.iter().map(|row| row.0.as_str()).collect();
    assert_eq!(outcomes, ["error", "rate_limited", "error", "empty", "done", "malformed", "timeout", "broken", "done"]);
    assert!(found[..4].iter().all(|row| row.1 == 0), "what failed at once is not charged: {found:?}");
    assert!(found[6].1 > 100, "what may have been charged counts in full: {found:?}");
}

#[tokio::test]
async fn retry_after_is_honoured_or_the_next_model_is_used() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let gateway = gateway(&world, config(vec![model(&server, "first"), model(&server, "second")]));
    server.plan([Answer::status(429).header("retry-after", "1"), Answer::text("later")]);
    let started = std::time::Instant::now();
    assert_eq!(gateway.complete(call(tenant)).await.unwrap().model, "scripted/first");
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    server.plan([Answer::status(503).header("retry-after", "60"), Answer::text("from the other")]);
    assert_eq!(gateway.complete(call(tenant)).await.unwrap().model, "scripted/second");
    // Longer than the call lasts: the first model is not asked again sooner than it wants.
    let patient = GatewayConfig { total_timeout: Duration::from_secs(900), ..config(vec![model(&server, "first")]) };
    let patient = Gateway::new(patient, world.database.clone()).unwrap();
    server.plan([Answer::status(429).header("retry-after", "3600")]);
    let failed = tokio::time::timeout(Duration::from_secs(60), patient.complete(call(tenant))).await;
    assert_eq!(failed.unwrap().unwrap_err().code, Code::ProviderError);
}

#[tokio::test]
async fn the_next_model_answers_when_one_refuses_overflows_or_stops_short() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let gateway = gateway(&world, config(vec![model(&server, "first"), model(&server, "second")]));
    let unusable = [
        (Answer::status(401), "refused"),
        (Answer::status(302).header("location", "/v1/chat/completions"), "refused"),
        (Answer::text(&"x".repeat(20_000)), "too_large"),
        (Answer::text("half an").finish("length"), "length"),
        (Answer::text("").finish("content_filter"), "filtered"),
    ];
    for (answer, outcome) in unusable {
        server.plan([answer, Answer::text("whole")]);
        let done = gateway.complete(call(tenant)).await.unwrap();
        assert_eq!((done.text.as_str(), done.model.as_str()), ("whole", "scripted/second"), "{outcome}");
        let seen = outcomes(&world, tenant).await;
        assert_eq!(seen[seen.len() - 2..], [outcome, "done"]);
    }
}

#[tokio::test]
async fn the_last_failure_is_told_by_its_kind_and_holds_no_body() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let gateway = gateway(&world, GatewayConfig { tries: 1, ..config(vec![model(&server, "first")]) });
    let table = [
        (Answer::status(500), Code::ProviderError),
        (Answer::status(400), Code::ProviderRefused),
        (Answer::text("half").finish("length"), Code::OutputLimit),
        (Answer::text("secret words").then_error(), Code::ProviderError),
    ];
    for (answer, code) in table {
        server.plan([answer]);
        let failure = gateway.complete(call(tenant)).await.unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        assert!(!failure.message.contains("secret"), "{failure}");
    }
    let soon =
        GatewayConfig { tries: 1, try_timeout: Duration::from_millis(400), ..config(vec![model(&server, "first")]) };
    server.plan([Answer::hang()]);
    let late = Gateway::new(soon, world.database.clone()).unwrap().complete(call(tenant)).await;
    assert_eq!(late.unwrap_err().code, Code::ProviderError);
    let absent = ModelConfig { base_url: "http://127.0.0.1:9/v1".to_owned(), ..model(&server, "first") };
    let gone = Gateway::new(GatewayConfig { tries: 1, ..config(vec![absent]) }, world.database.clone()).unwrap();
    assert_eq!(gone.complete(call(tenant)).await.unwrap_err().code, Code::ProviderError);
    assert_eq!(outcomes(&world, tenant).await.last().unwrap(), "unreachable");
    let bad = ModelConfig { base_url: "file:///etc".to_owned(), ..model(&server, "first") };
    assert_eq!(Gateway::new(config(vec![bad]), world.database.clone()).err().unwrap().code, Code::ConfigInvalid);
    assert_eq!(Gateway::new(config(vec![]), world.database.clone()).err().unwrap().code, Code::ConfigInvalid);
}

#[tokio::test]
async fn a_provider_that_keeps_failing_is_left_alone() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let gateway =
        gateway(&world, GatewayConfig { tries: 5, ..config(vec![model(&server, "first"), model(&server, "second")]) });
    server.plan((0..5).map(|_| Answer::status(500)).chain([Answer::text("one"), Answer::text("two")]));
    assert_eq!(gateway.complete(call(tenant)).await.unwrap().model, "scripted/second");
    assert_eq!(gateway.complete(call(tenant)).await.unwrap().model, "scripted/second");
    assert_eq!(server.requests().len(), 7, "the second call did not ask the first model");
}

#[tokio::test]
async fn json_that_does_not_fit_is_repaired_once() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let gateway = gateway(&world, config(vec![model(&server, "first")]));
    let schema = json!({"type": "object", "required": ["total"], "properties": {"total": {"type": "number"}}});
    let call = || ModelCall { schema: Some(&schema), ..call(tenant) };
    server.plan([Answer::text(r#"{"sum": 1}"#), Answer::text("```json\n{\"total\": 7}\n```")]);
    assert_eq!(gateway.complete(call()).await.unwrap().json, Some(json!({"total": 7})));
    let requests = server.requests();
    assert!(requests[0].1["messages"][0]["content"].as_str().unwrap().contains("JSON Schema"));
    assert_eq!(requests[1].1["messages"].as_array().unwrap().len(), 4);
    assert!(requests[1].1["messages"][3]["content"].as_str().unwrap().contains("total"));
    server.plan([Answer::text("no"), Answer::text("never")]);
    assert_eq!(gateway.complete(call()).await.unwrap_err().code, Code::ProviderOutputInvalid);
    assert_eq!(outcomes(&world, tenant).await, ["invalid", "done", "invalid", "invalid"]);

    let native = ModelConfig { json: JsonMode::Schema, ..model(&server, "first") };
    let gateway = Gateway::new(config(vec![native]), world.database.clone()).unwrap();
    server.plan([Answer::text(r#"{"total": 1}"#)]);
    gateway.complete(call()).await.unwrap();
    let (_, body) = server.requests().pop().unwrap();
    assert_eq!(body["response_format"]["json_schema"]["schema"], schema);
    assert_eq!(body["messages"][0]["content"], "system text");
    let bad = json!({"type": 7});
    let failure = gateway.complete(ModelCall { schema: Some(&bad), ..call() }).await.unwrap_err();
    assert_eq!(failure.code, Code::SchemaInvalid);
}

#[tokio::test]
async fn a_hard_budget_is_never_passed_not_by_calls_at_once_either() {
    let (world, server) = (world().await, server().await);
    let (tenant, other) = (world.tenant().await, world.tenant().await);
    let gateway = gateway(&world, config(vec![model(&server, "first")]));
    // A call reserves about 130 (input estimate and 100 output tokens) and costs 15.
    budget(&world, tenant, json!({"total": {"soft": 10, "hard": 400}})).await;
    // None is answered before one was refused: what is reserved counts.
    let gate = CancellationToken::new();
    server.plan((0..40).map(|_| Answer::text("fine").behind(&gate)));
    let mut calls: JoinSet<_> = (0..12)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            async move { gateway.complete(call(tenant)).await }
        })
        .collect();
    let (mut done, mut refused) = (0, Vec::<Failure>::new());
    while let Some(call) = calls.join_next().await {
        match call.unwrap() {
            Ok(_) => done += 1,
            Err(failure) => refused.push(failure),
        }
        gate.cancel();
    }
    assert!(done >= 3 && !refused.is_empty(), "{done} done");
    assert!(refused.iter().all(|failure| failure.code == Code::BudgetExceeded && failure.limit == Some(400)));
    let spent: i64 = rows(&world, tenant).await.iter().map(|row| row.1).sum();
    assert!(spent <= 400, "{spent}");
    gateway.complete(call(other)).await.unwrap();

    budget(&world, other, json!({"summarize": 0, "total": {"hard": 1_000_000}})).await;
    gateway.complete(call(other)).await.unwrap();
    let failure = gateway.complete(ModelCall { feature: "summarize", ..call(other) }).await.unwrap_err();
    assert_eq!(failure.code, Code::BudgetExceeded);
    assert_eq!(outcomes(&world, other).await, ["done", "done"], "what the budget forbids is not sent");
    budget(&world, other, json!(["broken"])).await;
    assert_eq!(gateway.complete(call(other)).await.unwrap_err().code, Code::ConfigInvalid);
}

#[tokio::test]
async fn under_a_hard_budget_a_model_without_a_price_is_not_asked() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let unpriced = gateway(&world, config(vec![model(&server, "free")]));
    server.plan((0..3).map(|_| Answer::text("fine")));
    budget(&world, tenant, json!({"total": {"soft": 1}})).await;
    unpriced.complete(call(tenant)).await.unwrap();
    budget(&world, tenant, json!({"answers": {"hard": 1_000_000}})).await;
    let failure = unpriced.complete(call(tenant)).await.unwrap_err();
    assert!(failure.code == Code::PriceUnknown && failure.message.contains("scripted/free"), "{failure}");
    unpriced.complete(ModelCall { feature: "summarize", ..call(tenant) }).await.unwrap();
    let both = gateway(&world, config(vec![model(&server, "free"), model(&server, "second")]));
    assert_eq!(both.complete(call(tenant)).await.unwrap().model, "scripted/second");
    assert_eq!(server.requests().len(), 3, "what has no price was not sent");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_open_row_and_slots_are_limited() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let hurried = UseConfig { total_timeout: Some(Duration::from_millis(300)), ..UseConfig::default() };
    let limits = GatewayConfig {
        limits: BTreeMap::from([(
            "scripted".to_owned(),
            ProviderLimits { concurrency: 1, ..ProviderLimits::default() },
        )]),
        uses: BTreeMap::from([("extract".to_owned(), hurried)]),
        ..config(vec![model(&server, "first")])
    };
    let gateway = gateway(&world, limits);
    let gate = CancellationToken::new();
    server.plan([Answer::text("late").behind(&gate)]);
    tokio::select! {
        _ = gateway.complete(call(tenant)) => unreachable!("it is not answered yet"),
        () = asked(&server, 1) => {}
    }
    gate.cancel();
    eventually("the row is closed", PATIENCE, || async { outcomes(&world, tenant).await == ["done"] }).await;

    let gate = CancellationToken::new();
    server.plan([Answer::text("at last").behind(&gate)]);
    let waiting = async {
        asked(&server, 2).await;
        let waiting = gateway.complete(ModelCall { feature: "extract", ..call(tenant) }).await;
        gate.cancel();
        waiting
    };
    let (busy, waiting) = tokio::join!(gateway.complete(call(tenant)), waiting);
    assert_eq!((busy.unwrap().text.as_str(), waiting.unwrap_err().code), ("at last", Code::Overloaded));
}

/// Waits until the server was asked so often.
async fn asked(server: &Server, count: usize) {
    eventually("the server is asked", PATIENCE, || async { server.requests().len() == count }).await;
}

/// What a streamed call gives and what was heard of it meanwhile.
async fn listen(gateway: &Gateway, call: ModelCall<'_>) -> (Result<String, Failure>, String) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let done = gateway.complete(ModelCall { deltas: Some(Deltas::new(sender)), ..call }).await;
    let mut heard = String::new();
    while let Ok(text) = receiver.try_recv() {
        heard.push_str(&text);
    }
    (done.map(|done| done.text), heard)
}

#[tokio::test]
async fn a_streamed_answer_is_whole_or_a_failure_and_never_begins_twice() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let stall_timeout = Duration::from_secs(3);
    let both = vec![model(&server, "first"), model(&server, "second")];
    let gateway = gateway(&world, GatewayConfig { stall_timeout, ..config(both) });
    server.plan([Answer::status(503), Answer::stream(&["the ", "answer"])]);
    let (done, heard) = listen(&gateway, call(tenant)).await;
    assert_eq!(
        (done.unwrap().as_str(), heard.as_str()),
        ("the answer", "the answer"),
        "before the first word it is tried again"
    );
    assert_eq!(server.requests().last().unwrap().1["stream"], true);
    for (broken, outcome) in [
        (Answer::stream(&["half ", "an"]).without_end(), "cut"),
        (Answer::stream(&["half ", "an"]).without_end().stalling(), "stalled"),
        (Answer::stream(&["half ", "an"]).without_end().with_event("{\"choices\": [{\"del"), "malformed"),
        (
            Answer::stream(&["half ", "an"]).without_end().with_event("{\"error\": {\"message\": \"secret words\"}}"),
            "error",
        ),
        (Answer::stream(&["half ", "an"]).finish("length"), "length"),
    ] {
        server.plan([broken]);
        let (done, heard) = listen(&gateway, call(tenant)).await;
        let failure = done.unwrap_err();
        assert!(
            matches!(failure.code, Code::ProviderError | Code::OutputLimit) && !failure.message.contains("secret"),
            "{failure}"
        );
        assert_eq!(heard, "half an", "{outcome}");
        assert_eq!(outcomes(&world, tenant).await.last().unwrap(), outcome);
    }
    // An answer that does not fit its schema is not repaired behind the words that were heard.
    let schema = json!({"type": "object"});
    let asked = server.requests().len();
    server.plan([Answer::stream(&["no ", "object"])]);
    let (done, heard) = listen(&gateway, ModelCall { schema: Some(&schema), ..call(tenant) }).await;
    assert_eq!((done.unwrap_err().code, heard.as_str()), (Code::ProviderOutputInvalid, "no object"));
    assert_eq!(server.requests().len(), asked + 1);
}

#[tokio::test]
async fn a_use_has_its_own_patience_which_ends_where_a_stream_begins() {
    let (world, silent, server) = (world().await, server().await, server().await);
    let tenant = world.tenant().await;
    let patience = |try_timeout, total_timeout| UseConfig {
        try_timeout: Some(Duration::from_millis(try_timeout)),
        total_timeout: Some(Duration::from_millis(total_timeout)),
        max_input_tokens: Some(200),
        max_output_tokens: Some(40),
        ..UseConfig::default()
    };
    let of_answers = |server: &Server, own| {
        let uses = BTreeMap::from([("answers".to_owned(), own)]);
        gateway(&world, GatewayConfig { uses, tries: 9, ..config(vec![model(server, "first")]) })
    };
    let started = std::time::Instant::now();
    silent.plan((0..9).map(|_| Answer::hang()));
    let unanswered = of_answers(&silent, patience(250, 450)).complete(call(tenant)).await;
    assert_eq!(unanswered.unwrap_err().code, Code::ProviderError);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());

    let gateway = of_answers(&server, patience(4_000, 6_000));
    let slow = || Answer::text("fine").slow(Duration::from_millis(6_500));
    server.plan([slow()]);
    assert_eq!(gateway.complete(ModelCall { feature: "extract", ..call(tenant) }).await.unwrap().text, "fine");
    let long = "word ".repeat(200);
    let failure = gateway.complete(ModelCall { user: &long, ..call(tenant) }).await.unwrap_err();
    assert_eq!((failure.code, failure.limit), (Code::ProviderRefused, Some(200)));

    server.plan([Answer::stream(&["in ", "time"]).paced(Duration::from_millis(2_500))]);
    let (done, _) = listen(&gateway, call(tenant)).await;
    assert_eq!(done.unwrap(), "in time", "it had begun within the time of a try");
    assert_eq!(server.requests().last().unwrap().1["max_tokens"], 40);
}

#[tokio::test]
async fn anthropics_dialect_is_spoken_whole_and_in_pieces() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let base_url = server.url.trim_end_matches("/v1").to_owned();
    let model = ModelConfig { api: Dialect::Anthropic, base_url, ..model(&server, "first") };
    let gateway = gateway(&world, config(vec![model]));
    server.plan([Answer::raw(
        r#"{"content": [{"type": "text", "text": "the answer"}], "stop_reason": "end_turn", "usage": {"input_tokens": 12, "output_tokens": 3}}"#,
    )]);
    let done = gateway.complete(call(tenant)).await.unwrap();
    assert_eq!((done.text.as_str(), done.cost_microusd), ("the answer", 15));
    let (key, body) = server.requests().remove(0);
    assert_eq!(key, "the-provider-key 2023-06-01");
    assert_eq!(
        (&body["system"], &body["messages"]),
        (&json!("system text"), &json!([{"role": "user", "content": "user text"}]))
    );
    assert_eq!(body["max_tokens"], 100);
    server.plan([Answer::events(&[
        r#"{"type":"message_start","message":{"usage":{"input_tokens":12,"output_tokens":1}}}"#,
        r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"in pieces"}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}"#,
        r#"{"type":"message_stop"}"#,
    ])]);
    let (done, heard) = listen(&gateway, call(tenant)).await;
    assert_eq!((done.unwrap().as_str(), heard.as_str()), ("in pieces", "in pieces"));
    server.plan([Answer::status(529), Answer::status(529), Answer::status(529)]);
    assert_eq!(gateway.complete(call(tenant)).await.unwrap_err().code, Code::ProviderError);
    assert_eq!(rows(&world, tenant).await.iter().map(|row| row.1).collect::<Vec<_>>(), [15, 15, 0, 0, 0]);
}

#[tokio::test]
async fn each_use_has_its_own_models_and_long_prompts_go_where_they_fit() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let small = ModelConfig { max_input_tokens: Some(100), ..model(&server, "first") };
    let uses = BTreeMap::from([
        ("extract".to_owned(), UseConfig::of_models(&["scripted/second", "extractive", "scripted/first"])),
        ("summarize".to_owned(), UseConfig::of_models(&["extractive"])),
    ]);
    let both = vec![small, model(&server, "second")];
    let gateway = gateway(&world, GatewayConfig { uses: uses.clone(), ..config(both.clone()) });
    assert_eq!(gateway.models_of("answers"), ["scripted/first", "scripted/second"]);
    assert_eq!(gateway.models_of("extract"), ["scripted/second"]);
    assert!(gateway.serves("extract") && !gateway.serves("summarize"));
    let none = gateway.complete(ModelCall { feature: "summarize", ..call(tenant) }).await.unwrap_err();
    assert_eq!(none.code, Code::ProviderRefused);
    let long = "word ".repeat(100);
    server.plan([Answer::text("from the larger one")]);
    let done = gateway.complete(ModelCall { user: &long, ..call(tenant) }).await.unwrap();
    assert_eq!(done.model, "scripted/second");
    let unknown = BTreeMap::from([("answers".to_owned(), UseConfig::of_models(&["scripted/third"]))]);
    let refused = Gateway::new(GatewayConfig { uses: unknown, ..config(both) }, world.database.clone()).err().unwrap();
    assert!(refused.code == Code::ConfigInvalid && refused.message.contains("scripted/third"));
}

#[tokio::test]
async fn deterministic_answers_are_remembered_by_everything_that_makes_them() {
    let (world, server) = (world().await, server().await);
    let (tenant, other) = (world.tenant().await, world.tenant().await);
    let remembering = |models| GatewayConfig { cache_for: Duration::from_secs(60), ..config(models) };
    let gateway = gateway(&world, remembering(vec![model(&server, "first")]));
    server.plan((1..=6).map(|n| Answer::text(&format!("answer {n}"))));
    let ask = |call| async { gateway.complete(call).await.unwrap() };
    let first = ask(call(tenant)).await;
    let again = ask(call(tenant)).await;
    assert_eq!((first.text.as_str(), again.text.as_str()), ("answer 1", "answer 1"));
    assert!(!first.is_cached && again.is_cached && again.cost_microusd == 0);
    let (streamed, heard) = listen(&gateway, call(tenant)).await;
    assert_eq!((streamed.unwrap().as_str(), heard.as_str()), ("answer 1", "answer 1"));
    for (call, text) in [
        (call(other), "answer 2"),
        (ModelCall { prompt_version: Some("answer@2"), ..call(tenant) }, "answer 3"),
        (ModelCall { user: "another text", ..call(tenant) }, "answer 4"),
        (ModelCall { max_output_tokens: 50, ..call(tenant) }, "answer 5"),
        (ModelCall { prompt_version: Some("answer@2"), ..call(tenant) }, "answer 3"),
    ] {
        assert_eq!(ask(call).await.text, text);
    }
    // What rests on a document that is gone is not kept.
    let gone = [DocumentId::fresh()];
    let about = || ModelCall { user: "about a document", documents: &gone, ..call(tenant) };
    assert_eq!(ask(about()).await.text, "answer 6");
    server.plan([Answer::text("answer 7")]);
    assert_eq!(ask(about()).await.text, "answer 7");
    let costs: Vec<(String, i64, String)> = rows(&world, tenant).await;
    assert_eq!(costs.iter().filter(|row| row.0 == "cached").map(|row| row.1).collect::<Vec<_>>(), [0, 0, 0]);

    let warm = ModelConfig { temperature: None, ..model(&server, "first") };
    let warm = Gateway::new(remembering(vec![warm]), world.database.clone()).unwrap();
    server.plan([Answer::text("one"), Answer::text("two")]);
    assert_eq!(warm.complete(call(tenant)).await.unwrap().text, "one");
    assert_eq!(warm.complete(call(tenant)).await.unwrap().text, "two");
    assert!(server.requests().last().unwrap().1.get("temperature").is_none());
}

#[tokio::test]
async fn a_slow_model_is_hedged_when_that_is_wanted() {
    let (world, server) = (world().await, server().await);
    let tenant = world.tenant().await;
    let hedging = GatewayConfig {
        hedge_after: Some(Duration::from_millis(100)),
        ..config(vec![model(&server, "first"), model(&server, "second")])
    };
    let gateway = gateway(&world, hedging);
    server.plan([Answer::hang().of("first"), Answer::text("quick").of("second")]);
    let done = gateway.complete(call(tenant)).await.unwrap();
    assert_eq!((done.text.as_str(), done.model.as_str()), ("quick", "scripted/second"));
}
