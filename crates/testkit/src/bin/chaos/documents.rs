//! Which documents a campaign runs on: real files, the same ones for the same number.
//!
//! Up to six in ten are files of the corpora (any format, at most 400 KB, or 24 KB), the rest are abstracts of papers as text.
//! Without the corpora it is the sample documents, varied by a line of their own where there are not enough.

use anyhow::{Context, Result, ensure};
use docmill_model::Sha256Hex;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Larger files cost minutes of OCR and prove nothing more.
pub const MAX_BYTES: u64 = 400 << 10;
/// Largest file of a campaign that is about the index alone.
pub const SMALL_BYTES: u64 = 24 << 10;
/// Bombs and fuzz inputs end at wall-clock limits, which two runs need not reach alike.
const LEFT_OUT: [&str; 4] = ["_synthetic", "_expected", "_ref_pdfium", "fuzz"];

/// The chosen files, copied into one folder under names of their own.
pub struct Documents {
    /// In the order of upload.
    pub paths: Vec<PathBuf>,
    /// Identity of the set.
    pub hash: String,
    /// Where they are from, for the report.
    pub source: String,
}

impl Documents {
    /// At most `limit` of them, the first of each kind of file before the second of any.
    pub fn of_all_kinds(mut self, limit: usize) -> Self {
        let mut met = BTreeMap::<String, usize>::new();
        let mut ranked: Vec<(usize, PathBuf)> = Vec::new();
        for path in self.paths {
            let kind = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
            let count = met.entry(kind).or_default();
            ranked.push((*count, path));
            *count += 1;
        }
        ranked.sort_by_key(|(count, _)| *count);
        self.paths = ranked.into_iter().take(limit).map(|(_, path)| path).collect();
        self.hash = format!("{} {limit}", self.hash);
        self
    }
}

/// Chooses `count` documents, files of the corpora of at most `max_bytes` each, and copies them to `folder`.
pub fn choose(count: usize, max_bytes: u64, folder: &Path) -> Result<Documents> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (found, source) = match docmill_testkit::corpora() {
        Some(root) => (from_corpora(&root, count, max_bytes)?, "corpora"),
        None => (from_samples(count)?, "sample-docs"),
    };
    ensure!(found.len() == count, "only {} documents of {count} were found", found.len());
    let mut identity = String::new();
    let mut paths = Vec::new();
    for (number, (name, bytes)) in found.into_iter().enumerate() {
        identity.push_str(Sha256Hex::of(&bytes).as_str());
        identity.push_str(&name);
        let path = folder.join(format!("{number:05}-{name}"));
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        paths.push(path);
    }
    Ok(Documents { paths, hash: Sha256Hex::of(identity.as_bytes()).to_string(), source: source.to_owned() })
}

type Named = (String, Vec<u8>);

fn from_corpora(root: &Path, count: usize, max_bytes: u64) -> Result<Vec<Named>> {
    let abstracts = abstracts(&root.join("scifact/corpus.jsonl"), count);
    let wanted = (count * 6).div_ceil(10).max(count - abstracts.len().min(count));
    // By hash: a mixture of all folders, and the same whatever the file system's order.
    let mut by_hash = BTreeMap::new();
    for path in walk(root) {
        let small = fs::metadata(&path).is_ok_and(|meta| (1..=max_bytes).contains(&meta.len()));
        let left_out = path.components().any(|part| LEFT_OUT.contains(&part.as_os_str().to_string_lossy().as_ref()));
        if small && !left_out && path.extension().is_none_or(|extension| extension != "fuzz") {
            let bytes = fs::read(&path)?;
            by_hash.insert(Sha256Hex::of(&bytes).to_string(), (plain_name(&path), bytes));
        }
    }
    let mut files = by_hash.into_values().take(wanted);
    let mut abstracts = abstracts.into_iter();
    let mut all = Vec::new();
    // Mixed, so that every part of a campaign has both.
    while all.len() < count {
        let next = if all.len() % 10 < 6 {
            files.next().or_else(|| abstracts.next())
        } else {
            abstracts.next().or_else(|| files.next())
        };
        let Some(next) = next else { break };
        all.push(next);
    }
    Ok(all)
}

fn abstracts(path: &Path, count: usize) -> Vec<Named> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let named = lines.map(|line| {
        let part = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        (format!("abstract-{}.txt", part("_id")), format!("{}\n\n{}\n", part("title"), part("text")).into_bytes())
    });
    named.take(count).collect()
}

fn from_samples(count: usize) -> Result<Vec<Named>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sample-docs");
    let originals: Vec<Named> = walk(&folder)
        .into_iter()
        .filter(|path| path.extension().is_none_or(|extension| extension != "yaml" && extension != "md"))
        .map(|path| Ok((plain_name(&path), fs::read(&path)?)))
        .collect::<Result<_>>()?;
    let texts: Vec<&Named> =
        originals.iter().filter(|(name, _)| name.ends_with(".txt") || name.ends_with(".html")).collect();
    ensure!(!texts.is_empty(), "{} holds no texts", folder.display());
    let varied = (0..).map(|number: usize| {
        let (name, bytes) = texts[number % texts.len()];
        (format!("{number}-{name}"), [bytes.as_slice(), format!("\nCopy number {number}.\n").as_bytes()].concat())
    });
    Ok(originals.iter().cloned().chain(varied).take(count).collect())
}

/// A name any file system and terminal takes.
fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    let tail = plain.len().saturating_sub(80);
    plain[tail..].trim_start_matches('.').to_owned()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
