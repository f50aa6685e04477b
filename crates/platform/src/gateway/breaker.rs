//! Leaves a failing provider alone: after five failures in a row nothing is sent for ten seconds, then one request finds
//! out whether it is back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const FAILURES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
    probing: bool,
}

/// The breaker of one model.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

impl Breaker {
    /// True when a request may be sent; its end must be told to [`Self::succeeded`], [`Self::failed`] or [`Self::released`].
    pub(super) fn admits(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let Some(until) = state.open_until else { return true };
        if now < until || state.probing {
            return false;
        }
        state.probing = true;
        true
    }

    /// The provider answered.
    pub(super) fn succeeded(&self) {
        *self.lock() = State::default();
    }

    /// The provider failed.
    pub(super) fn failed(&self, now: Instant) {
        let mut state = self.lock();
        state.failures += 1;
        state.probing = false;
        if state.failures >= FAILURES {
            state.open_until = Some(now + PAUSE);
        }
    }

    /// The request said nothing about the provider's health.
    pub(super) fn released(&self) {
        self.lock().probing = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_open_it_and_one_probe_after_ten_seconds_decides() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..4 {
            breaker.failed(start);
        }
        assert!(breaker.admits(start));
        breaker.succeeded();
        for _ in 0..5 {
            assert!(breaker.admits(start));
            breaker.failed(start);
        }
        let later = |secs: f64| start + Duration::from_secs_f64(secs);
        assert!(!breaker.admits(start) && !breaker.admits(later(9.9)));
        assert!(breaker.admits(later(10.1)));
        assert!(!breaker.admits(later(10.2)), "one probe at a time");
        breaker.failed(later(11.0));
        assert!(!breaker.admits(later(20.9)));
        assert!(breaker.admits(later(21.1)));
        breaker.released();
        assert!(breaker.admits(later(21.2)), "a probe that said nothing is followed by another");
        breaker.succeeded();
        assert!(breaker.admits(later(21.3)) && breaker.admits(later(21.3)));
    }
}
