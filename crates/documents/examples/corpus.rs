//! Parses every file of a folder in the sandbox and prints what became of them, a row per format.
//!
//! `cargo run --release -p docmill-documents --example corpus -- FOLDER [--only TEXT] [--slots N] [--rows FILE] [--unchecked]`
//!
//! FOLDER may hold a `manifest.tsv` (path, format, …, mime); otherwise all files below it are read. Instead of a folder
//! a file may be named that lists one path a line. `DOCMILL_PDFIUM` names libpdfium.so. `--rows` writes a JSON line per
//! file with its text, tables and hidden words, to be compared with references; `--unchecked` leaves out what only
//! checks the result, for measuring time. A result that violates the model's invariants is printed and makes the whole
//! run fail.

use bytes::Bytes;
use docmill_documents::{Inspection, ParseOptions, ParseRequest, Parser, ParserConfig, TesseractConfig};
use docmill_model::CanonicalText;
use docmill_model::document::{BlockKind, ParsedDocument, Table};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

struct Item {
    path: String,
    format: String,
    mime: String,
}

#[derive(Default)]
struct Row {
    files: usize,
    ok: usize,
    partial: usize,
    empty: usize,
    millis: Vec<u64>,
    peak: u64,
    codes: BTreeMap<String, usize>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|a| a == "parse-child") {
        return docmill_documents::child_main();
    }
    let Some(folder) = arguments.get(1) else {
        eprintln!("usage: corpus FOLDER [--only TEXT] [--slots N] [--rows FILE] [--unchecked]");
        return ExitCode::FAILURE;
    };
    let option = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)).cloned();
    let slots = option("--slots").and_then(|n| n.parse().ok()).unwrap_or(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    let checked = !arguments.iter().any(|a| a == "--unchecked");
    let violations = runtime.block_on(run(PathBuf::from(folder), option("--only"), slots, option("--rows"), checked));
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Parses everything; answers with the number of files whose result violates the model's invariants.
async fn run(folder: PathBuf, only: Option<String>, slots: usize, rows: Option<String>, checked: bool) -> usize {
    let mut items = items(&folder);
    items.retain(|item| only.as_ref().is_none_or(|only| item.path.contains(only.as_str())));
    let parser = Parser::new(config(slots));
    parser.warm_up().await;
    let rows =
        Arc::new(Mutex::new(rows.map(|path| std::fs::File::create(path).expect("the rows file can be written"))));
    let table: Arc<Mutex<BTreeMap<String, Row>>> = Arc::default();
    let violations: Arc<AtomicUsize> = Arc::default();
    let started = std::time::Instant::now();
    let gate = Arc::new(tokio::sync::Semaphore::new(slots));
    let mut tasks = tokio::task::JoinSet::new();
    let total = items.len();
    for item in items {
        let (parser, folder, table, rows, gate, violations) =
            (parser.clone(), folder.clone(), table.clone(), rows.clone(), gate.clone(), violations.clone());
        tasks.spawn(async move {
            let _turn = gate.acquire().await;
            let Ok(bytes) = tokio::fs::read(folder.join(&item.path)).await else { return };
            let declared = Some(item.mime.clone()).filter(|mime| !mime.is_empty());
            let name = item.path.rsplit('/').next().map(str::to_owned);
            let request = ParseRequest { bytes: Bytes::from(bytes), declared, name, options: ParseOptions::default() };
            let parsed = parser.parse_measured(request).await;
            if let (Ok(parsed), true) = (&parsed, checked)
                && let Some(violation) = parsed.document.violations().first()
            {
                violations.fetch_add(1, Ordering::Relaxed);
                println!("VIOLATION {}: {violation}", item.path);
            }
            let report = Inspection::of(&parsed);
            if report.millis > 10_000 {
                println!("slow: {} {} ms, {}", item.path, report.millis, report.outcome);
            }
            if let Ok(mut rows) = rows.lock()
                && let Some(file) = rows.as_mut()
            {
                let content = parsed.as_ref().map(|p| content(&p.document)).unwrap_or_default();
                let tables = parsed.as_ref().map(|p| tables(&p.document)).unwrap_or_default();
                let hidden = parsed.as_ref().map(|p| hidden(&p.document)).unwrap_or_default();
                let line = serde_json::json!({
                    "path": item.path, "mime": item.mime, "report": report, "content": content, "tables": tables,
                    "hidden": hidden
                });
                let _ = writeln!(file, "{line}");
            }
            if let Ok(mut table) = table.lock() {
                add(table.entry(item.format).or_default(), &report);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    if let Ok(table) = table.lock() {
        print(&table);
    }
    println!("{total} files in {:.1} s", started.elapsed().as_secs_f64());
    violations.load(Ordering::Relaxed)
}

/// The text without furniture, as it would be chunked.
fn content(document: &ParsedDocument) -> String {
    let text = CanonicalText::from_canonical(document.text.clone());
    let blocks = document.blocks.iter().filter(|b| b.role != BlockKind::Furniture);
    blocks.filter_map(|b| text.slice(b.span)).collect::<Vec<_>>().join("\n\n")
}

/// What readers would not see, with its page.
fn hidden(document: &ParsedDocument) -> Vec<(Option<u32>, String)> {
    let text = CanonicalText::from_canonical(document.text.clone());
    let page = |at: u32| document.pages.iter().find(|p| p.span.end > at).map(|p| p.number);
    let spans = document.hidden.iter();
    spans.map(|h| (page(h.start), text.slice(*h).unwrap_or_default().to_owned())).collect()
}

/// The tables as rows of cell texts; a cell that covers several places stands at the first.
fn tables(document: &ParsedDocument) -> Vec<Vec<Vec<String>>> {
    let text = CanonicalText::from_canonical(document.text.clone());
    let table = |table: &Table| {
        let mut rows = vec![vec![String::new(); table.columns as usize]; table.rows as usize];
        for cell in &table.cells {
            if let Some(place) = rows.get_mut(cell.row as usize).and_then(|row| row.get_mut(cell.column as usize)) {
                *place = text.slice(cell.span).unwrap_or_default().to_owned();
            }
        }
        rows
    };
    document.tables.iter().map(table).collect()
}

fn add(row: &mut Row, report: &Inspection) {
    row.files += 1;
    row.millis.push(report.millis);
    row.peak = row.peak.max(report.peak_rss_bytes);
    match report.outcome.as_str() {
        "ok" => row.ok += 1,
        "partial" => row.partial += 1,
        code => *row.codes.entry(code.to_owned()).or_default() += 1,
    }
    if matches!(report.outcome.as_str(), "ok" | "partial") && report.words == 0 {
        row.empty += 1;
    }
}

fn print(table: &BTreeMap<String, Row>) {
    println!(
        "{:<10} {:>5} {:>5} {:>7} {:>7} {:>8} {:>8} {:>8}  codes",
        "format", "files", "ok", "partial", "0 words", "p50 ms", "max ms", "peak MB"
    );
    let mut sum = Row::default();
    for (format, row) in table {
        line(format, row);
        sum.files += row.files;
        sum.ok += row.ok;
        sum.partial += row.partial;
        sum.empty += row.empty;
        sum.peak = sum.peak.max(row.peak);
        sum.millis.extend(&row.millis);
        for (code, count) in &row.codes {
            *sum.codes.entry(code.clone()).or_default() += count;
        }
    }
    line("all", &sum);
}

fn line(format: &str, row: &Row) {
    let mut millis = row.millis.clone();
    millis.sort_unstable();
    let (middle, most) = (millis.get(millis.len() / 2).copied().unwrap_or(0), millis.last().copied().unwrap_or(0));
    let codes: Vec<String> = row.codes.iter().map(|(code, count)| format!("{code}:{count}")).collect();
    println!(
        "{format:<10} {:>5} {:>5} {:>7} {:>7} {middle:>8} {most:>8} {:>8}  {}",
        row.files,
        row.ok,
        row.partial,
        row.empty,
        row.peak >> 20,
        codes.join(" ")
    );
}

fn items(folder: &Path) -> Vec<Item> {
    if let Ok(manifest) = std::fs::read_to_string(folder.join("manifest.tsv")) {
        let rows = manifest.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
        let known = rows.filter(|columns| columns.len() > 8);
        return known.map(|c| Item { path: c[0].clone(), format: c[1].clone(), mime: c[8].clone() }).collect();
    }
    let format = |path: &Path| path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
    if let Ok(list) = std::fs::read_to_string(folder) {
        let item = |line: &str| Item { path: line.to_owned(), format: format(line.as_ref()), mime: String::new() };
        return list.lines().map(item).collect();
    }
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(relative) = path.strip_prefix(folder) {
                let (path, format) = (relative.to_string_lossy().into_owned(), format(&path));
                found.push(Item { path, format, mime: String::new() });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn config(slots: usize) -> ParserConfig {
    let tessdata = PathBuf::from("/usr/share/tesseract-ocr/5/tessdata");
    let binary = PathBuf::from("/usr/bin/tesseract");
    ParserConfig {
        child: std::env::current_exe().expect("own path"),
        child_args: vec!["parse-child".to_owned()],
        pdfium: std::env::var_os("DOCMILL_PDFIUM").map(PathBuf::from),
        tesseract: binary.is_file().then_some(TesseractConfig { binary, tessdata, libraries: None }),
        slots,
        landlock_required: false,
        options: ParseOptions::default(),
    }
}
