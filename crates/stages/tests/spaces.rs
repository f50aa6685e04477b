//! Answers never get worse while a space is built, switched to and the former dropped, while documents arrive, fail, are
//! replayed and replaced: the whole engine runs, and a prober asks both stores all the time.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "spaces/plant.rs"]
mod plant;

use docmill_lifecycle::Stores;
use docmill_lifecycle::collect::{self, Ages};
use docmill_model::{GenerationId, RunId};
use docmill_retrieval::search::SearchMode;
use docmill_retrieval::spaces::steer;
use docmill_runtime::replay::{ReplayFilter, start};
use docmill_runtime::schedule;
use docmill_testkit::eventually;
use docmill_testkit::prober::Prober;
use plant::{Plant, SECOND, YEARLY};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const FIRST: &str = "all-minilm-l6-v2";
/// Documents there are before anything happens.
const EARLY: usize = 8;

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some("parse-child") {
        return docmill_documents::child_main();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        answers_never_get_worse().await;
        a_paused_space_is_built_on_schedule_within_its_budget().await;
        a_schedule_tries_what_a_model_refuses_once().await;
        a_firing_waits_an_hour_for_the_model_of_its_space().await;
        a_generation_waits_for_its_vectors_in_the_space_that_took_over().await;
        a_generation_whose_text_the_model_refuses_ends_and_no_other().await;
        a_document_is_embedded_while_a_space_beside_is_dropped().await;
        an_edit_shows_at_once_and_leaves_no_row_behind().await;
    });
    std::process::ExitCode::SUCCESS
}

async fn answers_never_get_worse() {
    let plant = Plant::start().await;
    for number in 0..EARLY {
        plant.upload(number, 1, "").await;
    }
    plant.settled().await;
    let probes =
        plant.probes(EARLY + 4, &[(SearchMode::Lexical, None), (SearchMode::Dense, None), (SearchMode::Hybrid, None)]);
    let prober = Prober::start(probes, Duration::from_millis(5));
    let named = Prober::start(plant.probes(EARLY, &[(SearchMode::Dense, Some(FIRST))]), Duration::from_millis(5));
    prober.phase("before").await;
    named.phase("before").await;

    plant.model.throttle();
    plant.build().await;
    prober.phase("build").await;
    plant.upload(EARLY, 1, "").await;
    plant.upload(EARLY + 1, 1, "").await;
    prober.phase("new documents").await;
    plant.model.release();
    plant.settled().await;
    eventually("the space is ready", PATIENCE, || async { plant.row(SECOND).await.unwrap().space.state == "ready" })
        .await;
    assert_eq!(plant.lacking().await, 0, "nothing stands without a vector in the second space");

    plant.switch(SECOND).await;
    prober.phase("switch").await;
    let second = Prober::start(plant.probes(EARLY, &[(SearchMode::Dense, Some(SECOND))]), Duration::from_millis(5));
    second.phase("after the switch").await;
    assert!(second.held().values().all(|held| held.len() == EARLY), "{:?}", second.held());

    plant.fail(0).await;
    plant.settled().await;
    prober.phase("failed version").await;
    let filter = ReplayFilter { stage: Some("ingest".to_owned()), recompute: true, ..ReplayFilter::default() };
    let (database, registry) = (&plant.world.database, &plant.registry);
    start(database, registry, &plant.pipelines, plant.tenant, None, &filter, None).await.unwrap();
    prober.phase("replay").await;
    eventually("the replay is over", PATIENCE, || async { plant.open_replays().await == 0 }).await;
    plant.settled().await;
    plant.upload(1, 3, " Its second edition says so as well.").await;
    plant.upload(EARLY + 2, 1, "").await;
    prober.phase("new version").await;
    plant.settled().await;
    plant.switch(FIRST).await;
    prober.phase("back").await;
    plant.switch(SECOND).await;
    named.phase("after all").await;
    named.end().await.never_worse(&["before", "after all"]);

    let dropped = plant.world.database.write(plant.tenant, |connection| Box::pin(steer::drop_in(connection, FIRST)));
    dropped.await.unwrap();
    prober.phase("drop").await;
    eventually("the first space is gone", PATIENCE, || async { plant.row(FIRST).await.is_none() }).await;
    plant.upload(EARLY + 3, 1, "").await;
    plant.settled().await;
    prober.phase("after").await;
    second.end().await.never_worse(&["after the switch"]);
    let proof = prober.end().await;
    proof.never_worse(&[
        "before",
        "build",
        "new documents",
        "switch",
        "failed version",
        "replay",
        "new version",
        "back",
        "drop",
        "after",
    ]);
    for (probe, held) in &proof.held {
        assert_eq!(held.len(), EARLY + 4, "{probe} finds every document in the end: {held:?}");
    }
    assert_eq!(docmill_runtime::doctor::examine(&plant.world.database).await.unwrap().violations, []);
    plant.stop().await;
}

async fn a_paused_space_is_built_on_schedule_within_its_budget() {
    let plant = Plant::start().await;
    for number in 0..3 {
        plant.upload(number, 1, "").await;
    }
    plant.settled().await;
    assert_eq!(plant.due().await, (0, 0), "there is no such space yet");
    let pipeline = plant.pipelines.get("default").unwrap();
    let asked = schedule::check_space(&plant.world.database, plant.tenant, &pipeline.schedules[YEARLY]).await;
    assert_eq!(asked.unwrap_err().code, docmill_model::Code::SpaceUnknown, "who asks is told");
    plant.enter(true).await;
    plant.upload(3, 1, "").await;
    plant.settled().await;
    assert_eq!(plant.lacking().await, 4, "neither the builder nor an upload embeds into a space that is paused");
    assert_eq!(plant.due().await, (2, 2), "the plan, within the budget");
    let prober = Prober::start(
        plant.probes(4, &[(SearchMode::Lexical, None), (SearchMode::Dense, None)]),
        Duration::from_millis(5),
    );
    prober.phase("before").await;
    plant.fire().await;
    prober.phase("first firing").await;
    assert_eq!((plant.lacking().await, plant.due().await), (2, (2, 0)));
    plant.fire().await;
    assert_eq!((plant.lacking().await, plant.due().await), (0, (0, 0)), "nothing lacks a vector");
    plant.upload(4, 1, "").await;
    plant.settled().await;
    assert_eq!(plant.due().await, (1, 0), "what came since is the next firing's");
    plant.fire().await;
    assert!(plant.row(SECOND).await.unwrap().space.is_paused);
    plant.switch(SECOND).await;
    prober.phase("switch").await;
    assert!(plant.found(SearchMode::Dense, 4, None).await.unwrap());
    prober.end().await.never_worse(&["before", "first firing", "switch"]);
    plant.stop().await;
}

async fn a_schedule_tries_what_a_model_refuses_once() {
    let plant = Plant::start().await;
    plant.enter(true).await;
    let hedges = " The hedge is trimmed in spring, and again in autumn when the birds have left it.".repeat(100);
    plant.upload(0, 1, &format!("{hedges} A thistle.")).await;
    plant.settled().await;
    let lacking = plant.lacking().await;
    assert!(lacking > 2, "it has several passages: {lacking}");
    plant.model.refuse(Some("thistle"));
    plant.fire().await;
    assert_eq!((plant.refused_texts().await, plant.lacking().await), (1, 1), "the other passages are embedded");
    assert_eq!(plant.due().await, (0, 0), "nothing is due for a text that the model refuses");
    plant.stop().await;
}

async fn a_firing_waits_an_hour_for_the_model_of_its_space() {
    let plant = Plant::start().await;
    plant.upload(0, 1, "").await;
    plant.settled().await;
    plant.enter_of_another_model().await;
    plant.begin_firing().await;
    eventually("its run waits", PATIENCE, || async { plant.embed_snoozes().await > 0 }).await;
    assert_eq!(plant.open_replays().await, 1, "it is at work");
    plant.age_firings().await;
    plant.fired().await;
    assert_eq!((plant.lacking().await, plant.due().await), (1, (1, 0)), "the next firing tries again");
    plant.stop().await;
}

/// Versions that are embedded in the first space while the second model refuses everything and nobody builds, and not
/// visible before the switch: their index jobs wait.
async fn overtaken_by_a_switch<const N: usize>(plant: &mut Plant, versions: [(usize, i32, &str); N]) -> [RunId; N] {
    plant.upload(0, 1, "").await;
    plant.settled().await;
    plant.build().await;
    eventually("the space is ready", PATIENCE, || async { plant.row(SECOND).await.unwrap().space.state == "ready" })
        .await;
    plant.stop_builder().await;
    plant.pause("index").await;
    plant.model.refuse(Some(""));
    let mut runs = [RunId(uuid::Uuid::nil()); N];
    for (run, (number, version, more)) in runs.iter_mut().zip(versions) {
        *run = plant.upload(number, version, more).await;
        eventually("it is embedded", PATIENCE, || async { plant.job(*run, "embed").await == "done" }).await;
    }
    plant.switch(SECOND).await;
    plant.resume("index").await;
    for run in runs {
        eventually("its index job waits", PATIENCE, || async { plant.snoozes(run).await > 0 }).await;
    }
    runs
}

async fn a_generation_waits_for_its_vectors_in_the_space_that_took_over() {
    let mut plant = Plant::start().await;
    overtaken_by_a_switch(&mut plant, [(1, 1, "")]).await;
    assert!(!plant.found(SearchMode::Lexical, 1, None).await.unwrap(), "not visible without its vectors");
    plant.model.refuse(None);
    plant.start_builder();
    plant.settled().await;
    assert!(plant.found(SearchMode::Dense, 1, None).await.unwrap());
    assert_eq!(plant.lacking().await, 0);
    plant.stop().await;
}

async fn a_generation_whose_text_the_model_refuses_ends_and_no_other() {
    let mut plant = Plant::start().await;
    let [refused, waits] = overtaken_by_a_switch(&mut plant, [(0, 2, "A thistle."), (1, 1, "")]).await;
    plant.model.refuse(Some("thistle"));
    plant.start_builder();
    eventually("it ends", PATIENCE, || async { plant.job(refused, "index").await == "dead" }).await;
    assert_eq!(plant.row(SECOND).await.unwrap().code.as_deref(), Some("EMBEDDING_INVALID"));
    plant.settled().await;
    assert_eq!(plant.job(waits, "index").await, "done");
    assert!(plant.found(SearchMode::Lexical, 0, None).await.unwrap(), "the version before answers");
    assert_eq!(plant.refused_texts().await, 1);
    plant.model.refuse(None);
    eventually("a text that is taken is none that is refused", PATIENCE, || async { plant.refused_texts().await == 0 })
        .await;
    plant.stop().await;
}

async fn a_document_is_embedded_while_a_space_beside_is_dropped() {
    let plant = Plant::start().await;
    plant.build().await;
    eventually("the space is ready", PATIENCE, || async { plant.row(SECOND).await.unwrap().space.state == "ready" })
        .await;
    plant.model.hold(true);
    let run = plant.upload(0, 1, "").await;
    eventually("its job embeds into the second space", PATIENCE, || async { plant.model.waiting() > 0 }).await;
    assert_eq!(plant.job(run, "embed").await, "leased");
    let drop = plant
        .world
        .database
        .write(plant.tenant, |connection| Box::pin(async move { steer::drop_in(connection, SECOND).await }));
    drop.await.unwrap();
    plant.model.hold(false);
    plant.settled().await;
    assert_eq!(plant.job(run, "index").await, "done");
    assert!(plant.found(SearchMode::Dense, 0, None).await.unwrap());
    eventually("the space is gone", PATIENCE, || async { plant.row(SECOND).await.is_none() }).await;
    let spaces: i64 = plant.spaces_with_vectors().await;
    assert_eq!(spaces, 1, "nothing was written into the dropped one");
    assert_eq!(docmill_runtime::doctor::examine(&plant.world.database).await.unwrap().violations, []);
    plant.stop().await;
}

async fn an_edit_shows_at_once_and_leaves_no_row_behind() {
    let plant = Plant::start().await;
    let paragraphs = |colour: &str| {
        let padding = |word: &str| format!("{} ", [word; 40].join(" ")).repeat(8);
        format!("\n\n{}\n\nThe tide gauge reads {colour}.\n\n{}", padding("harbour"), padding("breakwater"))
    };
    plant.upload(0, 1, &paragraphs("green")).await;
    plant.upload(1, 1, "").await;
    plant.settled().await;
    let database = plant.world.database.engine();
    let run = plant.upload(0, 2, &paragraphs("amber")).await;
    let shown = loop {
        let shown: Option<f64> = sqlx::query_scalar(
            "SELECT extract(epoch FROM now() - g.visible_at)::float8 FROM generations g JOIN runs r ON r.version_id = g.version_id
             WHERE r.id = $1 AND g.state = 'visible'",
        )
        .bind(run.0)
        .fetch_optional(database)
        .await
        .unwrap();
        if shown.is_some() {
            break shown;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let committed = std::time::Instant::now();
    for mode in [SearchMode::Lexical, SearchMode::Dense, SearchMode::Hybrid] {
        eventually("the new paragraph is found", PATIENCE, || async {
            let passages = plant.passages(mode, "tide gauge amber").await;
            assert!(passages.iter().all(|text| !text.contains("green")), "{mode:?} gives what was replaced");
            passages.iter().any(|text| text.contains("amber"))
        })
        .await;
    }
    let millis = (shown.unwrap_or_default() + committed.elapsed().as_secs_f64()) * 1e3;
    println!("figures: an edit is found in every mode at most {millis:.0} ms after its commit");
    plant.settled().await;

    let stores = Stores { database: plant.world.database.clone(), artifacts: plant.world.artifacts.clone() };
    let ages = Ages { unreferenced: Duration::ZERO, ..Ages::default() };
    eventually("no stale row is left in Postgres", PATIENCE, || async {
        collect::pass(&stores, plant.tenant, ages).await.unwrap();
        plant.stale().await == (0, 0)
    })
    .await;
    eventually("nor in the lexical index", PATIENCE, || async {
        let generations: Vec<uuid::Uuid> =
            sqlx::query_scalar("SELECT id FROM generations WHERE state = 'visible'").fetch_all(database).await.unwrap();
        let (counts, total) =
            plant.lexical.count(plant.tenant, generations.into_iter().map(GenerationId).collect()).await.unwrap();
        total == counts.iter().sum::<i64>() && total == plant.visible_chunks().await
    })
    .await;
    assert!(plant.found(SearchMode::Hybrid, 1, None).await.unwrap(), "the others stand");
    plant.stop().await;
}
