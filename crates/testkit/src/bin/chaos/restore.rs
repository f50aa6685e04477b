//! The restore drill of `deploy/runbooks/restore-from-dump.md`: the database is dumped while documents are processed;
//! later everything is lost but the bucket and the dump.

use crate::Arguments;
use crate::campaign::{self, FaultFree, Worked};
use crate::documents::Documents;
use crate::faults::empty;
use crate::index_files;
use crate::plant::{APART, Plant, SERVICES, Settings};
use crate::searches;
use crate::verdict::{self, Verdict};
use crate::work::{self, Acknowledged, Progress};
use anyhow::{Context, Result, ensure};
use docmill_embedded::database;
use docmill_embedded::parts::PartPaths;
use docmill_embedded::process::Signal;
use docmill_embedded::stack::DATABASE;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Share of the documents that may be uploaded before the dump is made.
const AT_DUMP: f64 = 0.7;
/// Share that has settled when the dump is made.
const SETTLED: f64 = 0.3;
/// How long the moments of the drill are waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Counts and times of the drill.
#[derive(Debug, Default, serde::Serialize)]
pub struct Figures {
    pub dump_bytes: u64,
    pub dump_secs: f64,
    /// In the dump: documents that had settled, jobs that had not.
    pub settled_in_dump: i64,
    pub open_jobs_in_dump: i64,
    /// Accepted after the dump, so not in it: sent again.
    pub accepted_after_dump: usize,
    /// From the loss to an empty Postgres with its roles, to the restored database, and to an API that is ready.
    pub emptied_secs: f64,
    pub restored_secs: f64,
    pub ready_secs: f64,
    /// From the loss until all work had ended, with what was sent again.
    pub settled_secs: f64,
}

/// Runs the drill and judges what came out.
pub fn run(arguments: &Arguments, settings: &Settings, documents: &Documents, kept: &FaultFree) -> Result<Verdict> {
    let plant = Plant::start("chaos-restore", settings, APART, |_| Ok(()))?;
    let tenants = campaign::tenants(&plant)?;
    let started = Instant::now();
    let worked = campaign::while_working(arguments, &plant, &tenants, documents, |progress, bar| {
        bar.set_message("until the dump");
        let count = arguments.documents() as f64;
        let (at_dump, mut figures) = dump(&plant, progress, count)?;
        bar.set_message("until the loss");
        let (lost_at, at_loss) = lose(&plant, progress)?;
        bar.set_message("restoring");
        let restored = restore(&plant, lost_at, &mut figures)?;
        figures.accepted_after_dump = at_loss.difference(&restored).count();
        let missing: Acknowledged = at_dump.difference(&restored).cloned().collect();
        Ok((figures, missing, lost_at))
    })?;
    let Worked { came_to: (mut figures, missing, lost_at), peak_rss_mb, .. } = worked;
    // Clients send again what was accepted after the dump; of what is there nothing comes twice.
    let again = Progress::default();
    again.allowed.store(usize::MAX, Ordering::Release);
    again.settled.store(usize::MAX / 2, Ordering::Release);
    work::upload(&plant, &tenants, &documents.paths, &again, None)?;
    work::until_quiet(&plant)?;
    figures.settled_secs = lost_at.elapsed().as_secs_f64();
    let mut verdict = Verdict {
        documents: documents.paths.len(),
        faults: 1,
        seed: arguments.seed,
        seconds: started.elapsed().as_secs_f64(),
        fault_free_seconds: Some(kept.seconds),
        embedder: settings.embedder.clone(),
        source: documents.source.clone(),
        peak_rss_mb,
        ..Verdict::default()
    };
    let acknowledged = again.acknowledged.into_inner().unwrap_or_else(PoisonError::into_inner);
    verdict::judge(&plant, &acknowledged, &mut verdict)?;
    verdict.lost += missing.len() as i64;
    verdict
        .differences
        .extend(missing.iter().take(5).map(|(tenant, name)| format!("not in the dump: {name} of {tenant}")));
    campaign::compare(&plant, &tenants, kept, &mut verdict)?;
    let mut searches = searches::Figures::default();
    searches::judge(&plant, &tenants, Vec::new(), &mut searches, &mut verdict)?;
    verdict.tried("documents that had settled when the dump was made", figures.settled_in_dump as usize);
    verdict.tried("jobs that were under way when the dump was made", figures.open_jobs_in_dump as usize);
    verdict.tried("documents accepted after the dump", figures.accepted_after_dump);
    (verdict.restore, verdict.searches) = (Some(figures), Some(searches));
    Ok(verdict)
}

fn acknowledged(progress: &Progress) -> Acknowledged {
    progress.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn wait_until(plant: &Plant, what: &str, condition: impl Fn() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !condition()? {
        let logs = plant.home.logs();
        ensure!(started.elapsed() < PATIENCE, "{what} does not come; logs are in {}", logs.display());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Makes the dump while some documents have settled and others have not; what had been accepted before it began.
fn dump(plant: &Plant, progress: &Progress, count: f64) -> Result<(Acknowledged, Figures)> {
    progress.allowed.store((count * AT_DUMP) as usize, Ordering::Release);
    wait_until(plant, "the moment of the dump", || {
        let settled = progress.settled.load(Ordering::Acquire) as f64;
        Ok(settled >= count * SETTLED && plant.count(work::OPEN)? > 0)
    })?;
    let (accepted, started) = (acknowledged(progress), Instant::now());
    let file = dump_file(plant);
    let url = plant.stack.admin_url(DATABASE)?;
    tool(plant, "pg_dump", &["--format=custom", &format!("--file={}", file.display()), &url])?;
    let dump_bytes = std::fs::metadata(&file)?.len();
    Ok((accepted, Figures { dump_bytes, dump_secs: started.elapsed().as_secs_f64(), ..Figures::default() }))
}

fn dump_file(plant: &Plant) -> std::path::PathBuf {
    plant.home.root().join("docmill.dump")
}

/// One of Postgres' own programs, of the server's version.
fn tool(plant: &Plant, name: &str, arguments: &[&str]) -> Result<()> {
    let program = PartPaths::of(&plant.home)?.postgres_bin.join(name);
    let output = Command::new(&program).args(arguments).output().with_context(|| format!("there is no {name}"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Goes on until more was accepted, then kills everything and removes all but the objects; when that was, and what had
/// been accepted by then.
fn lose(plant: &Plant, progress: &Progress) -> Result<(Instant, Acknowledged)> {
    let accepted = acknowledged(progress).len();
    // The next file to be sent, and some that are on their way when everything ends.
    progress.allowed.fetch_max(accepted + 2 * work::BATCH, Ordering::AcqRel);
    wait_until(plant, "an upload after the dump", || Ok(acknowledged(progress).len() > accepted))?;
    let (lost_at, at_loss) = (Instant::now(), acknowledged(progress));
    for (name, _) in plant.processes {
        plant.kill(name)?;
    }
    for service in SERVICES {
        plant.fell(service, Signal::KILL)?;
    }
    let data = plant.home.data();
    remove(&data.join("postgres"))?;
    empty(&data.join("nats"))?;
    index_files::wipe(plant)?;
    Ok((lost_at, at_loss))
}

fn remove(folder: &Path) -> Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// The steps of the runbook. Returns the documents that the dump held.
fn restore(plant: &Plant, lost_at: Instant, figures: &mut Figures) -> Result<Acknowledged> {
    plant.start_services()?;
    database::create_database(&plant.stack.admin_url("postgres")?, DATABASE, None)?;
    figures.emptied_secs = lost_at.elapsed().as_secs_f64();
    let into = format!("--dbname={}", plant.stack.admin_url(DATABASE)?);
    tool(plant, "pg_restore", &["--exit-on-error", &into, &dump_file(plant).display().to_string()])?;
    figures.restored_secs = lost_at.elapsed().as_secs_f64();
    let applied = plant.stack.migrate()?;
    ensure!(applied.is_empty(), "the restored database lacks the migrations {applied:?}");
    let (restored, deliveries) = plant.runtime.block_on(async {
        let mut owner = plant.owner().await?;
        let sql = "SELECT tenant_id::text, name FROM documents";
        let restored: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&mut owner).await?;
        let deliveries: Vec<String> =
            sqlx::query_scalar("SELECT id::text FROM deliveries").fetch_all(&mut owner).await?;
        anyhow::Ok((restored.into_iter().collect::<Acknowledged>(), deliveries.into_iter().collect::<BTreeSet<_>>()))
    })?;
    figures.settled_in_dump =
        plant.count("SELECT count(*) FROM documents WHERE state NOT IN ('uploading', 'processing')")?;
    figures.open_jobs_in_dump =
        plant.count("SELECT count(*) FROM jobs WHERE state NOT IN ('done', 'dead', 'cancelled')")?;
    // What receivers heard of after the dump belongs to a past that is gone.
    plant.receiver.keep_only(&deliveries);
    for (name, _) in plant.processes {
        plant.run(name, &[])?;
    }
    plant.wait_ready()?;
    figures.ready_secs = lost_at.elapsed().as_secs_f64();
    Ok(restored)
}
