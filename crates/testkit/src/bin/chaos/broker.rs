//! What may happen to the broker: its store is gone, is as it was some time ago or has a wrong bit, or its consumers are
//! deleted.

use crate::faults::{Hit, empty, walk};
use crate::plant::Plant;
use crate::schedule::Kind;
use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream;
use docmill_embedded::process::Signal;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The stream of job events.
pub const JOBS: &str = "docmill-jobs";
/// Each has a consumer.
const STAGES: [&str; 7] = ["ingest", "chunk", "embed", "index", "extract", "summarize", "notify"];

/// A connection past the breakable link.
pub async fn connect(plant: &Plant) -> Result<jetstream::Context> {
    let url = plant.stack.nats_url()?;
    let client = docmill_testkit::connect_nats(&url).await.map_err(|error| anyhow::anyhow!(error))?;
    Ok(jetstream::new(client))
}

/// The broker's store, and an earlier copy of it.
pub struct Store<'a> {
    plant: &'a Plant,
    earlier: PathBuf,
    copied_at: Option<Instant>,
}

impl<'a> Store<'a> {
    pub fn new(plant: &'a Plant) -> Self {
        Self { plant, earlier: plant.home.root().join("nats-earlier"), copied_at: None }
    }

    /// False until the first copy was made.
    pub fn has_copy(&self) -> bool {
        self.copied_at.is_some()
    }

    /// Copies the store for a later rollback; the copy before is gone.
    pub fn copy(&mut self) -> Result<()> {
        copy_tree(&self.folder(), &self.earlier).context("no copy of the broker's store")?;
        self.copied_at = Some(Instant::now());
        Ok(())
    }

    /// Wipes it, rolls it back or flips one bit of it, between two lives of the broker.
    pub fn spoil(&self, kind: Kind, rng: &mut StdRng) -> Result<Hit> {
        let store = self.folder();
        self.plant.fell("nats", Signal::KILL)?;
        let hit = match kind {
            Kind::Wipe => wipe(&store)?,
            Kind::Rollback => self.roll_back(&store)?,
            _ => flip(&store, rng)?,
        };
        let started = self.plant.start_services();
        started.with_context(|| format!("NATS after {} of {}", kind.name(), hit.target))?;
        Ok(hit)
    }

    fn folder(&self) -> PathBuf {
        self.plant.home.data().join("nats")
    }

    fn roll_back(&self, store: &Path) -> Result<Hit> {
        let copied_at = self.copied_at.context("there is no earlier copy of the broker's store")?;
        empty(store)?;
        copy_tree(&self.earlier, store)?;
        self.plant.home.give_tree(store)?;
        Ok(Hit::new(format!("nats, {:.0} s back", copied_at.elapsed().as_secs_f64()), 1))
    }
}

fn wipe(store: &Path) -> Result<Hit> {
    let files = walk(store).len();
    empty(store)?;
    Ok(Hit::new(format!("nats, {files} files"), files))
}

fn flip(store: &Path, rng: &mut StdRng) -> Result<Hit> {
    let mut files = walk(store);
    files.retain(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0));
    let Some(path) = files.choose(rng) else { return Ok(Hit::new("nats", 0)) };
    let mut bytes = fs::read(path)?;
    let at = rng.random_range(0..bytes.len());
    bytes[at] ^= 1 << rng.random_range(0..8u8);
    fs::write(path, bytes)?;
    Ok(Hit::new(path.strip_prefix(store)?.display().to_string(), 1))
}

/// Deletes the consumers of all stages that have one.
pub fn delete_consumers(plant: &Plant) -> Result<Hit> {
    plant.runtime.block_on(async {
        let context = connect(plant).await?;
        let mut count = 0;
        for stage in STAGES {
            let deleted = context.delete_consumer_from_stream(format!("stage-{stage}"), JOBS).await;
            count += usize::from(deleted.is_ok_and(|deleted| deleted.success));
        }
        Ok(Hit::new("consumers", count))
    })
}

/// Replaces `to` by a copy of `from`. Files that vanish meanwhile are left out: the copy is as torn as after a crash.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        bail!("{} is no folder", from.display());
    }
    fs::create_dir_all(to)?;
    empty(to)?;
    for path in walk(from) {
        let target = to.join(path.strip_prefix(from)?);
        ensure!(target.starts_with(to), "a path leads outside");
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let _ = fs::copy(&path, &target);
    }
    Ok(())
}
