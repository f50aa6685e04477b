//! What a graph's decision writes: jobs, their events, and the run's settlement with its document.

use crate::machine::graph::{Changes, Graph, GraphJob};
use crate::machine::{JobState, RunState};
use docmill_model::manifest::FAILED_PAGES;
use docmill_model::{DocumentId, JobId, RunId};
use docmill_platform::database::DbError;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

/// A run whose row is locked until the transaction ends.
#[derive(Clone, Debug)]
pub(crate) struct LockedRun {
    pub id: RunId,
    pub document_id: DocumentId,
    pub state: RunState,
    pub is_sample: bool,
}

/// Locks a run's row: every settlement does this first, so that joins are serial within a run.
pub(crate) async fn lock(connection: &mut PgConnection, id: RunId) -> Result<Option<LockedRun>, DbError> {
    // NO KEY: inserts that refer to the run (outbox, jobs) need not wait.
    let row: Option<(Uuid, String, bool)> = sqlx::query_as(
        "SELECT document_id, state, cause = 'sample' FROM runs WHERE tenant_id = current_tenant() AND id = $1 FOR NO KEY UPDATE",
    )
    .bind(id.0)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(document_id, state, is_sample)| LockedRun {
        id,
        document_id: DocumentId(document_id),
        state: RunState::parse(&state).unwrap_or(RunState::Running),
        is_sample,
    }))
}

/// One job of a run, as the graph and a settlement need it.
#[derive(sqlx::FromRow)]
pub(crate) struct JobRow {
    pub id: Uuid,
    pub state: String,
    required: bool,
    on_settled: bool,
    pending: i32,
    successors: Vec<Uuid>,
    code: Option<String>,
    pub failed: i32,
    pub lost: i32,
    pub fence: i64,
}

/// Loads the jobs of a locked run, in pipeline order.
pub(crate) async fn load_jobs(connection: &mut PgConnection, id: RunId) -> Result<Vec<JobRow>, DbError> {
    Ok(sqlx::query_as(
        "SELECT id, state, required, on_settled, pending, successors, code, failed, lost, fence FROM jobs
         WHERE tenant_id = current_tenant() AND run_id = $1 ORDER BY id",
    )
    .bind(id.0)
    .fetch_all(connection)
    .await?)
}

/// The graph of a locked run.
pub(crate) fn graph(run: RunState, jobs: Vec<JobRow>) -> Graph {
    let jobs = jobs
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
    Graph { run, jobs }
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
        // The fence moves on for jobs that were running: their workers can no longer commit. The ids once more, as an
        // array: a join with the records alone may be planned as a look at all jobs of the tenant.
        sqlx::query(
            "WITH changed AS (
                UPDATE jobs j SET state = c.state, pending = c.pending, code = coalesce(c.code, j.code), updated_at = now(),
                    available_at = CASE WHEN c.state = 'ready' THEN now() ELSE j.available_at END,
                    emission = j.emission + CASE WHEN c.state = 'ready' THEN 1 ELSE 0 END, emitted_at = NULL,
                    fence = j.fence + CASE WHEN j.state = 'leased' THEN 1 ELSE 0 END, lease_until = NULL, held_reason = NULL,
                    finished_at = CASE WHEN c.state IN ('done', 'dead', 'cancelled') THEN now() END
                FROM jsonb_to_recordset($1) AS c (id uuid, state text, pending integer, code text)
                WHERE j.tenant_id = current_tenant() AND j.id = ANY ($2) AND j.id = c.id
                  AND j.state NOT IN ('done', 'dead', 'cancelled')
                RETURNING j.tenant_id, j.id, j.run_id, j.stage, j.state, j.emission, j.priority, j.traceparent)
             INSERT INTO outbox (tenant_id, topic, stage, job_id, run_id, emission, priority, traceparent)
             SELECT tenant_id, 'job', stage, id, run_id, emission, priority, traceparent FROM changed WHERE state = 'ready'",
        )
        .bind(serde_json::Value::Array(changed))
        .bind(changes.jobs.iter().map(|id| id.0).collect::<Vec<Uuid>>())
        .execute(&mut *connection)
        .await?;
    }
    let is_cancelled = |job: &GraphJob| job.state == JobState::Cancelled;
    let cancelled: Vec<Uuid> =
        changes.jobs.iter().filter(|id| graph.job(**id).is_some_and(is_cancelled)).map(|id| id.0).collect();
    if !cancelled.is_empty() {
        // After the update, which waits for a claim under way: its attempt is seen here.
        sqlx::query(
            "UPDATE attempts SET outcome = 'cancelled', finished_at = now()
             WHERE tenant_id = current_tenant() AND job_id = ANY($1) AND outcome IS NULL",
        )
        .bind(cancelled)
        .execute(&mut *connection)
        .await?;
    }
    if let Some((state, code)) = &changes.settled {
        match failed_page(connection, run.id).await? {
            Some(failed) if *state == RunState::Done => {
                settle(connection, run, RunState::Partial, Some(&failed)).await?;
            }
            _ => settle(connection, run, *state, code.as_deref()).await?,
        }
    }
    Ok(())
}

/// The code of the first page that could not be read: such a run is partial though all its jobs are done.
async fn failed_page(connection: &mut PgConnection, run: RunId) -> Result<Option<String>, DbError> {
    let code: Option<Option<String>> = sqlx::query_scalar(
        "SELECT manifest #>> ARRAY['facts', $2, '0', 'code'] FROM jobs
         WHERE tenant_id = current_tenant() AND run_id = $1 AND manifest -> 'facts' ? $2 LIMIT 1",
    )
    .bind(run.0)
    .bind(FAILED_PAGES)
    .fetch_optional(connection)
    .await?;
    Ok(code.flatten())
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
    if run.is_sample {
        return Ok(());
    }
    // Locked before the look at newer runs: starting one takes the same lock first.
    sqlx::query("SELECT 1 FROM documents WHERE tenant_id = current_tenant() AND id = $1 FOR NO KEY UPDATE")
        .bind(run.document_id.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "UPDATE documents d SET state = $3, code = $4, updated_at = now() FROM runs r
         WHERE d.tenant_id = current_tenant() AND d.id = $1 AND r.tenant_id = d.tenant_id AND r.id = $2
           AND NOT EXISTS (SELECT 1 FROM runs newer WHERE newer.tenant_id = d.tenant_id AND newer.document_id = d.id
                           AND newer.cause <> 'sample' AND (newer.created_at, newer.id) > (r.created_at, r.id))",
    )
    .bind(run.document_id.0)
    .bind(run.id.0)
    .bind(state.as_str())
    .bind(code)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO outbox (tenant_id, topic, run_id, traceparent)
         SELECT tenant_id, 'settled', id, traceparent FROM runs WHERE tenant_id = current_tenant() AND id = $1",
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
