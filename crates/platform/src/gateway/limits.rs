//! How many requests one provider is sent: at once, and per minute.

use super::config::ProviderLimits;
use docmill_model::{Code, Failure};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

/// The limits of one provider, shared by its models.
pub(super) struct Limiter {
    slots: Arc<Semaphore>,
    pause: Duration,
    /// When the next request may start.
    next: Mutex<Instant>,
}

impl Limiter {
    pub(super) fn new(limits: ProviderLimits) -> Self {
        let pause = match limits.requests_per_minute {
            0 => Duration::ZERO,
            per_minute => Duration::from_secs(60) / per_minute,
        };
        Self { slots: Arc::new(Semaphore::new(limits.concurrency.max(1))), pause, next: Mutex::new(Instant::now()) }
    }

    /// Waits for a place, which is given back when it is dropped.
    ///
    /// # Errors
    /// `OVERLOADED` when there is none before `deadline`.
    pub(super) async fn admit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Failure> {
        let full = || Failure::new(Code::Overloaded, "as many calls to the model provider as allowed are under way");
        let Ok(Ok(slot)) = timeout_at(deadline, Arc::clone(&self.slots).acquire_owned()).await else {
            return Err(full());
        };
        let start = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*next).max(Instant::now());
            if start >= deadline {
                return Err(full());
            }
            *next = start + self.pause;
            start
        };
        sleep_until(start).await;
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn requests_keep_their_distance_and_their_number() {
        let limiter = Limiter::new(ProviderLimits { concurrency: 1, requests_per_minute: 600 });
        let started = Instant::now();
        let soon = started + Duration::from_secs(60);
        for _ in 0..3 {
            drop(limiter.admit(soon).await.unwrap());
        }
        assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
        let held = limiter.admit(soon).await.unwrap();
        let refused = limiter.admit(Instant::now() + Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(refused.code, Code::Overloaded);
        drop(held);
        assert!(limiter.admit(soon).await.is_ok());
        assert!(limiter.admit(Instant::now()).await.is_err(), "the next start lies past the deadline");
    }
}
