//! Extraction by the shipped schemas: contracts (Kleister-NDA), receipts (SROIE transcripts), invoices (invoice2data).

use docmill_retrieval::eval::fields::{FieldCounts, FieldScores};
use docmill_retrieval::eval::labelled::{Content, LabelledFormat};
use docmill_stages::extract::{ExtractSchema, extract_document};
use std::path::{Path, PathBuf};

pub fn judge(corpora: &Path, misses: bool) {
    for (name, folder, format) in [
        ("Kleister-NDA", "kleister-nda/train", LabelledFormat::KleisterNda),
        ("SROIE", "sroie", LabelledFormat::Sroie),
        ("invoice2data", "invoice2data", LabelledFormat::Invoice2data),
    ] {
        judge_set(name, &corpora.join(folder), format, misses);
    }
}

fn judge_set(set: &str, folder: &Path, format: LabelledFormat, misses: bool) {
    let (schema, mut scores) = (shipped(format.schema().unwrap()), FieldScores::default());
    for labelled in format.read(folder).unwrap() {
        let document = match &labelled.content {
            Content::Text(text) => crate::plain(text),
            Content::File(file) => match crate::read(file) {
                Some(document) => document,
                None => {
                    println!("{}: not read", labelled.name);
                    continue;
                }
            },
        };
        let data = extract_document(&document, "judged", &schema).extraction.data;
        for (field, expected) in &labelled.expected {
            let found = format.found(field, &data);
            let counts = FieldCounts::of(&found, expected);
            scores.count(&labelled.name, field, counts);
            if misses && counts.expected > 0 && (counts.right < counts.expected || counts.right < counts.found) {
                println!("{} {field}: found {found:?} expected {expected:?}", labelled.name);
            }
        }
    }
    println!("== {set}");
    let all = scores.all();
    for (field, counts) in scores.by_field().chain([("all", all)]) {
        let (p, r, f1) = (counts.precision(), counts.recall(), counts.f1());
        println!("{field:16} P {p:.3} R {r:.3} F1 {f1:.3} ({} of {})", counts.right, counts.expected);
    }
}

fn shipped(name: &str) -> ExtractSchema {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../pipelines/schemas/{name}.json"));
    ExtractSchema::read(&serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()).unwrap()
}
