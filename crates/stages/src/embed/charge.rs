//! What embedding costs, in the ledger: one row a job and task.

use docmill_platform::database::DbError;
use docmill_runtime::JobContext;
use sqlx::PgConnection;

/// Adds to the job's one ledger row of a task; creates it when it is the first.
pub(super) async fn charge(
    connection: &mut PgConnection,
    job: &JobContext,
    task: &str,
    space: i32,
    units: i64,
    tokens: i64,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO ledger (tenant_id, feature, task, provider, model, document_id, job_id, fence, units, tokens_in, outcome)
         SELECT current_tenant(), 'embed', $7, 'local',
                coalesce((SELECT name FROM embedding_spaces WHERE id = $6), ''), $1, $2, $3, $4, $5, 'committed'
         ON CONFLICT (tenant_id, job_id, feature, task) WHERE job_id IS NOT NULL AND outcome = 'committed'
         DO UPDATE SET units = ledger.units + excluded.units, tokens_in = ledger.tokens_in + excluded.tokens_in, fence = excluded.fence",
    )
    .bind(job.document_id.0)
    .bind(job.job_id.0)
    .bind(job.fence)
    .bind(units)
    .bind(tokens)
    .bind(space)
    .bind(task)
    .execute(connection)
    .await?;
    Ok(())
}
