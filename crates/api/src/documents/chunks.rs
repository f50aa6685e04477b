//! `GET /v1/documents/{id}/chunks`: the passages of a document that answer questions, in reading order.

use super::document_id;
use super::results::not_ready;
use crate::auth::Reader;
use crate::body::QueryParams;
use crate::cursor;
use crate::pager::page_size;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_model::{ChunkId, Code, Failure, GenerationId};

/// Paging of chunks.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ChunkQuery {
    /// Page size, 1 to 200; 50 when absent.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One passage of a document.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ChunkView {
    /// Identifier, derived from the content.
    pub id: ChunkId,
    /// Position from 0.
    pub ordinal: i32,
    /// First character in the canonical text.
    pub char_start: i32,
    /// One past the last character.
    pub char_end: i32,
    /// The words, less hidden text.
    pub text: String,
    /// Headings above it, outermost first.
    pub heading_path: Vec<String>,
    /// `text`, `table`, `code` or `list`.
    pub kind: String,
    /// First page from 1, for paged formats.
    pub page_start: Option<i32>,
    /// Last page.
    pub page_end: Option<i32>,
    /// Tokens of the embedding model.
    pub tokens: i32,
    /// ISO 639-3 language.
    pub language: Option<String>,
    /// True when hidden text was left out.
    pub has_hidden: bool,
}

#[derive(sqlx::FromRow)]
struct ChunkRow {
    id: uuid::Uuid,
    ordinal: i32,
    char_start: i32,
    char_end: i32,
    text: String,
    heading_path: Vec<String>,
    kind: String,
    page_start: Option<i32>,
    page_end: Option<i32>,
    tokens: i32,
    language: Option<String>,
    has_hidden: bool,
}

impl From<ChunkRow> for ChunkView {
    fn from(row: ChunkRow) -> Self {
        Self {
            id: row.id.into(),
            ordinal: row.ordinal,
            char_start: row.char_start,
            char_end: row.char_end,
            text: row.text,
            heading_path: row.heading_path,
            kind: row.kind,
            page_start: row.page_start,
            page_end: row.page_end,
            tokens: row.tokens,
            language: row.language,
            has_hidden: row.has_hidden,
        }
    }
}

/// One page of chunks, in reading order.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ChunkPage {
    /// The generation that answers questions.
    pub generation_id: GenerationId,
    /// The chunks.
    pub chunks: Vec<ChunkView>,
    /// Pass as `cursor` for the next page; absent on the last.
    pub next_cursor: Option<String>,
}

/// The passages of a document that answer questions.
#[utoipa::path(get, path = "/v1/documents/{id}/chunks", tag = "documents",
    params(("id" = String, Path, description = "Document id"), ChunkQuery),
    responses((status = 200, body = ChunkPage), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
pub async fn chunks(
    State(state): State<ApiState>,
    Reader(principal): Reader,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<ChunkQuery>,
) -> Result<Json<ChunkPage>, Problem> {
    let id = document_id(&id)?;
    let (limit, tenant, labels) = (page_size(query.limit)?, principal.tenant_id, principal.labels);
    let after: Option<(GenerationId, i32)> = query
        .cursor
        .as_deref()
        .map(|c| cursor::decode(&state.pepper, tenant, &format!("chunks:{id}"), c))
        .transpose()?;
    let read = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let visible: Option<Option<uuid::Uuid>> = sqlx::query_scalar(
                "SELECT visible_generation FROM documents
                 WHERE tenant_id = current_tenant() AND id = $1 AND deleted_at IS NULL AND (labels = '{}' OR labels && $2)",
            )
            .bind(id.0)
            .bind(labels)
            .fetch_optional(&mut *connection)
            .await?;
            let visible = visible.ok_or_else(|| Failure::new(Code::NotFound, "no such document"))?;
            let generation = visible.ok_or_else(|| not_ready("chunks that answer questions"))?;
            if after.is_some_and(|(of, _)| of.0 != generation) {
                return Err(Failure::new(Code::CursorInvalid, "the document has changed since this cursor was given out").into());
            }
            let rows: Vec<ChunkRow> = sqlx::query_as(
                "SELECT id, ordinal, char_start, char_end, text, heading_path, kind, page_start, page_end, tokens, language, has_hidden
                 FROM chunks WHERE tenant_id = current_tenant() AND generation_id = $1 AND ordinal > $2
                 ORDER BY ordinal LIMIT $3",
            )
            .bind(generation)
            .bind(after.map_or(-1, |(_, ordinal)| ordinal))
            .bind(limit + 1)
            .fetch_all(connection)
            .await?;
            Ok((GenerationId(generation), rows))
        })
    });
    let (generation_id, mut rows) = read.await?;
    let more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    let last = rows.last().filter(|_| more).map(|row| (generation_id, row.ordinal));
    let next_cursor = last.map(|position| cursor::encode(&state.pepper, tenant, &format!("chunks:{id}"), &position));
    Ok(Json(ChunkPage { generation_id, chunks: rows.into_iter().map(Into::into).collect(), next_cursor }))
}
