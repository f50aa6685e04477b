//! Settling: what an attempt's end writes, in one transaction as the tenant.
//!
//! The run's row is locked first, so that joins are serial; the job is changed only under its fence; then successors,
//! outbox, events, the run's own settlement, the stage cache, and last the stage's commit, so that whatever counter
//! row it takes is held for the shortest time. Either all of it happened, or none.

use crate::claim::Claimed;
use crate::engine::Core;
use crate::machine::{self, Counters, Next, Outcome, Settlement};
use crate::registry::PreparedCommit;
use crate::runs::{self, LockedRun};
use crate::stage::{JobContext, Policy, StageError};
use docmill_model::manifest::Manifest;
use docmill_model::{JobId, RunId, TenantId};
use docmill_platform::database::DbError;
use serde_json::json;
use sqlx::PgConnection;
use std::sync::{Arc, Mutex, PoisonError};

/// The job of an attempt that ended.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub tenant_id: TenantId,
    pub run_id: RunId,
    pub job_id: JobId,
    pub fence: i64,
    pub stage: String,
}

impl From<&Claimed> for Target {
    fn from(claimed: &Claimed) -> Self {
        Self {
            tenant_id: claimed.tenant_id,
            run_id: claimed.run_id,
            job_id: claimed.job_id,
            fence: claimed.fence,
            stage: claimed.stage.clone(),
        }
    }
}

/// A completed attempt: what its commit needs.
pub(crate) struct Completion {
    pub job: JobContext,
    pub manifest: Manifest,
    /// Nothing where the result is not to be shown.
    pub prepared: Option<Box<dyn PreparedCommit>>,
    pub cached: bool,
    pub cache_key: Option<String>,
    pub run_millis: i64,
}

/// What settling came to.
#[derive(Debug)]
pub(crate) enum Settled {
    /// Written.
    Applied(Settlement),
    /// The job is no longer ours: nothing was written.
    Fenced,
    /// The stage's commit refused; everything was rolled back.
    Refused(StageError),
}

/// Completes a job.
pub(crate) async fn complete(core: &Arc<Core>, target: &Target, completion: Completion) -> Result<Settled, DbError> {
    let refused: Arc<Mutex<Option<StageError>>> = Arc::default();
    let (slot, target, policy) = (refused.clone(), target.clone(), core.registry.policy(&target.stage));
    let failpoints = core.config.failpoints.clone();
    let result = core
        .database
        .write(target.tenant_id, move |connection| {
            Box::pin(async move {
                let ended = Ended {
                    manifest: Some(&completion.manifest),
                    cached: completion.cached,
                    run_millis: Some(completion.run_millis),
                };
                let settled = apply(connection, &target, &policy, &Outcome::Done, ended).await?;
                if matches!(settled, Settled::Fenced) {
                    return Ok(settled);
                }
                if let Some(key) = completion.cache_key.as_ref().filter(|_| !completion.manifest.is_fallback()) {
                    remember(connection, key, &target.stage, &completion.manifest).await?;
                }
                if let Some(prepared) = completion.prepared
                    && let Err(error) = prepared.commit(connection, &completion.job, &completion.manifest).await
                {
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Err(DbError::Sqlx(sqlx::Error::RowNotFound));
                }
                failpoints.hit("commit.inside", &target.stage).await;
                Ok(settled)
            })
        })
        .await;
    match refused.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Ok(Settled::Refused(error)),
        None => result,
    }
}

/// Writes any other end of an attempt.
pub(crate) async fn end(
    core: &Arc<Core>,
    target: &Target,
    outcome: Outcome,
    run_millis: Option<i64>,
) -> Result<Settled, DbError> {
    let (target, policy) = (target.clone(), core.registry.policy(&target.stage));
    core.database
        .write(target.tenant_id, move |connection| {
            Box::pin(async move {
                apply(connection, &target, &policy, &outcome, Ended { manifest: None, cached: false, run_millis }).await
            })
        })
        .await
}

#[derive(Clone, Copy)]
struct Ended<'a> {
    manifest: Option<&'a Manifest>,
    cached: bool,
    run_millis: Option<i64>,
}

async fn apply(
    connection: &mut PgConnection,
    target: &Target,
    policy: &Policy,
    outcome: &Outcome,
    ended: Ended<'_>,
) -> Result<Settled, DbError> {
    let Some(run) = runs::lock(connection, target.run_id).await? else { return Ok(Settled::Fenced) };
    let jobs = runs::load_jobs(connection, target.run_id).await?;
    let ours = jobs.iter().find(|job| job.id == target.job_id.0 && job.fence == target.fence && job.state == "leased");
    let Some(job) = ours else { return Ok(Settled::Fenced) };
    let counters = Counters { failed: job.failed, lost: job.lost, attempts: job.fence };
    let settlement = machine::settle(counters, policy, outcome, rand::random::<f64>());
    if !write(connection, &run, target, &settlement, outcome, ended).await? {
        return Ok(Settled::Fenced);
    }
    let code = settlement.failure.as_ref().map(|failure| failure.code.as_str());
    let mut graph = runs::graph(run.state, jobs);
    let changes = graph.finish(target.job_id, settlement.next.state(), code);
    announce(connection, &run, target, &settlement, ended).await?;
    runs::apply(connection, &run, &graph, &changes).await?;
    Ok(Settled::Applied(settlement))
}

/// Applies the verdict under the fence; false when the job is no longer ours. A lost lease must really have run out. A dead
/// job of a sample is nobody's to deal with: the report of the sample tells of it.
async fn write(
    connection: &mut PgConnection,
    run: &LockedRun,
    target: &Target,
    settlement: &Settlement,
    outcome: &Outcome,
    ended: Ended<'_>,
) -> Result<bool, DbError> {
    let delay = match &settlement.next {
        Next::Wait(delay) => *delay,
        Next::HoldBudget => machine::BUDGET_RECHECK,
        _ => std::time::Duration::ZERO,
    };
    let failure = settlement.failure.as_ref().map(|failure| json!(failure));
    let written: i64 = sqlx::query_scalar(
        "WITH settled AS (
            UPDATE jobs SET state = $3::text, failed = $4, lost = $5, code = $6, failure = $7,
                manifest = coalesce($8::jsonb, manifest), cached = $9, available_at = now() + make_interval(secs => $10),
                held_reason = CASE WHEN $3::text = 'held' THEN 'budget' END, lease_until = NULL, worker = NULL, emitted_at = NULL,
                emission = emission + CASE WHEN $3::text = 'ready' THEN 1 ELSE 0 END, updated_at = now(),
                finished_at = CASE WHEN $3::text IN ('done', 'dead') THEN now() END,
                resolved_at = CASE WHEN $3::text = 'dead' AND $14::boolean THEN now() END,
                resolution = CASE WHEN $3::text = 'dead' AND $14::boolean THEN 'discarded' END
            WHERE tenant_id = current_tenant() AND id = $1 AND fence = $2 AND state = 'leased'
              AND (NOT $11::boolean OR lease_until < now())
            RETURNING tenant_id, id, run_id, stage, state, fence, emission, priority, traceparent),
         tried AS (
            UPDATE attempts a SET outcome = $12, finished_at = now(), failure = $7, cached = $9, run_millis = $13 FROM settled s
            WHERE a.tenant_id = s.tenant_id AND a.job_id = s.id AND a.fence = s.fence),
         woken AS (
            INSERT INTO outbox (tenant_id, topic, stage, job_id, run_id, emission, priority, traceparent)
            SELECT tenant_id, 'job', stage, id, run_id, emission, priority, traceparent FROM settled WHERE state = 'ready')
         SELECT count(*) FROM settled",
    )
    .bind(target.job_id.0)
    .bind(target.fence)
    .bind(settlement.next.state().as_str())
    .bind(settlement.failed)
    .bind(settlement.lost)
    .bind(settlement.failure.as_ref().map(|failure| failure.code.as_str()))
    .bind(failure)
    .bind(ended.manifest.map(|manifest| json!(manifest)))
    .bind(ended.cached)
    .bind(delay.as_secs_f64())
    .bind(matches!(outcome, Outcome::Lost))
    .bind(outcome.as_str())
    .bind(ended.run_millis)
    .bind(run.is_sample)
    .fetch_one(connection)
    .await?;
    Ok(written == 1)
}

/// One line in the document's feed for what a person may want to know.
async fn announce(
    connection: &mut PgConnection,
    run: &LockedRun,
    target: &Target,
    settlement: &Settlement,
    ended: Ended<'_>,
) -> Result<(), DbError> {
    if run.is_sample {
        return Ok(());
    }
    let kind = match (&settlement.next, &settlement.failure) {
        (Next::Done, _) => "stage.done",
        (Next::Dead, _) => "stage.failed",
        (Next::HoldBudget, _) => "stage.held",
        (Next::Wait(_) | Next::Ready, Some(_)) => "stage.retrying",
        (Next::Wait(_) | Next::Ready, None) => return Ok(()),
    };
    let data = json!({
        "stage": target.stage, "job_id": target.job_id, "attempt": target.fence, "cached": ended.cached,
        "millis": ended.run_millis, "code": settlement.failure.as_ref().map(|failure| failure.code),
    });
    runs::record(connection, run.document_id, run.id, kind, &data).await
}

/// Keeps the manifest for the next job with the same inputs.
async fn remember(connection: &mut PgConnection, key: &str, stage: &str, manifest: &Manifest) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO stage_cache (tenant_id, key, stage, manifest) VALUES (current_tenant(), $1, $2, $3)
         ON CONFLICT (tenant_id, key) DO UPDATE SET manifest = EXCLUDED.manifest, used_at = now()",
    )
    .bind(key)
    .bind(stage)
    .bind(json!(manifest))
    .execute(connection)
    .await?;
    Ok(())
}
