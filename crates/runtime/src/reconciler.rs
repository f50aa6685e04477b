//! The reconciler: whatever was missed, lost or left half-way becomes a fact again, on a timer.
//!
//! Every step is argument-free, bounded and idempotent, so any number of reconcilers may run. It scans as the engine
//! role (ids and states of all tenants) and settles as the tenant, through the same code as a worker.

pub(crate) mod content;
mod housekeeping;

use crate::engine::Core;
use crate::machine::Outcome;
use crate::settle::{self, Settled, Target};
use crate::{backlog, doctor, replay, runs};
use docmill_model::{Code, Failure, JobId, RunId, TenantId};
use docmill_platform::database::DbError;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Most rows one step of one round touches.
pub(crate) const BATCH: i64 = 500;
/// Longest wait before a released job that nobody claims is emitted again.
const REEMIT_LIMIT_SECS: f64 = 20.0;
/// A run this young may still be written by its starter.
const SETTLE_AGE_SECS: f64 = 2.0;
/// Longest round: a database that vanished without a word must not hold it for ever.
const ROUND_LIMIT: Duration = Duration::from_secs(60);
const HOUSEKEEPING: Duration = Duration::from_secs(60);
const GAUGES: Duration = Duration::from_secs(5);

/// Rounds until `stop` fires. After the database was away, leases get one length of grace: their workers could not
/// renew them either.
pub(crate) async fn run(core: &Arc<Core>, stop: CancellationToken) {
    let (mut outage, mut quiet_until) = (false, Instant::now());
    let (mut cleaned, mut gauged, mut examine_at) = (Instant::now(), Instant::now(), Instant::now());
    while !stop.is_cancelled() {
        let expire = !outage && Instant::now() >= quiet_until;
        let silent = || Failure::new(Code::DatabaseUnavailable, "the database does not answer");
        match tokio::time::timeout(ROUND_LIMIT, round(core, expire)).await.unwrap_or_else(|_| Err(silent())) {
            Ok(()) if outage => {
                outage = false;
                quiet_until = Instant::now() + core.config.lease;
            }
            Ok(()) => {}
            Err(failure) => {
                outage = true;
                tracing::warn!(code = %failure.code, "the reconciler could not finish a round: {}", failure.message);
            }
        }
        if !outage && cleaned.elapsed() >= HOUSEKEEPING {
            cleaned = Instant::now();
            if let Err(error) = housekeeping::prune(core).await {
                tracing::warn!(code = %error.into_failure().code, "old rows were not pruned");
            }
        }
        if !outage && gauged.elapsed() >= GAUGES {
            gauged = Instant::now();
            let _ = backlog::publish_gauges(&core.database, &core.registry.names()).await;
        }
        if !outage && Instant::now() >= examine_at {
            examine_at = Instant::now() + examine(core).await.saturating_mul(doctor::SHARE).max(doctor::AGAIN);
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(core.config.tick) => {}
        }
    }
}

/// Evaluates the engine's invariants for the metric and the log; how long that took.
async fn examine(core: &Arc<Core>) -> Duration {
    let started = Instant::now();
    match doctor::examine(&core.database).await {
        Ok(examined) => examined.publish(),
        Err(failure) => tracing::warn!(code = %failure.code, "the invariants were not evaluated"),
    }
    started.elapsed()
}

/// One round of every step.
async fn round(core: &Arc<Core>, expire: bool) -> Result<(), Failure> {
    core.config.failpoints.hit("reconcile.before", "reconciler").await;
    let mut woken = 0;
    if expire {
        woken += expire_leases(core).await?;
    }
    woken += wake(core, WAKE_DUE).await?;
    woken += wake(core, FREE_HELD).await?;
    woken += emit_again(core).await?;
    apart("settling runs", settle_runs(core).await)?;
    apart("expiring uploads", housekeeping::expire_uploads(core).await.map_err(DbError::into_failure))?;
    apart("replays", replay::advance_all(core).await)?;
    if woken > 0 {
        core.kick.notify_one();
    }
    core.config.failpoints.hit("reconcile.after", "reconciler").await;
    Ok(())
}

/// What one row or one tenant trips over is told and tried again in the next round; only a database that is away ends
/// the round, since nothing else may hold up the leases of everybody.
pub(crate) fn apart(step: &'static str, result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(failure) if failure.code != Code::DatabaseUnavailable => {
            tracing::warn!(step, code = %failure.code, "a step of the reconciler failed: {}", failure.message);
            Ok(())
        }
        other => other,
    }
}

/// Leases that ran out: the worker died or was cut off.
async fn expire_leases(core: &Arc<Core>) -> Result<u64, DbError> {
    let rows: Vec<(Uuid, Uuid, Uuid, i64, String)> = sqlx::query_as(
        "SELECT tenant_id, run_id, id, fence, stage FROM jobs WHERE state = 'leased' AND lease_until < now()
         ORDER BY lease_until LIMIT $1",
    )
    .bind(BATCH)
    .fetch_all(core.database.engine())
    .await?;
    let mut lost = 0;
    for (tenant, run, job, fence, stage) in rows {
        let target = Target { tenant_id: TenantId(tenant), run_id: RunId(run), job_id: JobId(job), fence, stage };
        match settle::end(core, &target, Outcome::Lost, None).await {
            Ok(Settled::Applied(settlement)) => {
                lost += 1;
                metrics::counter!("docmill_jobs_total", "stage" => target.stage.clone(), "outcome" => "lost")
                    .increment(1);
                tracing::warn!(
                    job = %target.job_id, stage = target.stage, lost = settlement.lost,
                    state = settlement.next.state().as_str(), "a lease ran out"
                );
            }
            Ok(_) => {}
            // A run whose commit takes long holds its lock: one such must not stop the others.
            Err(error) => {
                tracing::info!(job = %target.job_id, code = %error.into_failure().code, "judged in the next round")
            }
        }
    }
    Ok(lost)
}

/// A query that makes the jobs it picks ready and rings for each.
macro_rules! waking {
    ($picked:literal) => {
        concat!(
            "WITH picked AS (",
            $picked,
            "),
             woken AS (
                UPDATE jobs j SET state = 'ready', held_reason = NULL, emission = j.emission + 1, emitted_at = NULL, updated_at = now()
                FROM picked WHERE j.tenant_id = picked.tenant_id AND j.id = picked.id
                RETURNING j.tenant_id, j.id, j.run_id, j.stage, j.emission, j.priority, j.traceparent)
             INSERT INTO outbox (tenant_id, topic, stage, job_id, run_id, emission, priority, traceparent)
             SELECT tenant_id, 'job', stage, id, run_id, emission, priority, traceparent FROM woken"
        )
    };
}

/// Timers that are due: retries, snoozes, budget checks.
const WAKE_DUE: &str = waking!(
    "SELECT tenant_id, id FROM jobs
     WHERE state IN ('waiting', 'held') AND available_at <= now() AND held_reason IS DISTINCT FROM 'paused'
     ORDER BY available_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED"
);

/// Jobs set aside for a pause that is over.
const FREE_HELD: &str = waking!(
    "SELECT j.tenant_id, j.id FROM jobs j
     WHERE j.state = 'held' AND j.held_reason = 'paused' AND NOT EXISTS (
        SELECT 1 FROM pauses p WHERE (p.kind = 'stage' AND p.subject = j.stage)
            OR (p.kind = 'tenant' AND p.subject = j.tenant_id::text)
            OR (p.kind = 'pipeline' AND p.subject = (
                SELECT v.name FROM runs r JOIN pipeline_versions v ON v.version = r.pipeline_version
                WHERE r.tenant_id = j.tenant_id AND r.id = j.run_id)))
     ORDER BY j.available_at LIMIT $1 FOR NO KEY UPDATE OF j SKIP LOCKED"
);

async fn wake(core: &Arc<Core>, sql: &'static str) -> Result<u64, DbError> {
    Ok(sqlx::query(sql).bind(BATCH).execute(core.database.engine()).await?.rows_affected())
}

/// Released jobs nobody claims, and ready jobs without an event: the stream was wiped, rolled back, or is just slow. A
/// new emission has a new message id, so the dedupe window cannot swallow it, and goes before the tenant's backlog.
async fn emit_again(core: &Arc<Core>) -> Result<u64, DbError> {
    let emitted = sqlx::query(
        "WITH unheard AS (
            SELECT tenant_id, id FROM jobs
            WHERE state = 'ready' AND emitted_at IS NOT NULL
              AND emitted_at < now() - make_interval(secs => least($2 * power(2, least(emission, 10) - 1), $3))
            LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED),
         unwritten AS (
            SELECT j.tenant_id, j.id FROM jobs j
            WHERE j.state = 'ready' AND j.emitted_at IS NULL AND j.updated_at < now() - make_interval(secs => $2)
              AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.job_id = j.id AND o.sent_at IS NULL)
            LIMIT $1 FOR NO KEY UPDATE OF j SKIP LOCKED),
         stale AS (SELECT * FROM unheard UNION ALL SELECT * FROM unwritten),
         again AS (
            UPDATE jobs j SET emission = j.emission + 1, emitted_at = NULL, updated_at = now()
            FROM stale WHERE j.tenant_id = stale.tenant_id AND j.id = stale.id
            RETURNING j.tenant_id, j.id, j.run_id, j.stage, j.emission, j.priority, j.traceparent)
         INSERT INTO outbox (tenant_id, topic, stage, job_id, run_id, emission, priority, traceparent)
         SELECT tenant_id, 'job', stage, id, run_id, emission, least(priority + 1, 32767), traceparent FROM again",
    )
    .bind(BATCH)
    .bind(core.config.reemit_after.as_secs_f64())
    .bind(REEMIT_LIMIT_SECS)
    .execute(core.database.engine())
    .await?;
    let count = emitted.rows_affected();
    if count > 0 {
        metrics::counter!("docmill_events_emitted_again_total").increment(count);
        tracing::debug!(count, "events emitted again");
    }
    Ok(count)
}

/// Running runs whose jobs have all ended. The commit that ends the last job settles its run, so there are none,
/// unless rows were changed by hand.
async fn settle_runs(core: &Arc<Core>) -> Result<(), Failure> {
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT r.tenant_id, r.id FROM runs r
         WHERE r.state = 'running' AND r.created_at < now() - make_interval(secs => $2) AND NOT EXISTS (
            SELECT 1 FROM jobs j WHERE j.tenant_id = r.tenant_id AND j.run_id = r.id AND NOT j.on_settled
              AND j.state NOT IN ('done', 'dead', 'cancelled'))
         ORDER BY r.created_at LIMIT $1",
    )
    .bind(BATCH)
    .bind(SETTLE_AGE_SECS)
    .fetch_all(core.database.engine())
    .await
    .map_err(DbError::from)?;
    for (tenant, run) in rows {
        let settled = core.database.write(TenantId(tenant), move |connection| {
            Box::pin(async move { runs::mend(connection, RunId(run)).await })
        });
        match settled.await.map_err(DbError::into_failure) {
            Ok(true) => tracing::warn!(run = %run, "a run was settled by the reconciler"),
            Ok(false) => {}
            Err(failure) => apart("settling a run", Err(failure))?,
        }
    }
    Ok(())
}
