//! Named places where a test makes the process die or freeze.
//!
//! Compiled always, armed only by tests and campaigns; unarmed, a point costs one atomic load. A point is met at a
//! place: a stage, or the file and line of a transaction. The crash-point sweep first records which points a run
//! meets, then dies once at each of them and asks the invariants.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Every point, in the order a job meets them.
pub const POINTS: &[&str] = &[
    // A request: the copy to the accepted key.
    "copy.before",
    "copy.after",
    // A job, by stage.
    "claim.before",
    "claim.after",
    "run.before",
    "artifact.before",
    "artifact.intended",
    "artifact.put",
    "artifact.after",
    "run.after",
    "prepare.after",
    "commit.before",
    "commit.inside",
    "commit.after",
    "ack.before",
    "ack.after",
    // Any transaction of a tenant, by file and line: before and after its commit.
    "transaction.before",
    "transaction.after",
    // Deletions and collections: what is condemned, by kind, around the removal of an object.
    "remove.before",
    "remove.after",
    // The relay: job events, then settled runs.
    "publish.before",
    "publish.after",
    "publish.marked",
    "settled.before",
    "settled.after",
    "settled.marked",
    // The lexical index.
    "index.before",
    "index.after",
    "index.reported",
    // Timers.
    "reconcile.before",
    "reconcile.after",
    "deliver.before",
    "deliver.after",
];

/// What happens at an armed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process ends at once, without unwinding.
    Abort,
    /// The task never goes on: a frozen worker, as seen from outside.
    Halt,
    /// The task unwinds and lets go of its connection, as if its process had died: for a kill inside a test's process.
    Panic,
}

#[derive(Debug)]
struct Armed {
    point: String,
    place: Option<String>,
    skip: u32,
    action: Action,
}

#[derive(Debug, Default)]
struct Inner {
    armed: AtomicBool,
    points: Mutex<Vec<Armed>>,
    record: Mutex<Option<Record>>,
}

#[derive(Debug)]
struct Record {
    path: PathBuf,
    seen: BTreeSet<String>,
}

/// The armed points of one process. Cheap to clone; clones share what is armed.
#[derive(Clone, Debug, Default)]
pub struct Failpoints {
    inner: Arc<Inner>,
    place: Arc<str>,
}

impl Failpoints {
    /// Arms a point: `commit.after`, `commit.after@embed` (that place only), `commit.after@embed#3` (the third time).
    /// It fires once. False when there is no such point.
    #[must_use]
    pub fn arm(&self, spec: &str, action: Action) -> bool {
        let (name, times) = spec.split_once('#').map_or((spec, Some(1)), |(name, n)| (name, n.parse::<u32>().ok()));
        let (point, place) =
            name.split_once('@').map_or((name, None), |(point, place)| (point, Some(place.to_owned())));
        let (Some(times), true) = (times, POINTS.contains(&point)) else { return false };
        let armed = Armed { point: point.to_owned(), place, skip: times.saturating_sub(1), action };
        self.inner.points.lock().unwrap_or_else(PoisonError::into_inner).push(armed);
        self.inner.armed.store(true, Ordering::Release);
        true
    }

    /// From now on every point that is met is written to `path`, once for each place, as `point@place`.
    pub fn record(&self, path: PathBuf) {
        *self.inner.record.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Record { path, seen: BTreeSet::new() });
        self.inner.armed.store(true, Ordering::Release);
    }

    /// The same points for a caller that is always at `place`.
    #[must_use]
    pub fn at(&self, place: &str) -> Self {
        Self { inner: self.inner.clone(), place: place.into() }
    }

    /// Dies or freezes here, if armed. An empty `place` is that of [`Self::at`].
    pub async fn hit(&self, point: &str, place: &str) {
        if !self.inner.armed.load(Ordering::Acquire) {
            return;
        }
        let place = if place.is_empty() { &*self.place } else { place };
        self.note(point, place);
        match self.take(point, place) {
            Some(Action::Abort) => std::process::abort(),
            Some(Action::Halt) => std::future::pending().await,
            #[allow(clippy::panic)]
            Some(Action::Panic) => panic!("died at {point}@{place}"),
            None => {}
        }
    }

    fn take(&self, point: &str, place: &str) -> Option<Action> {
        let mut points = self.inner.points.lock().unwrap_or_else(PoisonError::into_inner);
        let index = points
            .iter()
            .position(|armed| armed.point == point && armed.place.as_deref().is_none_or(|wanted| wanted == place))?;
        if points[index].skip > 0 {
            points[index].skip -= 1;
            return None;
        }
        Some(points.remove(index).action)
    }

    fn note(&self, point: &str, place: &str) {
        let mut record = self.inner.record.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = record.as_mut() else { return };
        if record.seen.insert(format!("{point}@{place}")) {
            let file = std::fs::File::options().create(true).append(true).open(&record.path);
            if let Err(error) = file.and_then(|mut file| writeln!(file, "{point}@{place}")) {
                tracing::warn!(%error, "a point that was met cannot be recorded");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_fires_once_at_its_place_and_count() {
        let failpoints = Failpoints::default();
        assert!(failpoints.arm("commit.after@embed#2", Action::Halt));
        assert!(!failpoints.arm("nowhere", Action::Halt));
        assert_eq!(failpoints.take("commit.after", "ingest"), None);
        assert_eq!(failpoints.take("commit.after", "embed"), None, "the first time passes");
        assert_eq!(failpoints.take("commit.after", "embed"), Some(Action::Halt));
        assert_eq!(failpoints.take("commit.after", "embed"), None, "fires once");
    }
}
