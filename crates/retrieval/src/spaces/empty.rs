//! Emptying a dropped space: its vectors go in small steps, the space with the last one.

use docmill_model::{Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use docmill_platform::embedder::Space;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Vectors removed by one statement.
const BATCH: i64 = 2_000;

/// Removes what a dropped space holds, once the runs that may still write into it have settled, for about `slice`.
///
/// # Errors
/// `DATABASE_UNAVAILABLE`: the next call goes on.
pub(super) async fn empty(
    database: &Database,
    space: &Space,
    slice: Duration,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let (engine, started) = (database.engine(), Instant::now());
    let is_awaited: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM runs r JOIN space_drops d ON d.space_id = $1 AND d.finished_at IS NULL
                        WHERE r.state = 'running' AND r.created_at < d.created_at)",
    )
    .bind(space.id)
    .fetch_one(engine)
    .await
    .map_err(DbError::from)?;
    if is_awaited {
        return Ok(());
    }
    // Evaluations included: the space goes with everything in it.
    for tenant in database.tenants().await? {
        loop {
            if stop.is_cancelled() || started.elapsed() >= slice {
                return Ok(());
            }
            if remove(database, tenant, space.id).await? < BATCH {
                break;
            }
        }
    }
    let ended = sqlx::query(
        "WITH gone AS (DELETE FROM embedding_spaces WHERE id = $1 AND state = 'dropping' AND created_at = $2 RETURNING id)
         UPDATE space_drops d SET finished_at = now() FROM gone WHERE d.space_id = gone.id AND d.finished_at IS NULL",
    );
    match ended.bind(space.id).bind(space.created_at).execute(engine).await {
        Ok(_) => {
            tracing::info!(space = space.name, "the embedding space is gone");
            Ok(())
        }
        // A writer was in between: the next round removes what it wrote.
        Err(sqlx::Error::Database(refused)) if refused.is_foreign_key_violation() => Ok(()),
        Err(error) => Err(DbError::from(error).into_failure()),
    }
}

/// Removes some vectors of a tenant and counts them on the receipt. The number may be another space's by now: only one that
/// is being dropped loses anything.
async fn remove(database: &Database, tenant: TenantId, space: i32) -> Result<i64, Failure> {
    let write = database.write(tenant, move |connection| {
        Box::pin(async move {
            let removed = sqlx::query(
                "WITH space AS (SELECT id FROM embedding_spaces WHERE id = $1 AND state = 'dropping' FOR KEY SHARE)
                 DELETE FROM vectors v USING space
                 WHERE v.tenant_id = current_tenant() AND v.space_id = space.id AND v.embed_hash IN (
                    SELECT embed_hash FROM vectors WHERE tenant_id = current_tenant() AND space_id = $1 LIMIT $2)",
            )
            .bind(space)
            .bind(BATCH)
            .execute(&mut *connection)
            .await?
            .rows_affected() as i64;
            if removed > 0 {
                sqlx::query(
                    "UPDATE space_drops SET vectors = vectors + $2 WHERE space_id = $1 AND finished_at IS NULL",
                )
                .bind(space)
                .bind(removed)
                .execute(connection)
                .await?;
            }
            Ok(removed)
        })
    });
    Ok(write.await?)
}
