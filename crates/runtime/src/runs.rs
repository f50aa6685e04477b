//! Runs: one processing of one version by one pinned pipeline. Starting one lays out its whole graph; settling one
//! tells the document, the outside and the stages that wait for it.

use crate::machine::graph::Changes;
use crate::pipeline::Pipeline;
use docmill_model::{Code, DocumentId, JobId, RunId, VersionId};
use docmill_platform::database::DbError;
use serde_json::json;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

mod apply;
mod chain;

pub(crate) use apply::{LockedRun, apply, graph, load_jobs, lock, record};
pub use chain::{RunRow, chain};

/// Why a run exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// New bytes.
    Upload,
    /// An operator processes again.
    Replay,
    /// A timer.
    Schedule,
    /// An operator retries a dead letter.
    Operator,
    /// An operator looks at what a replay would give: nothing of it is shown.
    Sample,
}

impl Cause {
    /// The stored spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Upload => "upload",
            Cause::Replay => "replay",
            Cause::Schedule => "schedule",
            Cause::Operator => "operator",
            Cause::Sample => "sample",
        }
    }
}

/// A run to start.
#[derive(Clone)]
pub struct StartRun<'a> {
    /// The document.
    pub document_id: DocumentId,
    /// The version to process.
    pub version_id: VersionId,
    /// The pipeline to pin.
    pub pipeline: &'a Pipeline,
    /// Why.
    pub cause: Cause,
    /// The run this one repeats.
    pub parent_run: Option<RunId>,
    /// Higher goes first among a tenant's jobs of a stage; 0 for uploads.
    pub priority: i16,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
}

/// What a replay adds to a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repeat<'a> {
    /// The replay it belongs to.
    pub replay_id: Option<Uuid>,
    /// Stages that must compute even when the cache has their result.
    pub recompute: &'a [String],
}

/// Starts a run inside the caller's transaction (which has the tenant set): the run, every job of its graph, one event
/// for each job that can start. The document is `processing` from now on, but for a sample.
///
/// # Errors
/// The driver's error.
pub async fn start_run(connection: &mut PgConnection, run: StartRun<'_>) -> Result<RunId, DbError> {
    start_repeat(connection, run, Repeat::default()).await
}

/// [`start_run`] for a replay.
///
/// # Errors
/// The driver's error.
pub async fn start_repeat(
    connection: &mut PgConnection,
    run: StartRun<'_>,
    repeat: Repeat<'_>,
) -> Result<RunId, DbError> {
    let id = RunId::fresh();
    let is_sample = run.cause == Cause::Sample;
    // Before the insert: settlements of older runs decide about the document under this row's lock.
    sqlx::query(
        "UPDATE documents SET state = 'processing', code = NULL, updated_at = now()
         WHERE tenant_id = current_tenant() AND id = $1 AND NOT $2",
    )
    .bind(run.document_id.0)
    .bind(is_sample)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO runs (tenant_id, id, document_id, version_id, pipeline_version, cause, parent_run, replay_id, priority, traceparent)
         VALUES (current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(id.0)
    .bind(run.document_id.0)
    .bind(run.version_id.0)
    .bind(&run.pipeline.version)
    .bind(run.cause.as_str())
    .bind(run.parent_run.map(|parent| parent.0))
    .bind(repeat.replay_id)
    .bind(run.priority)
    .bind(&run.traceparent)
    .execute(&mut *connection)
    .await?;
    lay_out(connection, id, &run, repeat.recompute).await?;
    if is_sample {
        return Ok(id);
    }
    let data =
        json!({"cause": run.cause.as_str(), "pipeline": run.pipeline.name, "pipeline_version": run.pipeline.version});
    record(connection, run.document_id, id, "run.started", &data).await?;
    Ok(id)
}

/// Inserts the jobs of a graph and the events of those that can start, in one statement.
async fn lay_out(
    connection: &mut PgConnection,
    id: RunId,
    run: &StartRun<'_>,
    recompute: &[String],
) -> Result<(), DbError> {
    let stages = &run.pipeline.stages;
    let ids: BTreeMap<&str, Uuid> = stages.iter().map(|stage| (stage.name.as_str(), JobId::fresh().0)).collect();
    let rows: Vec<serde_json::Value> = stages
        .iter()
        .map(|stage| {
            let successors: Vec<Uuid> =
                stages.iter().filter(|other| other.after.contains(&stage.name)).map(|other| ids[other.name.as_str()]).collect();
            let ready = stage.after.is_empty() && !stage.on_settled;
            json!({
                "id": ids[stage.name.as_str()], "stage": stage.name, "required": stage.required, "on_settled": stage.on_settled,
                "state": if ready { "ready" } else { "blocked" }, "pending": stage.after.len(), "successors": successors,
                "emission": i32::from(ready), "recompute": recompute.contains(&stage.name),
            })
        })
        .collect();
    sqlx::query(
        "WITH laid AS (
            INSERT INTO jobs (tenant_id, id, run_id, document_id, stage, required, on_settled, state, pending, successors,
                              emission, recompute, priority, traceparent)
            SELECT current_tenant(), j.id, $1, $2, j.stage, j.required, j.on_settled, j.state, j.pending,
                   ARRAY(SELECT jsonb_array_elements_text(j.successors)::uuid), j.emission, j.recompute, $4, $5
            FROM jsonb_to_recordset($3) AS j (id uuid, stage text, required boolean, on_settled boolean, state text, pending integer,
                                              successors jsonb, emission integer, recompute boolean)
            RETURNING tenant_id, id, run_id, stage, state, emission, priority, traceparent)
         INSERT INTO outbox (tenant_id, topic, stage, job_id, run_id, emission, priority, traceparent)
         SELECT tenant_id, 'job', stage, id, run_id, emission, priority, traceparent FROM laid WHERE state = 'ready'",
    )
    .bind(id.0)
    .bind(run.document_id.0)
    .bind(serde_json::Value::Array(rows))
    .bind(run.priority)
    .bind(&run.traceparent)
    .execute(connection)
    .await?;
    Ok(())
}

/// Cancels a run inside the caller's transaction; its workers notice within a third of a lease and their commits are
/// fenced off. False when it was settled already or does not exist.
///
/// # Errors
/// The driver's error.
pub async fn cancel_run(connection: &mut PgConnection, id: RunId) -> Result<bool, DbError> {
    let Some(locked) = lock(connection, id).await? else { return Ok(false) };
    let mut graph = graph(locked.state, load_jobs(connection, id).await?);
    let changes = graph.cancel(Code::Cancelled.as_str());
    if changes.settled.is_none() {
        return Ok(false);
    }
    apply(connection, &locked, &graph, &changes).await?;
    Ok(true)
}

/// Works out pending counts, leftovers and the outcome of a run again; false when all was as it should be.
pub(crate) async fn mend(connection: &mut PgConnection, id: RunId) -> Result<bool, DbError> {
    let Some(locked) = lock(connection, id).await? else { return Ok(false) };
    let mut graph = graph(locked.state, load_jobs(connection, id).await?);
    let changes = graph.mend(Code::Cancelled.as_str());
    apply(connection, &locked, &graph, &changes).await?;
    Ok(changes != Changes::default())
}
