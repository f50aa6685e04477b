//! Uploading through the command line client, as fast as the campaign's progress allows, and waiting for the end.

use crate::plant::{Plant, Tenant};
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Files of one call of the client.
pub const BATCH: usize = 16;
/// Documents that may be under way at once: enough for every slot, few enough that faults meet all stages.
const UNDER_WAY: usize = 48;
/// Nothing settles for this long although nothing is broken: stuck.
const STUCK_AFTER: Duration = Duration::from_secs(150);

/// Counts what is not final.
pub const OPEN: &str = "SELECT (SELECT count(*) FROM jobs WHERE state NOT IN ('done', 'dead', 'cancelled'))
                             + (SELECT count(*) FROM documents WHERE state IN ('uploading', 'processing'))";

/// Documents that the API has accepted, as tenant and name.
pub type Acknowledged = BTreeSet<(String, String)>;

/// What the threads of a campaign tell each other.
#[derive(Default)]
pub struct Progress {
    /// Documents that may have been uploaded by now.
    pub allowed: AtomicUsize,
    /// Documents whose upload the API has acknowledged.
    pub acknowledged: Mutex<Acknowledged>,
    /// Documents that have settled.
    pub settled: AtomicUsize,
    /// The campaign ends early.
    pub given_up: AtomicBool,
}

/// Which of the documents each tenant uploads: the first all of them, the next every fourth.
pub const SHARES: [(&str, usize); 2] = [(crate::plant::OPERATOR, 1), ("beside", 4)];

/// Uploads all files in order, for each tenant its share; a batch that fails in part is repeated, which a client may
/// always do.
pub fn upload(
    plant: &Plant,
    tenants: &[Tenant],
    paths: &[PathBuf],
    progress: &Progress,
    rate: Option<f64>,
) -> Result<()> {
    let started = Instant::now();
    let mut sent = 0;
    for batch in paths.chunks(BATCH) {
        loop {
            let due = rate.map_or(usize::MAX, |rate| (started.elapsed().as_secs_f64() * rate) as usize + 1);
            let settled = progress.settled.load(Ordering::Acquire);
            if sent < progress.allowed.load(Ordering::Acquire).min(settled + UNDER_WAY).min(due) {
                break;
            }
            if progress.given_up.load(Ordering::Acquire) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for (tenant, (_, every)) in tenants.iter().zip(SHARES) {
            let share: Vec<&Path> = batch.iter().step_by(every).map(PathBuf::as_path).collect();
            sent += share.len();
            batch_until_accepted(plant, tenant, share, progress)?;
        }
    }
    Ok(())
}

fn batch_until_accepted(plant: &Plant, tenant: &Tenant, mut open: Vec<&Path>, progress: &Progress) -> Result<()> {
    for _ in 0..60 {
        let mut command = plant.command_of(tenant, &["upload", "--json", "--parallel", "4"]);
        let output = command.args(&open).output()?;
        let mut acknowledged = progress.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let told: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            // Deduplicated but uploading: declared by an earlier try whose bytes never arrived.
            if let Some(name) = told["name"].as_str().filter(|_| told["state"] != "uploading") {
                acknowledged.insert((tenant.id.clone(), name.to_owned()));
            }
        }
        let named = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        open.retain(|path| !acknowledged.contains(&(tenant.id.clone(), named(path))));
        drop(acknowledged);
        if open.is_empty() {
            return Ok(());
        }
        if progress.given_up.load(Ordering::Acquire) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    bail!(
        "the API does not take {} in 60 tries",
        open.first().map(|path| path.display().to_string()).unwrap_or_default()
    )
}

/// Counts settled documents until `stop`.
pub fn watch(plant: &Plant, progress: &Progress, stop: &AtomicBool, mut show: impl FnMut(usize)) {
    let sql = "SELECT count(*) FROM documents WHERE state NOT IN ('uploading', 'processing')";
    plant.runtime.block_on(async {
        let mut connection = None;
        while !stop.load(Ordering::Acquire) {
            if connection.is_none() {
                connection = plant.owner().await.ok();
            }
            if let Some(open) = &mut connection {
                match sqlx::query_scalar::<_, i64>(sql).fetch_one(open).await {
                    Ok(count) => {
                        progress.settled.store(count as usize, Ordering::Release);
                        show(count as usize);
                    }
                    Err(_) => connection = None,
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
}

/// Waits until no job is open; false when nothing moves any more.
pub fn until_quiet(plant: &Plant) -> Result<bool> {
    let (mut last, mut moved) = (i64::MAX, Instant::now());
    loop {
        let now = plant.count(OPEN)?;
        if now == 0 {
            return Ok(true);
        }
        if now < last {
            (last, moved) = (now, Instant::now());
        }
        if moved.elapsed() > STUCK_AFTER {
            return Ok(false);
        }
        plant.revive(&[])?;
        std::thread::sleep(Duration::from_millis(200));
    }
}
