//! `GET /v1/documents` and `GET /v1/documents/{id}`.

use super::{DocumentRow, DocumentView, document_id, find};
use crate::auth::Viewer;
use crate::body::QueryParams;
use crate::cursor;
use crate::pager::page_size;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use time::OffsetDateTime;

const STATES: [&str; 7] = ["uploading", "processing", "done", "partial", "failed", "cancelled", "expired"];

/// Filters and paging of the document list.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListDocuments {
    /// Only this collection.
    collection: Option<String>,
    /// Only this state.
    state: Option<String>,
    /// Only this external id.
    external_id: Option<String>,
    /// Only names that contain this, ignoring case.
    name: Option<String>,
    /// Only documents created at or after this RFC 3339 instant.
    #[serde(default, with = "time::serde::rfc3339::option")]
    created_after: Option<OffsetDateTime>,
    /// Page size, 1 to 200; 50 when absent.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One page of documents, newest first.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DocumentPage {
    /// The documents.
    pub documents: Vec<DocumentView>,
    /// Pass as `cursor` for the next page; absent on the last.
    pub next_cursor: Option<String>,
}

/// Lists documents, newest first.
#[utoipa::path(get, path = "/v1/documents", tag = "documents", params(ListDocuments),
    responses((status = 200, body = DocumentPage), (status = 422, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    Viewer(principal): Viewer,
    QueryParams(query): QueryParams<ListDocuments>,
) -> Result<Json<DocumentPage>, Problem> {
    let limit = page_size(query.limit)?;
    if query.state.as_ref().is_some_and(|s| !STATES.contains(&s.as_str())) {
        return Err(Problem::field(
            "state",
            "one of uploading, processing, done, partial, failed, cancelled, expired is expected",
        ));
    }
    let tenant = principal.tenant_id;
    let after: Option<(OffsetDateTime, uuid::Uuid)> =
        query.cursor.as_deref().map(|c| cursor::decode(&state.pepper, tenant, "documents", c)).transpose()?;
    let labels = principal.labels;
    let mut rows: Vec<DocumentRow> = state
        .database
        .read(tenant, move |connection| {
            Box::pin(async move {
                Ok(sqlx::query_as(
                    "SELECT d.id, d.name, d.collection, d.external_id, d.state, d.code, d.metadata, d.labels,
                            d.visible_generation, d.created_at, d.updated_at, v.id AS version_id, v.number, v.content_type,
                            v.size_bytes, v.sha256, v.format, v.language, v.page_count, v.char_count, v.title,
                            v.failed_pages
                     FROM documents d
                     JOIN LATERAL (SELECT * FROM document_versions v WHERE v.tenant_id = d.tenant_id
                                   AND v.document_id = d.id ORDER BY v.number DESC LIMIT 1) v ON true
                     WHERE d.tenant_id = current_tenant() AND d.deleted_at IS NULL AND (d.labels = '{}' OR d.labels && $1)
                       AND ($2::text IS NULL OR d.collection = $2) AND ($3::text IS NULL OR d.state = $3)
                       AND ($4::text IS NULL OR d.external_id = $4)
                       AND ($5::text IS NULL OR position(lower($5) IN lower(d.name)) > 0)
                       AND ($6::timestamptz IS NULL OR d.created_at >= $6)
                       AND ($7::timestamptz IS NULL OR (d.created_at, d.id) < ($7, $8))
                     ORDER BY d.created_at DESC, d.id DESC LIMIT $9",
                )
                .bind(labels)
                .bind(query.collection)
                .bind(query.state)
                .bind(query.external_id)
                .bind(query.name)
                .bind(query.created_after)
                .bind(after.map(|a| a.0))
                .bind(after.map(|a| a.1))
                .bind(limit + 1)
                .fetch_all(connection)
                .await?)
            })
        })
        .await?;
    let more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    let documents: Vec<DocumentView> = rows.into_iter().map(Into::into).collect();
    let last = documents.last().filter(|_| more);
    let next_cursor = last.map(|d| cursor::encode(&state.pepper, tenant, "documents", &(d.created_at, d.id)));
    Ok(Json(DocumentPage { documents, next_cursor }))
}

/// One document.
#[utoipa::path(get, path = "/v1/documents/{id}", tag = "documents", params(("id" = String, Path, description = "Document id")),
    responses((status = 200, body = DocumentView), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Viewer(principal): Viewer,
    Path(id): Path<String>,
) -> Result<Json<DocumentView>, Problem> {
    let id = document_id(&id)?;
    let labels = principal.labels;
    let view = state
        .database
        .read(principal.tenant_id, move |connection| Box::pin(async move { Ok(find(connection, id, &labels).await?) }))
        .await?;
    view.map(Json).ok_or_else(Problem::not_found)
}
