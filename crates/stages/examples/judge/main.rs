//! Judges chunking, extraction and summaries on real files with known answers.
//!
//! `cargo run --release -p docmill-stages --example judge -- chunks|extract|summaries [--misses]`
//! The corpora are found by `DOCMILL_CORPORA`, else beside the workspace; where they are absent it says so and ends.
//! Summaries need the embedding model: `DOCMILL_MODEL_DIR` and `DOCMILL_ONNXRUNTIME`; PDF is better with `DOCMILL_PDFIUM`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod chunks;
mod extract;
mod summaries;

use docmill_documents::{ParseOptions, ParseRequest, Parser, ParserConfig, parse_in_process};
use docmill_model::document::ParsedDocument;
use std::path::{Path, PathBuf};

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some("parse-child") {
        return docmill_documents::child_main();
    }
    run();
    std::process::ExitCode::SUCCESS
}

fn run() {
    let corpora = std::env::var_os("DOCMILL_CORPORA").map(PathBuf::from);
    let corpora = corpora.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora"));
    if !corpora.is_dir() {
        println!("skipped: no corpora at {}", corpora.display());
        return;
    }
    let misses = std::env::args().any(|argument| argument == "--misses");
    match std::env::args().nth(1).as_deref() {
        Some("chunks") => chunks::judge(&corpora),
        Some("extract") => extract::judge(&corpora, misses),
        Some("summaries") => summaries::judge(&corpora),
        Some("read") => {
            let document = std::env::args().nth(2).and_then(|path| read(Path::new(&path)));
            println!("{}", document.map(|document| document.text).unwrap_or_default());
        }
        _ => println!("usage: judge chunks|extract|summaries|read FILE [--misses]"),
    }
}

/// Plain text as ingest reads it.
fn plain(text: &str) -> ParsedDocument {
    let options = ParseOptions { name: Some("judged.txt".to_owned()), ..ParseOptions::default() };
    parse_in_process(text.as_bytes(), &options).unwrap()
}

/// Any file, read in a child of this program.
fn read(path: &Path) -> Option<ParsedDocument> {
    let parser = Parser::new(ParserConfig {
        child: std::env::current_exe().unwrap(),
        child_args: vec!["parse-child".to_owned()],
        pdfium: std::env::var_os("DOCMILL_PDFIUM").map(PathBuf::from),
        tesseract: None,
        slots: 1,
        landlock_required: false,
        options: ParseOptions::default(),
    });
    let request = ParseRequest { bytes: std::fs::read(path).unwrap().into(), ..ParseRequest::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(parser.parse(request)).map(|parsed| parsed.document).ok()
}

/// The model's folder.
fn model_dir() -> PathBuf {
    PathBuf::from(std::env::var_os("DOCMILL_MODEL_DIR").unwrap_or_default())
}
