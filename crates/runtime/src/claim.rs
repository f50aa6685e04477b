//! Claiming: the moment an attempt begins to count.
//!
//! The engine role reads ids and states of any tenant, [`crate::machine::claim`] decides, and one statement takes the
//! lease, moves the fence and appends the attempt. Time is the database's. Looking and taking are two steps: what a job
//! has to wait for in this process it waits for in between, without a lease.

use crate::machine::{self, Claim, Claimable, Counters, JobState, RunState};
use docmill_model::event::JobEvent;
use docmill_model::{DocumentId, JobId, RunId, TenantId, VersionId};
use docmill_platform::database::DbError;
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// A job this process holds a lease on.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub tenant_id: TenantId,
    pub job_id: JobId,
    pub run_id: RunId,
    pub document_id: DocumentId,
    pub version_id: VersionId,
    pub stage: String,
    pub fence: i64,
    pub pipeline_version: String,
    pub recompute: bool,
    /// The run is of a sample.
    pub is_sample: bool,
    pub traceparent: Option<String>,
}

/// A job that may be taken as long as nobody else takes it first.
pub(crate) struct Offer {
    row: Row,
    /// It has killed workers before: nothing else may run in this process meanwhile.
    pub alone: bool,
}

#[derive(sqlx::FromRow)]
struct Row {
    state: String,
    run_state: String,
    on_settled: bool,
    paused: bool,
    stage: String,
    fence: i64,
    failed: i32,
    lost: i32,
    run_id: Uuid,
    document_id: Uuid,
    version_id: Uuid,
    pipeline_version: String,
    recompute: bool,
    is_sample: bool,
    traceparent: Option<String>,
}

/// Enters that the event of a ready job has arrived just now.
pub(crate) async fn heard(pool: &PgPool, event: &JobEvent) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE jobs SET emitted_at = now() WHERE tenant_id = $1 AND id = $2 AND state = 'ready' AND emission = $3",
    )
    .bind(event.tenant_id.0)
    .bind(event.job_id.0)
    .bind(event.emission)
    .execute(pool)
    .await?;
    Ok(())
}

/// Whether the job of an event is there to be taken; `None` when there is nothing to do.
pub(crate) async fn look(pool: &PgPool, event: &JobEvent) -> Result<Option<Offer>, DbError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT j.state, r.state AS run_state, j.on_settled, j.stage, j.fence, j.failed, j.lost, j.run_id, j.document_id,
                r.version_id, r.pipeline_version, j.recompute, r.cause = 'sample' AS is_sample, j.traceparent,
                EXISTS (SELECT 1 FROM pauses p WHERE
                    (p.kind = 'stage' AND p.subject = j.stage) OR (p.kind = 'tenant' AND p.subject = j.tenant_id::text)
                    OR (p.kind = 'pipeline' AND p.subject =
                        (SELECT v.name FROM pipeline_versions v WHERE v.version = r.pipeline_version))) AS paused
         FROM jobs j JOIN runs r ON r.tenant_id = j.tenant_id AND r.id = j.run_id
         WHERE j.tenant_id = $1 AND j.id = $2",
    )
    .bind(event.tenant_id.0)
    .bind(event.job_id.0)
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let claimable = Claimable {
        job: JobState::parse(&row.state).unwrap_or(JobState::Blocked),
        run: RunState::parse(&row.run_state).unwrap_or(RunState::Running),
        on_settled: row.on_settled,
        lost: row.lost,
        paused: row.paused,
    };
    match machine::claim(&claimable) {
        Claim::Skip => Ok(None),
        Claim::Hold => hold(pool, event, row.fence).await.map(|()| None),
        Claim::Take { alone } => Ok(Some(Offer { row, alone })),
    }
}

fn claimed(event: &JobEvent, row: Row, fence: i64) -> Claimed {
    let counters = Counters { failed: row.failed, lost: row.lost, attempts: fence };
    tracing::debug!(job = %event.job_id, stage = row.stage, ?counters, "claimed");
    Claimed {
        tenant_id: event.tenant_id,
        job_id: event.job_id,
        run_id: RunId(row.run_id),
        document_id: DocumentId(row.document_id),
        version_id: VersionId(row.version_id),
        stage: row.stage,
        fence,
        pipeline_version: row.pipeline_version,
        recompute: row.recompute,
        is_sample: row.is_sample,
        traceparent: row.traceparent,
    }
}

/// Takes what was offered for `worker`; `None` when it is no longer there to be taken.
pub(crate) async fn take(
    pool: &PgPool,
    event: &JobEvent,
    offer: Offer,
    worker: &str,
    lease: Duration,
) -> Result<Option<Claimed>, DbError> {
    let fence: Option<i64> = sqlx::query_scalar(
        "WITH taken AS (
            UPDATE jobs SET state = 'leased', fence = fence + 1, lease_until = now() + make_interval(secs => $4), worker = $5,
                            updated_at = now()
            WHERE tenant_id = $1 AND id = $2 AND state = 'ready' AND fence = $3
            RETURNING tenant_id, id, fence)
         INSERT INTO attempts (tenant_id, job_id, fence, worker) SELECT tenant_id, id, fence, $5 FROM taken RETURNING fence",
    )
    .bind(event.tenant_id.0)
    .bind(event.job_id.0)
    .bind(offer.row.fence)
    .bind(lease.as_secs_f64())
    .bind(worker)
    .fetch_optional(pool)
    .await?;
    Ok(fence.map(|fence| claimed(event, offer.row, fence)))
}

/// A paused job is set aside; the reconciler frees it once nothing pauses it any more.
async fn hold(pool: &PgPool, event: &JobEvent, seen_fence: i64) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE jobs SET state = 'held', held_reason = 'paused', updated_at = now()
         WHERE tenant_id = $1 AND id = $2 AND state = 'ready' AND fence = $3",
    )
    .bind(event.tenant_id.0)
    .bind(event.job_id.0)
    .bind(seen_fence)
    .execute(pool)
    .await?;
    Ok(())
}
