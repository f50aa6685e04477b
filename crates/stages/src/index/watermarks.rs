//! Waiting until the serving nodes have applied the feed: one look at their watermarks serves all jobs of a tenant that
//! wait in this process, so that the looks do not grow with the slots.

use docmill_model::TenantId;
use docmill_runtime::{JobContext, StageError};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at the watermarks of a tenant.
const POLL: Duration = Duration::from_millis(20);
/// Longest wait that occupies a worker; then the job is put back for a moment.
const PATIENCE: Duration = Duration::from_secs(15);
/// Looks of tenants nobody waits for are forgotten after this long.
const KEPT: Duration = Duration::from_secs(60);

/// What this process last saw of each tenant's watermarks.
#[derive(Default)]
pub(super) struct Watermarks(Mutex<HashMap<TenantId, Look>>);

struct Look {
    /// When somebody looked last, whether or not there was an answer.
    asked: Instant,
    /// The last answer: when it was asked for, and what every live node has applied.
    seen: Option<(Instant, i64)>,
}

impl Watermarks {
    /// Waits until every live node has applied the feed up to `seq`. A node that is late loses its lease and is not waited
    /// for.
    pub async fn wait(&self, job: &JobContext, seq: i64) -> Result<(), StageError> {
        let started = Instant::now();
        while !self.has_reached(job.tenant_id, seq, started) {
            if started.elapsed() > PATIENCE {
                return Err(StageError::Snooze(Duration::from_secs(1)));
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = job.cancel.cancelled() => return Err(StageError::Cancelled),
            }
            let now = Instant::now();
            if self.is_due(job.tenant_id, now) {
                let applied = applied(job).await?;
                self.note(job.tenant_id, now, applied);
            }
        }
        metrics::histogram!("docmill_index_wait_seconds").record(started.elapsed().as_secs_f64());
        Ok(())
    }

    fn looks(&self) -> MutexGuard<'_, HashMap<TenantId, Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only answers that were asked for after the wait began count: a node may have joined since an older one.
    fn has_reached(&self, tenant: TenantId, seq: i64, since: Instant) -> bool {
        let seen = self.looks().get(&tenant).and_then(|look| look.seen);
        seen.is_some_and(|(asked, applied)| asked >= since && applied >= seq)
    }

    /// True when it is the caller's turn to look.
    fn is_due(&self, tenant: TenantId, now: Instant) -> bool {
        let mut looks = self.looks();
        match looks.get_mut(&tenant) {
            Some(look) if now.duration_since(look.asked) < POLL => false,
            Some(look) => {
                look.asked = now;
                true
            }
            None => {
                looks.retain(|_, look| now.duration_since(look.asked) < KEPT);
                looks.insert(tenant, Look { asked: now, seen: None });
                true
            }
        }
    }

    fn note(&self, tenant: TenantId, asked: Instant, applied: i64) {
        if let Some(look) = self.looks().get_mut(&tenant)
            && look.seen.is_none_or(|(before, _)| before < asked)
        {
            look.seen = Some((asked, applied));
        }
    }
}

/// What every live node has applied of the tenant's feed; everything where there is no node.
async fn applied(job: &JobContext) -> Result<i64, StageError> {
    let applied = job.database.read(job.tenant_id, |connection| {
        Box::pin(async move {
            let least: Option<i64> = sqlx::query_scalar(
                "SELECT min(coalesce(w.seq, 0)) FROM index_nodes n
                 LEFT JOIN index_watermarks w ON w.node_id = n.id AND w.tenant_id = current_tenant()
                 WHERE n.lease_until > now()",
            )
            .fetch_one(connection)
            .await?;
            Ok(least.unwrap_or(i64::MAX))
        })
    });
    Ok(applied.await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_serves_all_who_wait_and_an_older_answer_serves_none() {
        let (watermarks, tenant, start) = (Watermarks::default(), TenantId::fresh(), Instant::now());
        assert!(watermarks.is_due(tenant, start));
        assert!(!watermarks.is_due(tenant, start + POLL / 2), "somebody has just looked");
        assert!(watermarks.is_due(TenantId::fresh(), start), "tenants are looked at apart");
        watermarks.note(tenant, start, 7);
        assert!(watermarks.has_reached(tenant, 7, start));
        assert!(!watermarks.has_reached(tenant, 8, start));
        assert!(!watermarks.has_reached(tenant, 7, start + POLL), "it was asked for before that wait began");
        assert!(watermarks.is_due(tenant, start + POLL));
        watermarks.note(tenant, start + POLL, 8);
        watermarks.note(tenant, start, 9);
        assert!(watermarks.has_reached(tenant, 8, start + POLL));
        assert!(!watermarks.has_reached(tenant, 9, start), "a late answer to an earlier question changes nothing");
    }
}
