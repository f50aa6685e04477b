//! The crash-point sweep: what points documents meet is recorded first, then the process dies once at each of them while
//! a document goes through, and is started again.
//!
//! A document that was processed meets nothing when it is sent again, so the sweep goes in rounds: each has a tenant of
//! its own, takes every document once, and must end with the results of the fault-free run.

use crate::Arguments;
use crate::documents::Documents;
use crate::export::Export;
use crate::plant::{Plant, Processes, Settings, Tenant};
use crate::verdict::{self, Points, Verdict};
use crate::work::{self, Acknowledged};
use anyhow::{Result, ensure};
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One process with all roles: every point is in it.
const TOGETHER: Processes = &[("all", "api,relay,reconciler,worker")];
/// How long an armed process may live on before its point counts as not met.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same, once the document is through: what timers meet comes within a few rounds of them.
const TIMERS: Duration = Duration::from_secs(8);
/// Tries of one point, each with another document; later ones go first in their round, which some points need.
const TRIES: usize = 3;
/// Which documents, by their place in the list, meet a point.
type Meets = BTreeMap<String, BTreeSet<usize>>;

/// The sweep under way.
struct Sweep<'a> {
    plant: &'a Plant,
    documents: &'a [PathBuf],
    acknowledged: Acknowledged,
    recovery: BTreeMap<String, Vec<f64>>,
    differences: Vec<String>,
}

/// Records all points and dies at each, or at `arguments.points` of them by the seed.
pub fn run(arguments: &Arguments, settings: &Settings, documents: &Documents, expected: &Export) -> Result<Verdict> {
    let plant = Plant::start("chaos-points", settings, TOGETHER, |_| Ok(()))?;
    let started = Instant::now();
    let (acknowledged, recovery) = (Acknowledged::new(), BTreeMap::new());
    let mut sweep =
        Sweep { plant: &plant, documents: &documents.paths, acknowledged, recovery, differences: Vec::new() };
    let meets = sweep.record(expected)?;
    let mut open: Vec<(String, usize)> = meets.keys().map(|point| (point.clone(), 0)).collect();
    open.shuffle(&mut StdRng::seed_from_u64(arguments.seed));
    open.truncate(arguments.points.unwrap_or(usize::MAX));
    let swept = open.len();
    if !arguments.json {
        println!("{} points are known, {swept} are swept, seed {}", meets.len(), arguments.seed);
    }
    let bar = if arguments.json { ProgressBar::hidden() } else { ProgressBar::new(swept as u64) };
    let (mut met, mut unmet, mut round) = (0, Vec::new(), 0);
    while !open.is_empty() {
        round += 1;
        // What was not met goes first: it may want a tenant that is still empty.
        open.sort_by_key(|(_, tries)| std::cmp::Reverse(*tries));
        let mut later = Vec::new();
        let tenant = plant.tenant(&format!("round-{round}"))?;
        let mut left: BTreeSet<usize> = (0..documents.paths.len()).collect();
        for (point, tries) in std::mem::take(&mut open) {
            let Some(index) = candidate(&meets, &point, &left) else {
                later.push((point, tries));
                continue;
            };
            left.remove(&index);
            match sweep.die_at(&tenant, &point, index)? {
                true => met += 1,
                false if tries + 1 < TRIES => later.push((point, tries + 1)),
                false => unmet.push(point),
            }
            bar.set_position(met as u64);
        }
        sweep.finish(&tenant, left, expected)?;
        open = later;
    }
    bar.finish_and_clear();
    let mut verdict = Verdict {
        documents: documents.paths.len(),
        kills: met,
        faults: met,
        seed: arguments.seed,
        seconds: started.elapsed().as_secs_f64(),
        embedder: settings.embedder.clone(),
        source: documents.source.clone(),
        points: Some(Points { total: meets.len(), swept, met, unmet }),
        ..Verdict::default()
    };
    verdict.recoveries(sweep.recovery);
    verdict::judge(&plant, &sweep.acknowledged, &mut verdict)?;
    verdict.export_equal = sweep.differences.is_empty();
    verdict.differences.extend(sweep.differences);
    Ok(verdict)
}

/// A document of those left that meets the point; the one that meets the fewest others, which later points need least.
fn candidate(meets: &Meets, point: &str, left: &BTreeSet<usize>) -> Option<usize> {
    let able = meets.get(point)?.intersection(left).copied();
    able.min_by_key(|index| meets.values().filter(|documents| documents.contains(index)).count())
}

impl Sweep<'_> {
    /// What each document meets when nothing is armed.
    fn record(&mut self, expected: &Export) -> Result<Meets> {
        let tenant = self.plant.tenant("recorded")?;
        let mut meets = Meets::new();
        for index in 0..self.documents.len() {
            let file = self.plant.home.root().join(format!("points-{index}"));
            self.restart(&format!("record={}", file.display()))?;
            self.plant.wait_ready()?;
            self.upload(&tenant, &[index])?;
            ensure!(work::until_quiet(self.plant)?, "without any fault, work does not end");
            // What follows the end of a run, and what timers meet.
            std::thread::sleep(Duration::from_millis(if index == 0 { 3000 } else { 700 }));
            for point in std::fs::read_to_string(&file)?.lines() {
                meets.entry(point.to_owned()).or_default().insert(index);
            }
        }
        self.compare(&tenant, expected)?;
        Ok(meets)
    }

    fn restart(&self, failpoints: &str) -> Result<()> {
        self.plant.kill("all")?;
        self.plant.run("all", &[("DOCMILL_FAILPOINTS".into(), failpoints.to_owned())])
    }

    fn path(&self, index: usize) -> &Path {
        &self.documents[index]
    }

    fn upload(&mut self, tenant: &Tenant, indexes: &[usize]) -> Result<()> {
        let paths: Vec<&Path> = indexes.iter().map(|index| self.path(*index)).collect();
        let status = self.plant.command_of(tenant, &["upload", "--json"]).args(&paths).output()?.status;
        ensure!(status.success(), "{paths:?} are not accepted");
        let names = paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let accepted: Vec<_> = names.map(|name| (tenant.id.clone(), name)).collect();
        self.acknowledged.extend(accepted);
        Ok(())
    }

    /// The documents that no point was left for go through as they are; then the tenant has what it must have.
    fn finish(&mut self, tenant: &Tenant, left: BTreeSet<usize>, expected: &Export) -> Result<()> {
        if !left.is_empty() {
            self.upload(tenant, &left.into_iter().collect::<Vec<_>>())?;
        }
        ensure!(work::until_quiet(self.plant)?, "work does not end; see {}", self.plant.home.logs().display());
        self.compare(tenant, expected)
    }

    fn compare(&mut self, tenant: &Tenant, expected: &Export) -> Result<()> {
        self.differences.extend(Export::of(self.plant, tenant)?.differences(expected, 10));
        Ok(())
    }

    /// Arms the point, sends a document, waits for the death, starts the process again and waits until all work is
    /// done; false when the point was not met. That the process ended is not enough: it must have met the point.
    fn die_at(&mut self, tenant: &Tenant, point: &str, index: usize) -> Result<bool> {
        let file = self.plant.home.root().join("met");
        std::fs::write(&file, "")?;
        self.restart(&format!("record={},{point}", file.display()))?;
        let mut client = self.plant.command_of(tenant, &["upload", "--json"]);
        client.arg(self.path(index)).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut client = client.spawn()?;
        let armed = Instant::now();
        let mut through: Option<Instant> = None;
        while self.plant.pid("all").is_some() && armed.elapsed() < PATIENCE {
            if through.is_some_and(|since| since.elapsed() > TIMERS) {
                break;
            }
            if through.is_none() && matches!(client.try_wait(), Ok(Some(_))) && self.plant.count(work::OPEN)? == 0 {
                through = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let died = self.plant.pid("all").is_none();
        self.plant.kill("all")?;
        let met = std::fs::read_to_string(&file)?.lines().any(|met| met == point);
        ensure!(met || !died, "armed with {point}, it ended elsewhere; see {}", self.plant.home.logs().display());
        let restarted = Instant::now();
        self.plant.run("all", &[])?;
        self.plant.wait_ready()?;
        // The client tries again by itself for a while; afterwards a person would.
        client.wait()?;
        self.upload(tenant, &[index])?;
        ensure!(
            work::until_quiet(self.plant)?,
            "after dying at {point}, work does not end; see {}",
            self.plant.home.logs().display()
        );
        if met {
            let kind = point.split('@').next().unwrap_or_default().to_owned();
            self.recovery.entry(kind).or_default().push(restarted.elapsed().as_secs_f64());
        }
        Ok(met)
    }
}
