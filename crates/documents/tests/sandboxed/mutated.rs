//! The seeds of the fuzz targets and mutations of them, through the real sandbox: a short run of what `fuzz/` does at length.

#[path = "../../fuzz/src/docx_of.rs"]
mod docx_of;

use crate::support::{parser, request};
use docmill_model::Code;
use docx_of::docx_of;
use std::path::Path;
use std::time::{Duration, Instant};

/// Declared type of the files of a folder of seeds.
const TARGETS: [(&str, Option<&str>); 9] = [
    ("pdf", Some("application/pdf")),
    ("image", None),
    ("docx", Some("application/vnd.openxmlformats-officedocument.wordprocessingml.document")),
    ("docx_body", Some("application/vnd.openxmlformats-officedocument.wordprocessingml.document")),
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

#[tokio::test]
async fn mutated_seeds_end_typed() {
    let secs = std::env::var("DOCMILL_MUTATION_SECS").map_or(10, |secs| secs.parse().expect("seconds"));
    let seed = std::env::var("DOCMILL_MUTATION_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut seeds: Vec<(&str, Option<&str>, Vec<u8>)> = Vec::new();
    for (target, declared) in TARGETS {
        let mut files: Vec<_> =
            std::fs::read_dir(folder.join(target)).expect(target).map(|f| f.expect("an entry").path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{target} has no seeds");
        seeds.extend(files.into_iter().map(|file| (target, declared, std::fs::read(file).expect("reads"))));
    }
    let parser = parser();
    let (mut dice, until) = (Dice(seed), Instant::now() + Duration::from_secs(secs));
    let (mut round, mut read, mut refused) = (0usize, 0usize, 0usize);
    while round < seeds.len() || Instant::now() < until {
        let (target, declared, seed) = &seeds[round % seeds.len()];
        let other = &seeds[dice.below(seeds.len())].2;
        let mut bytes = if round < seeds.len() { seed.clone() } else { dice.mutate(seed, other) };
        if *target == "docx_body" {
            bytes = docx_of(&bytes);
        }
        let mut request = request(bytes, "mutated");
        request.declared = declared.map(str::to_owned);
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
