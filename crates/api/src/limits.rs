//! Request limits at the door: a token bucket per principal, and the sizes the router enforces.

use crate::auth::Principal;
use crate::problem::Problem;
use docmill_model::{Code, PrincipalId};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Largest JSON body in bytes.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// Longest handling of one request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests handled at once before `OVERLOADED`.
pub const MAX_CONCURRENT_REQUESTS: usize = 512;

/// Requests per second and burst allowed to one principal.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Sustained requests per second.
    pub per_sec: f64,
    /// Burst.
    pub burst: f64,
}

/// The buckets. In memory per process: behind N processes a principal gets at most N times the rate.
pub struct Limits {
    rate: Rate,
    buckets: Mutex<HashMap<PrincipalId, (f64, Instant)>>,
}

impl Limits {
    /// With one rate for every principal.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::new(HashMap::new()) }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// `RATE_LIMITED` with `Retry-After` when the bucket is empty.
    pub fn check(&self, principal: &Principal) -> Result<(), Problem> {
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if buckets.len() > 100_000 {
            buckets.retain(|_, (_, seen)| now.duration_since(*seen) < Duration::from_secs(60));
        }
        let (tokens, seen) = buckets.entry(principal.principal_id).or_insert((self.rate.burst, now));
        let refilled = *tokens + now.duration_since(*seen).as_secs_f64() * self.rate.per_sec;
        *tokens = refilled.min(self.rate.burst);
        *seen = now;
        if *tokens >= 1.0 {
            *tokens -= 1.0;
            return Ok(());
        }
        let wait = ((1.0 - *tokens) / self.rate.per_sec).ceil() as u32;
        let message = format!("more than {} requests per second", self.rate.per_sec);
        Err(Problem::new(Code::RateLimited, message).retry_after(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal() -> Principal {
        Principal {
            tenant_id: docmill_model::TenantId::fresh(),
            principal_id: PrincipalId::fresh(),
            key_id: docmill_model::KeyId::fresh(),
            scopes: Vec::new(),
            labels: Vec::new(),
        }
    }

    #[test]
    fn a_burst_passes_and_the_next_request_is_told_to_wait() {
        let limits = Limits::new(Rate { per_sec: 0.5, burst: 3.0 });
        let (one, other) = (principal(), principal());
        for _ in 0..3 {
            assert!(limits.check(&one).is_ok());
        }
        let refused = limits.check(&one).expect_err("the bucket is empty");
        assert_eq!(refused.failure().code, Code::RateLimited);
        assert!(limits.check(&other).is_ok(), "one principal's burst does not touch another");
    }
}
