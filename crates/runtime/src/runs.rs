//! Runs: one processing of one version by one pinned pipeline. Starting one lays out its whole graph; settling one
//! tells the document, the outside and the stages that wait for it.

use crate::machine::graph::{Changes, Graph, GraphJob};
use crate::machine::{JobState, RunState};
use crate::pipeline::Pipeline;
use docmill_model::{Code, DocumentId, JobId, RunId, VersionId};
use docmill_platform::database::DbError;
use serde_json::json;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

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
/// for each job that can start. The document is `processing` from now on.
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
    // Before the insert: settlements of older runs decide about the document under this row's lock.
    sqlx::query(
        "UPDATE documents SET state = 'processing', code = NULL, updated_at = now() WHERE tenant_id = current_tenant() AND id = $1",
    )
    .bind(run.document_id.0)
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
    let mut graph = load_graph(connection, id, locked.state).await?;
    let changes = graph.cancel(Code::Cancelled.as_str());
    if changes.settled.is_none() {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE attempts a SET outcome = 'cancelled', finished_at = now() FROM jobs j
         WHERE j.tenant_id = current_tenant() AND j.run_id = $1 AND j.state = 'leased'
           AND a.tenant_id = j.tenant_id AND a.job_id = j.id AND a.fence = j.fence AND a.outcome IS NULL",
    )
    .bind(id.0)
    .execute(&mut *connection)
    .await?;
    apply(connection, &locked, &graph, &changes).await?;
    Ok(true)
}

/// A run whose row is locked until the transaction ends.
#[derive(Clone, Debug)]
pub(crate) struct LockedRun {
    pub id: RunId,
    pub document_id: DocumentId,
    pub state: RunState,
}

/// Locks a run's row: every settlement does this first, so that joins are serial within a run.
pub(crate) async fn lock(connection: &mut PgConnection, id: RunId) -> Result<Option<LockedRun>, DbError> {
    // NO KEY: inserts that refer to the run (outbox, jobs) need not wait.
    let row: Option<(Uuid, String)> = sqlx::query_as(
        "SELECT document_id, state FROM runs WHERE tenant_id = current_tenant() AND id = $1 FOR NO KEY UPDATE",
    )
    .bind(id.0)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(document_id, state)| LockedRun {
        id,
        document_id: DocumentId(document_id),
        state: RunState::parse(&state).unwrap_or(RunState::Running),
    }))
}

#[derive(sqlx::FromRow)]
struct GraphRow {
    id: Uuid,
    state: String,
    required: bool,
    on_settled: bool,
    pending: i32,
    successors: Vec<Uuid>,
    code: Option<String>,
}

/// Loads the graph of a locked run.
pub(crate) async fn load_graph(connection: &mut PgConnection, id: RunId, run: RunState) -> Result<Graph, DbError> {
    let rows: Vec<GraphRow> = sqlx::query_as(
        "SELECT id, state, required, on_settled, pending, successors, code FROM jobs
         WHERE tenant_id = current_tenant() AND run_id = $1 ORDER BY id",
    )
    .bind(id.0)
    .fetch_all(connection)
    .await?;
    let jobs = rows
        .into_iter()
        .map(|row| GraphJob {
            id: JobId(row.id),
            state: JobState::parse(&row.state).unwrap_or(JobState::Blocked),
            required: row.required,
            on_settled: row.on_settled,
            pending: row.pending,
            successors: row.successors.into_iter().map(JobId).collect(),
            code: row.code,
        })
        .collect();
    Ok(Graph { run, jobs })
}

/// Writes what the graph decided: jobs, their events, and the run's settlement.
pub(crate) async fn apply(
    connection: &mut PgConnection,
    run: &LockedRun,
    graph: &Graph,
    changes: &Changes,
) -> Result<(), DbError> {
    let changed: Vec<serde_json::Value> = changes
        .jobs
        .iter()
        .filter_map(|id| graph.job(*id))
        .map(|job| json!({"id": job.id, "state": job.state.as_str(), "pending": job.pending, "code": job.code}))
        .collect();
    if !changed.is_empty() {
        // The fence moves on for jobs that were running: their workers can no longer commit.
        sqlx::query(
            "WITH changed AS (
                UPDATE jobs j SET state = c.state, pending = c.pending, code = coalesce(c.code, j.code), updated_at = now(),
                    available_at = CASE WHEN c.state = 'ready' THEN now() ELSE j.available_at END,
                    emission = j.emission + CASE WHEN c.state = 'ready' THEN 1 ELSE 0 END, emitted_at = NULL,
                    fence = j.fence + CASE WHEN j.state = 'leased' THEN 1 ELSE 0 END, lease_until = NULL, held_reason = NULL,
                    finished_at = CASE WHEN c.state IN ('done', 'dead', 'cancelled') THEN now() END
                FROM jsonb_to_recordset($1) AS c (id uuid, state text, pending integer, code text)
                WHERE j.tenant_id = current_tenant() AND j.id = c.id AND j.state NOT IN ('done', 'dead', 'cancelled')
                RETURNING j.tenant_id, j.id, j.run_id, j.stage, j.state, j.emission, j.priority, j.traceparent)
             INSERT INTO outbox (tenant_id, topic, stage, job_id, run_id, emission, priority, traceparent)
             SELECT tenant_id, 'job', stage, id, run_id, emission, priority, traceparent FROM changed WHERE state = 'ready'",
        )
        .bind(serde_json::Value::Array(changed))
        .execute(&mut *connection)
        .await?;
    }
    if let Some((state, code)) = &changes.settled {
        settle(connection, run, *state, code.as_deref()).await?;
    }
    Ok(())
}

async fn settle(
    connection: &mut PgConnection,
    run: &LockedRun,
    state: RunState,
    code: Option<&str>,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE runs SET state = $2, code = $3, settled_at = now() WHERE tenant_id = current_tenant() AND id = $1",
    )
    .bind(run.id.0)
    .bind(state.as_str())
    .bind(code)
    .execute(&mut *connection)
    .await?;
    // Locked before the look at newer runs: starting one takes the same lock first.
    sqlx::query("SELECT 1 FROM documents WHERE tenant_id = current_tenant() AND id = $1 FOR NO KEY UPDATE")
        .bind(run.document_id.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE documents d SET state = $3, code = $4, updated_at = now() FROM runs r
         WHERE d.tenant_id = current_tenant() AND d.id = $1 AND r.tenant_id = d.tenant_id AND r.id = $2
           AND NOT EXISTS (SELECT 1 FROM runs newer WHERE newer.tenant_id = d.tenant_id AND newer.document_id = d.id
                           AND (newer.created_at, newer.id) > (r.created_at, r.id))",
    )
    .bind(run.document_id.0)
    .bind(run.id.0)
    .bind(state.as_str())
    .bind(code)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO outbox (tenant_id, topic, run_id, payload, traceparent)
         SELECT tenant_id, 'settled', id, jsonb_build_object('document_id', document_id, 'state', state, 'code', code), traceparent
         FROM runs WHERE tenant_id = current_tenant() AND id = $1",
    )
    .bind(run.id.0)
    .execute(&mut *connection)
    .await?;
    let data = json!({"state": state.as_str(), "code": code});
    record(connection, run.document_id, run.id, "run.settled", &data).await
}

/// Appends to the document's event feed: ids, counts and codes, never text.
pub(crate) async fn record(
    connection: &mut PgConnection,
    document: DocumentId,
    run: RunId,
    kind: &str,
    data: &serde_json::Value,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO document_events (tenant_id, document_id, run_id, kind, data) VALUES (current_tenant(), $1, $2, $3, $4)",
    )
    .bind(document.0)
    .bind(run.0)
    .bind(kind)
    .bind(data)
    .execute(connection)
    .await?;
    Ok(())
}
