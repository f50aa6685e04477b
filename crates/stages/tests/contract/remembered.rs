//! Read-your-writes through the cache of search results: one that was remembered between the run of `index` and its commit
//! does not hide what the commit makes visible.

use super::bench::{Bench, Document};
use docmill_model::PrincipalId;
use docmill_retrieval::{
    Caller, Follower, FollowerConfig, LexicalConfig, LexicalIndexes, Search, SearchConfig, SearchRequest,
};
use docmill_testkit::eventually;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(90);

pub async fn what_a_commit_shows_is_found_by_the_next_search() {
    // A database of its own: its node would be waited for by the other tests when it is gone.
    let bench = Bench::new().await;
    let tenant = bench.tenant().await;
    let folder = std::env::temp_dir().join(format!("docmill-remembered-{}", uuid::Uuid::new_v4().simple()));
    let lexical = LexicalIndexes::new(LexicalConfig::new(&folder)).unwrap();
    let follower = Follower::new(bench.world.database.clone(), lexical.clone(), FollowerConfig::new("node"));
    let (stop, status) = (CancellationToken::new(), follower.status());
    let following = tokio::spawn(follower.run(stop.clone()));
    eventually("the node is in rotation", PATIENCE, || async { status.is_live() }).await;
    let (database, embedder) = (bench.world.database.clone(), bench.world.embedder.clone());
    let search = Search::new(database, embedder, lexical, SearchConfig::default());
    let caller = Caller { tenant_id: tenant, principal_id: PrincipalId::fresh(), labels: Vec::new() };
    let request = SearchRequest::new("quay lantern");
    let look = || async {
        let found = search.search(&caller, &request).await.unwrap();
        (found.cached, found.hits.iter().map(|hit| hit.text.clone()).collect::<Vec<_>>())
    };

    let (first, newer) = (Document::fresh(), Document::fresh());
    let newer = Document { document: first.document, ..newer };
    for (ids, number, text) in [
        (&first, 1, "A green lantern hangs at the quay all night."),
        (&newer, 2, "A white lantern hangs at the quay since May."),
    ] {
        let document = bench.document(tenant, ids, number, "quay.txt", "text/plain", text.as_bytes()).await;
        let inputs = bench.until(&document, "embed").await;
        let job = bench.context(&document, "index", &inputs);
        let manifest = bench.run_with(&job, "index").await.unwrap();
        // Every node has the passages, none may show them: what is found now is remembered.
        let (_, before) = look().await;
        eventually("the search is remembered", PATIENCE, || async { look().await.0 }).await;
        assert!(!before.iter().any(|hit| hit == text), "not yet visible");
        bench.commit(job, "index", manifest).await.unwrap();
        let (cached, after) = look().await;
        assert_eq!((cached, after), (false, vec![text.to_owned()]), "version {number}");
    }
    stop.cancel();
    following.await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    println!("test what_a_commit_shows_is_found_by_the_next_search ... ok");
}
