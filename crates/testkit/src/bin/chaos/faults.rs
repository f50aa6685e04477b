//! Doing what [`crate::schedule`] says: each fault is injected, held for a while and healed before the next. What befalls
//! the broker alone is in [`crate::broker`].

use crate::plant::{Plant, SERVICES};
use crate::schedule::{Kind, faketime};
use crate::{broker, disk, repeat};
use anyhow::{Context, Result};
use docmill_embedded::process::Signal;
use docmill_testkit::proxy::Proxy;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rustix::process::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// How often is looked whether an answer of the object store went wrong, and until when one must have.
const SPOILED: Duration = Duration::from_millis(1500);
const SPOILED_WITHIN: Duration = Duration::from_secs(60);

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
    /// Answers of the object store that shall go wrong.
    planned: usize,
}

impl<'a> Injector<'a> {
    pub fn new(plant: &'a Plant, seed: u64, lease: Duration) -> Self {
        let (rng, broker) = (StdRng::seed_from_u64(seed.wrapping_add(1)), broker::Store::new(plant));
        Self { plant, rng, lease, broker, planned: 0 }
    }

    /// From now on answers of the object store go wrong, where `kind` is about them: before the document of the step comes,
    /// so that there is one to spoil.
    pub fn arm(&mut self, kind: Kind) {
        if let Some(fault) = kind.spoils() {
            self.planned = self.rng.random_range(2..12);
            self.plant.objects.plan(fault, self.planned);
        }
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

    /// One fault that was armed, from its injection to its end.
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
            Kind::StoreError | Kind::Truncated | Kind::WrongBytes => self.spoil_objects(),
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

    /// What was armed goes on until an answer went wrong, or none was asked for in time.
    fn spoil_objects(&mut self) -> Hit {
        let started = Instant::now();
        while self.plant.objects.planned() == self.planned && started.elapsed() < SPOILED_WITHIN {
            std::thread::sleep(SPOILED);
        }
        Hit::new("answers", self.planned - self.plant.objects.forget())
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
