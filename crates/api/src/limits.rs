//! Request limits at the door: a token bucket per principal, turns of a tenant's uploads, and the sizes the router enforces.

use crate::auth::Principal;
use crate::problem::Problem;
use docmill_model::{Code, PrincipalId, TenantId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Declarations and completions of one tenant that write at once. They take turns at the tenant's audit log until they are
/// committed: more of them would only hold connections that others need.
const WRITES_AT_ONCE: usize = 4;
/// Tenants whose turns are remembered before those that upload nothing are forgotten.
const MAX_TENANTS: usize = 10_000;
/// Longest wait for a turn, as long as that for a connection usually.
const PATIENCE: Duration = Duration::from_secs(10);

/// The turns of uploads, per tenant and process.
#[derive(Default)]
pub struct Intake(Mutex<HashMap<TenantId, Arc<Semaphore>>>);

impl Intake {
    /// Waits until fewer than four uploads of the tenant write. It is the caller's turn until the permit is dropped, which
    /// belongs into the transaction: that goes on when the request is given up.
    ///
    /// # Errors
    /// `OVERLOADED` after ten seconds.
    pub async fn turn(&self, tenant: TenantId) -> Result<OwnedSemaphorePermit, Problem> {
        let turns = {
            let mut tenants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if tenants.len() >= MAX_TENANTS {
                // Whoever waits or writes holds a clone.
                tenants.retain(|_, turns| Arc::strong_count(turns) > 1);
            }
            tenants.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(WRITES_AT_ONCE))).clone()
        };
        let message = "the uploads of this tenant before it take too long to be written";
        match tokio::time::timeout(PATIENCE, turns.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Problem::new(Code::Overloaded, message).retry_after(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn uploads_of_a_tenant_take_turns_and_those_of_another_do_not_wait_for_them() {
        let (intake, busy) = (Intake::default(), TenantId::fresh());
        let mut turns = Vec::new();
        for _ in 0..WRITES_AT_ONCE {
            turns.push(intake.turn(busy).await);
        }
        assert!(intake.turn(busy).now_or_never().is_none(), "all turns are taken");
        assert!(intake.turn(TenantId::fresh()).now_or_never().is_some_and(|turn| turn.is_ok()));
        turns.pop();
        assert!(intake.turn(busy).now_or_never().is_some_and(|turn| turn.is_ok()));
    }

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
