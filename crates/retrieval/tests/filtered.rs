//! Nothing is missing under filters: every tenant and every filter gets min(k, n) passages, nearly the same as an exact
//! scan finds, whatever the approximate index holds besides; and what is ready is found by the next search everywhere.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::{DocumentId, TenantId};
use docmill_retrieval::search::{Expand, Hit, SearchMode};
use docmill_retrieval::{Caller, Filters, Search, SearchConfig, SearchRequest};
use support::{Doc, Node, World, world};

const MODES: [SearchMode; 3] = [SearchMode::Hybrid, SearchMode::Lexical, SearchMode::Dense];
const SUBJECTS: [&str; 10] = ["pier", "crane", "sluice", "buoy", "quay", "lock", "dam", "weir", "ferry", "tug"];
/// Documents of the crowd, and passages of each: together nearly all of the vectors.
const DOCUMENTS: usize = 20;
const PASSAGES: usize = 500;
/// Passages of the tiny tenant beside the crowd: more than a search asks for by default, fewer than it may ask for.
const TINY: usize = 12;

async fn crowd(world: &World, tenant: TenantId, labels: fn(usize) -> &'static [&'static str]) -> Vec<DocumentId> {
    let mut documents = Vec::new();
    for number in 0..DOCUMENTS {
        let mut doc = Doc::new(&format!("log-{number}.pdf"), &[]);
        doc.collection = if number % 2 == 0 { "even" } else { "odd" }.to_owned();
        doc.metadata = serde_json::json!({"number": number, "rare": number == 7});
        doc.labels = labels(number).iter().map(|label| (*label).to_owned()).collect();
        let passage = |n: usize| {
            let (first, second) = (SUBJECTS[n % 10], SUBJECTS[(n / 10 + number) % 10]);
            format!("{first} {second} station {n} of log {number} inspected in week {}", (n * 7 + number) % 53)
        };
        doc.passages = (0..PASSAGES).map(passage).collect();
        documents.push(world.publish(tenant, &doc).await.document);
    }
    documents
}

fn cosine(hit: &Hit) -> f64 {
    hit.explanation.as_ref().and_then(|explanation| explanation.dense_cosine).unwrap()
}

/// How many of `near` are as close as the worst of `exact`: equal bags of words tie.
fn as_close(near: &[Hit], exact: &[Hit]) -> usize {
    let floor = exact.iter().map(cosine).fold(f64::MAX, f64::min) - 1e-5;
    near.iter().filter(|hit| cosine(hit) >= floor).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tenant_and_filter_gets_what_an_exact_scan_gets() {
    let world = world().await;
    let (large, small) = (world.tenant().await, world.tenant().await);
    let documents = crowd(&world, large, |_| &[]).await;
    world.publish(small, &Doc::new("small.pdf", &["ferry dam station of the small log"])).await;
    let node = Node::start(&world).await;
    let search = |exact_rows: i64| {
        let mut config = support::patient();
        config.dense.exact_rows = exact_rows;
        Search::new(world.database.clone(), world.embedder.clone(), node.lexical.clone(), config)
    };
    let (exact, usual, eager) = (search(i64::MAX - 1), search(SearchConfig::default().dense.exact_rows), search(1));
    let filters = [
        ("{}".to_owned(), DOCUMENTS * PASSAGES),
        (r#"{"collection": "odd"}"#.to_owned(), DOCUMENTS / 2 * PASSAGES),
        (r#"{"metadata": {"rare": true}}"#.to_owned(), PASSAGES),
        (r#"{"metadata": {"number": {"min": 3, "max": 4}}}"#.to_owned(), 2 * PASSAGES),
        (r#"{"metadata": {"number": [1, 5, 99]}, "collection": "odd"}"#.to_owned(), 2 * PASSAGES),
        (format!(r#"{{"document_ids": ["{}"]}}"#, documents[11]), PASSAGES),
        (r#"{"created_after": "2100-01-01T00:00:00Z"}"#.to_owned(), 0),
    ];
    let queries = ["ferry dam week 12", "pier station 77", "crane sluice of log 7", "lock inspected in week 30"];
    for (json, matching) in &filters {
        let filters: Filters = serde_json::from_str(json).unwrap();
        let (mut found, mut wanted) = ([0, 0], 0);
        for query in queries {
            let request = SearchRequest {
                mode: SearchMode::Dense,
                explain: true,
                filters: filters.clone(),
                ..SearchRequest::new(query)
            };
            let truth = exact.search(&world.caller(large), &request).await.unwrap().hits;
            assert_eq!(truth.len(), 10.min(*matching), "exact {json}");
            for (found, search) in found.iter_mut().zip([&usual, &eager]) {
                let near = search.search(&world.caller(large), &request).await.unwrap().hits;
                assert_eq!(near.len(), truth.len(), "min(k, n) under {json}");
                *found += as_close(&near, &truth);
            }
            wanted += truth.len();
        }
        println!("{json}: recall@10 {found:?} of {wanted}");
        assert!(found.iter().all(|found| found * 100 >= wanted * 95), "{json}");
    }
    for search in [&exact, &usual, &eager] {
        let request = SearchRequest { mode: SearchMode::Dense, ..SearchRequest::new("ferry dam week 12") };
        let few = search.search(&world.caller(small), &request).await.unwrap().hits;
        assert_eq!(few.len(), 1, "the tenant with one of 10,001 vectors");
    }
    node.stop().await;
}

/// Who may see a document of the crowd: every second one the staff, every fifth the board, the tenth alone the auditor.
fn seen_by(number: usize) -> &'static [&'static str] {
    match number {
        10 => &["auditor"],
        n if n % 5 == 0 => &["board"],
        n if n % 2 == 0 => &["staff"],
        _ => &["nobody"],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn access_labels_and_a_tiny_share_of_the_vectors_cost_no_recall() {
    let world = world().await;
    let (large, tiny) = (world.tenant().await, world.tenant().await);
    crowd(&world, large, seen_by).await;
    let mut log = Doc::new("tiny.pdf", &[]);
    let passage = |n: usize| format!("{} {} station {n} of the tiny log", SUBJECTS[n % 10], SUBJECTS[n * 3 % 10]);
    log.passages = (0..TINY).map(passage).collect();
    world.publish(tiny, &log).await;
    let node = Node::start(&world).await;
    let usually = SearchConfig::default().dense;
    let search = |exact_rows: i64, max_scan_tuples: u32| {
        let mut config = SearchConfig { cache_bytes: 0, ..support::patient() };
        (config.dense.exact_rows, config.dense.max_scan_tuples) = (exact_rows, max_scan_tuples);
        Search::new(world.database.clone(), world.embedder.clone(), node.lexical.clone(), config)
    };
    // With no row scanned exactly everybody goes through the index that all tenants share.
    let exact = search(i64::MAX - 1, usually.max_scan_tuples);
    let (usual, eager) = (search(usually.exact_rows, usually.max_scan_tuples), search(0, usually.max_scan_tuples));
    let callers: [(TenantId, &[&str], usize); 6] = [
        (large, &["staff"], 8 * PASSAGES),
        (large, &["board"], 3 * PASSAGES),
        (large, &["auditor"], PASSAGES),
        (large, &["auditor", "staff"], 9 * PASSAGES),
        (large, &[], 0),
        (tiny, &["board"], TINY),
    ];
    for (tenant, labels, visible) in callers {
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let caller = Caller { labels, ..world.caller(tenant) };
        let (mut found, mut wanted) = ([0, 0], 0);
        for number in 0..10 {
            let (first, second) = (SUBJECTS[number], SUBJECTS[number * 7 % 10]);
            let request = SearchRequest {
                mode: SearchMode::Dense,
                explain: true,
                ..SearchRequest::new(format!("{first} {second} station {} week {number}", number * 31))
            };
            let truth = exact.search(&caller, &request).await.unwrap().hits;
            assert_eq!(truth.len(), 10.min(visible), "exact {:?}", caller.labels);
            for (found, search) in found.iter_mut().zip([&usual, &eager]) {
                let near = search.search(&caller, &request).await.unwrap().hits;
                assert_eq!(near.len(), truth.len(), "min(k, n) for {:?}", caller.labels);
                *found += as_close(&near, &truth);
            }
            wanted += truth.len();
        }
        println!("{:?} of {visible} visible: recall@10 {found:?} of {wanted}", caller.labels);
        assert!(found.iter().all(|found| found * 100 >= wanted * 95), "{:?}", caller.labels);
    }
    // Of the few nothing is missing, whichever way is taken: also where the walk through the shared index gives up at once.
    let (caller, hasty) = (world.caller(tiny), search(0, 1));
    for (number, k) in (0..10).flat_map(|number| [1, 10, 20].map(|k| (number, k))) {
        let query = format!("{} {} week {number}", SUBJECTS[number], SUBJECTS[number * 7 % 10]);
        let request = SearchRequest { k, mode: SearchMode::Dense, explain: true, ..SearchRequest::new(query) };
        let truth = exact.search(&caller, &request).await.unwrap().hits;
        assert_eq!(truth.len(), TINY.min(k as usize), "min(k, n)");
        for search in [&usual, &eager, &hasty] {
            let near = search.search(&caller, &request).await.unwrap().hits;
            assert_eq!((near.len(), as_close(&near, &truth)), (truth.len(), truth.len()), "{} for {k}", request.query);
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_one_text_do_not_crowd_out_the_others() {
    let world = world().await;
    let tenant = world.tenant().await;
    let mut copies = Doc::new("copies.pdf", &[]);
    copies.passages = vec!["liability clause".to_owned(); 150];
    world.publish(tenant, &copies).await;
    let mut others = Doc::new("others.pdf", &[]);
    others.passages = (0..12).map(|n| format!("Schedule {n} names one liability among many other duties")).collect();
    world.publish(tenant, &others).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let mut eager = SearchConfig { max_candidates: 100, ..support::patient() };
    eager.dense.exact_rows = 1;
    let eager = Search::new(world.database.clone(), world.embedder.clone(), node.lexical.clone(), eager);
    for (search, mode) in [&node.search, &eager].into_iter().flat_map(|search| MODES.map(|mode| (search, mode))) {
        let request = SearchRequest { mode, ..SearchRequest::new("liability clause") };
        let hits = search.search(&world.caller(tenant), &request).await.unwrap().hits;
        assert_eq!(hits.len(), 10, "{mode:?}");
        assert_eq!(hits.iter().filter(|hit| hit.document == "copies.pdf").count(), 1, "{mode:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn near_duplicates_come_last_and_hits_show_what_stands_around_them() {
    let world = world().await;
    let tenant = world.tenant().await;
    let clause =
        "The ferry operator pays harbour dues for every vessel that stays longer than one night at the northern pier";
    let passages = ["The tariff.", clause, "It is due in advance.", "It is not refunded."];
    world.publish(tenant, &Doc::new("first.pdf", &passages)).await;
    world.publish(tenant, &Doc::new("second.pdf", &[&format!("{clause}.s")])).await;
    world.publish(tenant, &Doc::new("other.pdf", &["A vessel at the southern pier pays no dues."])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    for mode in MODES {
        let expand = Some(Expand::Neighbours(2));
        let request =
            SearchRequest { mode, k: 2, expand, ..SearchRequest::new("harbour dues ferry vessel pier night") };
        let found = node.search.search(&world.caller(tenant), &request).await.unwrap().hits;
        let is_clause = |hit: &&Hit| hit.text.starts_with(clause);
        assert_eq!(found.iter().filter(is_clause).count(), 1, "{mode:?}: {found:?}");
        for hit in found.iter().filter(|hit| hit.document == "first.pdf") {
            let context = hit.context.clone().unwrap();
            assert_eq!(
                (context.before, context.after),
                (vec!["The tariff.".to_owned()], passages[2..].iter().map(|p| (*p).to_owned()).collect())
            );
        }
        let wide = SearchRequest { k: 6, expand: None, ..request };
        let all = node.search.search(&world.caller(tenant), &wide).await.unwrap().hits;
        assert!(all.iter().all(|hit| hit.context.is_none()));
        assert_eq!(all.iter().filter(is_clause).count(), 2, "{mode:?}: nobody else wants the place");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ready_is_found_by_the_next_search_on_every_node() {
    let world = world().await;
    let tenant = world.tenant().await;
    let nodes = [Node::start(&world).await, Node::start(&world).await];
    let document = DocumentId::fresh();
    for number in 1..=8 {
        let doc = Doc::new("log.pdf", &[&format!("the word of day {number} is lantern{number}x")]);
        let written = world.write(tenant, document, number, &doc).await;
        for node in &nodes {
            node.caught_up(&world, tenant).await;
        }
        world.flip(tenant, written).await;
        for (node, mode) in nodes.iter().flat_map(|node| MODES.map(|mode| (node, mode))) {
            let request = SearchRequest { mode, ..SearchRequest::new(format!("lantern{number}x")) };
            let hits = node.search.search(&world.caller(tenant), &request).await.unwrap().hits;
            assert_eq!(
                hits.iter().map(|hit| hit.version_id).collect::<Vec<_>>(),
                [written.version],
                "{number} {mode:?}"
            );
        }
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_user_can_write_the_tenant_filter() {
    let world = world().await;
    let (own, other) = (world.tenant().await, world.tenant().await);
    world.publish(own, &Doc::new("own.pdf", &["The harbour fee is ninety pounds."])).await;
    let secret = world.publish(other, &Doc::new("secret.pdf", &["The harbour fee is one secret pound."])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, own).await;
    node.caught_up(&world, other).await;
    let queries = [
        "harbour fee".to_owned(),
        format!("tenant_id:{other} OR harbour fee"),
        format!("harbour fee' OR tenant_id = '{other}' --"),
        format!("{{\"tenant\": \"{other}\"}} harbour +fee -own*"),
        format!("document:{} generation:{} harbour", secret.document, secret.generation),
    ];
    for (query, mode) in queries.iter().flat_map(|query| MODES.map(|mode| (query, mode))) {
        let request = SearchRequest { mode, ..SearchRequest::new(query.as_str()) };
        let hits = node.search.search(&world.caller(own), &request).await.unwrap().hits;
        assert!(hits.iter().all(|hit| hit.document == "own.pdf"), "{query} {mode:?}");
        assert_eq!(hits.len(), 1, "{query} {mode:?}");
    }
    for json in [
        format!(r#"{{"metadata": {{"tenant_id": "{other}"}}}}"#),
        format!(r#"{{"document_ids": ["{}"]}}"#, secret.document),
        format!(r#"{{"collection": "default' OR tenant_id = '{other}"}}"#),
    ] {
        let filters: Filters = serde_json::from_str(&json).unwrap();
        for mode in MODES {
            let request = SearchRequest { mode, filters: filters.clone(), ..SearchRequest::new("harbour fee") };
            assert!(node.search.search(&world.caller(own), &request).await.unwrap().hits.is_empty(), "{json} {mode:?}");
        }
    }
    assert!(serde_json::from_str::<Filters>(&format!(r#"{{"tenant_id": "{other}"}}"#)).is_err());
    node.stop().await;
}
