//! The second half of every deletion: vectors, artifacts and objects that nothing else of the tenant uses.
//!
//! What is condemned goes once the runs that were open when it was condemned have settled: they may rely on a vector or
//! an object without a row that says so yet. Later runs see the condemnation and renew what they need.

use crate::Stores;
use crate::receipt::{self, Counts};
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::blobs::Blobs;
use docmill_platform::database::DbError;
use docmill_platform::layout::accepted_key;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// What one deletion condemns.
#[derive(sqlx::FromRow)]
struct Open {
    embed_hashes: Vec<Vec<u8>>,
    artifacts: Vec<String>,
    accepted: Vec<String>,
    uploads: Vec<String>,
    created_at: OffsetDateTime,
    waits_for: OffsetDateTime,
    is_due: bool,
}

/// Removes what is condemned under receipt `id` and nothing else uses; true when nothing is left to do.
///
/// # Errors
/// `DATABASE_UNAVAILABLE`, `STORE_UNAVAILABLE`: the rest is done by the next call.
pub(crate) async fn finish(stores: &Stores, tenant: TenantId, id: Uuid) -> Result<bool, Failure> {
    // Committed before the look at open runs, so that a run begun later sees what is condemned.
    let marked = stores.database.write(tenant, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "UPDATE deletions SET waits_for = clock_timestamp()
                 WHERE tenant_id = current_tenant() AND id = $1 AND finished_at IS NULL AND waits_for IS NULL AND rows_removed",
            )
            .bind(id)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    marked.await?;
    let blobs = stores.blobs().clone();
    let finished = stores
        .database
        .write(tenant, move |connection| Box::pin(async move { finish_in(connection, &*blobs, tenant, id).await }));
    Ok(finished.await?)
}

async fn finish_in(
    connection: &mut PgConnection,
    blobs: &dyn Blobs,
    tenant: TenantId,
    id: Uuid,
) -> Result<bool, DbError> {
    let open: Option<Open> = sqlx::query_as(
        "SELECT embed_hashes, artifacts, accepted, uploads, created_at, waits_for, finish_after <= now() AS is_due FROM deletions
         WHERE tenant_id = current_tenant() AND id = $1 AND finished_at IS NULL AND waits_for IS NOT NULL FOR UPDATE SKIP LOCKED",
    )
    .bind(id)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(open) = open else { return Ok(false) };
    let mut counts = Counts::default();
    for key in &open.uploads {
        counts.objects += remove_object(blobs, key).await?;
    }
    let busy: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM runs WHERE tenant_id = current_tenant() AND state = 'running' AND created_at < $1)",
    )
    .bind(open.waits_for)
    .fetch_one(&mut *connection)
    .await?;
    if busy {
        return Ok(false);
    }
    remove_vectors(connection, &open, &mut counts).await?;
    remove_artifacts(connection, blobs, &open, &mut counts).await?;
    remove_accepted(connection, blobs, tenant, &open, &mut counts).await?;
    receipt::add(connection, id, &counts).await?;
    sqlx::query(
        "UPDATE deletions SET embed_hashes = '{}', artifacts = '{}', accepted = '{}',
                uploads = CASE WHEN $2 THEN '{}' ELSE uploads END, finished_at = CASE WHEN $2 THEN now() END
         WHERE tenant_id = current_tenant() AND id = $1",
    )
    .bind(id)
    .bind(open.is_due)
    .execute(connection)
    .await?;
    Ok(open.is_due)
}

/// Removes an object; 1 when there was one.
async fn remove_object(blobs: &dyn Blobs, key: &str) -> Result<i64, Failure> {
    let there = blobs.head(key).await?.is_some();
    match blobs.delete(key).await.map_err(Failure::from) {
        Err(failure) if failure.code != Code::ObjectMissing => Err(failure),
        _ => Ok(i64::from(there)),
    }
}

async fn remove_vectors(connection: &mut PgConnection, open: &Open, counts: &mut Counts) -> Result<(), DbError> {
    let removed = sqlx::query(
        "DELETE FROM vectors v WHERE v.tenant_id = current_tenant() AND v.embed_hash = ANY ($1) AND v.created_at < $2
           AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.tenant_id = v.tenant_id AND c.embed_hash = v.embed_hash)",
    )
    .bind(&open.embed_hashes)
    .bind(open.created_at)
    .execute(connection)
    .await?;
    counts.vectors += removed.rows_affected() as i64;
    Ok(())
}

async fn remove_artifacts(
    connection: &mut PgConnection,
    blobs: &dyn Blobs,
    open: &Open,
    counts: &mut Counts,
) -> Result<(), DbError> {
    // The lock on a row holds off a writer of equal bytes until both object and row are gone.
    let unused: Vec<(String, String)> = sqlx::query_as(
        "WITH unused AS (
            SELECT unnest($1::text[]) AS sha256
            EXCEPT SELECT parsed_sha256 FROM document_versions WHERE tenant_id = current_tenant()
            EXCEPT SELECT a.value ->> 'sha256' FROM jobs j, jsonb_each(j.manifest -> 'artifacts') a WHERE j.tenant_id = current_tenant()
            EXCEPT SELECT a.value ->> 'sha256' FROM stage_cache s, jsonb_each(s.manifest -> 'artifacts') a WHERE s.tenant_id = current_tenant())
         SELECT a.sha256, a.key FROM artifacts a JOIN unused u USING (sha256)
         WHERE a.tenant_id = current_tenant() AND a.created_at < $2 ORDER BY a.sha256 FOR UPDATE OF a",
    )
    .bind(&open.artifacts)
    .bind(open.created_at)
    .fetch_all(&mut *connection)
    .await?;
    for (_, key) in &unused {
        counts.objects += remove_object(blobs, key).await?;
    }
    let sha256s: Vec<&str> = unused.iter().map(|(sha256, _)| sha256.as_str()).collect();
    let removed = sqlx::query("DELETE FROM artifacts WHERE tenant_id = current_tenant() AND sha256 = ANY ($1)")
        .bind(&sha256s)
        .execute(connection)
        .await?;
    counts.artifacts += removed.rows_affected() as i64;
    Ok(())
}

async fn remove_accepted(
    connection: &mut PgConnection,
    blobs: &dyn Blobs,
    tenant: TenantId,
    open: &Open,
    counts: &mut Counts,
) -> Result<(), DbError> {
    // Also an upload that is still open counts: its `complete` may already rely on the object.
    let unused: Vec<String> = sqlx::query_scalar(
        "SELECT unnest($1::text[]) EXCEPT SELECT sha256 FROM document_versions
         WHERE tenant_id = current_tenant() AND upload_state IN ('pending', 'accepted') AND raw_removed_at IS NULL",
    )
    .bind(&open.accepted)
    .fetch_all(connection)
    .await?;
    for sha256 in &unused {
        counts.objects += remove_object(blobs, &accepted_key(tenant, sha256)).await?;
    }
    Ok(())
}
