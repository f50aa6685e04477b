//! Reranking inside a search: by what is built in, with a real cross-encoder through ONNX Runtime, and with models that
//! are late or fail.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::TenantId;
use docmill_platform::reranker::{FastReranker, FastRerankerConfig, Passage, RerankError, Reranker, ScriptedReranker};
use docmill_retrieval::search::{Freshness, RerankConfig, Reranking, SearchMode};
use docmill_retrieval::{Caller, Search, SearchConfig, SearchRequest, SearchResponse};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::{Doc, Node, World, world};
use tokio::sync::Semaphore;

/// The graph without weights that the platform's tests use: its score grows with the share of the question's words.
async fn cross_encoder(world: &World) -> Arc<dyn Reranker> {
    let model_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../platform/tests/golden/shared-words");
    let config = FastRerankerConfig { onnxruntime: world.parts.onnxruntime.clone(), model_dir, threads: 1 };
    Arc::new(tokio::task::spawn_blocking(move || FastReranker::load(&config).unwrap()).await.unwrap())
}

/// The second passage holds more words of the question; the first repeats its rare ones and so leads in both halves.
async fn corpus(world: &World, tenant: TenantId) {
    world.publish(tenant, &Doc::new("often.pdf", &["harbour dues ferry harbour dues ferry night"])).await;
    let whole = "who is to pay the harbour for a ferry at night: all dues are on the pilot, before tide and wind";
    world.publish(tenant, &Doc::new("whole.pdf", &[whole])).await;
    world.publish(tenant, &Doc::new("other.pdf", &["fog at the bridge"])).await;
    let board =
        Doc { labels: vec!["board".to_owned()], ..Doc::new("board.pdf", &["dues of the harbour ferry at night"]) };
    world.publish(tenant, &board).await;
}

fn with(world: &World, node: &Node, rerank: RerankConfig) -> Search {
    let config = SearchConfig { rerank, ..support::patient() };
    Search::new(world.database.clone(), world.embedder.clone(), node.lexical.clone(), config)
}

fn model(model: Arc<dyn Reranker>) -> RerankConfig {
    RerankConfig { model: Some(model), ..support::patient().rerank }
}

async fn ask(search: &Search, caller: &Caller, request: &SearchRequest) -> SearchResponse {
    search.search(caller, request).await.unwrap()
}

fn names(response: &SearchResponse) -> Vec<&str> {
    response.hits.iter().map(|hit| hit.document.as_str()).collect()
}

fn question(rerank: Option<bool>) -> SearchRequest {
    SearchRequest { rerank, explain: true, ..SearchRequest::new("harbour dues of the ferry at night") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cross_encoder_orders_what_the_caller_may_see() {
    let world = world().await;
    let tenant = world.tenant().await;
    corpus(&world, tenant).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let search = with(&world, &node, model(cross_encoder(&world).await));
    let (caller, board) = (world.caller(tenant), Caller { labels: vec!["board".to_owned()], ..world.caller(tenant) });
    let plain = ask(&search, &caller, &question(None)).await;
    assert_eq!((names(&plain)[0], plain.reranking), ("often.pdf", None), "not unless asked for");
    let again = ask(&search, &caller, &question(Some(true))).await;
    assert_eq!((names(&again), again.reranking), (vec!["whole.pdf", "often.pdf", "other.pdf"], Some(Reranking::Done)));
    assert_eq!(names(&ask(&search, &board, &question(Some(true))).await)[0], "board.pdf", "labels hold");
    for hit in &again.hits {
        let explanation = hit.explanation.as_ref().unwrap();
        assert_eq!(hit.score, 1.0 + explanation.rerank.unwrap());
        assert!(explanation.fused < 1.0, "the fused score is still told");
    }
    let kept = ask(&search, &caller, &question(Some(true))).await;
    assert_eq!((kept.cached, kept.reranking, &kept.hits), (true, Some(Reranking::Done), &again.hits));
    let freshness = Some(Freshness { half_life_days: 30.0, weight: 0.3, field: None });
    let fresh = ask(&search, &caller, &SearchRequest { freshness, ..question(Some(true)) }).await;
    assert_eq!(names(&fresh)[0], "whole.pdf");
    let by_default = with(&world, &node, RerankConfig { is_default: true, ..model(cross_encoder(&world).await) });
    assert_eq!(names(&ask(&by_default, &caller, &question(None)).await)[0], "whole.pdf");
    assert_eq!(names(&ask(&by_default, &caller, &question(Some(false))).await)[0], "often.pdf");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_model_words_that_stand_together_lead() {
    let world = world().await;
    let tenant = world.tenant().await;
    // One holds a word of the question twice: it leads in both halves.
    let calm = "the water lay calm under a pale sky and nobody came by";
    let apart = format!("harbour {calm} dues {calm} of the ferry {calm} at night {calm} ferry");
    world.publish(tenant, &Doc::new("apart.pdf", &[&apart])).await;
    let together = format!("{calm} {calm} Harbour dues of the ferry at night: none. {calm} {calm}");
    world.publish(tenant, &Doc::new("together.pdf", &[&together])).await;
    world.publish(tenant, &Doc::new("other.pdf", &["fog and ice"])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    for mode in [SearchMode::Hybrid, SearchMode::Lexical, SearchMode::Dense] {
        let words = SearchRequest { mode, ..question(Some(true)) };
        let plain = SearchRequest { rerank: None, ..words.clone() };
        assert_eq!(names(&ask(&node.search, &world.caller(tenant), &plain).await)[0], "apart.pdf", "{mode:?}");
        let again = ask(&node.search, &world.caller(tenant), &words).await;
        let led = (names(&again)[0], again.reranking, again.degraded.as_deref());
        assert_eq!(led, ("together.pdf", Some(Reranking::Done), None), "{mode:?}");
        let scores: Vec<f64> = again.hits.iter().filter_map(|hit| hit.explanation.as_ref()?.rerank).collect();
        assert!(scores.len() == again.hits.len() && scores.is_sorted_by(|a, b| a >= b), "{mode:?}: {scores:?}");
        let kept = ask(&node.search, &world.caller(tenant), &words).await;
        assert_eq!((kept.cached, kept.hits), (true, again.hits), "{mode:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_scores_the_fused_order_stays_and_is_not_remembered() {
    let world = world().await;
    let tenant = world.tenant().await;
    corpus(&world, tenant).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let caller = world.caller(tenant);
    let fused = ask(&node.search, &caller, &question(None)).await;
    let late = ScriptedReranker::preferring("fog").taking(Duration::from_secs(3_600));
    let late = RerankConfig { timeout: Duration::from_millis(50), ..model(Arc::new(late)) };
    let failing = model(Arc::new(ScriptedReranker::preferring("fog").failing()));
    for (config, wanted) in [(late, Reranking::Late), (failing, Reranking::Failed)] {
        let search = with(&world, &node, config);
        for _ in 0..2 {
            let found = ask(&search, &caller, &question(Some(true))).await;
            assert_eq!((found.reranking, found.cached, &found.hits), (Some(wanted), false, &fused.hits));
        }
        assert_eq!(ask(&search, &caller, &question(None)).await.reranking, None);
    }
    node.stop().await;
}

/// Tells its scores as often as it is let.
struct Gated {
    inner: ScriptedReranker,
    permits: Semaphore,
}

#[async_trait::async_trait]
impl Reranker for Gated {
    async fn rerank(&self, tenant: TenantId, question: &str, read: Vec<Passage>) -> Result<Vec<f64>, RerankError> {
        let scores = self.inner.rerank(tenant, question, read).await;
        self.permits.acquire().await.unwrap().forget();
        scores
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_best_are_read_and_what_goes_meanwhile_is_not_shown() {
    let world = world().await;
    let tenant = world.tenant().await;
    let passage = |n: usize| format!("harbour dues of ferry number {n} at night{}", " and by day".repeat(n));
    let mut doc = Doc::new("many.pdf", &[]);
    doc.passages = (0..6).map(passage).collect();
    world.publish(tenant, &doc).await;
    let gone = world.publish(tenant, &Doc::new("gone.pdf", &["harbour dues of the ferry at night, and of fog"])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let slow = Arc::new(Gated { inner: ScriptedReranker::preferring("fog"), permits: Semaphore::new(1) });
    let search = with(&world, &node, RerankConfig { candidates: 3, ..model(slow.clone()) });
    let caller = world.caller(tenant);
    let first = ask(&search, &caller, &question(Some(true))).await;
    assert_eq!((names(&first)[0], first.hits.len(), slow.inner.passages_read()), ("gone.pdf", 7, 3));
    let other = SearchRequest { k: 9, ..question(Some(true)) };
    let (found, ()) = tokio::join!(ask(&search, &caller, &other), async {
        support::eventually("the model reads", || async { slow.inner.passages_read() == 6 }).await;
        world.delete(tenant, gone).await;
        slow.permits.add_permits(1 << 20);
    });
    assert!(!names(&found).contains(&"gone.pdf"), "deleted while the model read");
    assert_eq!((found.hits.len(), found.reranking), (6, Some(Reranking::Late)), "searched again");
    assert!(!found.cached && ask(&search, &caller, &other).await.reranking == Some(Reranking::Done), "nor remembered");
    node.stop().await;
}
