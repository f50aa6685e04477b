//! Embedding spaces beside each other, over a real Postgres: built from stored chunks, switched, dropped.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::{Code, Failure, TenantId};
use docmill_platform::embedder::{Embedder, Embedders, HashEmbedder};
use docmill_retrieval::search::SearchMode;
use docmill_retrieval::spaces::{Builder, BuilderConfig, plan, steer};
use docmill_retrieval::{LexicalConfig, LexicalIndexes, Search, SearchRequest};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::{Doc, World, eventually, world};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A model of other dimensions that counts its texts, and embeds as many as it is let.
struct Second {
    inner: HashEmbedder,
    /// How often it was asked, answered or not.
    asked: AtomicUsize,
    texts: AtomicUsize,
    permits: Semaphore,
}

impl Second {
    fn new(permits: usize) -> Arc<Self> {
        Self::of(64, permits)
    }

    fn of(dimensions: usize, permits: usize) -> Arc<Self> {
        let inner = HashEmbedder::with_dimensions(dimensions);
        let (asked, texts) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { inner, asked, texts, permits: Semaphore::new(permits) })
    }

    fn texts(&self) -> usize {
        self.texts.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl Embedder for Second {
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        if texts.iter().any(|text| text.contains("poison")) {
            return Err(Failure::new(Code::EmbeddingInvalid, "poisoned"));
        }
        let vectors = self.inner.embed(texts).await;
        self.texts.fetch_add(texts.len(), Ordering::SeqCst);
        vectors
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }
}

const ALWAYS: usize = 1 << 20;

fn embedders(world: &World, second: &Arc<Second>) -> Embedders {
    let second: Arc<dyn Embedder> = second.clone();
    Embedders::new(world.embedder.clone(), BTreeMap::from([("second".to_owned(), second)]))
}

/// A lease that a machine which stands still for seconds does not lose.
const LEASE: Duration = Duration::from_secs(10);

fn builder(world: &World, second: &Arc<Second>, name: &str) -> Builder {
    builder_for(world, second, name, LEASE)
}

fn builder_for(world: &World, second: &Arc<Second>, name: &str, lease: Duration) -> Builder {
    let config = BuilderConfig {
        batch: 4,
        lease,
        courtesy: Duration::ZERO,
        pause: Duration::from_millis(20),
        rest: Duration::ZERO,
        ..BuilderConfig::new(name)
    };
    Builder::new(world.database.clone(), embedders(world, second), config)
}

async fn round(world: &World, second: &Arc<Second>) {
    builder(world, second, "one").round(&CancellationToken::new()).await.unwrap();
}

/// The second space over one document, built.
async fn built(world: &World, tenant: TenantId) -> Arc<Second> {
    let second = Second::new(ALWAYS);
    world.publish(tenant, &docs(1)[0]).await;
    create(world, tenant, &second).await;
    round(world, &second).await;
    second
}

async fn create(world: &World, tenant: TenantId, second: &Arc<Second>) {
    let model = second.clone();
    let write = world.database.write(tenant, move |connection| {
        Box::pin(async move { steer::create_in(connection, "second", &*model, false).await })
    });
    write.await.unwrap();
}

async fn switch(world: &World, tenant: TenantId, name: &'static str) -> Result<(String, String), Failure> {
    let checked = steer::check_switch(&world.database, name).await?;
    switch_checked(world, tenant, checked).await
}

async fn switch_checked(world: &World, tenant: TenantId, checked: steer::Checked) -> Result<(String, String), Failure> {
    let database = world.database.clone();
    let write = world.database.write(tenant, move |connection| {
        Box::pin(async move { steer::switch_in(connection, &database, tenant, &checked).await })
    });
    let switched = write.await?;
    Ok((switched.from, switched.to))
}

async fn vectors(world: &World, tenant: TenantId, space: &'static str) -> Vec<i32> {
    let read = world.database.read(tenant, move |connection| {
        Box::pin(async move {
            let found = sqlx::query_scalar(
                "SELECT vector_dims(v.embedding) FROM vectors v JOIN embedding_spaces s ON s.id = v.space_id WHERE s.name = $1",
            );
            Ok(found.bind(space).fetch_all(connection).await?)
        })
    });
    read.await.unwrap()
}

async fn row(world: &World, tenant: TenantId, name: &str) -> Option<steer::SpaceRow> {
    let read = world.database.read(tenant, |connection| Box::pin(steer::list(connection)));
    read.await.unwrap().into_iter().find(|row| row.space.name == name)
}

fn docs(count: usize) -> Vec<Doc> {
    let doc = |number: usize| {
        let (one, two) =
            (format!("Lantern{number} hangs over berth {number}."), format!("Keel{number} lies in dock {number}."));
        Doc::new(&format!("doc-{number}.txt"), &[&one, &two, "The same clause stands everywhere."])
    };
    (0..count).map(doc).collect()
}

fn search(world: &World, second: &Arc<Second>) -> (Search, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let lexical = LexicalIndexes::new(LexicalConfig::new(folder.path())).unwrap();
    (Search::new(world.database.clone(), embedders(world, second), lexical, support::patient()), folder)
}

/// Document and cosine of the best hit.
async fn best(
    search: &Search,
    world: &World,
    tenant: TenantId,
    query: &str,
    space: Option<&str>,
) -> Result<(String, f64), Code> {
    let request = SearchRequest {
        mode: SearchMode::Dense,
        explain: true,
        space: space.map(str::to_owned),
        ..SearchRequest::new(query)
    };
    let found = search.search(&world.caller(tenant), &request).await.map_err(|failure| failure.code)?;
    let hit = &found.hits[0];
    Ok((hit.document.clone(), hit.explanation.as_ref().unwrap().dense_cosine.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_of_other_dimensions_is_built_switched_to_and_the_former_dropped() {
    let world = world().await;
    let (tenant, other) = (world.tenant().await, world.tenant().await);
    for doc in docs(6) {
        world.publish(tenant, &doc).await;
        world.publish(other, &doc).await;
    }
    let second = Second::new(ALWAYS);
    let planned = plan(&world.database, "second", &*second).await.unwrap();
    // Six documents of two own texts and a shared one, in two tenants.
    assert_eq!((planned.texts, planned.to_embed, planned.cached, planned.dimensions), (26, 26, 0, 64));
    assert!(!planned.is_indexed && planned.tokens == 26, "{planned:?}");
    let sampled = second.texts();

    create(&world, tenant, &second).await;
    let (search, _folder) = search(&world, &second);
    assert_eq!(best(&search, &world, tenant, "lantern3", Some("second")).await, Err(Code::SpaceIncomplete));
    assert_eq!(best(&search, &world, tenant, "lantern3", Some("third")).await, Err(Code::SpaceUnknown));
    let refused = switch(&world, tenant, "second").await.unwrap_err();
    assert_eq!((refused.code, refused.measured), (Code::SpaceIncomplete, Some(26)));

    let mut builder = builder(&world, &second, "one");
    builder.round(&CancellationToken::new()).await.unwrap();
    let built = row(&world, tenant, "second").await.unwrap();
    assert_eq!(
        (built.space.state.as_str(), built.texts, built.missing, built.embedded),
        ("ready", Some(26), Some(0), 26)
    );
    assert_eq!(second.texts() - sampled, 26, "each text once");
    assert_eq!(vectors(&world, tenant, "second").await, vec![64; 13]);

    // Both answer by name; the one without a name is the active one, also right after the switch.
    let question = "Lantern3 hangs over berth 3.";
    let (first, _) = best(&search, &world, tenant, question, None).await.unwrap();
    let (by_name, _) = best(&search, &world, tenant, question, Some("second")).await.unwrap();
    assert_eq!((first.as_str(), by_name.as_str()), ("doc-3.txt", "doc-3.txt"));
    assert_eq!(switch(&world, tenant, "second").await.unwrap(), ("all-minilm-l6-v2".into(), "second".into()));
    let (words, near) =
        ("lantern3 and some dock", |space| best(&search, &world, tenant, "lantern3 and some dock", space));
    let (active, before, named) = (near(None).await, near(Some("all-minilm-l6-v2")).await, near(Some("second")).await);
    assert_eq!(active, named, "the question `{words}` and the rows are of one space");
    assert_ne!(active, before, "which is another one than before");

    // A document that appears later is in both.
    let late = world.publish(tenant, &Doc::new("late.txt", &["Halyard nine is frayed."])).await;
    builder.round(&CancellationToken::new()).await.unwrap();
    for space in [None, Some("all-minilm-l6-v2"), Some("second")] {
        assert_eq!(best(&search, &world, tenant, "Halyard nine is frayed.", space).await.unwrap().0, "late.txt");
    }
    world.delete(tenant, late).await;

    // The active space stays, the other goes with all its vectors, and its receipt counts them.
    let drop = |name: &'static str| {
        world.database.write(tenant, move |connection| Box::pin(async move { steer::drop_in(connection, name).await }))
    };
    assert_eq!(drop("second").await.unwrap_err().into_failure().code, Code::SpaceActive);
    drop("all-minilm-l6-v2").await.unwrap();
    assert_eq!(best(&search, &world, tenant, question, Some("all-minilm-l6-v2")).await, Err(Code::SpaceUnknown));
    builder.round(&CancellationToken::new()).await.unwrap();
    assert!(row(&world, tenant, "all-minilm-l6-v2").await.is_none());
    let receipts = world.database.read(tenant, |connection| Box::pin(steer::drops(connection, 10))).await.unwrap();
    assert_eq!((receipts.len(), receipts[0].vectors, receipts[0].finished_at.is_some()), (1, 27, true));
    let left: i64 = count(&world, tenant).await + count(&world, other).await;
    assert_eq!(left, 27, "the vectors of the space that answers");
    assert_eq!(best(&search, &world, tenant, question, None).await.unwrap().0, "doc-3.txt");
}

async fn count(world: &World, tenant: TenantId) -> i64 {
    let read = world.database.read(tenant, |connection| {
        Box::pin(async move { Ok(sqlx::query_scalar("SELECT count(*) FROM vectors").fetch_one(connection).await?) })
    });
    read.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_tenants_are_searched_through_an_index_of_the_length_or_without_one() {
    for (dimensions, is_indexed) in [(384, true), (768, true), (100, false)] {
        let world = world().await;
        let tenant = world.tenant().await;
        for doc in docs(12) {
            world.publish(tenant, &doc).await;
        }
        let second = Second::of(dimensions, ALWAYS);
        // Two spaces of one length keep their indexes apart; the first one's model is another then.
        if dimensions == 384 {
            let bound = sqlx::query("UPDATE embedding_spaces SET fingerprint = 'before'");
            bound.execute(world.database.engine()).await.unwrap();
        }
        create(&world, tenant, &second).await;
        round(&world, &second).await;
        let built = row(&world, tenant, "second").await.unwrap();
        assert_eq!((built.is_indexed, built.space.state.as_str()), (is_indexed, "ready"), "{dimensions}");
        switch(&world, tenant, "second").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lexical = LexicalIndexes::new(LexicalConfig::new(folder.path())).unwrap();
        let mut config = support::patient();
        config.dense.exact_rows = 1;
        let search = Search::new(world.database.clone(), embedders(&world, &second), lexical, config);
        for number in 0..12 {
            let (document, cosine) =
                best(&search, &world, tenant, &format!("Keel{number} lies in dock {number}."), None).await.unwrap();
            assert!(document == format!("doc-{number}.txt") && cosine > 0.999, "{dimensions}: {document} {cosine}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builder_killed_in_the_middle_is_succeeded_by_another_that_embeds_nothing_twice() {
    let world = world().await;
    let tenant = world.tenant().await;
    for doc in docs(10) {
        world.publish(tenant, &doc).await;
    }
    // Three batches of four go through, the fourth hangs when the builder is killed.
    let second = Second::new(3);
    create(&world, tenant, &second).await;
    let brief = builder_for(&world, &second, "killed", Duration::from_millis(500));
    let killed = tokio::spawn(brief.run(CancellationToken::new()));
    eventually("three batches are stored", || async { vectors(&world, tenant, "second").await.len() == 12 }).await;
    killed.abort();
    let _ = killed.await;
    assert_eq!(row(&world, tenant, "second").await.unwrap().space.state, "building");
    second.permits.add_permits(ALWAYS);
    let stop = CancellationToken::new();
    let heir = tokio::spawn(builder(&world, &second, "heir").run(stop.clone()));
    eventually("the space is ready", || async { row(&world, tenant, "second").await.unwrap().space.state == "ready" })
        .await;
    stop.cancel();
    heir.await.unwrap();
    assert_eq!((second.texts(), vectors(&world, tenant, "second").await.len()), (21, 21));
    let charged: i64 = world
        .database
        .read(tenant, |connection| {
            Box::pin(async move {
                let sum = "SELECT sum(units)::bigint FROM ledger WHERE feature = 'embed' AND task = 'space' AND model = 'second'";
                Ok(sqlx::query_scalar(sum).fetch_one(connection).await?)
            })
        })
        .await
        .unwrap();
    assert_eq!(charged, 21, "units are the rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_builders_share_no_space_and_a_pause_stops_them() {
    let world = world().await;
    let tenant = world.tenant().await;
    for doc in docs(4) {
        world.publish(tenant, &doc).await;
    }
    let second = Second::new(1);
    create(&world, tenant, &second).await;
    let holder = tokio::spawn(builder(&world, &second, "holder").run(CancellationToken::new()));
    eventually("a batch is stored", || async { vectors(&world, tenant, "second").await.len() == 4 }).await;
    // A pause between two batches would leave it at one.
    eventually("the next is under way", || async { second.asked.load(Ordering::SeqCst) == 2 }).await;
    let mut late = builder(&world, &second, "late");
    // With the space it would wait for the model.
    tokio::time::timeout(Duration::from_secs(60), late.round(&CancellationToken::new())).await.unwrap().unwrap();
    let pause = |is_paused: bool| {
        world.database.write(tenant, move |connection| {
            Box::pin(async move { steer::pause_in(connection, "second", is_paused).await })
        })
    };
    assert!(pause(true).await.unwrap());
    second.permits.add_permits(ALWAYS);
    // The batch under way is stored; then nothing more.
    eventually("the batch is through", || async { vectors(&world, tenant, "second").await.len() == 8 }).await;
    late.round(&CancellationToken::new()).await.unwrap();
    assert_eq!(vectors(&world, tenant, "second").await.len(), 8);
    assert!(pause(false).await.unwrap());
    eventually("the rest follows", || async { vectors(&world, tenant, "second").await.len() == 9 }).await;
    holder.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_while_it_is_embedded_leaves_no_vector() {
    let world = world().await;
    let tenant = world.tenant().await;
    let written = world.publish(tenant, &Doc::new("gone.txt", &["This paragraph is deleted."])).await;
    let second = Second::new(0);
    create(&world, tenant, &second).await;
    let mut builder = builder(&world, &second, "one");
    let round = tokio::spawn(async move { builder.round(&CancellationToken::new()).await });
    eventually("the builder holds the space", || async { row(&world, tenant, "second").await.unwrap().is_driven })
        .await;
    world.delete(tenant, written).await;
    second.permits.add_permits(ALWAYS);
    round.await.unwrap().unwrap();
    assert!(vectors(&world, tenant, "second").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_the_model_fails_on_holds_up_no_other_but_the_switch() {
    let world = world().await;
    let tenant = world.tenant().await;
    for doc in docs(2) {
        world.publish(tenant, &doc).await;
    }
    let bad = world.publish(tenant, &Doc::new("bad.txt", &["A poison pill."])).await;
    let second = Second::new(ALWAYS);
    create(&world, tenant, &second).await;
    let mut builder = builder(&world, &second, "one");
    builder.round(&CancellationToken::new()).await.unwrap();
    let stuck = row(&world, tenant, "second").await.unwrap();
    assert_eq!(
        (stuck.space.state.as_str(), stuck.missing, stuck.code.as_deref()),
        ("building", Some(1), Some("EMBEDDING_INVALID"))
    );
    let refused = switch(&world, tenant, "second").await.unwrap_err();
    assert_eq!((refused.code, refused.measured), (Code::SpaceIncomplete, Some(1)));
    world.delete(tenant, bad).await;
    builder.round(&CancellationToken::new()).await.unwrap();
    let ready = row(&world, tenant, "second").await.unwrap();
    assert_eq!((ready.space.state.as_str(), ready.code), ("ready", None));
    switch(&world, tenant, "second").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_is_built_again_after_a_drop_is_filled_again() {
    let world = world().await;
    let tenant = world.tenant().await;
    for doc in docs(3) {
        world.publish(tenant, &doc).await;
    }
    let second = Second::new(ALWAYS);
    let mut builder = builder(&world, &second, "one");
    for _ in 0..2 {
        create(&world, tenant, &second).await;
        builder.round(&CancellationToken::new()).await.unwrap();
        let built = row(&world, tenant, "second").await.unwrap();
        assert_eq!((built.space.state.as_str(), built.missing, built.embedded), ("ready", Some(0), 7));
        assert_eq!(vectors(&world, tenant, "second").await.len(), 7);
        let drop = world
            .database
            .write(tenant, |connection| Box::pin(async move { steer::drop_in(connection, "second").await }));
        drop.await.unwrap();
        builder.round(&CancellationToken::new()).await.unwrap();
        assert!(row(&world, tenant, "second").await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_of_refused_texts_keeps_no_other_waiting() {
    let world = world().await;
    let (one, two) = (world.tenant().await, world.tenant().await);
    for tenant in [one, two] {
        world.publish(tenant, &Doc::new("bad.txt", &["A poison pill."])).await;
    }
    let (first, last) = (one.min(two), one.max(two));
    let second = Second::new(ALWAYS);
    create(&world, first, &second).await;
    let mut builder = builder(&world, &second, "one");
    builder.round(&CancellationToken::new()).await.unwrap();
    for doc in docs(2) {
        world.publish(last, &doc).await;
    }
    builder.round(&CancellationToken::new()).await.unwrap();
    assert_eq!(vectors(&world, last, "second").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_without_the_model_answers_again_when_the_former_space_does() {
    let world = world().await;
    let tenant = world.tenant().await;
    world.publish(tenant, &docs(1)[0]).await;
    let second = Second::new(ALWAYS);
    create(&world, tenant, &second).await;
    round(&world, &second).await;
    let folder = tempfile::tempdir().unwrap();
    let lexical = LexicalIndexes::new(LexicalConfig::new(folder.path())).unwrap();
    let only_first = Embedders::new(world.embedder.clone(), BTreeMap::new());
    let search = Search::new(world.database.clone(), only_first, lexical, support::patient());
    let question = "Lantern0 hangs over berth 0.";
    assert!(best(&search, &world, tenant, question, None).await.is_ok());
    switch(&world, tenant, "second").await.unwrap();
    assert!(best(&search, &world, tenant, question, None).await.is_err());
    switch(&world, tenant, "all-minilm-l6-v2").await.unwrap();
    assert!(best(&search, &world, tenant, question, None).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_slower_than_a_lease_keeps_its_space() {
    let world = world().await;
    let tenant = world.tenant().await;
    world.publish(tenant, &docs(1)[0]).await;
    let second = Second::new(0);
    create(&world, tenant, &second).await;
    let mut holder = builder(&world, &second, "holder");
    let round = tokio::spawn(async move { holder.round(&CancellationToken::new()).await });
    eventually("the builder holds the space", || async { row(&world, tenant, "second").await.unwrap().is_driven })
        .await;
    let taken_until = sqlx::query_scalar("SELECT lease_until FROM embedding_spaces WHERE name = 'second'");
    let taken_until: time::OffsetDateTime = taken_until.fetch_one(world.database.engine()).await.unwrap();
    eventually("the lease it was taken with would be over", || async {
        let over = sqlx::query_scalar("SELECT now() > $1 + interval '1 second'").bind(taken_until);
        over.fetch_one(world.database.engine()).await.unwrap()
    })
    .await;
    let mut late = builder(&world, &second, "late");
    let looked = tokio::time::timeout(Duration::from_secs(60), late.round(&CancellationToken::new())).await;
    looked.expect("it does not take over").unwrap();
    second.permits.add_permits(ALWAYS);
    round.await.unwrap().unwrap();
    assert_eq!((vectors(&world, tenant, "second").await.len(), second.texts()), (3, 3), "nothing is embedded twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_gives_every_tenant_a_slice_and_the_next_goes_on() {
    let world = world().await;
    let tenants = [world.tenant().await, world.tenant().await];
    for tenant in tenants {
        for doc in docs(4) {
            world.publish(tenant, &doc).await;
        }
    }
    let second = Second::new(ALWAYS);
    create(&world, tenants[0], &second).await;
    let config = BuilderConfig {
        batch: 4,
        slice: Duration::ZERO,
        courtesy: Duration::ZERO,
        rest: Duration::ZERO,
        ..BuilderConfig::new("one")
    };
    let mut builder = Builder::new(world.database.clone(), embedders(&world, &second), config);
    for (round, expected) in [4, 8, 9].into_iter().enumerate() {
        builder.round(&CancellationToken::new()).await.unwrap();
        for tenant in tenants {
            assert_eq!(vectors(&world, tenant, "second").await.len(), expected, "after round {round}");
        }
    }
    builder.round(&CancellationToken::new()).await.unwrap();
    let ready = row(&world, tenants[0], "second").await.unwrap();
    assert_eq!((ready.space.state.as_str(), ready.embedded, second.texts()), ("ready", 18, 18));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_space_is_no_longer_ready_when_documents_arrive() {
    let world = world().await;
    let tenant = world.tenant().await;
    let second = built(&world, tenant).await;
    let pause = |is_paused: bool| {
        world.database.write(tenant, move |connection| {
            Box::pin(async move { steer::pause_in(connection, "second", is_paused).await })
        })
    };
    pause(true).await.unwrap();
    round(&world, &second).await;
    assert_eq!(row(&world, tenant, "second").await.unwrap().space.state, "ready", "nothing arrived");
    world.publish(tenant, &docs(2)[1]).await;
    round(&world, &second).await;
    let open = row(&world, tenant, "second").await.unwrap();
    assert_eq!((open.space.state.as_str(), open.missing, second.texts()), ("building", Some(2), 3));
    let (search, _folder) = search(&world, &second);
    let asked = best(&search, &world, tenant, "Keel1 lies in dock 1.", Some("second")).await;
    assert_eq!(asked.unwrap_err(), Code::SpaceIncomplete, "a search by its name would miss the new one");
    pause(false).await.unwrap();
    round(&world, &second).await;
    let ready = row(&world, tenant, "second").await.unwrap();
    assert_eq!((ready.space.state.as_str(), ready.missing, second.texts()), ("ready", Some(0), 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_between_the_check_and_the_switch_is_looked_at_again() {
    let world = world().await;
    let tenant = world.tenant().await;
    let second = built(&world, tenant).await;
    let checked = steer::check_switch(&world.database, "second").await.unwrap();
    world.publish(tenant, &docs(2)[1]).await;
    let refused = switch_checked(&world, tenant, checked).await.unwrap_err();
    assert_eq!((refused.code, refused.measured), (Code::SpaceIncomplete, Some(2)));
    round(&world, &second).await;
    let models = embedders(&world, &second);
    assert_eq!(models.answering(&world.database).await.unwrap().dimensions(), world.embedder.dimensions());
    switch(&world, tenant, "second").await.unwrap();
    assert_eq!(models.answering(&world.database).await.unwrap().dimensions(), 64, "what is judged is what answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_too_long_or_a_path_of_the_api_is_refused() {
    let world = world().await;
    let tenant = world.tenant().await;
    let second = Second::new(ALWAYS);
    for name in ["plan".to_owned(), String::new(), "x".repeat(65), "x".repeat(5_000)] {
        let model = second.clone();
        let write = world.database.write(tenant, move |connection| {
            Box::pin(async move { steer::create_in(connection, &name, &*model, false).await })
        });
        assert_eq!(write.await.unwrap_err().into_failure().code, Code::FieldInvalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_is_built_anew_while_others_still_empty_the_one_of_its_number() {
    let world = world().await;
    let tenant = world.tenant().await;
    for doc in docs(3) {
        world.publish(tenant, &doc).await;
    }
    let second = Second::new(ALWAYS);
    let stop = CancellationToken::new();
    let beside: Vec<_> = ["one", "two", "three"]
        .into_iter()
        .map(|name| {
            let config = BuilderConfig {
                batch: 1,
                courtesy: Duration::ZERO,
                pause: Duration::from_millis(1),
                ..BuilderConfig::new(name)
            };
            let builder = Builder::new(world.database.clone(), embedders(&world, &second), config);
            tokio::spawn(builder.run(stop.clone()))
        })
        .collect();
    for _ in 0..6 {
        create(&world, tenant, &second).await;
        eventually("it is ready", || async { row(&world, tenant, "second").await.unwrap().space.state == "ready" })
            .await;
        assert_eq!(vectors(&world, tenant, "second").await.len(), 7);
        let drop = world
            .database
            .write(tenant, |connection| Box::pin(async move { steer::drop_in(connection, "second").await }));
        drop.await.unwrap();
        eventually("it is gone", || async { row(&world, tenant, "second").await.is_none() }).await;
    }
    let read = world.database.read(tenant, |connection| Box::pin(steer::drops(connection, 10)));
    let receipts = read.await.unwrap();
    let counts: Vec<i64> = receipts.iter().map(|receipt| receipt.vectors).collect();
    assert_eq!(counts, [7; 6], "every receipt counts its own vectors");
    stop.cancel();
    for builder in beside {
        builder.await.unwrap();
    }
}
