//! What can go wrong, how often, and doing it: each fault is injected, held for a while and healed before the next. What
//! befalls the broker alone is in [`crate::broker`].

use crate::plant::{Plant, SERVICES};
use crate::{broker, disk, repeat};
use anyhow::{Context, Result};
use docmill_embedded::process::Signal;
use docmill_testkit::proxy::{HttpFault, Proxy};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rustix::process::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// How long the answers of the object store go wrong at once, and until when one must have.
const SPOILED: Duration = Duration::from_millis(1500);
const SPOILED_WITHIN: Duration = Duration::from_secs(6);

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

/// Why this machine cannot do it, if so.
fn impossible(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Disk if !disk::may_mount() => Some("mounting needs root"),
        Kind::Clock if faketime().is_none() => Some("libfaketime is not installed (apt-get install libfaketime)"),
        _ => None,
    }
}

/// Kinds that this machine cannot do, and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Of the usual mix.
    pub left_out: Vec<String>,
    /// Asked for by name.
    pub untried: Vec<String>,
}

/// What a campaign lacks on this machine.
pub fn undone(asked: &[(Kind, Option<usize>)]) -> Undone {
    undone_by(asked, impossible)
}

fn undone_by(asked: &[(Kind, Option<usize>)], impossible: impl Fn(Kind) -> Option<&'static str>) -> Undone {
    let mut undone = Undone::default();
    for kind in Kind::ALL {
        let Some(why) = impossible(*kind) else { continue };
        let line = format!("{}: {why}", kind.name());
        match asked.iter().find(|(asked, _)| asked == kind) {
            Some((_, Some(0))) => {}
            Some(_) => undone.untried.push(line),
            None if asked.is_empty() => undone.left_out.push(line),
            None => {}
        }
    }
    undone
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

/// What a fault met.
#[derive(Clone, Debug)]
pub struct Hit {
    pub target: String,
    /// Processes, files, answers, consumers or events; at 0 nothing has happened.
    pub count: usize,
}

impl Hit {
    pub fn new(target: impl Into<String>, count: usize) -> Self {
        Self { target: target.into(), count }
    }
}

/// One fault that was injected.
#[derive(Clone, Debug)]
pub struct Happened {
    pub kind: Kind,
    pub hit: Hit,
    pub at: OffsetDateTime,
    /// When the cause was gone.
    pub healed_at: OffsetDateTime,
}

/// Injects faults into one plant.
pub struct Injector<'a> {
    plant: &'a Plant,
    rng: StdRng,
    lease: Duration,
    broker: broker::Store<'a>,
}

impl<'a> Injector<'a> {
    pub fn new(plant: &'a Plant, seed: u64, lease: Duration) -> Self {
        Self { plant, rng: StdRng::seed_from_u64(seed.wrapping_add(1)), lease, broker: broker::Store::new(plant) }
    }

    /// Copies the broker's store for a later rollback: the first time, and then now and then.
    pub fn remember(&mut self) -> Result<()> {
        if self.rng.random_bool(0.1) || !self.broker.has_copy() { self.broker.copy() } else { Ok(()) }
    }

    /// A random pause between two faults.
    pub fn pause(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(300..1500))
    }

    fn hold(&mut self, from: f64, to: f64) {
        let factor = self.rng.random_range(from..to);
        std::thread::sleep(self.lease.mul_f64(factor));
    }

    /// One fault, from its injection to its end.
    pub fn inject(&mut self, kind: Kind) -> Result<Happened> {
        let at = OffsetDateTime::now_utc();
        let hit = match kind {
            Kind::Kill => self.kill()?,
            Kind::Stop => self.stop()?,
            Kind::Immediate => {
                self.plant.fell("postgres", Signal::QUIT)?;
                self.plant.start_services()?;
                Hit::new("postgres", 1)
            }
            Kind::Wipe | Kind::Rollback | Kind::Flip => self.broker.spoil(kind, &mut self.rng)?,
            Kind::Consumer => broker::delete_consumers(self.plant)?,
            Kind::StoreError => self.spoil_objects(HttpFault::Error),
            Kind::Truncated => self.spoil_objects(HttpFault::Truncated),
            Kind::WrongBytes => self.spoil_objects(HttpFault::WrongByte),
            Kind::Hole => self.hole(),
            Kind::Orphans => {
                let (name, link) = self.link();
                link.orphan();
                Hit::new(name, 1)
            }
            Kind::Disk => {
                let (name, full) = disk::fill(&self.plant.home, &mut self.rng)?;
                self.hold(0.5, 2.0);
                drop(full);
                Hit::new(name, 1)
            }
            Kind::Clock => self.skew()?,
            Kind::Repeat => {
                let repeated = repeat::all_events(self.plant, &mut self.rng)?;
                Hit::new(format!("events of {} jobs", repeated.jobs), repeated.stored)
            }
        };
        let healed_at = if kind == Kind::Kill { at } else { OffsetDateTime::now_utc() };
        Ok(Happened { kind, hit, at, healed_at })
    }

    fn kill(&mut self) -> Result<Hit> {
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
        Ok(Hit::new(target, 1))
    }

    fn stop(&mut self) -> Result<Hit> {
        let (target, _) = *self.plant.processes.choose(&mut self.rng).context("no processes")?;
        let pid = self.plant.pid(target).and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(Hit::new(target, 0)) };
        rustix::process::kill_process(pid, Signal::STOP)?;
        self.hold(0.5, 3.0);
        rustix::process::kill_process(pid, Signal::CONT)?;
        Ok(Hit::new(target, 1))
    }

    /// Answers of the object store go wrong until one has, or none is asked for in time.
    fn spoil_objects(&mut self, fault: HttpFault) -> Hit {
        let (count, started) = (self.rng.random_range(2..12), Instant::now());
        loop {
            self.plant.objects.plan(fault, count);
            std::thread::sleep(SPOILED);
            let spoiled = count - self.plant.objects.forget();
            if spoiled > 0 || started.elapsed() >= SPOILED_WITHIN {
                return Hit::new("answers", spoiled);
            }
        }
    }

    fn link(&mut self) -> (&'static str, &'a Proxy) {
        let plant = self.plant;
        match self.rng.random_range(0..3) {
            0 => ("postgres", &plant.postgres),
            1 => ("nats", &plant.nats),
            _ => ("objects", &plant.objects),
        }
    }

    fn hole(&mut self) -> Hit {
        let (name, link) = self.link();
        link.stall();
        self.hold(0.5, 4.0);
        let cut = self.rng.random_bool(0.5);
        if cut {
            link.cut();
        }
        link.heal();
        Hit::new(format!("{name}{}", if cut { ", then cut" } else { "" }), 1)
    }

    /// The second worker runs on with a clock that is an hour off, until it is killed the next time.
    fn skew(&mut self) -> Result<Hit> {
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
        Ok(Hit::new(format!("worker-2 {shift}"), 1))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_cannot_do_is_left_out_unless_it_was_asked_for() {
        let no_clock = |kind: Kind| (kind == Kind::Clock).then_some("no library");
        let line = vec!["clock: no library".to_owned()];
        let usual = undone_by(&[], no_clock);
        assert_eq!(usual, Undone { left_out: line.clone(), untried: vec![] });
        let named = undone_by(&[(Kind::Kill, None), (Kind::Clock, Some(3))], no_clock);
        assert_eq!(named, Undone { left_out: vec![], untried: line });
        let others = undone_by(&[(Kind::Kill, None), (Kind::Clock, Some(0))], no_clock);
        assert_eq!(others, Undone::default(), "none of them were asked for");
        assert_eq!(undone_by(&[(Kind::Kill, None)], no_clock), Undone::default());
    }

    #[test]
    fn the_order_follows_the_seed_and_the_numbers_what_was_asked_for() {
        let asked = [(Kind::Wipe, Some(5)), (Kind::Flip, Some(15)), (Kind::Kill, Some(0)), (Kind::Immediate, None)];
        let order = schedule(3, 40, &asked);
        let count = |kind: Kind| order.iter().filter(|scheduled| **scheduled == kind).count();
        assert_eq!((count(Kind::Wipe), count(Kind::Flip), count(Kind::Immediate), order.len()), (5, 15, 4, 24));
        assert_eq!(order, schedule(3, 40, &asked));
        assert_ne!(order, schedule(4, 40, &asked));
    }
}
