//! `GET /v1/collections`: the collections a caller can see documents in.

use crate::auth::Viewer;
use crate::problem::Problem;
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use time::OffsetDateTime;

/// Most collections listed.
const MAX_COLLECTIONS: i64 = 10_000;

/// One collection. It exists as long as a document names it.
#[derive(Debug, serde::Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct CollectionView {
    /// Name.
    pub name: String,
    /// Documents the caller can see.
    pub documents: i64,
    /// Of these, how many answer questions.
    pub searchable: i64,
    /// Of these, how many are being worked on.
    pub processing: i64,
    /// Of these, how many failed.
    pub failed: i64,
    /// Last change of a document.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// The collections, by name.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct CollectionList {
    /// At most 10,000.
    pub collections: Vec<CollectionView>,
}

/// Lists collections with counts.
#[utoipa::path(get, path = "/v1/collections", tag = "documents", responses((status = 200, body = CollectionList)))]
pub async fn list(State(state): State<ApiState>, Viewer(principal): Viewer) -> Result<Json<CollectionList>, Problem> {
    let labels = principal.labels;
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let rows = sqlx::query_as(
                "SELECT collection AS name, count(*) AS documents, count(visible_generation) AS searchable,
                        count(*) FILTER (WHERE state = 'processing') AS processing,
                        count(*) FILTER (WHERE state = 'failed') AS failed, max(updated_at) AS updated_at
                 FROM documents
                 WHERE tenant_id = current_tenant() AND deleted_at IS NULL AND (labels = '{}' OR labels && $1)
                 GROUP BY collection ORDER BY collection LIMIT $2",
            )
            .bind(labels)
            .bind(MAX_COLLECTIONS)
            .fetch_all(connection)
            .await?;
            Ok(rows)
        })
    });
    Ok(Json(CollectionList { collections: read.await? }))
}
