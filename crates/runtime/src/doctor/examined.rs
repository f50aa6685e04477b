//! What an examination came to, and how a loop that examines again and again tells it.

use super::{SHOWN_LIMIT, Violation};
use docmill_model::Failure;
use tokio::time::Instant;

/// What an examination came to: each invariant that it is about was either judged or is unfinished.
#[derive(Debug, Default)]
pub struct Examined {
    /// What breaks an invariant, at most 100 of each.
    pub violations: Vec<Violation>,
    /// Names of the invariants that were judged: one without a violation holds.
    pub judged: Vec<&'static str>,
    /// Names of those that the time did not suffice for, or whose store did not answer: what they say is not known.
    pub unfinished: Vec<&'static str>,
    /// Of those that take turns at being looked at first, how many were judged.
    pub in_turn: usize,
}

impl Examined {
    /// Judges an invariant by a look that may take until a moment. One that fails or does not end by then judges nothing, and
    /// after that moment none is begun. Why a look failed is in the log.
    pub async fn judge<F>(&mut self, name: &'static str, until: Instant, look: F)
    where
        F: Future<Output = Result<Vec<Violation>, Failure>>,
    {
        // A look that is too late would be polled once, which sends its first query.
        if Instant::now() < until {
            match tokio::time::timeout_at(until, look).await {
                Ok(Ok(violations)) => return self.enter(name, violations),
                Ok(Err(failure)) => {
                    tracing::warn!(invariant = name, code = %failure.code, "an invariant was not judged: {}", failure.message);
                }
                Err(_) => {}
            }
        }
        self.unfinished.push(name);
    }

    /// Enters what breaks an invariant that was judged.
    pub(super) fn enter(&mut self, name: &'static str, violations: Vec<Violation>) {
        self.judged.push(name);
        self.violations.extend(violations.into_iter().take(SHOWN_LIMIT));
    }

    /// Adds what another examination, of other invariants, came to.
    pub fn merge(&mut self, other: Self) {
        self.violations.extend(other.violations);
        self.judged.extend(other.judged);
        self.unfinished.extend(other.unfinished);
        self.in_turn += other.in_turn;
    }

    /// Tells how many violations there are of each invariant that was judged as the gauge `docmill_invariant_violations`, where
    /// 0 says that it holds; and the log which they are, and what was not judged. For loops that judge again: a gauge stands
    /// until it is set anew.
    pub fn publish(&self) {
        for name in &self.judged {
            let count = self.violations.iter().filter(|violation| violation.invariant == *name).count();
            metrics::gauge!("docmill_invariant_violations", "invariant" => *name).set(count as f64);
        }
        for violation in &self.violations {
            tracing::error!(invariant = violation.invariant, subject = violation.subject, "an invariant is violated");
        }
        if !self.unfinished.is_empty() {
            tracing::warn!(invariants = self.unfinished.join(", "), "invariants were not judged");
        }
    }
}
