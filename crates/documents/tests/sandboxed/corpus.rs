//! Real files: whatever they are, they end typed and in time, and what is read obeys the model's invariants.

use crate::support::{corpora, parser, request};
use docmill_documents::ParseRequest;
use docmill_model::CanonicalText;
use docmill_model::document::ParsedDocument;
use std::path::Path;

/// Files above this size are left to the full run of the `corpus` example.
const SIZE_BYTES: u64 = 400_000;

/// Path and declared type of every row of the manifest for which `wanted` holds.
fn files(root: &Path, wanted: impl Fn(&str) -> bool) -> Vec<(String, Option<String>)> {
    let manifest = std::fs::read_to_string(root.join("manifest.tsv")).expect("a manifest");
    let rows = manifest.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect::<Vec<String>>());
    let small = |path: &str| std::fs::metadata(root.join(path)).is_ok_and(|m| m.len() <= SIZE_BYTES);
    rows.filter(|c| wanted(&c[0]) && small(&c[0]))
        .map(|c| (c[0].clone(), Some(c[8].clone()).filter(|m| !m.is_empty())))
        .collect()
}

fn check(path: &str, document: &ParsedDocument) {
    assert_eq!(document.violations(), Vec::<String>::new(), "{path}");
    assert!(!document.text.trim().is_empty(), "{path} is read and empty");
    let text = CanonicalText::from_canonical(document.text.clone());
    for word in &document.words {
        let page = document
            .pages
            .iter()
            .find(|page| page.number == word.page)
            .unwrap_or_else(|| panic!("{path}: a word without page"));
        assert!(
            text.slice(word.span).is_some_and(|w| !w.is_empty()) && page.span.contains(word.span),
            "{path}: a word off its page"
        );
    }
}

async fn read_all(wanted: impl Fn(&str) -> bool) -> Option<(usize, usize)> {
    let root = corpora("files")?;
    let parser = parser();
    parser.warm_up().await;
    let files = files(&root, wanted);
    let (mut read, total) = (0, files.len());
    for (path, declared) in files {
        let bytes = std::fs::read(root.join(&path)).expect("reads").into();
        let name = path.rsplit('/').next().map(str::to_owned);
        let request = ParseRequest { bytes, declared, name, ..ParseRequest::default() };
        match parser.parse_measured(request).await {
            Ok(parsed) => {
                check(&path, &parsed.document);
                read += 1;
            }
            Err(failed) => assert!(failed.millis <= 130_000, "{path}: {}", failed.failure),
        }
    }
    Some((read, total))
}

#[tokio::test]
async fn spans_hold_over_real_files() {
    let formats = ["docx", "html", "csv", "md", "txt", "pdf"];
    let wanted = |path: &str| !path.contains("/hostile/") && formats.iter().any(|f| path.ends_with(&format!(".{f}")));
    if let Some((read, total)) = read_all(wanted).await {
        println!("{read} of {total} files read");
        assert!(read * 100 >= total * 75, "only {read} of {total} read");
    }
}

#[tokio::test]
async fn hostile_files_end_typed() {
    if let Some((read, total)) = read_all(|path| path.starts_with("_synthetic/hostile/")).await {
        println!("{read} of {total} hostile files give text, the others a code");
    }
}

#[tokio::test]
async fn encodings_give_the_words_of_their_truth() {
    let Some(root) = corpora("files") else { return };
    let parser = parser();
    for (path, _) in files(&root, |path| path.starts_with("_synthetic/encodings/")) {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let expected = root.join("_synthetic/_expected").join(format!("{name}.utf8.txt"));
        let Ok(expected) = std::fs::read_to_string(&expected) else { continue };
        let bytes = std::fs::read(root.join(&path)).expect("reads");
        let document = parser.parse(request(bytes, &name)).await.expect("reads").document;
        // Comma and cedilla below s and t are the same bytes in ISO 8859-2 and 8859-16: nothing tells them apart.
        let same = |c: char| match c {
            'ș' => 'ş',
            'ț' => 'ţ',
            'Ș' => 'Ş',
            'Ț' => 'Ţ',
            other => other,
        };
        let words =
            |text: &str| text.split_whitespace().map(|w| w.chars().map(same).collect()).collect::<Vec<String>>();
        let truth = words(&docmill_model::text::canonical_string(expected.trim_start_matches('\u{feff}')));
        assert!(words(&document.text) == truth, "{path}: the words differ");
    }
}
