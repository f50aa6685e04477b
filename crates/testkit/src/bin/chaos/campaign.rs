//! One campaign: a fault-free run for comparison (kept for the next time), then the same documents while things break.

use crate::documents::Documents;
use crate::export::Export;
use crate::faults::{Happened, Injector};
use crate::plant::{APART, Plant, Settings, Tenant};
use crate::schedule::{self, Kind};
use crate::verdict::{self, Verdict};
use crate::work::{self, Acknowledged, Pace, Progress};
use crate::{Arguments, disk, repeat};
use anyhow::{Context, Result, ensure};
use docmill_model::Sha256Hex;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Differences shown.
const SHOWN: usize = 10;
/// Documents that are uploaded ahead of the first fault.
const AHEAD: usize = 16;
/// Tries of a fault that finds nothing to hit, and documents kept back for them.
const TRIES: usize = 5;
const SPARE: usize = 4;

pub fn bar(length: usize, what: &str, quiet: bool) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(length as u64) };
    let style = ProgressStyle::with_template("{prefix:12} {bar:30} {pos}/{len} documents, {elapsed} {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_prefix(what.to_owned())
}

/// Raised when an export of an earlier form must not be compared with.
const EXPORT_VERSION: u32 = 2;

/// Results of the documents when nothing breaks, with the seconds it took.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct FaultFree {
    /// By tenant, in the order of [`work::SHARES`].
    pub exports: Vec<Export>,
    pub seconds: f64,
}

/// From an earlier campaign of the same binary over the same documents, else made now.
pub fn fault_free(arguments: &Arguments, settings: &Settings, documents: &Documents) -> Result<FaultFree> {
    let path = kept_at(settings, documents)?;
    if let Some(kept) = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return Ok(kept);
    }
    let plant = Plant::start("chaos-free", settings, APART, |_| Ok(()))?;
    let tenants = tenants(&plant)?;
    let (progress, over) = (Progress::default(), AtomicBool::new(false));
    progress.allowed.store(usize::MAX, Ordering::Release);
    let bar = bar(documents.paths.len(), "fault-free", arguments.json);
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| work::watch(&plant, &progress, &over, |settled| bar.set_position(settled as u64)));
        let uploaded = work::upload(&plant, &tenants, &documents.paths, &progress, None);
        let uploaded = uploaded.and_then(|()| work::until_quiet(&plant));
        over.store(true, Ordering::Release);
        ensure!(uploaded?, "without any fault, work does not end; logs are in {}", plant.home.logs().display());
        Ok(())
    })?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let kept = FaultFree { seconds, exports: exports(&plant, &tenants)? };
    std::fs::write(&path, serde_json::to_vec(&kept)?).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(kept)
}

/// The tenants of [`work::SHARES`].
pub fn tenants(plant: &Plant) -> Result<Vec<Tenant>> {
    work::SHARES.iter().map(|(name, _)| plant.tenant(name)).collect()
}

fn exports(plant: &Plant, tenants: &[Tenant]) -> Result<Vec<Export>> {
    tenants.iter().map(|tenant| Export::of(plant, tenant)).collect()
}

/// Enters whether each tenant has what it has when nothing breaks.
pub fn compare(plant: &Plant, tenants: &[Tenant], kept: &FaultFree, verdict: &mut Verdict) -> Result<()> {
    verdict.export_equal = true;
    for (export, expected) in exports(plant, tenants)?.iter().zip(&kept.exports) {
        let differences = export.differences(expected, SHOWN);
        verdict.export_equal &= differences.is_empty();
        verdict.differences.extend(differences);
    }
    Ok(())
}

fn kept_at(settings: &Settings, documents: &Documents) -> Result<PathBuf> {
    let folder = docmill_testkit::home()?.root().join("chaos");
    std::fs::create_dir_all(&folder)?;
    let binary = Sha256Hex::of(&std::fs::read(&settings.docmill)?);
    let identity = format!("{binary} {} {} {EXPORT_VERSION}", documents.hash, settings.embedder);
    Ok(folder.join(format!("{}.json", &Sha256Hex::of(identity.as_bytes()).as_str()[..24])))
}

/// Breaks things while the documents are processed, and judges what came out.
pub fn run(arguments: &Arguments, settings: &Settings, documents: &Documents, kept: &FaultFree) -> Result<Verdict> {
    let schedule = schedule::schedule(arguments.seed, arguments.kills, &arguments.faults);
    let with_disk = schedule.contains(&Kind::Disk);
    let plant = Plant::start("chaos", settings, APART, |home| if with_disk { disk::mount(home) } else { Ok(()) })?;
    let tenants = tenants(&plant)?;
    let started = Instant::now();
    let break_things =
        |progress: &Progress, bar: &ProgressBar| break_things(arguments, &plant, &schedule, progress, bar);
    let worked = while_working(arguments, &plant, &tenants, documents, break_things)?;
    let seconds = started.elapsed().as_secs_f64();
    let repeated = repeat::at_the_end(&plant, arguments.seed)?;
    let happened: Vec<Happened> = worked.came_to.into_iter().filter(|fault| fault.hit.count > 0).collect();
    let undone = schedule::undone(&arguments.faults);
    let mut verdict = Verdict {
        documents: documents.paths.len(),
        kills: happened.iter().filter(|fault| fault.kind == Kind::Kill).count(),
        faults: happened.len(),
        seed: arguments.seed,
        seconds,
        fault_free_seconds: Some(kept.seconds),
        embedder: settings.embedder.clone(),
        source: documents.source.clone(),
        peak_rss_mb: worked.peak_rss_mb,
        left_out: undone.left_out,
        untried: undone.untried,
        ..Verdict::default()
    };
    verdict::judge(&plant, &worked.acknowledged, &mut verdict)?;
    verdict::recovery(&plant, &happened, &mut verdict)?;
    for kind in Kind::ALL {
        let asked = schedule.iter().filter(|other| *other == kind).count();
        let tried = happened.iter().filter(|fault| fault.kind == *kind).count();
        verdict.asked(kind.name(), asked, tried);
    }
    verdict.repeated(repeated);
    compare(&plant, &tenants, kept, &mut verdict)?;
    Ok(verdict)
}

/// What came of documents that went through while something else happened.
pub struct Worked<T> {
    pub came_to: T,
    pub acknowledged: Acknowledged,
    /// By process, megabytes.
    pub peak_rss_mb: BTreeMap<String, u64>,
}

/// Uploads the documents while `meanwhile` does its part, which lets uploads go ahead by `Progress::allowed`; then waits
/// until all work has ended, or nothing moves any more.
pub fn while_working<T>(
    arguments: &Arguments,
    plant: &Plant,
    tenants: &[Tenant],
    documents: &Documents,
    meanwhile: impl FnOnce(&Progress, &ProgressBar) -> Result<T>,
) -> Result<Worked<T>> {
    let (progress, over) = (Progress::default(), AtomicBool::new(false));
    let bar = bar(documents.paths.len(), &format!("seed {}", arguments.seed), arguments.json);
    let peaks = Mutex::new(BTreeMap::new());
    let (came_to, quiet) = std::thread::scope(|scope| {
        scope.spawn(|| {
            work::watch(plant, &progress, &over, |settled| {
                bar.set_position(settled as u64);
                sample(plant, &mut peaks.lock().unwrap_or_else(PoisonError::into_inner));
            });
        });
        let uploader = scope.spawn(|| work::upload(plant, tenants, &documents.paths, &progress, arguments.rate));
        let came_to = meanwhile(&progress, &bar);
        progress.allowed.store(usize::MAX, Ordering::Release);
        if came_to.is_err() {
            progress.given_up.store(true, Ordering::Release);
        }
        let uploaded = uploader.join().unwrap_or_else(|_| Err(anyhow::anyhow!("uploading panicked")));
        let quiet = came_to.and_then(|came_to| uploaded.and_then(|()| Ok((came_to, work::until_quiet(plant)?))));
        over.store(true, Ordering::Release);
        quiet
    })?;
    bar.finish_and_clear();
    if !quiet && !arguments.json {
        eprintln!("nothing moves any more; logs are in {}", plant.home.logs().display());
    }
    let acknowledged = progress.acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
    let peak_rss_mb = peaks.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Worked { came_to, acknowledged, peak_rss_mb })
}

/// One fault after the other, each once something was done since the last one. What finds nothing to hit is tried again
/// after the others.
fn break_things(
    arguments: &Arguments,
    plant: &Plant,
    schedule: &[Kind],
    progress: &Progress,
    bar: &ProgressBar,
) -> Result<Vec<Happened>> {
    let mut injector = Injector::new(plant, arguments.seed, arguments.lease());
    let pace = Pace { documents: arguments.documents(), steps: schedule.len(), ahead: AHEAD, spare: SPARE };
    let mut open: VecDeque<(Kind, usize)> = schedule.iter().map(|kind| (*kind, 1)).collect();
    let mut happened = Vec::new();
    let mut log = std::fs::File::create(plant.home.logs().join("faults.log"))?;
    while let Some((kind, tries)) = open.pop_front() {
        let step = happened.len() + 1;
        injector.arm(kind);
        // Uploads keep step with the faults, so that the last fault still finds work.
        progress.allowed.fetch_max(pace.at(step), Ordering::AcqRel);
        injector.remember()?;
        let pause = arguments.every.unwrap_or_else(|| injector.pause());
        std::thread::sleep(pause);
        wait_for_work(plant)?;
        plant.revive(&[])?;
        bar.set_message(format!("{step}/{} faults, {}", step + open.len(), kind.name()));
        let fault = injector.inject(kind).with_context(|| format!("fault {step} ({})", kind.name()))?;
        use std::io::Write;
        let (target, hits) = (&fault.hit.target, fault.hit.count);
        writeln!(log, "{} {} {target} hit {hits} until {}", fault.at, kind.name(), fault.healed_at)?;
        if hits == 0 && tries < TRIES {
            open.push_back((kind, tries + 1));
        }
        happened.push(fault);
    }
    plant.start_services()?;
    plant.revive(&[])?;
    Ok(happened)
}

/// Until an attempt ended since the call, at most for a few seconds: faults that come faster than work prove nothing.
fn wait_for_work(plant: &Plant) -> Result<()> {
    let sql = "SELECT count(*) FROM attempts WHERE outcome = 'done'";
    let before = plant.count(sql)?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) && plant.count(sql)? == before {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Peak resident memory of each process, in MB.
fn sample(plant: &Plant, peaks: &mut BTreeMap<String, u64>) {
    for (name, _) in plant.processes {
        let Some(pid) = plant.pid(name) else { continue };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
        let kib: u64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        let peak = peaks.entry((*name).to_owned()).or_default();
        *peak = (*peak).max(kib >> 10);
    }
}
