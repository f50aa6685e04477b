//! Named places where a test makes the process die or freeze.
//!
//! Compiled always, armed only through [`crate::engine::EngineConfig`]; unarmed, a point costs one atomic load. The
//! crash-point sweep dies once at every point of every stage and then asks the invariants.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Every point, in the order a job meets them. `relay.*` and `reconcile.*` have no stage of their own.
pub const POINTS: &[&str] = &[
    "claim.before",
    "claim.after",
    "run.before",
    "artifact.before",
    "artifact.after",
    "run.after",
    "prepare.after",
    "commit.before",
    "commit.inside",
    "commit.after",
    "ack.before",
    "ack.after",
    "publish.before",
    "publish.after",
    "publish.marked",
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
}

#[derive(Debug)]
struct Armed {
    point: String,
    stage: Option<String>,
    skip: u32,
    action: Action,
}

#[derive(Debug, Default)]
struct Inner {
    armed: AtomicBool,
    points: Mutex<Vec<Armed>>,
}

/// The armed points of one engine.
#[derive(Clone, Debug, Default)]
pub struct Failpoints(Arc<Inner>);

impl Failpoints {
    /// Arms a point: `commit.after`, `commit.after@embed` (that stage only), `commit.after@embed#3` (the third time).
    /// It fires once. False when there is no such point.
    pub fn arm(&self, spec: &str, action: Action) -> bool {
        let (place, times) = spec.split_once('#').map_or((spec, Some(1)), |(place, n)| (place, n.parse::<u32>().ok()));
        let (point, stage) =
            place.split_once('@').map_or((place, None), |(point, stage)| (point, Some(stage.to_owned())));
        let (Some(times), true) = (times, POINTS.contains(&point)) else { return false };
        let armed = Armed { point: point.to_owned(), stage, skip: times.saturating_sub(1), action };
        self.0.points.lock().unwrap_or_else(PoisonError::into_inner).push(armed);
        self.0.armed.store(true, Ordering::Release);
        true
    }

    /// Dies or freezes here, if armed.
    pub async fn hit(&self, point: &str, stage: &str) {
        if !self.0.armed.load(Ordering::Acquire) {
            return;
        }
        match self.take(point, stage) {
            Some(Action::Abort) => std::process::abort(),
            Some(Action::Halt) => std::future::pending().await,
            None => {}
        }
    }

    fn take(&self, point: &str, stage: &str) -> Option<Action> {
        let mut points = self.0.points.lock().unwrap_or_else(PoisonError::into_inner);
        let index = points
            .iter()
            .position(|armed| armed.point == point && armed.stage.as_deref().is_none_or(|s| s == stage))?;
        if points[index].skip > 0 {
            points[index].skip -= 1;
            return None;
        }
        Some(points.remove(index).action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_fires_once_at_its_stage_and_count() {
        let failpoints = Failpoints::default();
        assert!(failpoints.arm("commit.after@embed#2", Action::Halt));
        assert!(!failpoints.arm("nowhere", Action::Halt));
        assert_eq!(failpoints.take("commit.after", "ingest"), None);
        assert_eq!(failpoints.take("commit.after", "embed"), None, "the first time passes");
        assert_eq!(failpoints.take("commit.after", "embed"), Some(Action::Halt));
        assert_eq!(failpoints.take("commit.after", "embed"), None, "fires once");
    }
}
