//! Whether this node's lexical indexes hold what Postgres says they should: every chunk of what is visible, once, and
//! nothing else. For the doctor; a search does not rely on it, since it asks Postgres what is visible.

use crate::lexical::LexicalIndexes;
use docmill_model::{Failure, GenerationId, TenantId};
use docmill_platform::database::{Database, DbError};
use sqlx::PgPool;
use std::sync::Arc;
use uuid::Uuid;

/// A tenant whose index differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexDifference {
    /// The tenant.
    pub tenant: TenantId,
    /// Visible generations whose number of chunks in the index is another.
    pub generations: usize,
    /// Chunks in the index that belong to none that is visible or being built or removed.
    pub surplus: i64,
}

/// Compares every tenant that is examined. What changes at this moment may show; looking again tells.
///
/// # Errors
/// Failures of database and index.
pub async fn compare(database: &Database, lexical: &Arc<LexicalIndexes>) -> Result<Vec<IndexDifference>, Failure> {
    let examined: Vec<Uuid> = database.examined_tenants().await?.into_iter().map(|tenant| tenant.0).collect();
    let tenants: Vec<Uuid> = sqlx::query_scalar(
        "SELECT tenant_id FROM index_heads WHERE seq > 0 AND tenant_id = ANY ($1) ORDER BY tenant_id",
    )
    .bind(examined)
    .fetch_all(database.engine())
    .await
    .map_err(DbError::from)?;
    let mut found = Vec::new();
    for tenant in tenants.into_iter().map(TenantId) {
        let known = generations(database.engine(), tenant).await.map_err(DbError::from)?;
        let asked = known.iter().map(|generation| GenerationId(generation.id)).collect();
        let (counts, total) = lexical.count(tenant, asked).await?;
        let wrong =
            known.iter().zip(&counts).filter(|(known, count)| known.visible && i64::from(known.chunks) != **count);
        let difference =
            IndexDifference { tenant, generations: wrong.count(), surplus: total - counts.iter().sum::<i64>() };
        if difference.generations > 0 || difference.surplus != 0 {
            found.push(difference);
        }
    }
    Ok(found)
}

#[derive(sqlx::FromRow)]
struct Known {
    id: Uuid,
    chunks: i32,
    visible: bool,
}

async fn generations(pool: &PgPool, tenant: TenantId) -> Result<Vec<Known>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, chunk_count AS chunks, state = 'visible' AS visible FROM generations
         WHERE tenant_id = $1 AND (state <> 'retired' OR retired_at > now() - interval '1 minute')",
    )
    .bind(tenant.0)
    .fetch_all(pool)
    .await
}
