//! The job state machine, pure: what may be claimed, and what an attempt's end means.
//!
//! No IO and no clock: SQL applies the verdicts of this file under a fence. Two counters decide about giving up:
//! `failed` counts typed errors, `lost` counts leases that ran out. A dependency that is down burns neither: its
//! failures say nothing about the document.

pub mod graph;

use crate::stage::Policy;
use docmill_model::{Code, ErrorKind, Failure};
use std::time::Duration;

/// Longest delay between two attempts of a failing job.
pub const BACKOFF_LIMIT: Duration = Duration::from_secs(600);
/// Longest delay while a dependency is down: short, so that work resumes soon after it is back.
pub const OUTAGE_BACKOFF_LIMIT: Duration = Duration::from_secs(20);
/// From this many lost leases on, a job runs alone in its process.
pub const ALONE_FROM_LOST: i32 = 3;
/// How long work held for budget waits before it asks again by itself.
pub const BUDGET_RECHECK: Duration = Duration::from_secs(300);

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$each])* $variant,)+ }
        impl $name {
            /// Every state.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];
            /// The stored spelling.
            #[must_use]
            pub fn as_str(self) -> &'static str { match self { $($name::$variant => $text,)+ } }
            /// From the stored spelling.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> { match text { $($text => Some($name::$variant),)+ _ => None } }
        }
    };
}

states! {
    /// Where a job is.
    JobState {
        /// Waits for predecessors, or for settlement.
        Blocked "blocked",
        /// May be claimed.
        Ready "ready",
        /// A worker holds it.
        Leased "leased",
        /// A timer runs.
        Waiting "waiting",
        /// Waits for a person or a budget.
        Held "held",
        /// Completed.
        Done "done",
        /// Given up; a dead letter.
        Dead "dead",
        /// Will not run: its run was cancelled, or a predecessor is dead.
        Cancelled "cancelled",
    }
}

states! {
    /// Where a run is.
    RunState {
        /// At least one job is not final.
        Running "running",
        /// Every job is done.
        Done "done",
        /// Every required job is done, an optional one is not.
        Partial "partial",
        /// A required job is dead.
        Failed "failed",
        /// An operator or a deletion stopped it.
        Cancelled "cancelled",
    }
}

impl JobState {
    /// True for states nothing leaves.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Done | JobState::Dead | JobState::Cancelled)
    }
}

/// What a claim looks at.
#[derive(Clone, Copy, Debug)]
pub struct Claimable {
    /// The job's state.
    pub job: JobState,
    /// Its run's state.
    pub run: RunState,
    /// True for the stage that is released by settlement.
    pub on_settled: bool,
    /// Lost leases so far.
    pub lost: i32,
    /// Its stage, pipeline or tenant is paused.
    pub paused: bool,
}

/// What to do with an event about a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Take it; alone in this process if it has killed workers before.
    Take {
        /// No other job may run beside it.
        alone: bool,
    },
    /// Put it aside until the pause is lifted.
    Hold,
    /// Nothing to do. Whatever makes the job claimable later writes a new event, so this one is finished.
    Skip,
}

/// Whether an event's job may be claimed.
#[must_use]
pub fn claim(job: &Claimable) -> Claim {
    if job.job != JobState::Ready || (job.run != RunState::Running) != job.on_settled {
        return Claim::Skip;
    }
    if job.paused {
        return Claim::Hold;
    }
    Claim::Take { alone: job.lost >= ALONE_FROM_LOST }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With a manifest.
    Done,
    /// With a typed failure.
    Failed(Failure),
    /// The lease ran out: the worker died, or was cut off.
    Lost,
    /// The worker shuts down and gives the job back.
    Released,
    /// The stage asks to be called again later.
    Snoozed(Duration),
}

impl Outcome {
    /// The stored spelling of the attempt's outcome.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Failed(_) => "failed",
            Outcome::Lost => "lost",
            Outcome::Released => "released",
            Outcome::Snoozed(_) => "snoozed",
        }
    }
}

/// What an attempt found when it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Typed failures so far.
    pub failed: i32,
    /// Lost leases so far.
    pub lost: i32,
    /// Attempts so far, this one included (the fence).
    pub attempts: i64,
}

/// What becomes of the job.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Completed.
    Done,
    /// Claimable at once.
    Ready,
    /// Claimable after a delay.
    Wait(Duration),
    /// Held for budget; asks again by itself after [`BUDGET_RECHECK`].
    HoldBudget,
    /// Given up.
    Dead,
}

impl Next {
    /// The state of the job.
    #[must_use]
    pub fn state(&self) -> JobState {
        match self {
            Next::Done => JobState::Done,
            Next::Ready => JobState::Ready,
            Next::Wait(_) => JobState::Waiting,
            Next::HoldBudget => JobState::Held,
            Next::Dead => JobState::Dead,
        }
    }
}

/// The verdict about one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Settlement {
    /// What becomes of the job.
    pub next: Next,
    /// Its counters from now on.
    pub failed: i32,
    /// Its counters from now on.
    pub lost: i32,
    /// What to remember as the job's failure; `None` clears it.
    pub failure: Option<Failure>,
}

/// Decides what an attempt's end means. `jitter` is a random number in 0..1.
#[must_use]
pub fn settle(counters: Counters, policy: &Policy, outcome: &Outcome, jitter: f64) -> Settlement {
    let Counters { failed, lost, attempts } = counters;
    match outcome {
        Outcome::Done => Settlement { next: Next::Done, failed, lost, failure: None },
        Outcome::Released => Settlement { next: Next::Ready, failed, lost, failure: None },
        Outcome::Snoozed(delay) => {
            Settlement { next: Next::Wait((*delay).min(BACKOFF_LIMIT)), failed, lost, failure: None }
        }
        Outcome::Lost => {
            let lost = lost + 1;
            if lost >= policy.max_lost {
                let message = "the workers that ran this job died or were cut off, each time";
                let failure = Failure::limit(Code::WorkerLost, message, policy.max_lost as u64, lost as u64);
                return Settlement { next: Next::Dead, failed, lost, failure: Some(failure) };
            }
            let failure = Failure::new(Code::WorkerLost, "the worker that ran this job died or was cut off");
            let next = if lost < ALONE_FROM_LOST {
                Next::Ready
            } else {
                Next::Wait(backoff(policy.backoff, i64::from(lost - ALONE_FROM_LOST), OUTAGE_BACKOFF_LIMIT, jitter))
            };
            Settlement { next, failed, lost, failure: Some(failure) }
        }
        Outcome::Failed(failure) => {
            let (next, failed) = after_failure(failure, failed, attempts, policy, jitter);
            Settlement { next, failed, lost, failure: Some(failure.clone()) }
        }
    }
}

fn after_failure(failure: &Failure, failed: i32, attempts: i64, policy: &Policy, jitter: f64) -> (Next, i32) {
    if failure.code == Code::BudgetExceeded {
        return (Next::HoldBudget, failed);
    }
    if is_outage(failure.code) {
        return (Next::Wait(backoff(policy.backoff, attempts - 1, OUTAGE_BACKOFF_LIMIT, jitter)), failed);
    }
    let failed = failed + 1;
    if failure.code.kind() == ErrorKind::Permanent || failed >= policy.max_failed {
        return (Next::Dead, failed);
    }
    (Next::Wait(backoff(policy.backoff, i64::from(failed - 1), BACKOFF_LIMIT, jitter)), failed)
}

/// Codes that say a shared dependency is down, whatever the document.
#[must_use]
pub fn is_outage(code: Code) -> bool {
    matches!(code, Code::StoreUnavailable | Code::DatabaseUnavailable | Code::BrokerUnavailable)
}

/// `first × 2^steps`, plus up to a quarter, never above `limit`.
fn backoff(first: Duration, steps: i64, limit: Duration, jitter: f64) -> Duration {
    let factor = 2f64.powi(steps.clamp(0, 20) as i32) * (1.0 + 0.25 * jitter.clamp(0.0, 1.0));
    Duration::from_secs_f64((first.as_secs_f64() * factor).min(limit.as_secs_f64()))
}

#[cfg(test)]
mod tests;
