//! What a search may ask for besides its ranking (diversity, copies, sections, freshness), and what it remembers.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::TenantId;
use docmill_retrieval::search::{Expand, Freshness};
use docmill_retrieval::{Caller, Filters, Search, SearchConfig, SearchRequest, SearchResponse};
use metrics_exporter_prometheus::PrometheusBuilder;
use support::{Doc, Node, World, Written, world};

const CLAUSE: &str =
    "The ferry operator pays harbour dues for every vessel that stays longer than one night at the northern pier";

async fn execute(world: &World, tenant: TenantId, statement: &'static str, document: uuid::Uuid) {
    let work = world.database.write(tenant, move |connection| {
        Box::pin(async move {
            sqlx::query(statement).bind(document).execute(connection).await?;
            Ok(())
        })
    });
    work.await.unwrap();
}

async fn changed(world: &World, tenant: TenantId) {
    let counted =
        world.database.write(tenant, |connection| Box::pin(docmill_platform::feed::corpus_changed(connection)));
    counted.await.unwrap();
}

async fn ask(search: &Search, caller: &Caller, request: &SearchRequest) -> SearchResponse {
    search.search(caller, request).await.unwrap()
}

fn names(response: &SearchResponse) -> Vec<&str> {
    response.hits.iter().map(|hit| hit.document.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn diversity_brings_up_what_differs() {
    let world = world().await;
    let tenant = world.tenant().await;
    world.publish(tenant, &Doc::new("first.pdf", &["The pier is closed in winter for repair of planks"])).await;
    world.publish(tenant, &Doc::new("again.pdf", &["The pier is closed in winter for repair of rails"])).await;
    world.publish(tenant, &Doc::new("other.pdf", &["A bus replaces boats while the pier is out of use"])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let request = SearchRequest { k: 2, ..SearchRequest::new("pier closed winter") };
    let (caller, search) = (world.caller(tenant), &node.search);
    assert!(!names(&ask(search, &caller, &request).await).contains(&"other.pdf"));
    let diverse = ask(search, &caller, &SearchRequest { diversity: 0.9, ..request.clone() }).await;
    assert_eq!(names(&diverse)[1], "other.pdf");
    node.stop().await;
}

/// One text in several documents, nearly in another, and something else; and the search that asks for copies of it.
async fn clauses(world: &World, tenant: TenantId) -> SearchRequest {
    world.publish(tenant, &Doc::new("a.pdf", &[CLAUSE])).await;
    world.publish(tenant, &Doc::new("b.pdf", &[CLAUSE])).await;
    world.publish(tenant, &Doc::new("near.pdf", &[&format!("{CLAUSE}.s")])).await;
    world.publish(tenant, &Doc { labels: vec!["board".to_owned()], ..Doc::new("secret.pdf", &[CLAUSE]) }).await;
    world.publish(tenant, &Doc::new("other.pdf", &["A vessel at the southern pier pays no dues."])).await;
    SearchRequest { k: 2, copies: true, ..SearchRequest::new("harbour dues ferry vessel northern pier") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_tells_where_its_copies_are_as_far_as_the_caller_may_see_them() {
    let world = world().await;
    let tenant = world.tenant().await;
    let request = clauses(&world, tenant).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let copies = |response: &SearchResponse| {
        let copies = response.hits.iter().find(|hit| hit.text.starts_with(CLAUSE)).unwrap().copies.clone().unwrap();
        let mut told: Vec<(String, bool)> = copies.into_iter().map(|copy| (copy.document, copy.is_equal)).collect();
        told.extend(response.hits.iter().filter(|hit| hit.text == CLAUSE).map(|hit| (hit.document.clone(), true)));
        told.extend(
            response.hits.iter().filter(|hit| hit.text.ends_with(".s")).map(|hit| (hit.document.clone(), false)),
        );
        told.sort();
        told
    };
    let own = |name: &str, is_equal: bool| (name.to_owned(), is_equal);
    let caller = world.caller(tenant);
    let found = ask(&node.search, &caller, &request).await;
    let all = [own("a.pdf", true), own("b.pdf", true), own("near.pdf", false)];
    // Whichever of them leads: the others are its copies, the near one by its likeness.
    assert_eq!(
        copies(&found).iter().map(|told| &told.0).collect::<Vec<_>>(),
        all.iter().map(|own| &own.0).collect::<Vec<_>>()
    );
    let board = Caller { labels: vec!["board".to_owned()], ..caller.clone() };
    assert!(copies(&ask(&node.search, &board, &request).await).iter().any(|told| told.0 == "secret.pdf"));
    assert!(ask(&node.search, &caller, &SearchRequest { copies: false, ..request }).await.hits[0].copies.is_none());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_the_same_whichever_way_the_nearest_are_found() {
    let world = world().await;
    let tenant = world.tenant().await;
    let request = clauses(&world, tenant).await;
    // More texts than the dense half returns: what walks the index is not followed by a scan.
    let mut many = Doc::new("many.pdf", &[]);
    many.passages = (0..70).map(|n| format!("Lantern {n} hangs over berth {} and swings in wind", n + 100)).collect();
    world.publish(tenant, &many).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let mut config = support::patient();
    config.dense.exact_rows = 1;
    let walking = Search::new(world.database.clone(), world.embedder.clone(), node.lexical.clone(), config);
    let told = |found: SearchResponse| {
        let told = found.hits.into_iter().map(|hit| (hit.chunk_id, hit.document, hit.copies.unwrap()));
        told.collect::<Vec<_>>()
    };
    let scanned = told(ask(&node.search, &world.caller(tenant), &request).await);
    let walked = told(ask(&walking, &world.caller(tenant), &request).await);
    assert_eq!(walked, scanned);
    assert_eq!((walked.len(), walked[0].2.len(), walked[1].2.len()), (2, 2, 0), "{walked:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_section_is_what_stands_under_the_same_heading() {
    let world = world().await;
    let tenant = world.tenant().await;
    let passages = ["Opening words.", "Tariff begins.", CLAUSE, "Exceptions follow.", "Closing words."];
    let written = world.publish(tenant, &Doc::new("tariff.pdf", &passages)).await;
    execute(
        &world,
        tenant,
        "UPDATE chunks SET heading_path = CASE WHEN ordinal BETWEEN 1 AND 2 THEN ARRAY['Tariff']
                                               WHEN ordinal = 3 THEN ARRAY['Tariff', 'Exceptions'] ELSE '{}' END,
                           tokens = 10 WHERE document_id = $1",
        written.document.0,
    )
    .await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let request = SearchRequest { k: 1, ..SearchRequest::new("harbour dues ferry vessel northern pier night") };
    for (expand, before, after) in [
        (Expand::Parent(100), vec!["Tariff begins."], vec!["Exceptions follow."]),
        (Expand::Neighbours(2), vec!["Opening words.", "Tariff begins."], vec!["Exceptions follow.", "Closing words."]),
    ] {
        let found =
            ask(&node.search, &world.caller(tenant), &SearchRequest { expand: Some(expand), ..request.clone() }).await;
        let context = found.hits[0].context.clone().unwrap();
        assert_eq!(
            (context.before, context.after),
            (before.iter().map(|t| (*t).to_owned()).collect(), after.iter().map(|t| (*t).to_owned()).collect())
        );
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn freshness_prefers_the_newer_of_two_alike_and_cannot_lift_what_does_not_fit() {
    let world = world().await;
    let tenant = world.tenant().await;
    let dated = |name: &str, date: &str, text: &str| Doc {
        metadata: serde_json::json!({"published": date}),
        ..Doc::new(name, &[text])
    };
    world.publish(tenant, &dated("old.pdf", "2001-01-01", "harbour dues tariff of the port")).await;
    world.publish(tenant, &dated("new.pdf", "2100-01-01", "harbour dues tariff of a port")).await;
    world.publish(tenant, &dated("odd.pdf", "2100-01-01", "harbour seals sleep on rocks far from here")).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let freshness = Freshness { half_life_days: 365.0, weight: 0.3, field: Some("published".to_owned()) };
    let request = SearchRequest { explain: true, ..SearchRequest::new("harbour dues tariff of the port") };
    let caller = world.caller(tenant);
    assert_eq!(names(&ask(&node.search, &caller, &request).await)[0], "old.pdf", "off by default");
    let fresh = ask(&node.search, &caller, &SearchRequest { freshness: Some(freshness), ..request }).await;
    assert_eq!(names(&fresh), ["new.pdf", "old.pdf", "odd.pdf"]);
    let kept = fresh.hits[1].explanation.as_ref().unwrap().freshness.unwrap();
    assert!((0.7..0.71).contains(&kept), "{kept}");
    assert!(fresh.hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
    node.stop().await;
}

/// A tenant with one document that everybody may see, and one for the board.
async fn two(world: &World, tenant: TenantId) -> (Written, Written) {
    let open = world.publish(tenant, &Doc::new("open.pdf", &["harbour dues are ninety pounds"])).await;
    let board = Doc { labels: vec!["board".to_owned()], ..Doc::new("board.pdf", &["harbour dues are to rise"]) };
    (open, world.publish(tenant, &board).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_remembered_for_the_same_caller_and_request_alone() {
    let world = world().await;
    let (tenant, other) = (world.tenant().await, world.tenant().await);
    two(&world, tenant).await;
    world.publish(other, &Doc::new("other.pdf", &["harbour dues of another port"])).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    node.caught_up(&world, other).await;
    let (caller, request) = (world.caller(tenant), SearchRequest::new("harbour dues"));
    // The first search opens the index.
    ask(&node.search, &caller, &SearchRequest::new("warm")).await;
    let first = ask(&node.search, &caller, &request).await;
    let again = ask(&node.search, &world.caller(tenant), &request).await;
    assert_eq!((first.cached, again.cached, &first.hits), (false, true, &again.hits));
    let board = Caller { labels: vec!["board".to_owned()], ..caller.clone() };
    let theirs = ask(&node.search, &board, &request).await;
    assert_eq!((theirs.cached, theirs.hits.len(), again.hits.len()), (false, 2, 1));
    let filters: Filters = serde_json::from_str(r#"{"collection": "none"}"#).unwrap();
    for differing in [
        SearchRequest { k: 9, ..request.clone() },
        SearchRequest { explain: true, ..request.clone() },
        SearchRequest { diversity: 0.1, ..request.clone() },
        SearchRequest { filters, ..request.clone() },
        SearchRequest::new("harbour due"),
    ] {
        assert!(!ask(&node.search, &caller, &differing).await.cached, "{differing:?}");
    }
    assert_eq!(names(&ask(&node.search, &world.caller(other), &request).await), ["other.pdf"]);
    let freshness = Some(Freshness { half_life_days: 1.0, weight: 0.1, field: None });
    for _ in 0..2 {
        let aging =
            ask(&node.search, &caller, &SearchRequest { freshness: freshness.clone(), ..request.clone() }).await;
        assert!(!aging.cached, "what ages with the clock is not kept");
    }
    let off = SearchConfig { cache_bytes: 0, ..support::patient() };
    let off = Search::new(world.database.clone(), world.embedder.clone(), node.lexical.clone(), off);
    for _ in 0..2 {
        assert!(!ask(&off, &caller, &request).await.cached, "switched off");
    }
    node.stop().await;
}

/// On one thread: what is told on others reaches no recorder.
#[tokio::test]
async fn what_comes_from_memory_is_counted_as_a_hit() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let told = recorder.handle();
    let _told_here = metrics::set_default_local_recorder(&recorder);
    let world = world().await;
    let tenant = world.tenant().await;
    two(&world, tenant).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let (caller, request) = (world.caller(tenant), SearchRequest::new("harbour dues"));
    // The first search opens the index.
    ask(&node.search, &caller, &SearchRequest::new("warm")).await;
    let counted = |outcome: &str| {
        let (text, series) = (told.render(), format!("docmill_search_cache_total{{outcome=\"{outcome}\"}} "));
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.map_or(0, |value| value.parse::<u64>().unwrap())
    };
    let before = (counted("hit"), counted("miss"));
    let counts = || (counted("hit") - before.0, counted("miss") - before.1);
    for (expected, cached) in [((0, 1), false), ((1, 1), true), ((2, 1), true)] {
        assert_eq!(ask(&node.search, &caller, &request).await.cached, cached);
        assert_eq!(counts(), expected);
    }
    changed(&world, tenant).await;
    assert!(!ask(&node.search, &caller, &request).await.cached);
    assert_eq!(counts(), (2, 2), "what was remembered of an earlier state is no hit");
    let aging = Freshness { half_life_days: 1.0, weight: 0.1, field: None };
    ask(&node.search, &caller, &SearchRequest { freshness: Some(aging), ..request }).await;
    assert_eq!(counts(), (2, 2), "what is never kept is neither");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_never_served_from_memory() {
    let world = world().await;
    let tenant = world.tenant().await;
    let (open, board) = two(&world, tenant).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let (caller, request) = (world.caller(tenant), SearchRequest::new("harbour dues"));
    let look = || async {
        let found = ask(&node.search, &caller, &request).await;
        (found.cached, names(&found).into_iter().map(str::to_owned).collect::<Vec<_>>())
    };
    let told = |cached: bool, names: &[&str]| (cached, names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    look().await;
    look().await;
    assert_eq!(look().await, told(true, &["open.pdf"]));
    // New labels, counted: the other document is found by the next search.
    execute(&world, tenant, "UPDATE documents SET labels = '{}' WHERE id = $1", board.document.0).await;
    changed(&world, tenant).await;
    let (cached, mut both) = look().await;
    both.sort();
    assert_eq!((cached, both), told(false, &["board.pdf", "open.pdf"]));
    assert!(look().await.0);
    // Labels taken away by something that does not count, as an older binary would: the snapshot says so.
    execute(&world, tenant, "UPDATE documents SET labels = '{board}' WHERE id = $1", board.document.0).await;
    assert_eq!(look().await, told(false, &["open.pdf"]));
    // A new version, and its deletion.
    let version =
        world.write(tenant, open.document, 2, &Doc::new("open.pdf", &["harbour dues are a hundred pounds"])).await;
    node.caught_up(&world, tenant).await;
    look().await;
    world.flip(tenant, version).await;
    let found = ask(&node.search, &caller, &request).await;
    assert_eq!((found.cached, found.hits[0].version_id), (false, version.version));
    look().await;
    world.delete(tenant, version).await;
    assert_eq!(look().await, told(false, &[]));
    // Deleted by something that does not count.
    let last = world.publish(tenant, &Doc::new("last.pdf", &["harbour dues are void"])).await;
    node.caught_up(&world, tenant).await;
    look().await;
    assert_eq!(look().await, told(true, &["last.pdf"]));
    execute(&world, tenant, "UPDATE documents SET deleted_at = now() WHERE id = $1", last.document.0).await;
    assert_eq!(look().await, told(false, &[]));
    node.stop().await;
}
