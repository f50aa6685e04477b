//! Read-your-writes on every serving node: what the index stage has committed is found by the next search on each of them,
//! also on one that looks at the feed seldom.

use super::bench::{Bench, Document};
use docmill_model::PrincipalId;
use docmill_retrieval::search::SearchMode;
use docmill_retrieval::{
    Caller, Follower, FollowerConfig, LexicalConfig, LexicalIndexes, Search, SearchConfig, SearchRequest,
};
use docmill_testkit::eventually;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks of the slow node: far more than passes between a commit and the searches after it.
const SELDOM: Duration = Duration::from_millis(700);
const MODES: [SearchMode; 3] = [SearchMode::Lexical, SearchMode::Hybrid, SearchMode::Dense];

/// A serving node: its follower and its search.
struct Node {
    search: Search,
    stop: CancellationToken,
    following: JoinHandle<()>,
    folder: PathBuf,
}

impl Node {
    async fn start(bench: &Bench, config: FollowerConfig) -> Self {
        let folder = std::env::temp_dir().join(format!("docmill-everywhere-{}", uuid::Uuid::new_v4().simple()));
        let lexical = LexicalIndexes::new(LexicalConfig::new(&folder)).unwrap();
        let (database, embedder) = (bench.world.database.clone(), bench.world.embedder.clone());
        let follower = Follower::new(database.clone(), lexical.clone(), config);
        let (stop, status) = (CancellationToken::new(), follower.status());
        let following = tokio::spawn(follower.run(stop.clone()));
        eventually("the node is in rotation", PATIENCE, || async { status.is_live() }).await;
        let search = Search::new(database, embedder, lexical, SearchConfig::default()).following(status);
        Self { search, stop, following, folder }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.following.await.unwrap();
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

pub async fn what_is_ready_is_found_by_the_next_search_on_every_node() {
    // A database of its own: its nodes would be waited for by the other tests when they are gone.
    let bench = Bench::new().await;
    let tenant = bench.tenant().await;
    let seldom = FollowerConfig { busy_poll: SELDOM, idle_poll: SELDOM, ..FollowerConfig::new("seldom") };
    let nodes = [Node::start(&bench, seldom).await, Node::start(&bench, FollowerConfig::new("often")).await];
    let caller = Caller { tenant_id: tenant, principal_id: PrincipalId::fresh(), labels: Vec::new() };
    let first = Document::fresh();
    for number in 1..=4 {
        let version = Document { document: first.document, ..Document::fresh() };
        let text = format!("The keeper of lantern{number}x sleeps at the quay.");
        let document = bench.document(tenant, &version, number, "quay.txt", "text/plain", text.as_bytes()).await;
        bench.until(&document, "index").await;
        let ready = bench.visible(tenant).await.map(|(_, version)| version);
        assert_eq!(ready, Some(version.version), "version {number}");
        for (node, mode) in nodes.iter().flat_map(|node| MODES.map(|mode| (node, mode))) {
            let request = SearchRequest { mode, ..SearchRequest::new(format!("lantern{number}x")) };
            let found = node.search.search(&caller, &request).await.unwrap();
            let versions: Vec<_> = found.hits.iter().map(|hit| hit.version_id).collect();
            assert_eq!(versions, [version.version], "version {number}, {mode:?}");
        }
    }
    for node in nodes {
        node.stop().await;
    }
    println!("test what_is_ready_is_found_by_the_next_search_on_every_node ... ok");
}
