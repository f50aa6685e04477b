//! The node's row: its lease and its watermarks, on database time.

use super::Shared;
use docmill_model::{Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Enters the node without a lease and forgets the watermarks of an earlier life: the disk may have been lost since.
pub(super) async fn register(database: &Database, node_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO index_nodes (id, lease_until) VALUES ($1, now()) ON CONFLICT (id) DO UPDATE SET lease_until = now()")
        .bind(node_id)
        .execute(database.engine())
        .await?;
    sqlx::query("DELETE FROM index_watermarks WHERE node_id = $1").bind(node_id).execute(database.engine()).await?;
    Ok(())
}

/// Writes how far a tenant has come.
pub(super) async fn report(database: &Database, node_id: &str, tenant: TenantId, seq: i64) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO index_watermarks (node_id, tenant_id, seq)
         SELECT $1, $2, $3 WHERE EXISTS (SELECT 1 FROM index_heads h WHERE h.tenant_id = $2)
         ON CONFLICT (node_id, tenant_id) DO UPDATE SET seq = excluded.seq",
    )
    .bind(node_id)
    .bind(tenant.0)
    .bind(seq)
    .execute(database.engine())
    .await
    .map_err(DbError::from)?;
    Ok(())
}

/// Renews the lease at a third of its length while the node keeps up; lets it run out otherwise.
pub(super) async fn keep_lease(database: Database, shared: Arc<Shared>, stop: CancellationToken) {
    let (lease, max_lag) = (shared.config.lease, shared.config.max_lag);
    while !stop.is_cancelled() {
        let caught_up_at = *shared.caught_up_at.lock().unwrap_or_else(PoisonError::into_inner);
        let keeps_up = caught_up_at.is_some_and(|at| at.elapsed() < max_lag);
        let is_live = keeps_up && renew(&database, &shared).await;
        if shared.is_live.swap(is_live, Ordering::AcqRel) != is_live {
            tracing::info!(node = shared.config.node_id, is_live, "index node changed rotation");
        }
        let pause = if is_live { lease / 3 } else { Duration::from_millis(25).min(lease / 3) };
        let _ = tokio::time::timeout(pause, stop.cancelled()).await;
    }
}

async fn renew(database: &Database, shared: &Shared) -> bool {
    let renewed = sqlx::query("UPDATE index_nodes SET lease_until = now() + make_interval(secs => $2) WHERE id = $1")
        .bind(&shared.config.node_id)
        .bind(shared.config.lease.as_secs_f64())
        .execute(database.engine())
        .await;
    match renewed {
        Ok(done) if done.rows_affected() == 1 => true,
        Ok(_) => {
            shared.is_registered.store(false, Ordering::Release);
            false
        }
        Err(error) => {
            tracing::warn!(error = %error, "the index node's lease could not be renewed");
            false
        }
    }
}

/// Takes the node out; its watermarks go with it.
pub(super) async fn leave(database: &Database, node_id: &str) {
    let left = sqlx::query("DELETE FROM index_nodes WHERE id = $1").bind(node_id).execute(database.engine()).await;
    if let Err(error) = left {
        tracing::warn!(error = %error, "the index node could not leave; its lease runs out by itself");
    }
}
