//! Removing a tenant: keys stop working at once, rows and objects go, a receipt outside the tenant stays.

use crate::Stores;
use docmill_model::{Failure, TenantId};
use docmill_platform::database::DbError;
use docmill_platform::layout::tenant_prefixes;
use serde_json::json;
use sqlx::PgConnection;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// Rows of one kind removed in one transaction.
const BATCH: i64 = 2_000;
/// A signed URL or a worker may still write objects; they are looked for until this long after the rows are gone.
const AFTERGLOW: Duration = Duration::from_secs(3_600);

/// The record of a tenant's removal.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct TenantReceipt {
    /// The tenant that was.
    pub tenant: Uuid,
    /// `{"documents", "vectors", "artifacts", "objects"}`.
    pub counts: serde_json::Value,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
    /// When the last row was gone.
    pub rows_removed_at: Option<OffsetDateTime>,
    /// When objects had not turned up again for an hour.
    pub finished_at: Option<OffsetDateTime>,
}

/// Begins the removal: every key of the tenant is revoked. [`advance`] does the rest. Repeating it is harmless.
///
/// # Errors
/// `NOT_FOUND` for a tenant that never was; of the database.
pub async fn delete(stores: &Stores, tenant: TenantId) -> Result<TenantReceipt, Failure> {
    let engine = stores.database.engine();
    let begun = sqlx::query(
        "INSERT INTO tenant_deletions (tenant) SELECT id FROM tenants WHERE id = $1 ON CONFLICT (tenant) DO NOTHING",
    );
    begun.bind(tenant.0).execute(engine).await.map_err(DbError::from)?;
    sqlx::query("UPDATE api_keys SET revoked_at = now() WHERE tenant_id = $1 AND revoked_at IS NULL")
        .bind(tenant.0)
        .execute(engine)
        .await
        .map_err(DbError::from)?;
    let receipt = find(stores, tenant).await?;
    receipt.ok_or_else(|| Failure::new(docmill_model::Code::NotFound, "no such tenant"))
}

/// The receipt of a tenant's removal.
///
/// # Errors
/// Of the database.
pub async fn find(stores: &Stores, tenant: TenantId) -> Result<Option<TenantReceipt>, Failure> {
    let found = sqlx::query_as(
        "SELECT tenant, counts, created_at, rows_removed_at, finished_at FROM tenant_deletions WHERE tenant = $1",
    );
    Ok(found.bind(tenant.0).fetch_optional(stores.database.engine()).await.map_err(DbError::from)?)
}

/// Goes on with every removal that is not finished.
///
/// # Errors
/// Of the database and the object store.
pub(crate) async fn advance_all(stores: &Stores) -> Result<(), Failure> {
    let open: Vec<Uuid> = sqlx::query_scalar("SELECT tenant FROM tenant_deletions WHERE finished_at IS NULL")
        .fetch_all(stores.database.engine())
        .await
        .map_err(DbError::from)?;
    for tenant in open {
        if let Err(failure) = advance(stores, tenant.into()).await {
            tracing::warn!(%tenant, code = %failure.code, "the removal of a tenant goes on later");
        }
    }
    Ok(())
}

/// Removes rows in bounded transactions, then the tenant, then its objects; true when it is finished.
///
/// # Errors
/// Of the database and the object store: repeating goes on.
pub async fn advance(stores: &Stores, tenant: TenantId) -> Result<bool, Failure> {
    let mut counts = json!({});
    for (kind, statement) in [
        (
            "documents",
            "DELETE FROM documents WHERE tenant_id = current_tenant() AND id IN (
            SELECT id FROM documents WHERE tenant_id = current_tenant() LIMIT $1)",
        ),
        (
            "vectors",
            "DELETE FROM vectors WHERE tenant_id = current_tenant() AND ctid = ANY (ARRAY(
            SELECT ctid FROM vectors WHERE tenant_id = current_tenant() LIMIT $1))",
        ),
        (
            "artifacts",
            "DELETE FROM artifacts WHERE tenant_id = current_tenant() AND sha256 IN (
            SELECT sha256 FROM artifacts WHERE tenant_id = current_tenant() LIMIT $1)",
        ),
    ] {
        counts[kind] = empty(stores, tenant, statement).await?.into();
    }
    let engine = stores.database.engine();
    sqlx::query("DELETE FROM tenants WHERE id = $1").bind(tenant.0).execute(engine).await.map_err(DbError::from)?;
    counts["objects"] = remove_objects(stores, tenant).await?.into();
    let finished: Option<bool> = sqlx::query_scalar(
        "UPDATE tenant_deletions SET rows_removed_at = coalesce(rows_removed_at, now()),
                counts = (SELECT jsonb_object_agg(key, coalesce((counts ->> key)::bigint, 0) + value::text::bigint) FROM jsonb_each($2)),
                finished_at = CASE WHEN rows_removed_at < now() - make_interval(secs => $3) AND $4 THEN now() END
         WHERE tenant = $1 AND finished_at IS NULL RETURNING finished_at IS NOT NULL",
    )
    .bind(tenant.0)
    .bind(&counts)
    .bind(AFTERGLOW.as_secs_f64())
    .bind(counts["objects"] == 0)
    .fetch_optional(engine)
    .await
    .map_err(DbError::from)?;
    Ok(finished.unwrap_or(true))
}

async fn empty(stores: &Stores, tenant: TenantId, statement: &'static str) -> Result<i64, Failure> {
    let mut removed = 0;
    loop {
        let batch = stores.database.write(tenant, move |connection: &mut PgConnection| {
            Box::pin(
                async move { Ok(sqlx::query(statement).bind(BATCH).execute(connection).await?.rows_affected() as i64) },
            )
        });
        match batch.await? {
            0 => return Ok(removed),
            count => removed += count,
        }
    }
}

async fn remove_objects(stores: &Stores, tenant: TenantId) -> Result<i64, Failure> {
    let mut removed = 0;
    for prefix in tenant_prefixes(tenant) {
        loop {
            let page = stores.blobs().list(&prefix, None).await?;
            if page.is_empty() {
                break;
            }
            for entry in &page {
                stores.blobs().delete(&entry.key).await?;
            }
            removed += page.len() as i64;
        }
    }
    Ok(removed)
}
