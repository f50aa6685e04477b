//! Measures retrieval and answers on data sets in BEIR layout, with the real model and a database of its own.
//!
//! `cargo run --release -p docmill-retrieval --example measure -- retrieval DIR… [--split NAME] [--runs FOLDER]`
//! `cargo run --release -p docmill-retrieval --example measure -- answers DIR [--foreign DIR]`
//! Vectors are kept in `--cache FOLDER` (default `target/docmill-measure`).
#![allow(clippy::unwrap_used)]

use docmill_platform::embedder::{Embedder, FastEmbedder, FastEmbedderConfig, LocalModel};
use docmill_retrieval::answers::AnswersConfig;
use docmill_retrieval::eval::{BeirFolder, Bench, evaluate_answers, evaluate_retrieval, trec};
use docmill_retrieval::search::{SearchConfig, SearchMode};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Questions of another data set that are asked to see them declined.
const FOREIGN: usize = 300;

#[derive(Default)]
struct Options {
    command: String,
    folders: Vec<PathBuf>,
    split: Option<String>,
    runs: Option<PathBuf>,
    cache: Option<PathBuf>,
    foreign: Vec<PathBuf>,
}

fn options() -> Options {
    let mut options = Options::default();
    let mut words = std::env::args().skip(1);
    options.command = words.next().unwrap_or_default();
    while let Some(word) = words.next() {
        let mut value = || words.next().map(PathBuf::from).unwrap();
        match word.as_str() {
            "--split" => options.split = Some(value().display().to_string()),
            "--runs" => options.runs = Some(value()),
            "--cache" => options.cache = Some(value()),
            "--foreign" => options.foreign.push(value()),
            _ => options.folders.push(PathBuf::from(word)),
        }
    }
    options
}

#[tokio::main]
async fn main() {
    let options = options();
    let world = docmill_testkit::world().await;
    let (onnxruntime, model_dir) = (world.parts.onnxruntime.clone(), world.parts.model_dir.clone());
    let config = FastEmbedderConfig { onnxruntime, model_dir, threads: 2, model: LocalModel::MiniLm };
    let embedder: Arc<dyn Embedder> = Arc::new(FastEmbedder::load(config).unwrap());
    let cache = options.cache.clone().unwrap_or_else(|| PathBuf::from("target/docmill-measure"));
    let bench = Bench { database: world.database.clone(), embedder, directory: cache, search: SearchConfig::default() };
    for folder in &options.folders {
        let read = BeirFolder::read(folder, options.split.as_deref()).unwrap();
        match options.command.as_str() {
            "retrieval" => retrieval(&bench, &read, options.runs.as_deref()).await,
            "answers" => answers(&bench, &world, &read, &options).await,
            _ => println!("measure retrieval|answers DIR…"),
        }
    }
}

fn progress(done: usize, all: usize) {
    eprintln!("loaded {done} of {all}");
}

async fn retrieval(bench: &Bench, folder: &BeirFolder, runs: Option<&Path>) {
    let modes = [SearchMode::Lexical, SearchMode::Dense, SearchMode::Hybrid];
    let report = evaluate_retrieval(bench, folder, &modes, &progress).await.unwrap();
    println!("{report}");
    let Some(runs) = runs else { return };
    std::fs::create_dir_all(runs).unwrap();
    for mode in &report.modes {
        let name = format!("{}-{:?}.trec", folder.name.replace('/', "-"), mode.mode).to_lowercase();
        trec::write_run(&runs.join(name), &mode.rankings, "docmill").unwrap();
    }
}

async fn answers(bench: &Bench, world: &docmill_testkit::World, folder: &BeirFolder, options: &Options) {
    let mut foreign = Vec::new();
    for other in &options.foreign {
        foreign.extend(BeirFolder::read(other, None).unwrap().questions.into_iter().take(FOREIGN));
    }
    let config = AnswersConfig::default();
    let report = evaluate_answers(bench, &world.artifacts, None, config, folder, &foreign, &progress).await.unwrap();
    println!("{report}");
    if let Some(runs) = &options.runs {
        std::fs::create_dir_all(runs).unwrap();
        let name = format!("{}-missed.txt", folder.name.replace('/', "-"));
        std::fs::write(runs.join(name), report.missed.join("\n")).unwrap();
    }
}
