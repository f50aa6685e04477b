//! A campaign of updates: new versions, versions that fail, replays, another embedding model and back, while processes and
//! services are killed. A prober ([`crate::prober`]) asks for every document all the while: never fewer right answers.

use crate::Arguments;
use crate::documents::Documents;
use crate::plant::{APART, OPERATOR, Plant, SERVICES, Settings, Tenant};
use crate::prober::{Figures, Known, MODES, Seen, Shared, baseline, probe};
use crate::verdict::{self, Verdict};
use crate::work;
use anyhow::{Context, Result, bail, ensure};
use docmill_embedded::process::Signal;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a phase may take to come to its end once nothing is killed.
const PATIENCE: Duration = Duration::from_secs(180);
/// Tries of a command whose API may be away.
const TRIES: usize = 60;
/// Every how manieth document gets a version that cannot be read.
const BROKEN: usize = 4;
/// What is killed; what works is hit most often.
const TARGETS: [&str; 10] =
    ["worker-1", "worker-1", "worker-2", "worker-2", "engine", "engine", "api", "postgres", "nats", "objects"];
/// Without them nobody answers.
const ANSWERING: [&str; 2] = ["api", "postgres"];

/// The phases, in order; kills are spread over all of them.
const PHASES: [&str; 8] = [
    "new versions",
    "failing versions",
    "replay",
    "build of a space",
    "switch of the model",
    "new versions after it",
    "switch back",
    "drop of the space",
];

/// Runs the phases and judges what the prober saw.
pub fn run(arguments: &Arguments, settings: &Settings, documents: &Documents) -> Result<Verdict> {
    let plant = Plant::start("chaos-updates", settings, APART, |_| Ok(()))?;
    let tenant = plant.tenant(OPERATOR)?;
    let files = Files::new(&plant, documents, arguments.documents())?;
    let ids = upload(&plant, &tenant, &files.write(1, |_| true)?)?;
    ensure!(work::until_quiet(&plant)?, "the first versions do not settle");
    let known: Vec<Known> = ids.into_iter().map(|(number, id)| Known { id, words: words(number) }).collect();
    let shared = Shared { phase: Mutex::new(PHASES[0]), ..Shared::default() };
    let started = Instant::now();
    let held = baseline(&plant, &tenant, &known)?;
    let mut figures = Figures { documents: known.len(), ..Figures::default() };
    for (_, mode) in &held {
        *figures.held.entry(*mode).or_default() += 1;
    }
    let seen = Mutex::new((figures, Vec::new()));
    std::thread::scope(|scope| {
        let probing = scope.spawn(|| probe(&plant, &tenant, &known, &held, &shared, &seen));
        let done = phases(arguments, &plant, &tenant, &files, held.len(), &shared, &seen);
        shared.over.store(true, Ordering::Release);
        ensure!(probing.join().is_ok(), "the prober panicked");
        done
    })?;
    let (mut figures, wrong) = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    figures.versions = plant.count("SELECT count(*) FROM document_versions WHERE upload_state = 'accepted'")?;
    figures.failed_versions =
        plant.count("SELECT count(DISTINCT version_id) FROM runs WHERE state = 'failed' AND cause = 'upload'")?;
    figures.replayed = plant.count("SELECT count(*) FROM runs WHERE replay_id IS NOT NULL")?;
    let kills = figures.kills.values().sum();
    let mut verdict = Verdict {
        documents: figures.documents,
        kills,
        faults: kills,
        seed: arguments.seed,
        seconds: started.elapsed().as_secs_f64(),
        stuck: plant.count(work::OPEN)?,
        // Nothing to compare with: what came of each version is the prober's to see.
        export_equal: true,
        embedder: settings.embedder.clone(),
        source: documents.source.clone(),
        ..Verdict::default()
    };
    verdict.invariant_violations = verdict::violations(&plant, |_| Ok(Vec::new()))?;
    verdict.invariant_violations.extend(wrong);
    for phase in PHASES {
        verdict.tried(&format!("questions during {phase}"), figures.asked.get(phase).copied().unwrap_or_default());
    }
    for mode in MODES {
        // Words of their own that a model cannot tell apart would prove nothing.
        let is_most = figures.held.get(mode).is_some_and(|held| held * 5 >= figures.documents * 4);
        verdict
            .tried(&format!("most documents found by the {mode} half before anything happened"), usize::from(is_most));
    }
    // What is broken all the time proves nothing.
    let is_most = figures.right * 2 > figures.asked.values().sum::<usize>();
    verdict.tried("most questions answered in full", usize::from(is_most));
    verdict.tried("versions that failed", figures.failed_versions as usize);
    verdict.tried("runs of replays", figures.replayed as usize);
    verdict.updates = Some(figures);
    Ok(verdict)
}

/// What only document `number` says, in every version.
fn words(number: usize) -> String {
    format!("Lantern{number} hangs over berth{number} and keel{number} lies in dock{number}")
}

/// The documents' files: each begins with its own words and goes on with a real text.
struct Files {
    folder: PathBuf,
    texts: Vec<String>,
    count: usize,
}

impl Files {
    fn new(plant: &Plant, documents: &Documents, count: usize) -> Result<Self> {
        let is_text = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "txt");
        let texts: Vec<String> =
            documents.paths.iter().filter(is_text).filter_map(|path| fs::read_to_string(path).ok()).collect();
        ensure!(!texts.is_empty(), "there is no text among the documents");
        let folder = plant.home.root().join("updates");
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, texts, count })
    }

    /// Writes `version` of those documents that are `wanted`.
    fn write(&self, version: usize, wanted: impl Fn(usize) -> bool) -> Result<Vec<PathBuf>> {
        self.put(wanted, |number| {
            let text = &self.texts[number % self.texts.len()];
            format!("{}.\n\n{text}\n\nThis is edition {version} of document {number}.\n", words(number))
        })
    }

    /// Writes versions that hold nothing to read.
    fn write_empty(&self, wanted: impl Fn(usize) -> bool) -> Result<Vec<PathBuf>> {
        self.put(wanted, |number| " \n".repeat(number + 1))
    }

    fn put(&self, wanted: impl Fn(usize) -> bool, text: impl Fn(usize) -> String) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for number in (0..self.count).filter(|number| wanted(*number)) {
            let path = self.folder.join(format!("{number}.txt"));
            fs::write(&path, text(number))?;
            paths.push(path);
        }
        Ok(paths)
    }
}

/// Uploads files under their paths as external ids until each is accepted; the ids of the documents by number.
fn upload(plant: &Plant, tenant: &Tenant, paths: &[PathBuf]) -> Result<BTreeMap<usize, String>> {
    let number = |name: &str| name.strip_suffix(".txt").and_then(|number| number.parse::<usize>().ok());
    let named = |path: &Path| path.file_name().and_then(|name| number(&name.to_string_lossy()));
    let mut ids = BTreeMap::new();
    for _ in 0..TRIES {
        let open: Vec<&PathBuf> =
            paths.iter().filter(|path| named(path).is_none_or(|number| !ids.contains_key(&number))).collect();
        if open.is_empty() {
            return Ok(ids);
        }
        let mut command = plant.command_of(tenant, &["upload", "--external-id", "--json", "--parallel", "4"]);
        let output = command.args(open).output()?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let told: Value = serde_json::from_str(line).unwrap_or_default();
            // Deduplicated but uploading: declared by an earlier try whose bytes never arrived.
            if told["state"] == "uploading" {
                continue;
            }
            if let (Some(number), Some(id)) = (told["name"].as_str().and_then(number), told["id"].as_str()) {
                ids.insert(number, id.to_owned());
            }
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    bail!("the API does not take all versions in {TRIES} tries")
}

/// One phase after the other, each with its share of the kills, and to its end before the next: also until everything was
/// asked for once more, a `round` of questions.
fn phases(
    arguments: &Arguments,
    plant: &Plant,
    tenant: &Tenant,
    files: &Files,
    round: usize,
    shared: &Shared,
    seen: &Seen,
) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(arguments.seed);
    for (number, phase) in PHASES.into_iter().enumerate() {
        *shared.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        let kills = arguments.kills * (number + 1) / PHASES.len() - arguments.kills * number / PHASES.len();
        let seed = rng.random();
        std::thread::scope(|scope| {
            let killing = scope.spawn(move || kill(plant, shared, seen, phase, kills, StdRng::seed_from_u64(seed)));
            let acted = act(plant, tenant, files, phase);
            let killed = killing.join().unwrap_or_else(|_| Err(anyhow::anyhow!("killing panicked")));
            acted.and(killed)
        })
        .with_context(|| phase.to_owned())?;
        ensure!(work::until_quiet(plant)?, "{phase}: work does not end");
        settle(plant, phase)?;
        let asked = || {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.0.asked.get(phase).copied().unwrap_or_default()
        };
        let (until, started) = (asked() + round, Instant::now());
        while asked() < until {
            ensure!(started.elapsed() < PATIENCE, "{phase}: the prober does not get through a round of questions");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

fn act(plant: &Plant, tenant: &Tenant, files: &Files, phase: &str) -> Result<()> {
    match phase {
        "new versions" => drop(upload(plant, tenant, &files.write(2, |_| true)?)?),
        "failing versions" => {
            drop(upload(plant, tenant, &files.write_empty(|number| number.is_multiple_of(BROKEN))?)?);
        }
        "replay" => insist(plant, &["replay", "--stage", "ingest", "--recompute", "--yes", "--detach"])?,
        "build of a space" => insist(plant, &["spaces", "build", "second", "--yes", "--detach"])?,
        "switch of the model" => insist(plant, &["spaces", "switch", "second", "--yes", "--wait", "60"])?,
        "new versions after it" => {
            drop(upload(plant, tenant, &files.write(3, |number| !number.is_multiple_of(BROKEN))?)?);
        }
        "switch back" => insist(plant, &["spaces", "switch", &first_space(plant)?, "--yes", "--wait", "60"])?,
        _ => insist(plant, &["spaces", "drop", "second", "--yes"])?,
    }
    Ok(())
}

/// Runs a command until it succeeds: what it talks to may be killed meanwhile.
fn insist(plant: &Plant, arguments: &[&str]) -> Result<()> {
    let mut said = String::new();
    for _ in 0..TRIES {
        let output = plant.command(&[arguments, &["--json"]].concat()).output()?;
        if output.status.success() {
            return Ok(());
        }
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Done by a try whose answer was lost.
        if arguments.contains(&"drop") && plant.count(SECOND_STANDS)? == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    bail!("docmill {arguments:?} does not succeed in {TRIES} tries: {said}")
}

const SECOND_STANDS: &str = "SELECT count(*) FROM embedding_spaces WHERE name = 'second' AND state <> 'dropping'";

fn first_space(plant: &Plant) -> Result<String> {
    plant.runtime.block_on(async {
        let name = sqlx::query_scalar("SELECT name FROM embedding_spaces WHERE name <> 'second'");
        Ok(name.fetch_one(&mut plant.owner().await?).await?)
    })
}

/// Waits for what a phase began beside runs.
fn settle(plant: &Plant, phase: &str) -> Result<()> {
    let open = match phase {
        "replay" => "SELECT count(*) FROM replays WHERE state = 'running'",
        "build of a space" => "SELECT count(*) FROM embedding_spaces WHERE state = 'building'",
        "drop of the space" => "SELECT count(*) FROM embedding_spaces WHERE name = 'second'",
        _ => return Ok(()),
    };
    let started = Instant::now();
    while plant.count(open)? > 0 {
        let logs = plant.home.logs();
        ensure!(started.elapsed() < PATIENCE, "{phase} does not end; logs are in {}", logs.display());
        plant.revive(&[])?;
        std::thread::sleep(Duration::from_millis(100));
    }
    ensure!(work::until_quiet(plant)?, "{phase}: work does not end");
    Ok(())
}

/// Kills one thing after the other. What answers is judged again once it says that it is ready.
fn kill(plant: &Plant, shared: &Shared, seen: &Seen, phase: &'static str, count: usize, mut rng: StdRng) -> Result<()> {
    for _ in 0..count {
        std::thread::sleep(Duration::from_millis(rng.random_range(100..1_200)));
        let target = *TARGETS.choose(&mut rng).context("no targets")?;
        let answers = ANSWERING.contains(&target);
        let life = if answers { Some(shared.life.fetch_add(1, Ordering::AcqRel) + 1) } else { None };
        if SERVICES.contains(&target) {
            plant.fell(target, Signal::KILL)?;
            plant.start_services()?;
        } else {
            plant.kill(target)?;
            plant.run(target, &[])?;
        }
        if let Some(life) = life {
            plant.wait_ready()?;
            shared.ready.store(life, Ordering::Release);
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.0.kills.entry(phase).or_default() += 1;
    }
    Ok(())
}
