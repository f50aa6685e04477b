//! The contract every stage keeps, driven from the registry: doing it twice is doing it once, a crash between run and
//! commit leaves no trace, equal work gives an equal manifest, and failures are typed. A stage that joins the list is
//! held to it without a line here.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "contract/bench.rs"]
mod bench;
#[path = "contract/everywhere.rs"]
mod everywhere;
#[path = "contract/paid.rs"]
mod paid;
#[path = "contract/remembered.rs"]
mod remembered;
#[path = "contract/toy.rs"]
mod toy;
#[path = "contract/unseen.rs"]
mod unseen;

use bench::{Bench, Document};
use docmill_model::ErrorKind;
use docmill_model::manifest::Manifest;
use docmill_runtime::StageError;
use std::time::Duration;

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some("parse-child") {
        return docmill_documents::child_main();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = Bench::new().await;
        twice_is_once(&bench).await;
        failures_are_typed(&bench).await;
        a_tampered_object_is_refused(&bench).await;
        a_cancelled_job_stops(&bench).await;
        an_older_version_never_replaces_a_newer_one(&bench).await;
        equal_texts_are_embedded_once(&bench).await;
        sentences_are_embedded_once(&bench).await;
        unseen::hidden_text_goes_nowhere(&bench).await;
        paid::only_what_changed_is_paid_for(&bench).await;
        remembered::what_a_commit_shows_is_found_by_the_next_search().await;
        everywhere::what_is_ready_is_found_by_the_next_search_on_every_node().await;
        settings_are_strict(&bench);
        toy::a_new_stage_is_one_file_and_one_line(&bench);
    });
    std::process::ExitCode::SUCCESS
}

const SAMPLE: &str = "# Slipway lease\n\nThis lease is made as of January 12, 2024 between Harbour Works Ltd. and Deepwell Divers Inc.\n\n\
    The rent is $1,200.00 a month and is due on the first day of each month. The tenant keeps the slipway clean and free of oil. \
    The landlord repairs the rails before every winter and pays for the paint.\n\n## Term\n\nThe lease runs for a period of two (2) years. \
    Either side may end it with ninety days of notice in writing. It is governed by the laws of the State of New York.\n";

/// One tenant where everything goes right, one where every stage crashes after its run and repeats its commit.
async fn twice_is_once(bench: &Bench) {
    let (calm, rough) = (bench.tenant().await, bench.tenant().await);
    let ids = Document::fresh();
    let smooth = bench.document(calm, &ids, 1, "lease.md", "text/markdown", SAMPLE.as_bytes()).await;
    let broken = bench.document(rough, &ids, 1, "lease.md", "text/markdown", SAMPLE.as_bytes()).await;
    let mut inputs: Vec<(String, Manifest)> = Vec::new();
    let mut others: Vec<(String, Manifest)> = Vec::new();
    for stage in &bench.pipeline.stages {
        let once = bench.step(&smooth, &stage.name, &inputs).await.unwrap();
        let lost = bench.run(&broken, &stage.name, &others).await.unwrap();
        let again = bench.step(&broken, &stage.name, &others).await.unwrap();
        let repeated = bench.step(&broken, &stage.name, &others).await.unwrap();
        assert_eq!(once, lost, "{}: equal work, equal manifest", stage.name);
        assert_eq!((&once, &once), (&again, &repeated), "{}: a repetition changes nothing", stage.name);
        assert_eq!(bench.rows(calm).await, bench.rows(rough).await, "{}: rows after crash and repetition", stage.name);
        assert!(
            !serde_json::to_string(&once.facts).unwrap().contains("slipway"),
            "{}: facts hold document text",
            stage.name
        );
        inputs.push((stage.name.clone(), once));
        others.push((stage.name.clone(), again));
    }
    let rows = bench.rows(calm).await;
    for table in ["version", "generation", "chunk", "vector", "extraction", "summary", "delivery", "ledger", "visible"]
    {
        assert!(rows.iter().any(|row| row.starts_with(table)), "no row in {table}: {rows:#?}");
    }
    println!("test twice_is_once ... ok ({} stages, {} rows)", bench.pipeline.stages.len(), rows.len());
}

/// Without its input a stage that needs one says so with a permanent code.
async fn failures_are_typed(bench: &Bench) {
    let tenant = bench.tenant().await;
    let document = bench.document(tenant, &Document::fresh(), 1, "a.txt", "text/plain", b"some words").await;
    bench.world.blobs.delete(&document.accepted_key).await.unwrap();
    for stage in bench.pipeline.stages.iter().filter(|stage| !stage.on_settled) {
        match bench.run(&document, &stage.name, &[]).await {
            Err(StageError::Failed(failure)) => {
                assert_eq!(failure.code.kind(), ErrorKind::Permanent, "{}: {failure}", stage.name)
            }
            other => panic!("{}: {other:?}", stage.name),
        }
    }
    println!("test failures_are_typed ... ok");
}

async fn a_tampered_object_is_refused(bench: &Bench) {
    let tenant = bench.tenant().await;
    let document = bench.document(tenant, &Document::fresh(), 1, "a.txt", "text/plain", b"the declared words").await;
    let other = docmill_model::Sha256Hex::of(b"other words");
    bench.world.blobs.put(&document.accepted_key, bytes::Bytes::from_static(b"other words"), &other).await.unwrap();
    let refused = bench.run(&document, "ingest", &[]).await;
    assert!(
        matches!(&refused, Err(StageError::Failed(failure)) if failure.code == docmill_model::Code::HashMismatch),
        "{refused:?}"
    );
    println!("test a_tampered_object_is_refused ... ok");
}

/// Whatever a stage does with a cancellation, it ends soon.
async fn a_cancelled_job_stops(bench: &Bench) {
    let tenant = bench.tenant().await;
    let document = bench.document(tenant, &Document::fresh(), 1, "lease.md", "text/markdown", SAMPLE.as_bytes()).await;
    let mut inputs = Vec::new();
    for stage in &bench.pipeline.stages {
        let mut job = bench.context(&document, &stage.name, &inputs);
        job.cancel = tokio_util::sync::CancellationToken::new();
        job.cancel.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(60), bench.run_with(&job, &stage.name)).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} does not stop", stage.name));
        assert!(matches!(ended, Ok(_) | Err(StageError::Cancelled)), "{}: {ended:?}", stage.name);
        inputs.push((stage.name.clone(), bench.step(&document, &stage.name, &inputs).await.unwrap()));
    }
    println!("test a_cancelled_job_stops ... ok");
}

async fn an_older_version_never_replaces_a_newer_one(bench: &Bench) {
    let tenant = bench.tenant().await;
    let ids = Document::fresh();
    let first =
        bench.document(tenant, &ids, 1, "a.txt", "text/plain", b"The first version of these words stands here.").await;
    let newer = Document { document: ids.document, ..Document::fresh() };
    let second = bench
        .document(tenant, &newer, 2, "b.txt", "text/plain", b"The second version of these words stands here.")
        .await;
    assert_eq!(bench.name(tenant).await, "a.txt", "a version that is not visible describes nothing");
    bench.until(&second, "index").await;
    assert_eq!(bench.name(tenant).await, "b.txt");
    let visible = bench.visible(tenant).await;
    assert_eq!(visible.map(|(_, version)| version), Some(second.ids.version));
    bench.until(&first, "index").await;
    assert_eq!(bench.name(tenant).await, "b.txt");
    assert_eq!(bench.visible(tenant).await, visible, "the late run of the older version changes nothing");
    let states: Vec<String> =
        bench.rows(tenant).await.into_iter().filter(|row| row.starts_with("generation")).collect();
    assert_eq!(states.iter().filter(|row| row.contains("retired")).count(), 1, "{states:?}");
    println!("test an_older_version_never_replaces_a_newer_one ... ok");
}

/// The second document with the same words embeds nothing, and its ledger row says so.
async fn equal_texts_are_embedded_once(bench: &Bench) {
    let tenant = bench.tenant().await;
    for name in ["one.md", "two.md"] {
        let document = bench.document(tenant, &Document::fresh(), 1, name, "text/markdown", SAMPLE.as_bytes()).await;
        bench.until(&document, "embed").await;
    }
    let rows = bench.rows(tenant).await;
    let vectors = rows.iter().filter(|row| row.starts_with("vector")).count();
    let ledger: Vec<&String> = rows.iter().filter(|row| row.starts_with("ledger embed")).collect();
    assert_eq!(ledger.len(), 2);
    assert!(ledger[0].contains("units=0 ") && ledger[1].contains(&format!("units={vectors} ")), "{ledger:?}");
    println!("test equal_texts_are_embedded_once ... ok");
}

/// A summary of a later version, or of the same one again, embeds the sentences that are new.
async fn sentences_are_embedded_once(bench: &Bench) {
    let tenant = bench.tenant().await;
    let ids = Document::fresh();
    let summarize = async |ids: &Document, number: i32, text: &str| {
        let document = bench.document(tenant, ids, number, "lease.md", "text/markdown", text.as_bytes()).await;
        bench.embedded();
        let manifests = bench.until(&document, "summarize").await;
        bench.finish(&document, "summarize", &manifests.last().unwrap().1).await;
        bench.embedded().len()
    };
    let whole = summarize(&ids, 1, SAMPLE).await;
    assert!(whole > 3, "{whole} sentences");
    let edited = SAMPLE.replace("pays for the paint", "pays for the paint and the oil");
    let next = Document { document: ids.document, ..Document::fresh() };
    assert_eq!(summarize(&next, 2, &edited).await, 1, "one sentence was edited");
    let again = Document { document: ids.document, ..Document::fresh() };
    assert_eq!(summarize(&again, 3, &edited).await, 0, "nothing was edited");
    println!("test sentences_are_embedded_once ... ok");
}

fn settings_are_strict(bench: &Bench) {
    for stage in bench.registry.iter() {
        let name = stage.name();
        let defaults = stage.check_settings(&serde_json::json!({})).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(stage.check_settings(&defaults).as_ref(), Ok(&defaults), "{name}: defaults are stable");
        assert!(
            stage.check_settings(&serde_json::json!({"no_such_setting": 1})).is_err(),
            "{name}: unknown settings are refused"
        );
        assert_eq!(stage.settings_schema()["additionalProperties"], false, "{name}: the schema refuses them too");
        assert!(stage.policy().concurrency >= 1 && stage.policy().timeout >= Duration::from_secs(1), "{name}: policy");
    }
    let out_of_range = [("chunk", "target_tokens", 300), ("embed", "batch", 0), ("summarize", "sentences", 99)];
    for (stage, setting, value) in out_of_range {
        let refused = bench.registry.get(stage).unwrap().check_settings(&serde_json::json!({ setting: value }));
        assert!(refused.unwrap_err().contains("out of range"), "{stage}.{setting}");
    }
    println!("test settings_are_strict ... ok");
}
