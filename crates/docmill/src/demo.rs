//! `docmill demo`: the whole job on the sample documents, from nothing to cited answers.
//!
//! It is a client like any other once the stack is up; only the counts at the end are read from the database.

mod counts;
mod progress;
mod questions;

use crate::cli::{Cli, DemoArgs};
use crate::client::api::Api;
use crate::client::upload::{Declaration, Uploaded, is_settled};
use crate::client::{connect, files, query};
use crate::config::load;
use crate::exit::Ending;
use crate::output::{self, field};
use crate::stack;
use docmill_embedded::Home;
use docmill_model::{Code, Failure};
use futures::StreamExt;
use indicatif::ProgressBar;
use progress::Progress;
use questions::Question;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PARALLEL: usize = 4;
const POLL: Duration = Duration::from_millis(250);
/// Without any change for this long something is stuck.
const PATIENCE: Duration = Duration::from_secs(300);
/// Files of the samples that are not documents.
const NOT_DOCUMENTS: [&str; 2] = ["README.md", "questions.yaml"];

/// One document as the demo knows it.
struct Document {
    uploaded: Uploaded,
    view: Value,
    jobs: Vec<Value>,
}

/// Runs the demo.
pub async fn run(cli: &Cli, args: &DemoArgs) -> Result<(), Ending> {
    let started = Instant::now();
    let samples = samples(args)?;
    let questions = questions::read(&samples.join("questions.yaml"))?;
    let paths = documents(&samples, args.only.as_deref())?;
    let config = load::load(cli.config.as_deref())?;
    let home = stack::home(cli)?;
    let up = stack::up(&home, &config, cli.config.as_deref(), |line| eprintln!("{line}")).await?;
    eprintln!("the stack is up at {} after {:.1} s", up.url, started.elapsed().as_secs_f64());
    let ended = tokio::select! {
        ended = job(cli, &home, &paths, &questions, started) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Code::Cancelled, "interrupted").into()),
    };
    if args.keep || up.attached {
        eprintln!("the stack stays up; `docmill down` stops it");
    } else {
        let stopped = home.clone();
        crate::assembly::blocking(move || {
            stack::down(&stopped);
            Ok(())
        })
        .await?;
    }
    let report = ended?;
    if cli.json {
        output::json(&report);
    } else {
        next_steps(&home, args.keep || up.attached);
    }
    verdict(&report)
}

fn samples(args: &DemoArgs) -> Result<PathBuf, Failure> {
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sample-docs");
    // A folder that was named is never replaced by another one.
    let candidates = match &args.samples {
        Some(named) => [Some(named.clone()), None],
        None => [Some(PathBuf::from("sample-docs")), Some(built_from)],
    };
    let found = candidates.into_iter().flatten().find(|folder| folder.join("questions.yaml").is_file());
    found.ok_or_else(|| {
        Failure::new(
            Code::ConfigInvalid,
            "no folder with documents and a `questions.yaml` is here; name one with --samples",
        )
    })
}

fn documents(samples: &Path, only: Option<&str>) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = files::find(&[samples.to_owned()])?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !NOT_DOCUMENTS.contains(&&*name) && only.is_none_or(|part| name.contains(part))
    });
    if paths.is_empty() { Err(Failure::new(Code::NotFound, "no sample document matches")) } else { Ok(paths) }
}

/// Upload, wait, ask; returns the report.
async fn job(
    cli: &Cli,
    home: &Home,
    paths: &[PathBuf],
    questions: &[Question],
    started: Instant,
) -> Result<Value, Ending> {
    let api = connect(cli)?;
    let uploaded = upload(&api, paths).await?;
    let documents = settle(&api, uploaded).await?;
    let names: Vec<&str> = documents.iter().map(|d| d.uploaded.name.as_str()).collect();
    let mut answered = Vec::new();
    for question in questions.iter().filter(|question| question.is_about(&names)) {
        answered.push(ask(cli, &api, question).await?);
    }
    let ids: Vec<&str> = documents.iter().map(|d| d.uploaded.id.as_str()).collect();
    let counts = counts::of(cli, home, &ids).await?;
    let report = json!({
        "documents": documents.iter().map(describe).collect::<Vec<_>>(),
        "counts": counts,
        "questions": answered,
        "seconds": (started.elapsed().as_secs_f64() * 10.0).round() / 10.0,
    });
    if !cli.json {
        summarize(&report);
    }
    Ok(report)
}

async fn upload(api: &Api, paths: &[PathBuf]) -> Result<Vec<Uploaded>, Ending> {
    let declaration = Declaration::default();
    let work = paths.iter().map(|path| {
        let (declaration, bar) = (&declaration, ProgressBar::hidden());
        async move { declaration.upload(api, path, &bar).await }
    });
    let mut running = futures::stream::iter(work).buffered(PARALLEL);
    let mut uploaded = Vec::new();
    while let Some(done) = running.next().await {
        let done = done?;
        let how = if done.deduplicated { "already here" } else { "uploaded" };
        eprintln!("{how:12} {}", output::plain(&done.name));
        uploaded.push(done);
    }
    Ok(uploaded)
}

/// Waits until nothing is left to do: also `notify`, which runs after a document has settled.
async fn settle(api: &Api, uploaded: Vec<Uploaded>) -> Result<Vec<Document>, Ending> {
    let progress = Progress::new(&uploaded);
    let mut settled: BTreeMap<usize, Document> = BTreeMap::new();
    let mut changed = Instant::now();
    while settled.len() < uploaded.len() {
        for (index, document) in
            uploaded.iter().enumerate().filter(|(i, _)| !settled.contains_key(i)).collect::<Vec<_>>()
        {
            let base = format!("/v1/documents/{}", document.id);
            let jobs = api.get(&format!("{base}/jobs"), &[]).await?.as_array().cloned().unwrap_or_default();
            if progress.show(index, &jobs) {
                changed = Instant::now();
            }
            if jobs.is_empty() || jobs.iter().any(|job| !is_final(job)) {
                continue;
            }
            let view = api.get(&base, &[]).await?;
            if is_settled(&field(&view, "/state")) {
                progress.finish(index, &view);
                settled.insert(index, Document { uploaded: document.clone(), view, jobs });
                changed = Instant::now();
            }
        }
        if changed.elapsed() > PATIENCE {
            let message =
                format!("{} documents do not go on; look at `docmill doctor`", uploaded.len() - settled.len());
            return Err(Failure::new(Code::StageTimeout, message).into());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(settled.into_values().collect())
}

fn is_final(job: &Value) -> bool {
    matches!(job["state"].as_str(), Some("done" | "dead" | "cancelled"))
}

async fn ask(cli: &Cli, api: &Api, question: &Question) -> Result<Value, Ending> {
    let answer = api.post("/v1/answers", &json!({"question": question.question})).await?;
    let sentences = answer["sentences"].as_array().cloned().unwrap_or_default();
    let cited = |sentence: &Value| sentence["citations"].as_array().cloned().unwrap_or_default();
    let citations: Vec<Value> = sentences
        .iter()
        .flat_map(cited)
        .map(|c| json!({"document": c["document"], "page": c["page"], "quote": c["quote"], "char_start": c["char_start"], "char_end": c["char_end"]}))
        .collect();
    let text: Vec<String> = sentences.iter().map(|sentence| field(sentence, "/text")).collect();
    let expected = question.is_met(answer["found"] == true, &citations);
    if !cli.json {
        output::line(format!("\n{} {}", if expected { "✓" } else { "✗" }, question.question));
        query::print(&answer);
    }
    Ok(json!({
        "question": question.question, "answer": text.join(" "), "found": answer["found"], "citations": citations,
        "as_expected": expected,
    }))
}

fn describe(document: &Document) -> Value {
    let secs = |job: &Value| (field(job, "/stage"), job["run_secs"].clone());
    json!({
        "id": document.uploaded.id,
        "name": document.uploaded.name,
        "state": document.view["state"],
        "code": document.view["code"],
        "deduplicated": document.uploaded.deduplicated,
        "stages": document.jobs.iter().map(secs).collect::<Map<String, Value>>(),
    })
}

fn summarize(report: &Value) {
    let list = |name: &str| report[name].as_array().cloned().unwrap_or_default();
    let (documents, questions) = (list("documents"), list("questions"));
    let done = documents.iter().filter(|d| d["state"] == "done").count();
    let met = questions.iter().filter(|q| q["as_expected"] == true).count();
    output::line(format!(
        "\n{done} of {} documents done, {met} of {} questions answered as expected, {} s",
        documents.len(),
        questions.len(),
        field(report, "/seconds")
    ));
    let counts = report["counts"].as_object().cloned().unwrap_or_default();
    output::line(counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", "));
    if documents.iter().any(|d| d["code"] == "OCR_UNAVAILABLE") {
        output::line("Scans were not read: tesseract is missing (apt-get install tesseract-ocr).");
    }
}

fn next_steps(home: &Home, stays: bool) {
    let first =
        if stays { "" } else { "  docmill up                              start it again, with these documents\n" };
    output::line(format!(
        "\nNext:\n{first}  docmill upload FILE…                    your own documents\n  \
         docmill ask \"When is the pier closed?\"   questions about all of them\n  \
         docmill search gearbox                  passages\n  docmill status                          addresses and logs ({})",
        home.root().display()
    ));
}

/// Documents that failed for a reason other than missing OCR fail the demo; a wrong answer is shown, not fatal.
fn verdict(report: &Value) -> Result<(), Ending> {
    let mut documents = report["documents"].as_array().into_iter().flatten();
    let bad =
        documents.any(|d| !matches!(d["state"].as_str(), Some("done" | "partial")) && d["code"] != "OCR_UNAVAILABLE");
    if bad { Err(Ending::Found) } else { Ok(()) }
}
