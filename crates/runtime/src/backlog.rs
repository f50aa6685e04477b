//! What waits and what runs, per stage and tenant. Queued is never reported as failed.
//!
//! It is asked every few seconds, so it must not cost more the more was ever done: each count has an index that holds
//! only its own jobs, and the rate one of the jobs by the time they ended.

use docmill_model::{Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use uuid::Uuid;

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
