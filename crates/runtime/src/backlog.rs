//! What waits and what runs, per stage and tenant. Queued is never reported as failed.
//!
//! It is asked every few seconds, so it must not cost more the more was ever done: each count has an index that holds
//! only its own jobs, and the rate one of the jobs by the time they ended. It costs more the more is open, which is when
//! many look: [`Looks`] bounds what looking takes from the work.

use docmill_model::{Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A look that took less is not kept.
const SHORT: Duration = Duration::from_millis(20);
/// How many times as long as it took a look is kept.
const REST: u32 = 19;
/// Longest time that a look is kept.
const LONGEST: Duration = Duration::from_secs(2);
/// Kept looks above which those are dropped whose time is over.
const MANY: usize = 64;

/// Counts of one stage of one tenant.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, sqlx::FromRow)]
pub struct StageBacklog {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The stage.
    pub stage: String,
    /// Waiting for predecessors.
    pub blocked: i64,
    /// Waiting for a worker.
    pub ready: i64,
    /// Running.
    pub running: i64,
    /// Waiting for a retry.
    pub retrying: i64,
    /// Set aside: paused, budget, scan.
    pub held: i64,
    /// Dead letters nobody has dealt with.
    pub dead: i64,
    /// Completed in the last minute.
    pub done_per_minute: i64,
    /// Age of the oldest ready job in seconds.
    pub oldest_ready_secs: Option<f64>,
}

/// Counts per stage, of one tenant or of all; a stage with nothing to count is absent.
///
/// # Errors
/// Database failures.
pub async fn backlog(database: &Database, tenant: Option<TenantId>) -> Result<Vec<StageBacklog>, Failure> {
    let rows = sqlx::query_as(
        "WITH counted AS (
            SELECT tenant_id, stage, state, available_at FROM jobs
            WHERE state IN ('ready', 'leased', 'waiting', 'held') AND ($1::uuid IS NULL OR tenant_id = $1)
            UNION ALL
            SELECT tenant_id, stage, state, NULL FROM jobs WHERE state = 'blocked' AND ($1::uuid IS NULL OR tenant_id = $1)
            UNION ALL
            SELECT tenant_id, stage, state, NULL FROM jobs
            WHERE state = 'dead' AND resolved_at IS NULL AND ($1::uuid IS NULL OR tenant_id = $1)
            UNION ALL
            SELECT tenant_id, stage, state, NULL FROM jobs
            WHERE state = 'done' AND finished_at > now() - interval '1 minute' AND ($1::uuid IS NULL OR tenant_id = $1))
         SELECT tenant_id, stage,
                count(*) FILTER (WHERE state = 'blocked') AS blocked,
                count(*) FILTER (WHERE state = 'ready') AS ready,
                count(*) FILTER (WHERE state = 'leased') AS running,
                count(*) FILTER (WHERE state = 'waiting') AS retrying,
                count(*) FILTER (WHERE state = 'held') AS held,
                count(*) FILTER (WHERE state = 'dead') AS dead,
                count(*) FILTER (WHERE state = 'done') AS done_per_minute,
                (extract(epoch FROM now() - min(available_at) FILTER (WHERE state = 'ready')))::float8 AS oldest_ready_secs
         FROM counted GROUP BY tenant_id, stage ORDER BY stage, tenant_id",
    )
    .bind(tenant.map(|tenant| tenant.0))
    .fetch_all(database.engine())
    .await
    .map_err(DbError::from)?;
    Ok(rows)
}

/// Looks at the backlog of one process, each kept for nineteen times as long as it took, at most two seconds, when it took 20 ms or
/// more. One looks at a time; all who asked before it began are told the same, a failure too.
#[derive(Default)]
pub struct Looks(Mutex<HashMap<Option<TenantId>, Place>>);

/// Where the look at one tenant is kept, or at all.
type Place = Arc<tokio::sync::Mutex<Option<Look>>>;

struct Look {
    seen: Result<Vec<StageBacklog>, Failure>,
    began: Instant,
    until: Instant,
}

impl Looks {
    /// [`backlog`] as of now, or by a look that ended up to two seconds ago.
    ///
    /// # Errors
    /// Database failures.
    pub async fn backlog(&self, database: &Database, tenant: Option<TenantId>) -> Result<Vec<StageBacklog>, Failure> {
        self.last(tenant, || backlog(database, tenant)).await
    }

    async fn last<L>(&self, tenant: Option<TenantId>, look: impl FnOnce() -> L) -> Result<Vec<StageBacklog>, Failure>
    where
        L: Future<Output = Result<Vec<StageBacklog>, Failure>>,
    {
        let asked = Instant::now();
        let place = self.place(tenant);
        let mut kept = place.lock().await;
        if let Some(last) = kept.as_ref().filter(|last| last.began >= asked || Instant::now() < last.until) {
            return last.seen.clone();
        }
        let began = Instant::now();
        let seen = look().await;
        let rest = if seen.is_ok() { rest(began.elapsed()) } else { Duration::ZERO };
        *kept = Some(Look { seen: seen.clone(), began, until: Instant::now() + rest });
        seen
    }

    fn place(&self, tenant: Option<TenantId>) -> Place {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() >= MANY {
            let now = Instant::now();
            let is_over = |look: &Option<Look>| look.as_ref().is_none_or(|look| look.until <= now);
            looks.retain(|_, place| !place.try_lock().is_ok_and(|look| is_over(&look)) || Arc::strong_count(place) > 1);
        }
        Arc::clone(looks.entry(tenant).or_default())
    }
}

fn rest(took: Duration) -> Duration {
    if took < SHORT { Duration::ZERO } else { (took * REST).min(LONGEST) }
}

/// Gauges for dashboards: jobs by stage and state, rows waiting in the outbox. No tenant in a label.
pub(crate) async fn publish_gauges(database: &Database, stages: &[&str]) -> Result<(), DbError> {
    let jobs: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT stage, state, count(*) FROM jobs
         WHERE state IN ('ready', 'leased', 'waiting', 'held') OR (state = 'dead' AND resolved_at IS NULL) GROUP BY stage, state",
    )
    .fetch_all(database.engine())
    .await?;
    for stage in stages {
        for state in ["ready", "leased", "waiting", "held", "dead"] {
            let count = jobs.iter().find(|(s, t, _)| s == stage && t == state).map_or(0, |(_, _, count)| *count);
            metrics::gauge!("docmill_jobs", "stage" => (*stage).to_owned(), "state" => state).set(count as f64);
        }
    }
    let (unsent, oldest): (i64, f64) = sqlx::query_as(
        "SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM outbox WHERE sent_at IS NULL",
    )
    .fetch_one(database.engine())
    .await?;
    metrics::gauge!("docmill_outbox_unsent").set(unsent as f64);
    metrics::gauge!("docmill_outbox_oldest_seconds").set(oldest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use docmill_model::Code;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_look_is_kept_by_what_it_took() {
        let ms = Duration::from_millis;
        assert_eq!([1, 19, 20, 80, 5_000].map(|took| rest(ms(took))), [ms(0), ms(0), ms(380), ms(1_520), ms(2_000)]);
    }

    #[tokio::test]
    async fn who_asks_at_once_is_told_the_same() {
        for (took, fails, expected) in [(0, false, 1..=2), (0, true, 2..=2), (60, false, 1..=1), (60, true, 2..=2)] {
            let (looks, count) = (Looks::default(), AtomicUsize::new(0));
            let look = || async {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(took)).await;
                let number = count.load(Ordering::SeqCst) as i64;
                let failure = Failure::new(Code::DatabaseUnavailable, "away");
                if fails { Err(failure) } else { Ok(vec![StageBacklog { ready: number, ..StageBacklog::default() }]) }
            };
            let told = futures::future::join_all((0..20).map(|_| looks.last(None, look))).await;
            let looked = count.load(Ordering::SeqCst);
            assert!(expected.contains(&looked), "{looked}: one, and one for those who asked while it looked");
            assert!(told[1..].iter().all(|seen| *seen == told[19]) && told[0].is_err() == fails, "{told:?}");
        }
    }

    #[tokio::test]
    async fn looks_whose_time_is_over_do_not_pile_up() {
        let looks = Looks::default();
        let (now, hour) = (Instant::now(), Duration::from_secs(3_600));
        let kept = looks.place(Some(TenantId::fresh()));
        *kept.lock().await = Some(Look { seen: Ok(Vec::new()), began: now, until: now + hour });
        drop(kept);
        for _ in 0..MANY * 3 {
            *looks.place(Some(TenantId::fresh())).lock().await =
                Some(Look { seen: Ok(Vec::new()), began: now, until: now });
        }
        let looks = looks.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert!(looks.len() <= MANY, "{}", looks.len());
        let standing = looks
            .values()
            .filter(|place| place.try_lock().is_ok_and(|look| look.as_ref().is_some_and(|l| l.until > now)));
        assert_eq!(standing.count(), 1, "the one whose time is not over");
    }
}
