//! The graph of one run, pure: what one job's end means for the others and for the run.
//!
//! The caller holds the run's row lock, loads the jobs, lets this file decide, and writes the changes. Blocked jobs
//! exist from the moment the run starts, so the order in which predecessors end cannot matter.

use super::{JobState, RunState};
use docmill_model::JobId;
use std::collections::BTreeSet;

/// One job of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphJob {
    /// Identity.
    pub id: JobId,
    /// State.
    pub state: JobState,
    /// Its failure fails the run.
    pub required: bool,
    /// Released by settlement; keeps no run open.
    pub on_settled: bool,
    /// Predecessors that are not final yet.
    pub pending: i32,
    /// Jobs that wait for this one.
    pub successors: Vec<JobId>,
    /// The code of its failure.
    pub code: Option<String>,
}

/// One run with its jobs, in pipeline order.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// The run.
    pub run: RunState,
    /// Its jobs.
    pub jobs: Vec<GraphJob>,
}

/// What changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Jobs whose state or pending count is another now.
    pub jobs: BTreeSet<JobId>,
    /// The run's outcome and code, if it settled.
    pub settled: Option<(RunState, Option<String>)>,
}

impl Graph {
    /// The job of that id.
    #[must_use]
    pub fn job(&self, id: JobId) -> Option<&GraphJob> {
        self.jobs.iter().find(|job| job.id == id)
    }

    fn job_mut(&mut self, id: JobId) -> Option<&mut GraphJob> {
        self.jobs.iter_mut().find(|job| job.id == id)
    }

    /// A job reached a final state: releases successors, or cancels them if it is not done, and settles the run when
    /// it was the last. Does nothing for a job that is final already.
    pub fn finish(&mut self, id: JobId, state: JobState, code: Option<&str>) -> Changes {
        let mut changes = Changes::default();
        if !state.is_final() || self.job(id).is_none_or(|job| job.state.is_final()) {
            return changes;
        }
        self.end(id, state, code, &mut changes);
        self.settle(&mut changes);
        changes
    }

    /// Stops everything that has not ended; the run settles as cancelled. Does nothing for a settled run.
    pub fn cancel(&mut self, code: &str) -> Changes {
        let mut changes = Changes::default();
        if self.run != RunState::Running {
            return changes;
        }
        for index in 0..self.jobs.len() {
            let job = &mut self.jobs[index];
            if !job.on_settled && !job.state.is_final() {
                job.state = JobState::Cancelled;
                job.code = Some(code.to_owned());
                changes.jobs.insert(job.id);
            }
        }
        self.close(RunState::Cancelled, Some(code.to_owned()), &mut changes);
        changes
    }

    /// Makes everything follow from the states of the jobs again: pending counts, what waits for nothing any more, and
    /// the outcome. Of a settled run it stops what is still open, with `code`, and releases what settlement releases.
    /// Does nothing to a graph nobody has tampered with, but settles one whose jobs have all ended.
    pub fn mend(&mut self, code: &str) -> Changes {
        let mut changes = Changes::default();
        if self.run == RunState::Running {
            self.recount(&mut changes);
            self.settle(&mut changes);
            return changes;
        }
        for job in &mut self.jobs {
            if !job.on_settled && !job.state.is_final() {
                job.state = JobState::Cancelled;
                job.code = Some(code.to_owned());
                changes.jobs.insert(job.id);
            } else if job.on_settled && job.state == JobState::Blocked {
                job.state = JobState::Ready;
                job.pending = 0;
                changes.jobs.insert(job.id);
            }
        }
        changes
    }

    fn recount(&mut self, changes: &mut Changes) {
        let open: Vec<i32> = (self.jobs.iter())
            .map(|job| {
                self.jobs.iter().filter(|p| !p.state.is_final() && p.successors.contains(&job.id)).count() as i32
            })
            .collect();
        for (job, open) in self.jobs.iter_mut().zip(open) {
            let off = job.state == JobState::Blocked && !job.on_settled && (job.pending != open || open == 0);
            if off {
                job.pending = open;
                job.state = if open == 0 { JobState::Ready } else { JobState::Blocked };
                changes.jobs.insert(job.id);
            }
        }
    }

    fn end(&mut self, id: JobId, state: JobState, code: Option<&str>, changes: &mut Changes) {
        let mut open = vec![(id, state)];
        while let Some((id, state)) = open.pop() {
            let Some(job) = self.job_mut(id) else { continue };
            if job.state.is_final() {
                continue;
            }
            job.state = state;
            if state != JobState::Done {
                job.code = code.map(str::to_owned);
            }
            changes.jobs.insert(id);
            for next in job.successors.clone() {
                let Some(successor) = self.job_mut(next) else { continue };
                if state != JobState::Done {
                    open.push((next, JobState::Cancelled));
                } else if successor.state == JobState::Blocked {
                    successor.pending = (successor.pending - 1).max(0);
                    if successor.pending == 0 {
                        successor.state = JobState::Ready;
                    }
                    changes.jobs.insert(next);
                }
            }
        }
    }

    fn settle(&mut self, changes: &mut Changes) {
        let work = || self.jobs.iter().filter(|job| !job.on_settled);
        if self.run != RunState::Running || work().any(|job| !job.state.is_final()) {
            return;
        }
        let unfinished =
            |required: bool| work().find(move |job| job.required == required && job.state != JobState::Done);
        let (state, code) = match (unfinished(true), unfinished(false)) {
            (Some(job), _) => (RunState::Failed, job.code.clone()),
            (None, Some(job)) => (RunState::Partial, job.code.clone()),
            (None, None) => (RunState::Done, None),
        };
        self.close(state, code, changes);
    }

    fn close(&mut self, state: RunState, code: Option<String>, changes: &mut Changes) {
        self.run = state;
        changes.settled = Some((state, code));
        for job in self.jobs.iter_mut().filter(|job| job.on_settled && job.state == JobState::Blocked) {
            job.state = JobState::Ready;
            job.pending = 0;
            changes.jobs.insert(job.id);
        }
    }
}

#[cfg(test)]
mod tests;
