//! Uploading through the command line client, as fast as the campaign's progress allows, and waiting for the end.

use crate::plant::{Plant, Tenant};
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::ops::Range;
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
    /// So many documents of the list may have been uploaded by now.
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

/// How uploads keep step with what else is done.
pub struct Pace {
    pub documents: usize,
    pub steps: usize,
    /// Documents uploaded ahead of the first step.
    pub ahead: usize,
    /// Documents kept back for steps beyond the last.
    pub spare: usize,
}

impl Pace {
    /// How many of the documents may have been uploaded at a step, from 1: where there are enough, so few that each later
    /// step finds another one.
    pub fn at(&self, step: usize) -> usize {
        let due = self.documents * step.min(self.steps) / self.steps.max(1);
        let steps = self.steps + self.spare;
        let most = if self.documents > steps { self.documents - steps.saturating_sub(step) } else { due + 1 };
        most.min(due + self.ahead)
    }
}

/// Uploads all files in order, for each tenant its share, as many at once as are allowed; a batch that fails in part is
/// repeated, which a client may always do.
pub fn upload(
    plant: &Plant,
    tenants: &[Tenant],
    paths: &[PathBuf],
    progress: &Progress,
    rate: Option<f64>,
) -> Result<()> {
    let started = Instant::now();
    let (mut sent, mut next) = (0, 0);
    while next < paths.len() {
        let allowed = loop {
            let due = rate.map_or(usize::MAX, |rate| (started.elapsed().as_secs_f64() * rate) as usize + 1);
            let settled = progress.settled.load(Ordering::Acquire);
            let allowed = progress.allowed.load(Ordering::Acquire);
            if next < allowed && sent < due.min(settled + UNDER_WAY) {
                break allowed;
            }
            if progress.given_up.load(Ordering::Acquire) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let batch = next..paths.len().min(next + BATCH.min(allowed - next));
        for (tenant, (_, every)) in tenants.iter().zip(SHARES) {
            let share: Vec<&Path> = share(batch.clone(), every).map(|place| paths[place].as_path()).collect();
            sent += share.len();
            batch_until_accepted(plant, tenant, share, progress)?;
        }
        next = batch.end;
    }
    Ok(())
}

/// The places in the list of those files of a batch that a tenant uploads which takes every `every`th of the whole list.
fn share(batch: Range<usize>, every: usize) -> impl Iterator<Item = usize> {
    batch.filter(move |place| place.is_multiple_of(every))
}

fn batch_until_accepted(plant: &Plant, tenant: &Tenant, mut open: Vec<&Path>, progress: &Progress) -> Result<()> {
    if open.is_empty() {
        return Ok(());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_keep_step_and_leave_one_for_each_step_to_come() {
        let pace = Pace { documents: 40, steps: 24, ahead: 16, spare: 4 };
        let allowed: Vec<usize> = (1..=28).map(|step| pace.at(step)).collect();
        assert_eq!((allowed[0], allowed[11], allowed[23], allowed[27]), (13, 24, 36, 40), "{allowed:?}");
        assert!(allowed.is_sorted_by(|one, next| one < next), "each step finds another one: {allowed:?}");
        let soak = Pace { documents: 1_000, steps: 20, ahead: 16, spare: 4 };
        assert_eq!((soak.at(1), soak.at(10), soak.at(20)), (66, 516, 996), "in step, not behind");
        let few = Pace { documents: 4, steps: 100, ahead: 8, spare: 0 };
        assert_eq!((few.at(1), few.at(50), few.at(100)), (1, 3, 5), "too few for each step: spread over all");
    }

    #[test]
    fn a_tenant_takes_the_same_files_however_large_the_batches_are() {
        let whole: Vec<usize> = share(0..40, 4).collect();
        let batches = [0..16, 16..17, 17..18, 18..34, 34..40];
        let pieces: Vec<usize> = batches.into_iter().flat_map(|batch| share(batch, 4)).collect();
        assert_eq!(pieces, whole);
        assert_eq!(share(0..16, 4).count(), 4);
    }
}
