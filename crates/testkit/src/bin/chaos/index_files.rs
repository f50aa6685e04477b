//! The files of the index node: damaging them as a disk, a crash or an operator may, and reading what an index holds.

use crate::faults::{empty, walk};
use crate::plant::Plant;
use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tantivy::Index;
use uuid::Uuid;

/// Kinds of damage.
pub const DAMAGES: [&str; 7] =
    ["truncated", "flipped", "file-removed", "folder-removed", "stale-lock", "held-lock", "garbage"];
/// How often the list of segments is hit, rather than any of the many files of segments.
const LIST_SHARE: f64 = 0.25;
/// Name of that list.
const LIST: &str = "meta.json";
/// Locks of tantivy.
const LOCKS: [&str; 2] = [".tantivy-writer.lock", ".tantivy-meta.lock"];

/// Where the index node of the plant keeps its indexes.
pub fn folder(plant: &Plant) -> PathBuf {
    plant.home.data().join("api").join("lexical")
}

/// What was damaged.
pub struct Damaged {
    pub target: String,
    /// A lock somebody else holds until this is dropped.
    _held: Option<File>,
}

/// Does one kind of damage below `folder`, while nobody has it open; `None` where there is nothing to damage.
pub fn damage(kind: &str, folder: &Path, rng: &mut StdRng) -> Result<Option<Damaged>> {
    let indexes = indexes(folder);
    let (Some(index), Some(file)) = (indexes.choose(rng).cloned(), choose(folder, rng)) else { return Ok(None) };
    let (mut target, mut held) = (&file, None);
    match kind {
        "truncated" => {
            let length = fs::metadata(&file)?.len();
            File::options().write(true).open(&file)?.set_len(rng.random_range(0..length))?;
        }
        "flipped" => {
            let mut bytes = fs::read(&file)?;
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8u8);
            }
            fs::write(&file, bytes)?;
        }
        "file-removed" => fs::remove_file(&file)?,
        "folder-removed" => {
            fs::remove_dir_all(folder)?;
            return Ok(Some(Damaged { target: "everything".to_owned(), _held: None }));
        }
        "stale-lock" => LOCKS.iter().try_for_each(|lock| fs::write(index.join(lock), "4194304\nnobody\n"))?,
        "held-lock" => {
            let lock = File::create(index.join(LOCKS[0]))?;
            lock.try_lock().context("the lock of a process that is gone is held")?;
            held = Some(lock);
        }
        _ => {
            garbage(&index, rng)?;
            target = &index;
        }
    }
    if kind.ends_with("lock") {
        target = &index;
    }
    let target = target.strip_prefix(folder)?.display().to_string();
    Ok(Some(Damaged { target, _held: held }))
}

/// What does not belong there: half-written files, a folder of nobody, or a file in place of the index.
fn garbage(index: &Path, rng: &mut StdRng) -> Result<()> {
    let noise: Vec<u8> = (0..rng.random_range(1..4096)).map(|_| rng.random_range(0..=255u8)).collect();
    if rng.random_bool(0.3) {
        fs::remove_dir_all(index)?;
        fs::write(index, noise)?;
        return Ok(());
    }
    let stray = format!("{:032x}", rng.random_range(0..u128::MAX));
    for name in [format!("{stray}.idx"), format!("{stray}.store"), ".tmpAbCdEf".to_owned(), "meta.json.new".to_owned()]
    {
        fs::write(index.join(name), &noise)?;
    }
    let nobodys = index.with_file_name("lost+found");
    fs::create_dir_all(&nobodys)?;
    Ok(fs::write(nobodys.join(LIST), &noise)?)
}

/// A file that is not empty.
fn choose(folder: &Path, rng: &mut StdRng) -> Option<PathBuf> {
    let mut files: Vec<PathBuf> = indexes(folder).iter().flat_map(|index| walk(index)).collect();
    files.retain(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0));
    if rng.random_bool(LIST_SHARE) {
        let lists: Vec<_> = files.iter().filter(|path| path.ends_with(LIST)).cloned().collect();
        return lists.choose(rng).cloned().or_else(|| files.choose(rng).cloned());
    }
    files.choose(rng).cloned()
}

/// The folders of tenants.
fn indexes(folder: &Path) -> Vec<PathBuf> {
    let lists = walk(folder).into_iter().filter(|path| path.ends_with(LIST));
    lists.filter_map(|list| Some(list.parent()?.to_owned())).filter(|index| tenant_of(index).is_some()).collect()
}

fn tenant_of(index: &Path) -> Option<Uuid> {
    index.file_name()?.to_str()?.parse().ok()
}

/// The chunks in a tenant's index, each as often as it is there, in order; none without an index. Read with tantivy
/// itself rather than through Docmill.
pub fn chunks(folder: &Path, tenant: &str) -> Result<Vec<Uuid>> {
    let mut found = Vec::new();
    let of_tenant = |index: &PathBuf| tenant_of(index).is_some_and(|id| id.to_string() == tenant);
    if let Some(index) = indexes(folder).into_iter().find(of_tenant) {
        let searcher = Index::open_in_dir(&index)?.reader()?.searcher();
        for segment in searcher.segment_readers() {
            let (high, low) = (segment.fast_fields().u64("chunk_high")?, segment.fast_fields().u64("chunk_low")?);
            for document in segment.doc_ids_alive() {
                let halves = high.first(document).zip(low.first(document)).context("a chunk without an id")?;
                found.push(Uuid::from_u64_pair(halves.0, halves.1));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// True when no index holds chunks that were removed from it.
pub fn is_at_rest(folder: &Path) -> bool {
    let rests = |index: &PathBuf| {
        let metas = Index::open_in_dir(index).and_then(|index| index.searchable_segment_metas());
        metas.is_ok_and(|metas| !metas.iter().any(tantivy::SegmentMeta::has_deletes))
    };
    indexes(folder).iter().all(rests)
}

/// Removes all indexes.
pub fn wipe(plant: &Plant) -> Result<()> {
    empty(&folder(plant))
}
