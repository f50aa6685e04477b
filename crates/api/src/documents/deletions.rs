//! The second half of a deletion: vectors, cached results and objects that nothing else of the tenant uses.
//!
//! Each deletion is a row that says what is left to remove; it is finished when nothing is. Removal waits while other
//! runs of the tenant are open, because these may rely on a vector or an object without a row that says so yet.
//! Repeating it is harmless, so a killed process loses nothing: [`run`] goes on with what is unfinished.

use super::accepted_key;
use docmill_model::{Code, DocumentId, Failure, TenantId};
use docmill_platform::blobs::Blobs;
use docmill_platform::database::{Database, DbError};
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause between looks at unfinished deletions.
const PAUSE: Duration = Duration::from_secs(15);
/// Deletions taken up at one look.
const BATCH: i64 = 500;

/// What is left of a deleted document.
#[derive(Clone, sqlx::FromRow)]
struct Leftovers {
    embed_hashes: Vec<Vec<u8>>,
    artifacts: Vec<String>,
    accepted: Vec<String>,
    uploads: Vec<String>,
    is_due: bool,
}

/// Takes up unfinished deletions of all tenants until `stop`.
pub async fn run(database: Database, blobs: Arc<dyn Blobs>, stop: CancellationToken) {
    while tokio::time::timeout(PAUSE, stop.cancelled()).await.is_err() {
        let open: Result<Vec<(uuid::Uuid, uuid::Uuid)>, _> = sqlx::query_as(
            "SELECT tenant_id, document_id FROM deletions WHERE finished_at IS NULL AND finish_after <= now()
             ORDER BY created_at LIMIT $1",
        )
        .bind(BATCH)
        .fetch_all(database.engine())
        .await;
        for (tenant, document) in open.unwrap_or_default() {
            if stop.is_cancelled() {
                return;
            }
            if let Err(failure) = finish(&database, &blobs, tenant.into(), document.into()).await {
                tracing::warn!(document = %document, code = %failure.code, "a deletion is tried again later");
            }
        }
    }
}

/// Removes what the deleted document left and nothing else uses; true when nothing is left to do.
///
/// # Errors
/// `DATABASE_UNAVAILABLE`, `STORE_UNAVAILABLE`: the rest is done by the next call.
pub async fn finish(
    database: &Database,
    blobs: &Arc<dyn Blobs>,
    tenant: TenantId,
    document: DocumentId,
) -> Result<bool, Failure> {
    let blobs = blobs.clone();
    let write = database.write(tenant, move |connection| {
        Box::pin(async move { finish_in(connection, &*blobs, tenant, document).await })
    });
    Ok(write.await?)
}

async fn finish_in(
    connection: &mut PgConnection,
    blobs: &dyn Blobs,
    tenant: TenantId,
    document: DocumentId,
) -> Result<bool, DbError> {
    let left: Option<Leftovers> = sqlx::query_as(
        "SELECT embed_hashes, artifacts, accepted, uploads, finish_after <= now() AS is_due FROM deletions
         WHERE tenant_id = current_tenant() AND document_id = $1 AND finished_at IS NULL FOR UPDATE SKIP LOCKED",
    )
    .bind(document.0)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(left) = left else { return Ok(true) };
    for key in &left.uploads {
        blobs.delete(key).await.map_err(Failure::from)?;
    }
    let busy: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM runs WHERE tenant_id = current_tenant() AND state = 'running')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if busy {
        return Ok(false);
    }
    remove_vectors(connection, &left.embed_hashes).await?;
    remove_artifacts(connection, blobs, &left.artifacts).await?;
    remove_accepted(connection, blobs, tenant, &left.accepted).await?;
    sqlx::query(
        "UPDATE deletions SET embed_hashes = '{}', artifacts = '{}', accepted = '{}',
                uploads = CASE WHEN $2 THEN '{}' ELSE uploads END, finished_at = CASE WHEN $2 THEN now() END
         WHERE tenant_id = current_tenant() AND document_id = $1",
    )
    .bind(document.0)
    .bind(left.is_due)
    .execute(connection)
    .await?;
    Ok(left.is_due)
}

async fn remove_vectors(connection: &mut PgConnection, embed_hashes: &[Vec<u8>]) -> Result<(), DbError> {
    sqlx::query(
        "DELETE FROM vectors v WHERE v.tenant_id = current_tenant() AND v.embed_hash = ANY ($1)
           AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.tenant_id = v.tenant_id AND c.embed_hash = v.embed_hash)",
    )
    .bind(embed_hashes)
    .execute(connection)
    .await?;
    Ok(())
}

async fn remove_artifacts(
    connection: &mut PgConnection,
    blobs: &dyn Blobs,
    artifacts: &[String],
) -> Result<(), DbError> {
    let unused: Vec<String> = sqlx::query_scalar(
        "SELECT unnest($1::text[])
         EXCEPT SELECT parsed_sha256 FROM document_versions WHERE tenant_id = current_tenant()
         EXCEPT SELECT a.value ->> 'sha256' FROM jobs j, jsonb_each(j.manifest -> 'artifacts') a WHERE j.tenant_id = current_tenant()",
    )
    .bind(artifacts)
    .fetch_all(&mut *connection)
    .await?;
    // A cached result without its object would fail whoever uses it.
    sqlx::query(
        "DELETE FROM stage_cache s WHERE s.tenant_id = current_tenant()
           AND EXISTS (SELECT 1 FROM jsonb_each(s.manifest -> 'artifacts') a WHERE a.value ->> 'sha256' = ANY ($1))",
    )
    .bind(&unused)
    .execute(&mut *connection)
    .await?;
    // The lock on the row holds off a writer of equal bytes until both object and row are gone.
    let keys: Vec<String> = sqlx::query_scalar(
        "SELECT key FROM artifacts WHERE tenant_id = current_tenant() AND sha256 = ANY ($1) ORDER BY sha256 FOR UPDATE",
    )
    .bind(&unused)
    .fetch_all(&mut *connection)
    .await?;
    for key in &keys {
        blobs.delete(key).await.map_err(Failure::from)?;
    }
    sqlx::query("DELETE FROM artifacts WHERE tenant_id = current_tenant() AND sha256 = ANY ($1)")
        .bind(&unused)
        .execute(connection)
        .await?;
    Ok(())
}

async fn remove_accepted(
    connection: &mut PgConnection,
    blobs: &dyn Blobs,
    tenant: TenantId,
    accepted: &[String],
) -> Result<(), DbError> {
    // Also an upload that is still open counts: its `complete` may already rely on the object.
    let unused: Vec<String> = sqlx::query_scalar(
        "SELECT unnest($1::text[]) EXCEPT SELECT sha256 FROM document_versions
         WHERE tenant_id = current_tenant() AND upload_state IN ('pending', 'accepted')",
    )
    .bind(accepted)
    .fetch_all(connection)
    .await?;
    for sha256 in &unused {
        match blobs.delete(&accepted_key(tenant, sha256)).await.map_err(Failure::from) {
            Err(failure) if failure.code != Code::ObjectMissing => return Err(failure.into()),
            _ => {}
        }
    }
    Ok(())
}
