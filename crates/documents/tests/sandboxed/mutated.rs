//! The seeds of the fuzz targets and mutations of them, through the real sandbox: a short run of what `fuzz/` does at length.

#[path = "../../fuzz/src/docx_of.rs"]
mod docx_of;

use crate::support::{parser, request};
use docmill_documents::{InProcess, Limits, OcrMode, ParseOptions, PdfEngine};
use docmill_model::Code;
use docx_of::{Part, docx_of};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Declared type of the files of a folder of seeds.
const TARGETS: [(&str, Option<&str>); 10] = [
    ("pdf", Some("application/pdf")),
    ("image", None),
    ("docx", Some("application/vnd.openxmlformats-officedocument.wordprocessingml.document")),
    ("docx_body", Some("application/vnd.openxmlformats-officedocument.wordprocessingml.document")),
    ("docx_drawn", Some("application/vnd.openxmlformats-officedocument.wordprocessingml.document")),
    ("html", Some("text/html")),
    ("markdown", Some("text/markdown")),
    ("text", Some("text/plain")),
    ("csv", Some("text/csv")),
    ("detect", None),
];

/// xorshift64*: the same mutations from the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length);
        start..start + self.below((length - start).min(64))
    }

    /// A few changes: bits flipped, bytes set, a stretch removed, repeated or taken from `other`, the end cut off.
    fn mutate(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(6) {
            if bytes.is_empty() {
                break;
            }
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = [0, 0xff, b'<', b'[', b'"', b'\n'][self.below(6)],
                2 => drop(bytes.drain(self.range(seed.len().min(bytes.len())))),
                3 => {
                    let stretch = bytes[self.range(bytes.len())].repeat(1 + self.below(8));
                    bytes.splice(at..at, stretch);
                }
                4 => {
                    let stretch = other[self.range(other.len())].to_vec();
                    bytes.splice(at..at, stretch);
                }
                _ => bytes.truncate(at),
            }
        }
        bytes
    }
}

/// The dice, and until when they are thrown.
fn begin() -> (Dice, Instant) {
    let secs = std::env::var("DOCMILL_MUTATION_SECS").map_or(10, |secs| secs.parse().expect("seconds"));
    let seed = std::env::var("DOCMILL_MUTATION_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    (Dice(seed), Instant::now() + Duration::from_secs(secs))
}

fn folder_of(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The seeds of a target, in order of name.
fn seeds_of(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder_of(target)).expect(target).map(|f| f.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no seeds");
    files.into_iter().map(|file| std::fs::read(file).expect("reads")).collect()
}

#[tokio::test]
async fn what_the_recogniser_and_a_child_say_is_not_believed() {
    let (reader, image) = (InProcess::default(), std::fs::read(folder_of("image").join("gray.png")).expect("reads"));
    let ocr = ParseOptions { ocr: OcrMode::Force, ..ParseOptions::default() };
    let limits = Limits { output_bytes: 1 << 20, pixels: 1 << 20, ..Limits::default() };
    let options = ParseOptions { limits, ..ParseOptions::default() };
    let (tables, frames) = (seeds_of("recognised"), seeds_of("frames"));
    for seed in &frames {
        reader.hear(seed, &options).await.expect("a seed holds a document");
    }
    let page = std::fs::read_to_string(folder_of("recognised").join("page.tsv")).expect("reads");
    let read = reader.parse_recognised(&image, &ocr, &page).expect("a seed holds words");
    assert!(read.text.contains("harbour closes"), "{}", read.text);
    let (mut dice, until) = begin();
    let (mut tried, mut heard, mut recognised) = (0, 0, 0);
    while Instant::now() < until {
        let answer = dice.mutate(&tables[tried % tables.len()], &tables[0]);
        if let Ok(document) = reader.parse_recognised(&image, &ocr, &String::from_utf8_lossy(&answer)) {
            assert_eq!(document.violations(), Vec::<String>::new(), "try {tried}");
            recognised += 1;
        }
        let written = dice.mutate(&frames[tried % frames.len()], &frames[0]);
        if let Ok(document) = reader.hear(&written, &options).await {
            assert!(document.is_within_its_text(), "try {tried}");
            heard += 1;
        }
        tried += 1;
    }
    println!("{tried} tries: {recognised} tables read, {heard} documents heard");
    assert!(recognised > 0 && heard > 0, "mutations that nothing survives try nothing");
}

#[tokio::test]
async fn seeds_of_drawings_reach_what_reads_them() {
    let parser = parser();
    let read = async |bytes: Vec<u8>| {
        let parsed = parser.parse_measured(request(bytes, "drawn.docx")).await.expect("reads");
        assert_eq!(parsed.document.violations(), Vec::<String>::new());
        parsed.document
    };
    let seed = |target: &str, name: &str| std::fs::read(folder_of(target).join(name)).expect("reads");
    let all = ["Visitors", "Quay", "1.2E+300", "2024-02-01", "Forest", "hectares", "0.3", "Ask again", "Answer again"];
    for file in [docx_of(Part::Body, &seed("docx_body", "drawings.xml")), seed("docx", "drawings.docx")] {
        let document = read(file).await;
        for words in all {
            assert!(document.text.contains(words), "{words}: {}", document.text);
        }
    }
    for (name, own) in [("chart", &all[..4]), ("chartEx", &all[4..7]), ("diagramData", &all[7..])] {
        let document = read(docx_of(Part::Drawn, &seed("docx_drawn", &format!("{name}.xml")))).await;
        for words in own {
            assert!(document.text.matches(words).count() >= 2, "{words}: {}", document.text);
        }
    }
}

#[tokio::test]
async fn mutated_seeds_end_typed() {
    let mut seeds: Vec<(&str, Option<&str>, Vec<u8>)> = Vec::new();
    for (target, declared) in TARGETS {
        seeds.extend(seeds_of(target).into_iter().map(|seed| (target, declared, seed)));
    }
    let parser = parser();
    let (mut dice, until) = begin();
    let (mut round, mut read, mut refused) = (0usize, 0usize, 0usize);
    while round < seeds.len() || Instant::now() < until {
        let (target, declared, seed) = &seeds[round % seeds.len()];
        let other = &seeds[dice.below(seeds.len())].2;
        let mut bytes = if round < seeds.len() { seed.clone() } else { dice.mutate(seed, other) };
        match *target {
            "docx_body" => bytes = docx_of(Part::Body, &bytes),
            "docx_drawn" => bytes = docx_of(Part::Drawn, &bytes),
            _ => {}
        }
        let mut request = request(bytes, "mutated");
        request.declared = declared.map(str::to_owned);
        if *target == "pdf" && dice.below(2) == 1 {
            request.options.pdf_engine = PdfEngine::PdfExtract;
        }
        match parser.parse_measured(request).await {
            Ok(parsed) => {
                assert_eq!(parsed.document.violations(), Vec::<String>::new(), "round {round}, {target}");
                read += 1;
            }
            Err(failed) => {
                // pdfium may die of a file; what is written here may not.
                let ours = *target != "pdf" && *target != "detect";
                let crashed = matches!(failed.failure.code, Code::ParserCrashed | Code::Internal);
                assert!(!(ours && crashed), "round {round}, {target}: {}", failed.failure);
                assert!(failed.millis <= 130_000, "round {round}, {target}: {} ms", failed.millis);
                refused += 1;
            }
        }
        round += 1;
    }
    println!("{round} files: {read} read, {refused} refused");
}
