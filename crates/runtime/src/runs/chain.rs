//! Runs as operators see them: one, and the runs before it that it repeats. Ids, states and codes; never text.

use docmill_model::RunId;
use docmill_platform::database::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// How a run stands.
#[derive(Clone, Debug, PartialEq, serde::Serialize, sqlx::FromRow)]
pub struct RunRow {
    /// Identifier.
    pub id: Uuid,
    /// The document.
    pub document_id: Uuid,
    /// The version.
    pub version_id: Uuid,
    /// The pinned pipeline version.
    pub pipeline_version: String,
    /// Why it exists: the spelling of a [`Cause`](super::Cause).
    pub cause: String,
    /// The run this one repeats.
    pub parent_run: Option<Uuid>,
    /// `running`, `done`, `partial`, `failed` or `cancelled`.
    pub state: String,
    /// Code of the failure.
    pub code: Option<String>,
    /// When it began.
    pub created_at: OffsetDateTime,
    /// When it settled.
    pub settled_at: Option<OffsetDateTime>,
}

/// A run of the current tenant and those it repeats, the newest first and at most `limit` of them; empty when there is
/// no such run.
///
/// # Errors
/// The driver's error.
pub async fn chain(connection: &mut PgConnection, id: RunId, limit: i64) -> Result<Vec<RunRow>, DbError> {
    let rows = sqlx::query_as(
        "WITH RECURSIVE chain AS (
            SELECT r.id, r.document_id, r.version_id, r.pipeline_version, r.cause, r.parent_run, r.state, r.code, r.created_at,
                   r.settled_at, 1::bigint AS place
            FROM runs r WHERE r.tenant_id = current_tenant() AND r.id = $1
            UNION ALL
            SELECT r.id, r.document_id, r.version_id, r.pipeline_version, r.cause, r.parent_run, r.state, r.code, r.created_at,
                   r.settled_at, chain.place + 1
            FROM chain JOIN runs r ON r.tenant_id = current_tenant() AND r.id = chain.parent_run
            WHERE chain.place < $2)
         SELECT id, document_id, version_id, pipeline_version, cause, parent_run, state, code, created_at, settled_at
         FROM chain ORDER BY place LIMIT $2",
    );
    Ok(rows.bind(id.0).bind(limit).fetch_all(connection).await?)
}
