//! Dead letters: jobs that were given up, with their cause, attempts and inputs.
//!
//! A dead job never changes again except for what an operator did about it: `retried` (a new run that repeats its
//! document) or `discarded`. Read and written as the tenant.

use crate::pipeline::{Pipeline, Pipelines};
use crate::runs::{Cause, Repeat, RunRow, StartRun, chain, start_repeat};
use docmill_model::{Code, DocumentId, Failure, JobId, RunId, TenantId, VersionId};
use docmill_platform::database::{Database, DbError};
use serde_json::Value;
use sqlx::PgConnection;
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

/// Most rows of one listing.
pub const LIST_LIMIT: i64 = 1000;
/// Most earlier runs that are told of a dead job.
pub const EARLIER_LIMIT: i64 = 20;

/// Which dead jobs to list.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// Of this stage.
    pub stage: Option<String>,
    /// With this code.
    pub code: Option<String>,
    /// Of this document.
    pub document_id: Option<DocumentId>,
    /// Given up at or after this time.
    pub since: Option<OffsetDateTime>,
    /// Also those an operator has dealt with.
    pub resolved: bool,
    /// At most this many (up to [`LIST_LIMIT`]).
    pub limit: i64,
}

/// One dead job.
#[derive(Clone, Debug, PartialEq, serde::Serialize, sqlx::FromRow)]
pub struct DeadJob {
    /// The job.
    pub job_id: Uuid,
    /// Its run.
    pub run_id: Uuid,
    /// Its document.
    pub document_id: Uuid,
    /// Its stage.
    pub stage: String,
    /// Whether its end failed the run.
    pub required: bool,
    /// Why.
    pub code: Option<String>,
    /// `{code, message, limit, measured}`.
    pub failure: Option<Value>,
    /// Typed failures.
    pub failed: i32,
    /// Lost leases.
    pub lost: i32,
    /// When it was given up.
    pub finished_at: Option<OffsetDateTime>,
    /// What an operator did: `retried` or `discarded`.
    pub resolution: Option<String>,
}

/// One attempt of a job.
#[derive(Clone, Debug, PartialEq, serde::Serialize, sqlx::FromRow)]
pub struct AttemptView {
    /// Which one.
    pub fence: i64,
    /// Who ran it.
    pub worker: String,
    /// When it began.
    pub started_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
    /// How it ended; none while it runs.
    pub outcome: Option<String>,
    /// `{code, message, limit, measured}`.
    pub failure: Option<Value>,
    /// How long the stage ran.
    pub run_millis: Option<i64>,
}

/// A dead job with everything an operator needs to decide.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct DeadDetail {
    /// The job.
    pub job: DeadJob,
    /// Its run, which says why it was made.
    pub run: RunRow,
    /// The earlier runs that one repeats, newest first: at most [`EARLIER_LIMIT`], of which the last says whether there
    /// are more.
    pub earlier_runs: Vec<RunRow>,
    /// Its attempts, oldest first: the cause chain within the run.
    pub attempts: Vec<AttemptView>,
    /// Manifests it would have read, by stage: the artifacts.
    pub inputs: Vec<(String, Value)>,
    /// The uploaded file, which is what a stage without inputs reads.
    pub upload: Upload,
    /// What the code means.
    pub help: Option<&'static str>,
}

/// The file behind a dead job.
#[derive(Clone, Debug, PartialEq, serde::Serialize, sqlx::FromRow)]
pub struct Upload {
    /// Hash of the bytes, 64 hex digits.
    pub sha256: String,
    /// Length in bytes.
    pub size_bytes: i64,
    /// What they are said to be.
    pub content_type: String,
    /// Where they are in the bucket; none once retention removed them.
    pub object_key: Option<String>,
}

/// Lists dead jobs, the newest first.
///
/// # Errors
/// Database failures.
pub async fn list(database: &Database, tenant: TenantId, filter: DeadFilter) -> Result<Vec<DeadJob>, Failure> {
    let limit = if filter.limit <= 0 { LIST_LIMIT } else { filter.limit.min(LIST_LIMIT) };
    let rows = database.read(tenant, move |connection| {
        Box::pin(async move {
            Ok(sqlx::query_as(
                "SELECT id AS job_id, run_id, document_id, stage, required, code, failure, failed, lost, finished_at, resolution
                 FROM jobs WHERE tenant_id = current_tenant() AND state = 'dead'
                   AND ($1::text IS NULL OR stage = $1) AND ($2::text IS NULL OR code = $2)
                   AND ($3::uuid IS NULL OR document_id = $3) AND ($4::timestamptz IS NULL OR finished_at >= $4)
                   AND ($5 OR resolved_at IS NULL)
                 ORDER BY finished_at DESC, id LIMIT $6",
            )
            .bind(filter.stage)
            .bind(filter.code)
            .bind(filter.document_id.map(|id| id.0))
            .bind(filter.since)
            .bind(filter.resolved)
            .bind(limit)
            .fetch_all(connection)
            .await?)
        })
    });
    Ok(rows.await?)
}

/// One dead job with its attempts and inputs.
///
/// # Errors
/// `NOT_FOUND`, or database failures.
pub async fn show(database: &Database, tenant: TenantId, job: JobId) -> Result<DeadDetail, Failure> {
    let detail = database.read(tenant, move |connection| {
        Box::pin(async move {
            let found = find(connection, job).await?;
            let mut runs = chain(connection, RunId(found.run_id), 1 + EARLIER_LIMIT).await?.into_iter();
            let run = runs.next().ok_or_else(nothing)?;
            let attempts = sqlx::query_as(
                "SELECT fence, worker, started_at, finished_at, outcome, failure, run_millis FROM attempts
                 WHERE tenant_id = current_tenant() AND job_id = $1 ORDER BY fence",
            )
            .bind(job.0)
            .fetch_all(&mut *connection)
            .await?;
            let inputs = sqlx::query_as(
                "SELECT stage, manifest FROM jobs
                 WHERE tenant_id = current_tenant() AND run_id = $1 AND state = 'done' AND NOT on_settled AND manifest IS NOT NULL ORDER BY id",
            )
            .bind(found.run_id)
            .fetch_all(&mut *connection)
            .await?;
            let upload = sqlx::query_as(
                "SELECT v.sha256, v.size_bytes, v.content_type,
                        CASE WHEN v.raw_removed_at IS NULL THEN v.accepted_key END AS object_key
                 FROM runs r JOIN document_versions v ON v.tenant_id = r.tenant_id AND v.id = r.version_id
                 WHERE r.tenant_id = current_tenant() AND r.id = $1",
            )
            .bind(found.run_id)
            .fetch_one(connection)
            .await?;
            let help = found.code.as_deref().and_then(Code::parse).map(Code::help);
            Ok(DeadDetail { job: found, run, earlier_runs: runs.collect(), attempts, inputs, upload, help })
        })
    });
    Ok(detail.await?)
}

async fn find(connection: &mut PgConnection, job: JobId) -> Result<DeadJob, DbError> {
    let found: Option<DeadJob> = sqlx::query_as(
        "SELECT id AS job_id, run_id, document_id, stage, required, code, failure, failed, lost, finished_at, resolution
         FROM jobs WHERE tenant_id = current_tenant() AND id = $1 AND state = 'dead'",
    )
    .bind(job.0)
    .fetch_optional(connection)
    .await?;
    found.ok_or_else(nothing)
}

fn nothing() -> DbError {
    DbError::Failed(Failure::new(Code::NotFound, "there is no such dead job"))
}

/// Retries a dead job: a new run of its document by the current pipeline of the same name (the pinned one when there
/// is none). Stages that succeeded come from the cache.
///
/// # Errors
/// `NOT_FOUND`; `CONFLICT` when it was dealt with or the document is being processed; database failures.
pub async fn retry(database: &Database, pipelines: &Pipelines, tenant: TenantId, job: JobId) -> Result<RunId, Failure> {
    let pipeline = pipeline_of(database, pipelines, tenant, job).await?;
    let run =
        database.write(tenant, move |connection| Box::pin(async move { retry_in(connection, &pipeline, job).await }));
    Ok(run.await?)
}

/// The pipeline a retry follows.
///
/// # Errors
/// `NOT_FOUND`, or database failures.
pub async fn pipeline_of(
    database: &Database,
    pipelines: &Pipelines,
    tenant: TenantId,
    job: JobId,
) -> Result<Arc<Pipeline>, Failure> {
    let pinned: Option<String> = database
        .read(tenant, move |connection| {
            Box::pin(async move {
                Ok(sqlx::query_scalar(
                    "SELECT r.pipeline_version FROM jobs j JOIN runs r ON r.tenant_id = j.tenant_id AND r.id = j.run_id
                     WHERE j.tenant_id = current_tenant() AND j.id = $1 AND j.state = 'dead'",
                )
                .bind(job.0)
                .fetch_optional(connection)
                .await?)
            })
        })
        .await?;
    let pinned = pinned.ok_or_else(|| Failure::new(Code::NotFound, "there is no such dead job"))?;
    let old = pipelines.resolve(database, &pinned).await?;
    Ok(pipelines.get(&old.name).unwrap_or(old))
}

/// [`retry`] inside the caller's transaction, by the pipeline that [`pipeline_of`] gave.
///
/// # Errors
/// As [`retry`].
pub async fn retry_in(connection: &mut PgConnection, pipeline: &Pipeline, job: JobId) -> Result<RunId, DbError> {
    resolve(connection, job, "retried").await?;
    let (document, version, run, traceparent): (Uuid, Uuid, Uuid, Option<String>) = sqlx::query_as(
        "SELECT r.document_id, r.version_id, r.id, r.traceparent FROM jobs j
         JOIN runs r ON r.tenant_id = j.tenant_id AND r.id = j.run_id
         WHERE j.tenant_id = current_tenant() AND j.id = $1",
    )
    .bind(job.0)
    .fetch_one(&mut *connection)
    .await?;
    idle(connection, DocumentId(document)).await?;
    let start = StartRun {
        document_id: DocumentId(document),
        version_id: VersionId(version),
        pipeline,
        cause: Cause::Operator,
        parent_run: Some(RunId(run)),
        priority: 0,
        traceparent,
    };
    start_repeat(connection, start, Repeat::default()).await
}

/// Marks a dead job as dealt with.
///
/// # Errors
/// `NOT_FOUND`, `CONFLICT` when it was dealt with already, or database failures.
pub async fn discard(database: &Database, tenant: TenantId, job: JobId) -> Result<(), Failure> {
    let discarded =
        database.write(tenant, move |connection| Box::pin(async move { discard_in(connection, job).await }));
    Ok(discarded.await?)
}

/// [`discard`] inside the caller's transaction.
///
/// # Errors
/// As [`discard`].
pub async fn discard_in(connection: &mut PgConnection, job: JobId) -> Result<(), DbError> {
    resolve(connection, job, "discarded").await
}

async fn resolve(connection: &mut PgConnection, job: JobId, resolution: &str) -> Result<(), DbError> {
    find(connection, job).await?;
    let resolved = sqlx::query(
        "UPDATE jobs SET resolved_at = now(), resolution = $2
         WHERE tenant_id = current_tenant() AND id = $1 AND state = 'dead' AND resolved_at IS NULL",
    )
    .bind(job.0)
    .bind(resolution)
    .execute(connection)
    .await?;
    if resolved.rows_affected() == 1 {
        return Ok(());
    }
    Err(DbError::Failed(Failure::new(Code::Conflict, "this dead job was dealt with already")))
}

/// Locks the document and refuses one that is gone or being processed.
pub(crate) async fn idle(connection: &mut PgConnection, document: DocumentId) -> Result<(), DbError> {
    let gone: Option<bool> = sqlx::query_scalar(
        "SELECT deleted_at IS NOT NULL FROM documents WHERE tenant_id = current_tenant() AND id = $1 FOR NO KEY UPDATE",
    )
    .bind(document.0)
    .fetch_optional(&mut *connection)
    .await?;
    if gone != Some(false) {
        return Err(DbError::Failed(Failure::new(Code::NotFound, "the document is deleted")));
    }
    let busy: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM runs WHERE tenant_id = current_tenant() AND document_id = $1 AND state = 'running'
                        AND cause <> 'sample')",
    )
    .bind(document.0)
    .fetch_one(connection)
    .await?;
    if busy {
        return Err(DbError::Failed(Failure::new(
            Code::Conflict,
            "the document is being processed; wait or cancel the run",
        )));
    }
    Ok(())
}
