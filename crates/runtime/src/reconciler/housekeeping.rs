//! Uploads that were never completed, and rows that have served their time.

use super::BATCH;
use crate::engine::Core;
use docmill_model::TenantId;
use docmill_platform::database::DbError;
use std::sync::Arc;
use uuid::Uuid;

/// Ends uploads whose URL ran out before `complete`.
pub(super) async fn expire_uploads(core: &Arc<Core>) -> Result<(), DbError> {
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT tenant_id, id FROM document_versions
         WHERE upload_state = 'pending' AND upload_expires_at < now() ORDER BY upload_expires_at LIMIT $1",
    )
    .bind(BATCH)
    .fetch_all(core.database.engine())
    .await?;
    for (tenant, version) in rows {
        core.database
            .write(TenantId(tenant), move |connection| {
                Box::pin(async move {
                    // The version first, as `complete` does.
                    sqlx::query(
                        "WITH expired AS (
                            UPDATE document_versions SET upload_state = 'expired'
                            WHERE tenant_id = current_tenant() AND id = $1 AND upload_state = 'pending' AND upload_expires_at < now()
                            RETURNING tenant_id, document_id),
                         told AS (
                            INSERT INTO document_events (tenant_id, document_id, kind)
                            SELECT tenant_id, document_id, 'upload.expired' FROM expired)
                         UPDATE documents d SET state = 'expired', code = 'UPLOAD_EXPIRED', updated_at = now() FROM expired e
                         WHERE d.tenant_id = e.tenant_id AND d.id = e.document_id AND d.state = 'uploading'",
                    )
                    .bind(version)
                    .execute(connection)
                    .await?;
                    Ok(())
                })
            })
            .await?;
    }
    Ok(())
}

/// Removes sent events after an hour, parked ones after 30 days, idempotency keys after a day, remembered answers of
/// models after 30 days, conversations when they have expired.
pub(super) async fn prune(core: &Arc<Core>) -> Result<(), DbError> {
    let engine = core.database.engine();
    sqlx::query(
        "DELETE FROM outbox WHERE id IN (
            SELECT id FROM outbox WHERE sent_at < now() - interval '1 hour' ORDER BY sent_at LIMIT 20000 FOR UPDATE SKIP LOCKED)",
    )
    .execute(engine)
    .await?;
    sqlx::query("DELETE FROM parked_events WHERE created_at < now() - interval '30 days'").execute(engine).await?;
    for tenant in core.database.tenants().await? {
        core.database
            .write(tenant, |connection| {
                Box::pin(async move {
                    for statement in [
                        "DELETE FROM idempotency_keys
                         WHERE tenant_id = current_tenant() AND created_at < now() - interval '24 hours'",
                        "DELETE FROM model_cache WHERE tenant_id = current_tenant() AND created_at < now() - interval '30 days'",
                        "DELETE FROM conversations WHERE tenant_id = current_tenant() AND expires_at < now()",
                    ] {
                        sqlx::query(statement).execute(&mut *connection).await?;
                    }
                    Ok(())
                })
            })
            .await?;
    }
    Ok(())
}
