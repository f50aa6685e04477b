//! How a search goes on: its question is embedded meanwhile, its snapshot is taken again, its words are looked up further
//! down; and what is remembered of that.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::{Code, Failure, TenantId};
use docmill_platform::embedder::{Embedder, cosine};
use docmill_retrieval::search::SearchMode;
use docmill_retrieval::{Caller, Search, SearchConfig, SearchRequest, SearchResponse};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Breakable, Doc, Node, World, eventually, world};
use tokio::sync::Semaphore;

/// The world's embedder, asked after a pause and as often as it is let.
struct Slow {
    inner: Arc<Breakable>,
    pause: Duration,
    permits: Semaphore,
    asked: AtomicUsize,
}

impl Slow {
    fn new(world: &World, millis: u64, permits: usize) -> Arc<Self> {
        let (pause, permits) = (Duration::from_millis(millis), Semaphore::new(permits));
        Arc::new(Self { inner: world.embedder.clone(), pause, permits, asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl Embedder for Slow {
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        tokio::time::sleep(self.pause).await;
        self.inner.embed(texts).await
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }
}

const ALWAYS: usize = 1 << 20;

fn with(world: &World, node: &Node, slow: &Arc<Slow>, config: SearchConfig) -> Search {
    Search::new(world.database.clone(), slow.clone(), node.lexical.clone(), config)
}

async fn ask(search: &Search, caller: &Caller, request: &SearchRequest) -> SearchResponse {
    search.search(caller, request).await.unwrap()
}

fn names(response: &SearchResponse) -> Vec<&str> {
    response.hits.iter().map(|hit| hit.document.as_str()).collect()
}

/// A node that has two short documents.
async fn lamp_and_boat(world: &World, tenant: TenantId) -> Node {
    world.publish(tenant, &Doc::new("lamp.pdf", &["The brass lamp hangs in the hall."])).await;
    world.publish(tenant, &Doc::new("boat.pdf", &["The green boat lies at the pier."])).await;
    let node = Node::start(world).await;
    node.caught_up(world, tenant).await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_takes_longer_than_a_snapshot_waits_is_embedded_once_and_compared() {
    let world = world().await;
    let tenant = world.tenant().await;
    let node = lamp_and_boat(&world, tenant).await;
    let slow = Slow::new(&world, 150, ALWAYS);
    let search = with(&world, &node, &slow, support::patient());
    for (before, mode) in [SearchMode::Hybrid, SearchMode::Dense].into_iter().enumerate() {
        let request = SearchRequest { mode, explain: true, ..SearchRequest::new("where is the brass lamp") };
        let found = ask(&search, &world.caller(tenant), &request).await;
        assert_eq!((found.degraded.as_deref(), slow.asked()), (None, before + 1), "{mode:?}");
        assert_eq!(names(&found), ["lamp.pdf", "boat.pdf"], "{mode:?}");
        assert!(found.hits[0].explanation.as_ref().unwrap().dense_rank.is_some(), "{mode:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_fails_late_is_asked_once_a_search_and_its_result_not_remembered() {
    let world = world().await;
    let tenant = world.tenant().await;
    let node = lamp_and_boat(&world, tenant).await;
    let slow = Slow::new(&world, 150, ALWAYS);
    let search = with(&world, &node, &slow, support::patient());
    let caller = world.caller(tenant);
    world.embedder.set_broken(true);
    for asked in [1, 2] {
        let found = ask(&search, &caller, &SearchRequest::new("brass lamp")).await;
        assert_eq!((found.degraded.as_deref(), found.cached, slow.asked()), (Some("dense"), false, asked));
        assert_eq!(names(&found), ["lamp.pdf"]);
    }
    let dense = SearchRequest { mode: SearchMode::Dense, ..SearchRequest::new("brass lamp") };
    assert_eq!(search.search(&caller, &dense).await.unwrap_err().code, Code::EmbeddingInvalid);
    assert_eq!(slow.asked(), 3);
    world.embedder.set_broken(false);
    node.stop().await;
}

const QUESTION: &str = "what is in the ledger";
/// What the words of the question find, in alphabetical order.
const LEDGERS: [&str; 2] =
    ["Ledger kept aboard since autumn by old Mary.", "Ledger lost near Dover, later found under sails."];

/// The ledgers, and more texts than the dense half returns that are nearer to the question, though by words without
/// meaning. With `is_outranked`, beside many passages that answer better and are not for everybody.
async fn ledgers(world: &World, tenant: TenantId, is_outranked: bool) {
    if is_outranked {
        let mut secret = Doc::new("secret.pdf", &[]);
        secret.passages = (0..400).map(|n| format!("What is in the ledger: ledger entry {n}")).collect();
        secret.labels = vec!["audit".to_owned()];
        world.publish(tenant, &secret).await;
    }
    let near =
        |n: usize| format!("Rope, tar, canvas and twine fill the crate {n} in berth nine; none knows what is left.");
    let mut open = Doc::new("open.pdf", &LEDGERS);
    open.passages.extend((0..60).map(near));
    world.publish(tenant, &open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_among_the_documents_for_the_caller_is_remembered() {
    let world = world().await;
    let tenant = world.tenant().await;
    ledgers(&world, tenant, true).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let caller = world.caller(tenant);
    // The first search opens the index.
    ask(&node.search, &caller, &SearchRequest::new("warm")).await;
    for mode in [SearchMode::Hybrid, SearchMode::Lexical] {
        let request = SearchRequest { mode, k: 2, ..SearchRequest::new(QUESTION) };
        let first = ask(&node.search, &caller, &request).await;
        let again = ask(&node.search, &caller, &request).await;
        assert_eq!((first.cached, again.cached, &first.hits), (false, true, &again.hits), "{mode:?}");
        let mut texts: Vec<&str> = first.hits.iter().map(|hit| hit.text.as_str()).collect();
        texts.sort_unstable();
        assert_eq!(texts, LEDGERS, "{mode:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_words_find_is_compared_with_the_question_however_far_down_it_stood() {
    let world = world().await;
    let (outranked, alone) = (world.tenant().await, world.tenant().await);
    ledgers(&world, outranked, true).await;
    ledgers(&world, alone, false).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, outranked).await;
    node.caught_up(&world, alone).await;
    let request = SearchRequest { explain: true, ..SearchRequest::new(QUESTION) };
    // Among the caller's documents, deeper among all, and at once: with a vector that is there before the words, that comes
    // while a snapshot waits for it, or after.
    for (tenant, max_gate, millis) in
        [(outranked, 2_000, 0), (outranked, 2_000, 150), (outranked, 0, 150), (alone, 2_000, 10), (alone, 2_000, 150)]
    {
        let config = SearchConfig { max_gate, ..support::patient() };
        let search = with(&world, &node, &Slow::new(&world, millis, ALWAYS), config);
        let found = ask(&search, &world.caller(tenant), &request).await;
        assert_eq!((found.degraded.as_deref(), found.hits.len()), (None, 10), "{max_gate} {millis}");
        let mut by_words = Vec::new();
        for hit in &found.hits {
            let vectors = world.embedder.embed(&[QUESTION.to_owned(), hit.text.clone()]).await.unwrap();
            let (told, wanted) = (hit.explanation.as_ref().unwrap(), cosine(&vectors[0], &vectors[1]));
            assert!((told.dense_cosine.unwrap() - wanted).abs() < 1e-5, "{max_gate} {millis}: {told:?} {wanted}");
            if told.dense_rank.is_none() {
                by_words.push(hit.text.as_str());
            }
        }
        by_words.sort_unstable();
        assert_eq!(by_words, LEDGERS, "{max_gate} {millis}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_visible_while_a_question_is_embedded_is_found_and_by_its_words_in_the_next_search() {
    let world = world().await;
    let tenant = world.tenant().await;
    let old = world.publish(tenant, &Doc::new("terms.pdf", &["The notice period is ninety days."])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let gated = Slow::new(&world, 0, 0);
    let search = with(&world, &node, &gated, support::patient());
    let caller = world.caller(tenant);
    // The first search opens the index.
    ask(&search, &caller, &SearchRequest { mode: SearchMode::Lexical, ..SearchRequest::new("warm") }).await;
    let request = SearchRequest { explain: true, ..SearchRequest::new("notice period days") };
    let (first, new) = tokio::join!(ask(&search, &caller, &request), async {
        eventually("the question is being embedded", || async { gated.asked() == 1 }).await;
        // Time for the words to be looked up.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let terms = Doc::new("terms.pdf", &["The notice period is sixty days."]);
        let new = world.write(tenant, old.document, 2, &terms).await;
        node.caught_up(&world, tenant).await;
        world.flip(tenant, new).await;
        gated.permits.add_permits(ALWAYS);
        new
    });
    let versions = |found: &SearchResponse| found.hits.iter().map(|hit| hit.version_id).collect::<Vec<_>>();
    assert_eq!((first.cached, versions(&first)), (false, vec![new.version]));
    node.caught_up(&world, tenant).await;
    let second = ask(&search, &caller, &request).await;
    assert_eq!((second.cached, versions(&second)), (false, vec![new.version]), "the words of the first were older");
    assert!(second.hits[0].explanation.as_ref().unwrap().bm25_rank.is_some());
    let third = ask(&search, &caller, &request).await;
    assert_eq!((third.cached, &third.hits), (true, &second.hits));
    node.stop().await;
}
