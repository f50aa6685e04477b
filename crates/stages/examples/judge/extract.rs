//! Extraction by the shipped schemas: contracts (Kleister-NDA), receipts (SROIE transcripts), invoices (invoice2data).

use docmill_model::document::ParsedDocument;
use docmill_stages::extract::{ExtractSchema, extract_document};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Default)]
struct Score {
    right: usize,
    found: usize,
    expected: usize,
}

type Scores = BTreeMap<String, Score>;

pub fn judge(corpora: &Path, misses: bool) {
    contracts(&corpora.join("kleister-nda/train"), misses);
    receipts(&corpora.join("sroie"), misses);
    invoices(&corpora.join("invoice2data"), misses);
}

fn contracts(folder: &Path, misses: bool) {
    let (schema, mut scores) = (shipped("contracts"), Scores::new());
    for line in std::fs::read_to_string(folder.join("expected-shared.jsonl")).unwrap().lines() {
        let expected: Value = serde_json::from_str(line).unwrap();
        let name = expected["file"].as_str().unwrap().replace(".pdf", ".txt");
        let data = fields(&crate::plain(&std::fs::read_to_string(folder.join("text").join(&name)).unwrap()), &schema);
        let wanted = |field: &str| {
            expected["expected"][field]
                .as_array()
                .map(|all| all.iter().map(plain).collect::<Vec<_>>())
                .unwrap_or_default()
        };
        score(&mut scores, "effective_date", &one(&data["effective_date"]), &wanted("effective_date"), misses, &name);
        score(
            &mut scores,
            "jurisdiction",
            &one(&data["jurisdiction"]).iter().map(|s| s.to_lowercase()).collect::<Vec<_>>(),
            &wanted("jurisdiction").iter().map(|s| s.to_lowercase()).collect::<Vec<_>>(),
            misses,
            &name,
        );
        score(&mut scores, "party", &names(&one(&data["parties"])), &names(&wanted("party")), misses, &name);
        let term: Vec<String> = wanted("term").iter().map(|term| iso(term)).collect();
        score(&mut scores, "term", &one(&data["term"]), &term, misses, &name);
    }
    print("Kleister-NDA", &scores);
}

fn receipts(folder: &Path, misses: bool) {
    let (schema, mut scores) = (shipped("invoices"), Scores::new());
    for file in files(&folder.join("key"), "json") {
        let expected: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let boxes = std::fs::read_to_string(folder.join("box").join(format!("{name}.csv"))).unwrap();
        let data = fields(&crate::plain(&transcript(&boxes)), &schema);
        score(
            &mut scores,
            "company",
            &names(&one(&data["supplier"])),
            &names(&one(&expected["company"])),
            misses,
            &name,
        );
        let total = one(&expected["total"])
            .iter()
            .map(|t| t.trim_start_matches(['R', 'M', '$', ' ']).replace(',', ""))
            .collect::<Vec<_>>();
        score(&mut scores, "total", &one(&data["total"]["amount"]), &total, misses, &name);
        let date = one(&expected["date"]).iter().map(|date| day_first(date)).collect::<Vec<_>>();
        score(&mut scores, "date", &one(&data["invoice_date"]), &date, misses, &name);
    }
    print("SROIE", &scores);
}

fn invoices(folder: &Path, misses: bool) {
    let (schema, mut scores) = (shipped("invoices"), Scores::new());
    for file in files(folder, "pdf") {
        let Ok(expected) = std::fs::read_to_string(file.with_extension("json")) else { continue };
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let Some(document) = crate::read(&file) else {
            println!("{name}: not read");
            continue;
        };
        let data = fields(&document, &schema);
        let expected = &expected[0];
        for (field, ours) in [
            ("amount", &data["total"]["amount"]),
            ("date", &data["invoice_date"]),
            ("invoice_number", &data["invoice_number"]),
            ("iban", &data["iban"]),
            ("vat", &data["vat_id"]),
            ("amount_untaxed", &data["net_total"]["amount"]),
        ] {
            let wanted: Vec<String> = match &expected[field] {
                Value::Number(number) => vec![format!("{:.2}", number.as_f64().unwrap())],
                other => one(other),
            };
            score(&mut scores, field, &one(ours), &wanted, misses, &name);
        }
    }
    print("invoice2data", &scores);
}

fn shipped(name: &str) -> ExtractSchema {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../pipelines/schemas/{name}.json"));
    ExtractSchema::read(&serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()).unwrap()
}

fn fields(document: &ParsedDocument, schema: &ExtractSchema) -> Value {
    extract_document(document, "judged", schema).extraction.data
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut wanted: Vec<PathBuf> =
        all.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    wanted.sort();
    wanted
}

/// Top, bottom, and the words with their left edges.
type Line = (i32, i32, Vec<(i32, String)>);

/// Boxes (`x0,y0,…,words`) as lines from top to bottom.
fn transcript(boxes: &str) -> String {
    let mut rows: Vec<(i32, i32, i32, String)> = Vec::new();
    for line in boxes.lines() {
        let parts: Vec<&str> = line.splitn(9, ',').collect();
        let number = |at: usize| parts.get(at).and_then(|part| part.parse::<i32>().ok()).unwrap_or(0);
        if let Some(words) = parts.get(8) {
            rows.push((number(1), number(5), number(0), (*words).to_owned()));
        }
    }
    rows.sort();
    let mut lines: Vec<Line> = Vec::new();
    for (top, bottom, left, words) in rows {
        let middle = (top + bottom) / 2;
        match lines.iter_mut().find(|(from, to, _)| *from <= middle && middle <= *to) {
            Some((_, _, line)) => line.push((left, words)),
            None => lines.push((top, bottom, vec![(left, words)])),
        }
    }
    let joined = lines.into_iter().map(|(_, _, mut line)| {
        line.sort();
        line.into_iter().map(|(_, words)| words).collect::<Vec<_>>().join(" ")
    });
    joined.collect::<Vec<_>>().join("\n")
}

fn plain(value: &Value) -> String {
    value.as_str().unwrap_or_default().trim().to_owned()
}

fn one(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if !text.is_empty() => vec![text.clone()],
        Value::Array(all) => all.iter().map(plain).collect(),
        _ => Vec::new(),
    }
}

/// Letters and digits in lower case, spellings of legal forms unified.
fn names(names: &[String]) -> Vec<String> {
    let tidy = |name: &String| {
        let name = name
            .to_lowercase()
            .replace("incorporated", "inc")
            .replace("limited", "ltd")
            .replace(" and ", "&")
            .replace("l.l.c", "llc");
        name.chars().filter(|c| c.is_alphanumeric() || *c == '&').collect::<String>()
    };
    names.iter().map(tidy).collect::<BTreeSet<_>>().into_iter().collect()
}

fn iso(term: &str) -> String {
    let (count, unit) = term.split_once(' ').unwrap_or((term, ""));
    format!("P{count}{}", unit.to_uppercase().chars().next().unwrap_or('?'))
}

fn day_first(date: &str) -> String {
    let parts: Vec<&str> = date.split(['/', '-', '.', ' ']).filter(|part| !part.is_empty()).collect();
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let month = |part: &str| {
        MONTHS
            .iter()
            .position(|name| part.to_lowercase().starts_with(name))
            .map_or_else(|| part.to_owned(), |at| format!("{:02}", at + 1))
    };
    match parts.as_slice() {
        [day, m, year] if day.len() <= 2 => {
            format!("{}{year}-{:0>2}-{day:0>2}", if year.len() == 2 { "20" } else { "" }, month(m))
        }
        [year, m, day] => format!("{year}-{:0>2}-{day:0>2}", month(m)),
        _ => date.to_owned(),
    }
}

fn score(scores: &mut Scores, field: &str, found: &[String], expected: &[String], misses: bool, name: &str) {
    let entry = scores.entry(field.to_owned()).or_default();
    let right = found.iter().filter(|value| expected.contains(value)).count();
    entry.right += right;
    // A set that annotates no value for a document does not say that there is none.
    entry.found += if expected.is_empty() { 0 } else { found.len() };
    entry.expected += expected.len();
    if misses && !expected.is_empty() && (right < expected.len() || right < found.len()) {
        println!("{name} {field}: found {found:?} expected {expected:?}");
    }
}

fn print(name: &str, scores: &Scores) {
    let (mut right, mut found, mut expected) = (0, 0, 0);
    let f1 = |right: usize, found: usize, expected: usize| {
        let (p, r) = (right as f64 / found.max(1) as f64, right as f64 / expected.max(1) as f64);
        format!("P {p:.3} R {r:.3} F1 {:.3}", 2.0 * p * r / (p + r).max(1e-9))
    };
    println!("== {name}");
    for (field, score) in scores {
        println!("{field:16} {} ({} of {})", f1(score.right, score.found, score.expected), score.right, score.expected);
        right += score.right;
        found += score.found;
        expected += score.expected;
    }
    println!("{:16} {}", "all", f1(right, found, expected));
}
