//! Hybrid search against a real Postgres and a followed index: who sees what, and that nothing is missing.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::{Code, DocumentId, TenantId};
use docmill_platform::embedder::Embedder;
use docmill_retrieval::search::{Hit, SearchMode};
use docmill_retrieval::{
    Caller, Filters, Follower, FollowerConfig, LexicalConfig, LexicalIndexes, SearchConfig, SearchRequest,
};
use support::{Doc, Node, World, eventually, world};

const MODES: [SearchMode; 3] = [SearchMode::Hybrid, SearchMode::Lexical, SearchMode::Dense];

async fn find(node: &Node, caller: &Caller, request: &SearchRequest) -> Vec<Hit> {
    let response = node.search.search(caller, request).await.unwrap();
    assert_eq!(response.degraded, None);
    response.hits
}

fn names(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.document.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mode_finds_the_passage_and_explains_it() {
    let world = world().await;
    let tenant = world.tenant().await;
    let lamp = world
        .publish(tenant, &Doc::new("lamp.pdf", &["The brass lamp hangs in the hall.", "It was bought in 1911."]))
        .await;
    world.publish(tenant, &Doc::new("boat.pdf", &["The green boat lies at the pier."])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    for mode in MODES {
        let request = SearchRequest { mode, explain: true, ..SearchRequest::new("where is the brass lamp") };
        let hits = find(&node, &world.caller(tenant), &request).await;
        let best = &hits[0];
        assert_eq!(
            (best.document.as_str(), best.document_id, best.version_id),
            ("lamp.pdf", lamp.document, lamp.version)
        );
        assert_eq!((best.text.as_str(), best.char_start, best.char_end), ("The brass lamp hangs in the hall.", 0, 33));
        let explanation = best.explanation.clone().unwrap();
        assert_eq!(explanation.bm25_rank.is_some(), mode != SearchMode::Dense);
        assert_eq!(explanation.dense_rank.is_some(), mode != SearchMode::Lexical);
        assert!((explanation.fused - best.score).abs() < 1e-12);
    }
    let plain = find(&node, &world.caller(tenant), &SearchRequest::new("brass lamp")).await;
    assert!(plain.iter().all(|hit| hit.explanation.is_none()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_heading_title_and_file_name_lift_a_passage() {
    let world = world().await;
    let tenant = world.tenant().await;
    world.publish(tenant, &Doc::new("plain.pdf", &["The fee is due on the first of May."])).await;
    world.publish(tenant, &Doc::new("mooring.pdf", &["The fee is due on the first of June."])).await;
    let titled = world.publish(tenant, &Doc::new("titled.pdf", &["The fee is due on the first of July."])).await;
    let headed = world.publish(tenant, &Doc::new("headed.pdf", &["The fee is due on the first of August."])).await;
    for (statement, id) in [
        ("UPDATE document_versions SET title = 'Mooring tariff' WHERE id = $1", titled.version.0),
        ("UPDATE chunks SET heading_path = '{Harbour,Mooring}' WHERE generation_id = $1", headed.generation.0),
    ] {
        let work = world.database.write(tenant, move |connection| {
            Box::pin(async move {
                assert_eq!(sqlx::query(statement).bind(id).execute(connection).await?.rows_affected(), 1);
                Ok(())
            })
        });
        work.await.unwrap();
    }
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let request =
        SearchRequest { mode: SearchMode::Lexical, explain: true, ..SearchRequest::new("what is the mooring fee") };
    let hits = find(&node, &world.caller(tenant), &request).await;
    let scored = hits.iter().map(|hit| (hit.document.as_str(), hit.explanation.as_ref().unwrap().bm25_score.unwrap()));
    let scores: std::collections::HashMap<&str, f64> = scored.collect();
    for lifted in ["mooring.pdf", "titled.pdf", "headed.pdf"] {
        assert!(scores[lifted] > scores["plain.pdf"], "{lifted}: {scores:?}");
    }
    assert_eq!(names(&hits)[3], "plain.pdf");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_visible_generation_of_the_own_tenant_answers() {
    let world = world().await;
    let (tenant, stranger) = (world.tenant().await, world.tenant().await);
    let old = world.publish(tenant, &Doc::new("terms.pdf", &["The notice period is ninety days."])).await;
    world.publish(stranger, &Doc::new("secret.pdf", &["The notice period is one day."])).await;
    let node = Node::start(&world).await;
    let new = world.write(tenant, old.document, 2, &Doc::new("terms.pdf", &["The notice period is sixty days."])).await;
    node.caught_up(&world, tenant).await;
    node.caught_up(&world, stranger).await;
    let request = SearchRequest::new("notice period days");
    for (flipped, expected) in [(false, old), (true, new)] {
        if flipped {
            world.flip(tenant, new).await;
        }
        for mode in MODES {
            let hits = find(&node, &world.caller(tenant), &SearchRequest { mode, ..request.clone() }).await;
            assert_eq!(hits.iter().map(|hit| hit.version_id).collect::<Vec<_>>(), [expected.version], "{mode:?}");
        }
    }
    world.delete(tenant, new).await;
    for mode in MODES {
        assert!(find(&node, &world.caller(tenant), &SearchRequest { mode, ..request.clone() }).await.is_empty());
    }
    let foreign = Filters { document_ids: vec![DocumentId(old.document.0)], ..Filters::default() };
    assert!(find(&node, &world.caller(stranger), &SearchRequest { filters: foreign, ..request }).await.is_empty());
    node.stop().await;
}

/// Ten documents on one subject that differ in everything a filter can ask for.
async fn shelf(world: &World, tenant: TenantId) {
    for number in 0..10 {
        let mut doc =
            Doc::new(&format!("report-{number}.pdf"), &[&format!("Harbour report number {number} on dredging.")]);
        doc.collection = if number < 3 { "north" } else { "south" }.to_owned();
        doc.labels = if number == 9 { vec!["board".to_owned()] } else { Vec::new() };
        doc.metadata = serde_json::json!({
            "year": 2010 + number, "status": if number % 2 == 0 { "final" } else { "draft" },
            "tags": ["dredging", format!("t{number}")], "filed": format!("2020-0{}-01", number.max(1)),
        });
        world.publish(tenant, &doc).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_narrow_in_every_mode_and_labels_hide() {
    let world = world().await;
    let tenant = world.tenant().await;
    shelf(&world, tenant).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let cases = [
        (r#"{}"#, 9),
        (r#"{"collection": "north"}"#, 3),
        (r#"{"metadata": {"status": "draft"}}"#, 4),
        (r#"{"metadata": {"year": [2011, 2012, 1999]}}"#, 2),
        (r#"{"metadata": {"year": {"min": 2012, "max": 2014}}}"#, 3),
        (r#"{"metadata": {"filed": {"min": "2020-04-01"}}}"#, 5),
        (r#"{"metadata": {"tags": "t4"}}"#, 1),
        (r#"{"metadata": {"tags": ["t4", "t5"], "status": "final"}}"#, 1),
        (r#"{"metadata": {"absent": "x"}}"#, 0),
        (r#"{"metadata": {"year": {"min": "2012"}}}"#, 0),
        (r#"{"created_after": "2100-01-01T00:00:00Z"}"#, 0),
        (r#"{"created_before": "2100-01-01T00:00:00Z", "collection": "south"}"#, 6),
        (r#"{"collection": "north' OR true --"}"#, 0),
        (r#"{"labels": ["board"]}"#, 0),
        (r#"{"labels": []}"#, 9),
    ];
    for (json, expected) in cases {
        let filters: Filters = serde_json::from_str(json).unwrap();
        for mode in MODES {
            let request = SearchRequest {
                mode,
                k: 20,
                filters: filters.clone(),
                ..SearchRequest::new("harbour dredging report")
            };
            assert_eq!(find(&node, &world.caller(tenant), &request).await.len(), expected, "{json} {mode:?}");
        }
    }
    let request = SearchRequest { k: 20, ..SearchRequest::new("harbour dredging report") };
    let board = Caller { labels: vec!["board".to_owned(), "staff".to_owned()], ..world.caller(tenant) };
    assert!(names(&find(&node, &board, &request).await).contains(&"report-9.pdf"));
    let labels = Filters { labels: vec!["board".to_owned()], ..Filters::default() };
    for mode in MODES {
        let request = SearchRequest { mode, filters: labels.clone(), ..request.clone() };
        assert_eq!(names(&find(&node, &board, &request).await), ["report-9.pdf"], "{mode:?}");
    }
    let staff = Caller { labels: vec!["staff".to_owned()], ..world.caller(tenant) };
    assert!(!names(&find(&node, &staff, &request).await).contains(&"report-9.pdf"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outranks_but_is_not_for_the_caller_takes_no_place() {
    let world = world().await;
    let tenant = world.tenant().await;
    let mut secret = Doc::new("secret.pdf", &[]);
    secret.passages = (0..400).map(|n| format!("Ledger ledger ledger entry {n}")).collect();
    secret.labels = vec!["audit".to_owned()];
    world.publish(tenant, &secret).await;
    let open = [
        "A long note that names the ledger once among many other words.",
        "Another long note about a ledger and a shelf.",
    ];
    world.publish(tenant, &Doc::new("open.pdf", &open)).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    for mode in MODES {
        let request = SearchRequest { mode, k: 2, ..SearchRequest::new("ledger") };
        assert_eq!(names(&find(&node, &world.caller(tenant), &request).await), ["open.pdf", "open.pdf"], "{mode:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_texts_appear_once() {
    let world = world().await;
    let tenant = world.tenant().await;
    for name in ["a.pdf", "b.pdf", "c.pdf"] {
        world.publish(tenant, &Doc::new(name, &["The same boilerplate clause on liability."])).await;
    }
    world.publish(tenant, &Doc::new("d.pdf", &["Another clause on liability."])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    for mode in MODES {
        let request = SearchRequest { mode, ..SearchRequest::new("boilerplate clause liability") };
        assert_eq!(find(&node, &world.caller(tenant), &request).await.len(), 2, "{mode:?}");
    }
    node.stop().await;
}

/// An embedder that never answers.
struct Stalled(std::sync::Arc<support::Breakable>);

#[async_trait::async_trait]
impl Embedder for Stalled {
    async fn embed(&self, _: &[String]) -> Result<Vec<Vec<f32>>, docmill_model::Failure> {
        std::future::pending().await
    }

    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_that_is_late_or_being_built_is_named() {
    let world = world().await;
    let tenant = world.tenant().await;
    world.publish(tenant, &Doc::new("a.pdf", &["The brass lamp."])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let caller = world.caller(tenant);
    // Time for the half that is not late.
    let config = SearchConfig { half_timeout: std::time::Duration::from_secs(3), ..SearchConfig::default() };
    let stalled = std::sync::Arc::new(Stalled(world.embedder.clone()));
    let late = docmill_retrieval::Search::new(world.database.clone(), stalled, node.lexical.clone(), config);
    let response = late.search(&caller, &SearchRequest::new("brass")).await.unwrap();
    assert_eq!((response.degraded.as_deref(), response.hits.len()), (Some("dense"), 1));
    let dense = SearchRequest { mode: SearchMode::Dense, ..SearchRequest::new("brass") };
    assert_eq!(late.search(&caller, &dense).await.unwrap_err().code, Code::RequestTimeout);

    // A follower that is not in rotation, whatever it has built.
    let follower = Follower::new(world.database.clone(), node.lexical.clone(), FollowerConfig::new("apart"));
    let apart = node.search.clone().following(follower.status());
    for request in
        [SearchRequest::new("lamp"), SearchRequest { mode: SearchMode::Lexical, ..SearchRequest::new("lamp") }]
    {
        let response = apart.search(&caller, &request).await.unwrap();
        assert_eq!((response.degraded.as_deref(), response.hits.len()), (Some("lexical"), 1));
    }

    // Another node, whose follower has built nothing yet.
    let directory = tempfile::tempdir().unwrap();
    let empty = LexicalIndexes::new(LexicalConfig::new(directory.path())).unwrap();
    let (database, embedder) = (world.database.clone(), world.embedder.clone());
    let young = docmill_retrieval::Search::new(database, embedder, empty.clone(), support::patient());
    let lexical = SearchRequest { mode: SearchMode::Lexical, ..SearchRequest::new("brass") };
    for is_created in [false, true] {
        if is_created {
            empty.recreate(tenant).await.unwrap();
        }
        let response = young.search(&caller, &SearchRequest::new("brass")).await.unwrap();
        assert_eq!((response.degraded.as_deref(), response.hits.len()), (Some("lexical"), 1));
        assert_eq!(young.search(&caller, &lexical).await.unwrap_err().code, Code::Internal);
    }
    let newcomer = world.caller(world.tenant().await);
    assert_eq!(find(&node, &newcomer, &lexical).await, [], "who has nothing has no index and is told nothing");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_approximate_index_finds_what_exact_search_finds_for_large_and_small_tenants() {
    let world = world().await;
    let (large, small) = (world.tenant().await, world.tenant().await);
    let subjects = ["pier", "crane", "sluice", "buoy", "quay", "lock", "dam", "weir", "ferry", "tug"];
    let mut doc = Doc::new("large.pdf", &[]);
    doc.passages = (0..1_500)
        .map(|n| format!("{} {} station {n} report {}", subjects[n % 10], subjects[n / 10 % 10], n % 37))
        .collect();
    world.publish(large, &doc).await;
    world.publish(small, &Doc::new("small.pdf", &["pier crane", "sluice buoy", "quay lock"])).await;
    let node = Node::start(&world).await;
    let mut config = support::patient();
    config.dense.exact_rows = 1;
    let approximate =
        docmill_retrieval::Search::new(world.database.clone(), world.embedder.clone(), node.lexical.clone(), config);
    let cosine = |hit: &Hit| hit.explanation.as_ref().and_then(|explanation| explanation.dense_cosine).unwrap();
    let (mut found, mut wanted) = (0, 0);
    for query in ["pier crane report 5", "sluice station", "weir ferry 12", "tug dam report", "lock quay 30"] {
        let request = SearchRequest { mode: SearchMode::Dense, explain: true, ..SearchRequest::new(query) };
        let exact = find(&node, &world.caller(large), &request).await;
        let near = approximate.search(&world.caller(large), &request).await.unwrap().hits;
        assert_eq!((exact.len(), near.len()), (10, 10));
        // Bags of words tie often: a hit counts when it is as close as the worst exact one.
        let floor = exact.iter().map(cosine).fold(f64::MAX, f64::min) - 1e-5;
        found += near.iter().filter(|hit| cosine(hit) >= floor).count();
        wanted += exact.len();
        let few = approximate.search(&world.caller(small), &request).await.unwrap().hits;
        assert_eq!(few.len(), 3, "min(k, n) for the small tenant");
    }
    println!("recall@10 of the approximate scan: {found} of {wanted}");
    assert!(found * 100 >= wanted * 95);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_a_lost_half_is_named() {
    let world = world().await;
    let tenant = world.tenant().await;
    world.publish(tenant, &Doc::new("a.pdf", &["The brass lamp."])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let caller = world.caller(tenant);
    for (request, code) in [
        (SearchRequest::new(" "), Code::QueryEmpty),
        (SearchRequest::new("x".repeat(4_001)), Code::QueryLimit),
        (SearchRequest { k: 0, ..SearchRequest::new("x") }, Code::FieldInvalid),
    ] {
        assert_eq!(node.search.search(&caller, &request).await.unwrap_err().code, code);
    }
    world.embedder.set_broken(true);
    let response = node.search.search(&caller, &SearchRequest::new("brass")).await.unwrap();
    assert_eq!((response.degraded.as_deref(), response.hits.len()), (Some("dense"), 1));
    let dense = SearchRequest { mode: SearchMode::Dense, ..SearchRequest::new("brass") };
    assert_eq!(node.search.search(&caller, &dense).await.unwrap_err().code, Code::EmbeddingInvalid);
    world.embedder.set_broken(false);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_follows_restarts_and_survives_the_loss_of_its_directory() {
    let world = world().await;
    let tenant = world.tenant().await;
    let caller = world.caller(tenant);
    let lexical = |word: &str| SearchRequest { mode: SearchMode::Lexical, ..SearchRequest::new(word) };
    world.publish(tenant, &Doc::new("a.pdf", &["amber"])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    assert_eq!(find(&node, &caller, &lexical("amber")).await.len(), 1);

    let directory = node.stop().await;
    world.publish(tenant, &Doc::new("b.pdf", &["beryl"])).await;
    let node = Node::start_in(&world, directory, support::patient()).await;
    node.caught_up(&world, tenant).await;
    assert_eq!(find(&node, &caller, &lexical("beryl")).await.len(), 1, "what was missed is replayed");
    assert_eq!(find(&node, &caller, &lexical("amber")).await.len(), 1);

    let directory = node.stop().await;
    std::fs::remove_dir_all(directory.path().join("v3")).unwrap();
    let node = Node::start_in(&world, directory, support::patient()).await;
    node.caught_up(&world, tenant).await;
    assert_eq!(find(&node, &caller, &lexical("amber beryl")).await.len(), 2, "a lost directory is built again");

    std::fs::remove_dir_all(node.directory.path().join("v3")).unwrap();
    world.publish(tenant, &Doc::new("c.pdf", &["citrine"])).await;
    node.caught_up(&world, tenant).await;
    eventually("everything is found after a loss while running", || async {
        find(&node, &caller, &lexical("amber beryl citrine")).await.len() == 3
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_enters_rotation_caught_up_and_leaves_it_at_once() {
    let world = world().await;
    let tenant = world.tenant().await;
    world.publish(tenant, &Doc::new("a.pdf", &["amber"])).await;
    let node = Node::start(&world).await;
    let id = node.id.clone();
    let live = || async {
        let seq: Option<i64> = sqlx::query_scalar(
            "SELECT coalesce(w.seq, -1) FROM index_nodes n LEFT JOIN index_watermarks w ON w.node_id = n.id AND w.tenant_id = $2
             WHERE n.id = $1 AND n.lease_until > now()",
        )
        .bind(&id)
        .bind(tenant.0)
        .fetch_optional(world.database.engine())
        .await
        .unwrap();
        seq
    };
    assert_eq!(live().await, Some(1), "live only once its watermark stands");
    sqlx::query("DELETE FROM index_nodes WHERE id = $1").bind(&id).execute(world.database.engine()).await.unwrap();
    eventually("a removed row comes back with its watermarks", || async { live().await == Some(1) }).await;
    node.stop().await;
    assert_eq!(live().await, None);
}
