//! Real files: whatever they are, they end typed and in time, and what is read obeys the model's invariants.

use crate::support::{corpora, parser, request};
use docmill_documents::ParseRequest;
use docmill_model::document::ParsedDocument;
use docmill_model::{CanonicalText, Code};
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Files above this size are left to the full run of `deploy/bench/documents`.
const SIZE_BYTES: u64 = 400_000;
/// Time after which no further file is begun.
const PATIENCE: Duration = Duration::from_secs(60);

/// A row of the manifest.
struct File {
    path: String,
    format: String,
    /// What its project or a look at it says about it.
    notes: String,
    declared: Option<String>,
}

fn files(root: &Path, wanted: impl Fn(&File) -> bool) -> Vec<File> {
    let manifest = std::fs::read_to_string(root.join("manifest.tsv")).expect("a manifest");
    let rows = manifest.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect::<Vec<String>>());
    let file = |c: Vec<String>| File {
        path: c[0].clone(),
        format: c[1].clone(),
        notes: c[6].to_lowercase(),
        declared: Some(c[8].clone()).filter(|declared| !declared.is_empty()),
    };
    rows.map(file).filter(wanted).collect()
}

fn is_small(root: &Path, file: &File) -> bool {
    std::fs::metadata(root.join(&file.path)).is_ok_and(|m| m.len() <= SIZE_BYTES)
}

impl File {
    fn is_undamaged(&self) -> bool {
        let says = |words: &[&str]| words.iter().any(|word| self.notes.contains(word));
        let opens =
            ["empty user password", "without a password", "not encrypted", "attachment only", "base of encryption"];
        let locked = says(&["encrypted", "password"]) && !says(&opens);
        !locked && !says(&["malformed", "hostile", "damaged", "fuzz", "wrong extension"])
    }

    fn request(&self, root: &Path) -> ParseRequest {
        let bytes = std::fs::read(root.join(&self.path)).expect("reads").into();
        let name = self.path.rsplit('/').next().map(str::to_owned);
        ParseRequest { bytes, declared: self.declared.clone(), name, ..ParseRequest::default() }
    }
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

/// Paths that `deploy/bench/documents` lists as seen to hold no words.
fn wordless() -> HashSet<String> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/bench/documents/wordless.txt");
    std::fs::read_to_string(list).expect("a list").lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn undamaged_files_give_text_and_spans_hold() {
    const TEXTS: [&str; 8] = ["docx", "html", "xhtml", "csv", "tsv", "md", "txt", "pdf"];
    const IMAGES: [&str; 5] = ["png", "jpg", "tif", "webp", "bmp"];
    let Some(root) = corpora("files") else { return };
    let kind = |formats: &'static [&str]| {
        let of_kind = move |file: &File| formats.contains(&file.format.as_str()) && !file.path.contains("/hostile/");
        files(&root, of_kind)
    };
    let mut waiting = kind(&TEXTS).into_iter().chain(kind(&IMAGES)).filter(|file| is_small(&root, file));
    let (parser, wordless, started) = (parser(), wordless(), Instant::now());
    parser.warm_up().await;
    let (mut running, mut with_words, mut silent) = (JoinSet::new(), 0, Vec::new());
    loop {
        while running.len() < 2 && started.elapsed() < PATIENCE {
            let Some(file) = waiting.next() else { break };
            let (parser, request) = (parser.clone(), file.request(&root));
            running.spawn(async move { (file, parser.parse_measured(request).await) });
        }
        let Some(finished) = running.join_next().await else { break };
        let (file, parsed) = finished.expect("ends");
        let readable = file.is_undamaged() && !wordless.contains(&file.path);
        match parsed {
            Ok(parsed) => {
                check(&file.path, &parsed.document);
                with_words += usize::from(readable);
            }
            Err(failed) => {
                assert!(failed.millis <= 130_000, "{}: {}", file.path, failed.failure);
                if readable {
                    silent.push(format!("{} {}", file.path, failed.failure.code));
                }
            }
        }
    }
    let total = with_words + silent.len();
    let left = waiting.count();
    let _ =
        writeln!(std::io::stderr(), "{with_words} of {total} undamaged files give text; {left} left for lack of time");
    assert!(with_words * 100 >= total * 99, "{total} undamaged files, silent: {silent:#?}");
}

/// What may become of each hostile file; `None` is text.
const HOSTILE: [(&str, &[Option<Code>]); 13] = [
    ("bomb-300mb.gz", &[Some(Code::TypeUnsupported)]),
    ("bomb-docx-300mb.docx", &[Some(Code::ExpansionLimit)]),
    ("nul.txt", &[None]),
    ("pdf-flate-bomb.pdf", &[Some(Code::ExpansionLimit)]),
    ("pdf-junk-prefix.pdf", &[None]),
    ("pdf-pages-cycle.pdf", &[Some(Code::PdfMalformed)]),
    ("pdf-truncated-half.pdf", &[Some(Code::PdfMalformed)]),
    ("random.pdf", &[Some(Code::TypeMismatch), Some(Code::PdfMalformed)]),
    ("really-a-pdf.docx", &[Some(Code::TypeMismatch)]),
    ("really-html.pdf", &[Some(Code::TypeMismatch)]),
    ("unclosed-quote.csv", &[Some(Code::CsvMalformed)]),
    ("xxe-local-file.docx", &[Some(Code::XmlDtdForbidden)]),
    ("xxe-local-file.xml", &[Some(Code::XmlDtdForbidden)]),
];

#[tokio::test]
async fn hostile_files_end_typed() {
    let Some(root) = corpora("files") else { return };
    let parser = parser();
    for file in files(&root, |file| file.path.starts_with("_synthetic/hostile/")) {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let started = Instant::now();
        let parsed = parser.parse_measured(file.request(&root)).await;
        assert!(started.elapsed() <= Duration::from_secs(130), "{name}: {:?}", started.elapsed());
        let ended = match parsed {
            Ok(parsed) => {
                check(&file.path, &parsed.document);
                None
            }
            Err(failed) => Some(failed.failure.code),
        };
        match HOSTILE.iter().find(|(known, _)| *known == name) {
            Some((_, allowed)) => assert!(allowed.contains(&ended), "{name}: {ended:?}"),
            None => assert!(!matches!(ended, Some(Code::Internal | Code::ParserCrashed)), "{name}: {ended:?}"),
        }
    }
}

#[tokio::test]
async fn pdfs_with_passwords_say_so() {
    let Some(root) = corpora("files") else { return };
    let parser = parser();
    let protected =
        |file: &File| file.format == "pdf" && ["encrypt", "password"].iter().any(|w| file.notes.contains(w));
    let (mut refused, mut opened) = (0, 0);
    for file in files(&root, protected) {
        let parsed = parser.parse(file.request(&root)).await.map_err(|failure| failure.code);
        match (file.is_undamaged(), parsed) {
            (true, Ok(_)) => opened += 1,
            (true, Err(code)) => panic!("{}: {code}", file.path),
            (false, Err(Code::PdfEncrypted)) => refused += 1,
            // Blank pages behind an empty password.
            (false, Ok(_) | Err(Code::EmptyText)) if file.notes.contains("no text") || file.notes.contains("empty") => {
            }
            (false, other) => panic!("{}: {:?}", file.path, other.err()),
        }
    }
    assert!(refused >= 15 && opened >= 5, "{refused} refused, {opened} opened");
}

#[tokio::test]
async fn encodings_give_the_words_of_their_truth() {
    let Some(root) = corpora("files") else { return };
    let parser = parser();
    for File { path, .. } in files(&root, |file| file.path.starts_with("_synthetic/encodings/")) {
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
