//! Measures the local embedder: chunks a second in one request, in requests of one text, and of short questions.
//!
//! `cargo run --release -p docmill-platform --example embedding_rate -- LIBRARY MODEL_DIR [THREADS]`

use docmill_model::Failure;
use docmill_platform::embedder::{Embedder, FastEmbedder, FastEmbedderConfig, LocalModel};
use std::time::Instant;

const CHUNKS: usize = 200;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [onnxruntime, model_dir, rest @ ..] = arguments.as_slice() else {
        println!("usage: embedding_rate LIBRARY MODEL_DIR [THREADS]");
        return Ok(());
    };
    let threads = rest.first().and_then(|threads| threads.parse().ok()).unwrap_or(2);
    let started = Instant::now();
    let model = LocalModel::MiniLm;
    let config = FastEmbedderConfig { onnxruntime: onnxruntime.into(), model_dir: model_dir.into(), threads, model };
    let embedder = FastEmbedder::load(config)?;
    println!("loaded in {:.2} s, {}", started.elapsed().as_secs_f64(), embedder.fingerprint());
    let chunks: Vec<String> = (0..CHUNKS).map(chunk).collect();
    for _ in 0..2 {
        rate("one request", &embedder, &chunks, CHUNKS).await?;
        rate("one text a request, one after the other", &embedder, &chunks, 1).await?;
        rate("requests of 32, one after the other", &embedder, &chunks, 32).await?;
    }
    let questions: Vec<String> = (0..100).map(|number| format!("How much is the fee of clause {number}?")).collect();
    rate("questions", &embedder, &questions, 1).await
}

/// Prose of 60 to 180 words in a fixed order of lengths, about 125 tokens on average.
fn chunk(number: usize) -> String {
    let words = [
        "the",
        "agreement",
        "ends",
        "when",
        "either",
        "party",
        "terminates",
        "it",
        "with",
        "notice",
        "of",
        "three",
        "months",
    ];
    (0..60 + number * 37 % 121).map(|place| words[(place * 7 + number) % words.len()]).collect::<Vec<_>>().join(" ")
}

async fn rate(what: &str, embedder: &FastEmbedder, texts: &[String], size: usize) -> Result<(), Failure> {
    let (started, cpu) = (Instant::now(), cpu_secs());
    for request in texts.chunks(size) {
        embedder.embed(request).await?;
    }
    let secs = started.elapsed().as_secs_f64();
    let (count, cpu) = (texts.len() as f64, cpu_secs() - cpu);
    println!(
        "{what}: {:.1} texts/s, {:.1} ms each, {:.1} ms of CPU time each",
        count / secs,
        secs * 1000.0 / count,
        cpu * 1000.0 / count
    );
    Ok(())
}

/// CPU time of this process so far; what a busy machine does not change. Zero where /proc does not tell.
fn cpu_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
