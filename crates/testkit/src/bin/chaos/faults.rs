//! What can go wrong, how often, and doing it: each fault is injected, held for a while and healed before the next.

use crate::disk;
use crate::plant::{Plant, SERVICES};
use anyhow::{Context, Result, bail, ensure};
use docmill_embedded::process::Signal;
use docmill_testkit::proxy::{HttpFault, Proxy};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rustix::process::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal / $share:literal),+ $(,)?) => {
        /// Kinds of faults.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[doc = $doc])* $variant,)+ }
        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)+];
            /// As on the command line.
            pub fn name(self) -> &'static str { match self { $(Kind::$variant => $name,)+ } }
            /// How many kills there are for each of this kind.
            fn share(self) -> f64 { match self { $(Kind::$variant => $share,)+ } }
        }
    };
}

kinds! {
    /// `kill -9` of a process or service.
    Kill "kill" / 1.0,
    /// SIGSTOP for up to three leases, then SIGCONT.
    Stop "stop" / 10.0,
    /// Postgres is shut down with `-m immediate`.
    Immediate "immediate" / 10.0,
    /// The broker's store is gone.
    Wipe "wipe" / 40.0,
    /// The broker's store is as it was some time ago.
    Rollback "rollback" / 40.0,
    /// One bit of the broker's store is another.
    Flip "flip" / 13.0,
    /// The consumers of all stages are deleted.
    Consumer "consumer" / 20.0,
    /// The object store answers 500.
    StoreError "store-error" / 20.0,
    /// Bodies from the object store end half-way.
    Truncated "truncated" / 20.0,
    /// Bodies from the object store hold a wrong byte.
    WrongBytes "wrong-bytes" / 20.0,
    /// A link is a black hole for a while; afterwards it goes on, or its connections are cut.
    Hole "hole" / 20.0,
    /// All connections of a link are silent for good, new ones work.
    Orphans "orphans" / 40.0,
    /// No space on the disk of NATS, the object store or the lexical index.
    Disk "disk" / 50.0,
    /// A worker whose clock is an hour off.
    Clock "clock" / 40.0,
    /// Every event there was, ten times and shuffled.
    Repeat "repeat" / 20.0,
}

/// Kinds with a number, as the command line may give it.
pub fn parse(text: &str) -> Result<(Kind, Option<usize>), String> {
    let (name, count) = text.split_once('=').map_or((text, None), |(name, count)| (name, Some(count)));
    let known = || Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    let kind = Kind::ALL.iter().find(|kind| kind.name() == name).ok_or_else(|| format!("known are {}", known()))?;
    let count = count.map(|count| count.parse().map_err(|_| format!("`{count}` is no number"))).transpose()?;
    Ok((*kind, count))
}

/// What is left out on this machine, and why.
pub fn impossible(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Disk if !disk::may_mount() => Some("mounting needs root"),
        Kind::Clock if faketime().is_none() => Some("libfaketime is not installed (apt-get install libfaketime)"),
        _ => None,
    }
}

/// The order of a campaign's faults: the same for the same seed.
pub fn schedule(seed: u64, kills: usize, asked: &[(Kind, Option<usize>)]) -> Vec<Kind> {
    let mut all = Vec::new();
    for kind in Kind::ALL.iter().copied().filter(|kind| impossible(*kind).is_none()) {
        let named = asked.iter().find(|(asked, _)| *asked == kind);
        let usual = ((kills as f64 / kind.share()).round() as usize).max(1);
        let count = match named {
            Some((_, Some(count))) => *count,
            Some(_) => usual,
            None if asked.is_empty() && kills > 0 => usual,
            None => 0,
        };
        all.extend(std::iter::repeat_n(kind, count));
    }
    all.shuffle(&mut StdRng::seed_from_u64(seed));
    all
}

/// One fault that happened.
#[derive(Clone, Debug)]
pub struct Happened {
    pub kind: Kind,
    /// What it hit.
    pub target: String,
    pub at: OffsetDateTime,
    /// When the cause was gone.
    pub healed_at: OffsetDateTime,
}

/// Injects faults into one plant.
pub struct Injector<'a> {
    plant: &'a Plant,
    rng: StdRng,
    lease: Duration,
    /// An earlier state of the broker's store.
    snapshot: PathBuf,
}

impl<'a> Injector<'a> {
    pub fn new(plant: &'a Plant, seed: u64, lease: Duration) -> Self {
        let snapshot = plant.home.root().join("nats-earlier");
        Self { plant, rng: StdRng::seed_from_u64(seed.wrapping_add(1)), lease, snapshot }
    }

    /// A random pause between two faults, and now and then a copy of the broker's store for a later rollback.
    pub fn pause(&mut self) -> Duration {
        if self.rng.random_bool(0.1) || !self.snapshot.exists() {
            let _ = copy_tree(&self.plant.home.data().join("nats"), &self.snapshot);
        }
        Duration::from_millis(self.rng.random_range(300..1500))
    }

    fn hold(&mut self, from: f64, to: f64) {
        let factor = self.rng.random_range(from..to);
        std::thread::sleep(self.lease.mul_f64(factor));
    }

    /// One fault, from its injection to its end.
    pub fn inject(&mut self, kind: Kind) -> Result<Happened> {
        let at = OffsetDateTime::now_utc();
        let target = match kind {
            Kind::Kill => self.kill()?,
            Kind::Stop => self.stop()?,
            Kind::Immediate => {
                self.plant.fell("postgres", Signal::QUIT)?;
                self.plant.start_services()?;
                "postgres".to_owned()
            }
            Kind::Wipe | Kind::Rollback | Kind::Flip => self.spoil_broker(kind)?,
            Kind::Consumer => self.delete_consumers()?,
            Kind::StoreError => self.spoil_objects(HttpFault::Error),
            Kind::Truncated => self.spoil_objects(HttpFault::Truncated),
            Kind::WrongBytes => self.spoil_objects(HttpFault::WrongByte),
            Kind::Hole => self.hole(),
            Kind::Orphans => {
                let (name, link) = self.link();
                link.orphan();
                name.to_owned()
            }
            Kind::Disk => {
                let (name, full) = disk::fill(&self.plant.home, &mut self.rng)?;
                self.hold(0.5, 2.0);
                drop(full);
                name.to_owned()
            }
            Kind::Clock => self.skew()?,
            Kind::Repeat => crate::repeat::all_events(self.plant, &mut self.rng)?,
        };
        let healed_at = if kind == Kind::Kill { at } else { OffsetDateTime::now_utc() };
        Ok(Happened { kind, target, at, healed_at })
    }

    fn kill(&mut self) -> Result<String> {
        // Workers and engine hold the interesting states most of the time.
        let targets = [
            "worker-1", "worker-1", "worker-2", "worker-2", "engine", "engine", "api", "api", "postgres", "nats",
            "objects",
        ];
        let target = *targets.choose(&mut self.rng).context("no targets")?;
        if SERVICES.contains(&target) {
            self.plant.fell(target, Signal::KILL)?;
            self.plant.start_services()?;
        } else {
            self.plant.kill(target)?;
            std::thread::sleep(Duration::from_millis(self.rng.random_range(20..500)));
            self.plant.run(target, &[])?;
        }
        Ok(target.to_owned())
    }

    fn stop(&mut self) -> Result<String> {
        let (target, _) = *self.plant.processes.choose(&mut self.rng).context("no processes")?;
        let pid = self.plant.pid(target).and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(target.to_owned()) };
        rustix::process::kill_process(pid, Signal::STOP)?;
        self.hold(0.5, 3.0);
        rustix::process::kill_process(pid, Signal::CONT)?;
        Ok(target.to_owned())
    }

    fn spoil_broker(&mut self, kind: Kind) -> Result<String> {
        let store = self.plant.home.data().join("nats");
        self.plant.fell("nats", Signal::KILL)?;
        let mut target = "nats".to_owned();
        match kind {
            Kind::Wipe => empty(&store)?,
            Kind::Rollback => {
                empty(&store)?;
                copy_tree(&self.snapshot, &store)?;
                self.plant.home.give_tree(&store)?;
            }
            _ => {
                let files: Vec<PathBuf> = walk(&store)
                    .into_iter()
                    .filter(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0))
                    .collect();
                if let Some(path) = files.choose(&mut self.rng) {
                    let mut bytes = fs::read(path)?;
                    let at = self.rng.random_range(0..bytes.len());
                    bytes[at] ^= 1 << self.rng.random_range(0..8u8);
                    fs::write(path, bytes)?;
                    target = path.strip_prefix(&store)?.display().to_string();
                }
            }
        }
        self.plant.start_services().with_context(|| format!("NATS after {} of {target}", kind.name()))?;
        Ok(target)
    }

    fn delete_consumers(&mut self) -> Result<String> {
        let url = self.plant.stack.nats_url()?;
        self.plant.runtime.block_on(async {
            let context =
                async_nats::jetstream::new(docmill_testkit::connect_nats(&url).await.map_err(|e| anyhow::anyhow!(e))?);
            for stage in ["ingest", "chunk", "embed", "index", "extract", "summarize", "notify"] {
                let _ = context.delete_consumer_from_stream(format!("stage-{stage}"), "docmill-jobs").await;
            }
            Ok("all stages".to_owned())
        })
    }

    fn spoil_objects(&mut self, fault: HttpFault) -> String {
        let count = self.rng.random_range(2..12);
        self.plant.objects.plan(fault, count);
        std::thread::sleep(Duration::from_millis(1500));
        let left = self.plant.objects.forget();
        format!("{} answers", count - left)
    }

    fn link(&mut self) -> (&'static str, &'a Proxy) {
        let plant = self.plant;
        match self.rng.random_range(0..3) {
            0 => ("postgres", &plant.postgres),
            1 => ("nats", &plant.nats),
            _ => ("objects", &plant.objects),
        }
    }

    fn hole(&mut self) -> String {
        let (name, link) = self.link();
        link.stall();
        self.hold(0.5, 4.0);
        let cut = self.rng.random_bool(0.5);
        if cut {
            link.cut();
        }
        link.heal();
        format!("{name}{}", if cut { ", then cut" } else { "" })
    }

    /// The second worker runs on with a clock that is an hour off, until it is killed the next time.
    fn skew(&mut self) -> Result<String> {
        let library = faketime().context("libfaketime is not installed")?;
        let shift = if self.rng.random_bool(0.5) { "+1h" } else { "-1h" };
        self.plant.kill("worker-2")?;
        let text = |value: &str| value.to_owned();
        let extra = [
            (text("LD_PRELOAD"), library.display().to_string()),
            (text("FAKETIME"), text(shift)),
            (text("FAKETIME_DONT_FAKE_MONOTONIC"), text("1")),
        ];
        self.plant.run("worker-2", &extra)?;
        Ok(format!("worker-2 {shift}"))
    }
}

fn faketime() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib64/faketime"];
    folders.iter().map(|folder| Path::new(folder).join("libfaketime.so.1")).find(|path| path.is_file())
}

/// Removes what a folder holds; the folder itself may be a mount.
pub fn empty(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
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

/// Every file below a folder, in order.
pub fn walk(folder: &Path) -> Vec<PathBuf> {
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
