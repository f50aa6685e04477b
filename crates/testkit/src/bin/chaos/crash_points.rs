//! The crash-point sweep: a first pass records every point a run meets, then the process dies once at each of them while
//! a document goes through, and is started again.

use crate::Arguments;
use crate::documents::Documents;
use crate::export::Export;
use crate::plant::{Plant, Processes, Settings};
use crate::verdict::{self, Verdict};
use crate::work;
use anyhow::{Result, ensure};
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// One process with all roles: every point is in it.
const TOGETHER: Processes = &[("all", "api,relay,reconciler,worker")];
/// How long an armed process may live on before its point counts as not met.
const PATIENCE: Duration = Duration::from_secs(25);

/// The points that `documents` meet when nothing is armed, in the order of the sweep.
fn record(plant: &Plant, path: &Path) -> Result<Vec<String>> {
    let met = plant.home.root().join("points");
    plant.kill("all")?;
    plant.run("all", &[("DOCMILL_FAILPOINTS".into(), format!("record={}", met.display()))])?;
    plant.wait_ready()?;
    upload(plant, path)?;
    ensure!(work::until_quiet(plant)?, "without any fault, work does not end");
    // What timers meet comes within a few rounds.
    std::thread::sleep(Duration::from_secs(3));
    let points: BTreeSet<String> = std::fs::read_to_string(&met)?.lines().map(str::to_owned).collect();
    Ok(points.into_iter().collect())
}

fn upload(plant: &Plant, path: &Path) -> Result<()> {
    let status = plant.command(&["upload", "--json"]).arg(path).output()?.status;
    ensure!(status.success(), "{} is not accepted", path.display());
    Ok(())
}

/// One document for each point, the first for the record; more points than documents: a random choice by the seed.
pub fn run(arguments: &Arguments, settings: &Settings, documents: &Documents, expected: &Export) -> Result<Verdict> {
    let plant = Plant::start("chaos-points", settings, TOGETHER, |_| Ok(()))?;
    let started = Instant::now();
    let (first, rest) = documents.paths.split_first().ok_or_else(|| anyhow::anyhow!("no documents"))?;
    let mut points = record(&plant, first)?;
    let known = points.len();
    points.shuffle(&mut StdRng::seed_from_u64(arguments.seed));
    let bar =
        if arguments.json { ProgressBar::hidden() } else { ProgressBar::new(points.len().min(rest.len()) as u64) };
    let (mut died, mut not_met, mut recovery) = (0, Vec::new(), BTreeMap::<String, Vec<f64>>::new());
    for (point, path) in points.iter().zip(rest) {
        bar.inc(1);
        match die_at(&plant, point, path)? {
            Some(secs) => {
                died += 1;
                recovery.entry(point.split('@').next().unwrap_or_default().to_owned()).or_default().push(secs);
            }
            None => not_met.push(point.clone()),
        }
    }
    // The documents that no point was left for go through as they are.
    for path in rest.iter().skip(points.len()) {
        upload(&plant, path)?;
    }
    work::until_quiet(&plant)?;
    bar.finish_and_clear();
    let mut verdict = Verdict {
        documents: documents.paths.len(),
        kills: died,
        faults: died,
        seed: arguments.seed,
        seconds: started.elapsed().as_secs_f64(),
        embedder: settings.embedder.clone(),
        source: documents.source.clone(),
        left_out: not_met.into_iter().map(|point| format!("{point}: not met again")).collect(),
        ..Verdict::default()
    };
    verdict.kinds.insert("points".to_owned(), json!({"met": known, "died_at": died}));
    verdict.recoveries(recovery);
    let names = documents.paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    verdict::judge(&plant, &names.collect(), &mut verdict)?;
    let differences = Export::of(&plant)?.differences(expected, 10);
    verdict.export_equal = differences.is_empty();
    verdict.differences.extend(differences);
    Ok(verdict)
}

/// Arms the point, sends a document, waits for the death, starts the process again; seconds from the death until all
/// work was done. `None` when the point was not met.
fn die_at(plant: &Plant, point: &str, path: &Path) -> Result<Option<f64>> {
    plant.kill("all")?;
    plant.run("all", &[("DOCMILL_FAILPOINTS".into(), point.to_owned())])?;
    let mut client = plant.command(&["upload", "--json"]);
    let mut client =
        client.arg(path).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()?;
    let armed = Instant::now();
    while plant.pid("all").is_some() && armed.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let died = plant.pid("all").is_none();
    plant.kill("all")?;
    let restarted = Instant::now();
    plant.run("all", &[])?;
    plant.wait_ready()?;
    // The client tries again by itself for a while; afterwards a person would.
    if !client.wait()?.success() {
        upload(plant, path)?;
    }
    ensure!(
        work::until_quiet(plant)?,
        "after dying at {point}, work does not end; see {}",
        plant.home.logs().display()
    );
    Ok(died.then(|| restarted.elapsed().as_secs_f64()))
}
