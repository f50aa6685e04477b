//! `GET /v1/documents/{id}/events`, `/jobs`: how the work went. Ids, counts and codes only.

use super::{document_id, find};
use crate::auth::Viewer;
use crate::body::QueryParams;
use crate::cursor;
use crate::pager::page_size;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_model::{DocumentId, JobId, RunId};
use time::OffsetDateTime;

/// Paging of a feed.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct FeedPage {
    /// Page size, 1 to 200; 50 when absent.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One event of a document's life.
#[derive(Debug, serde::Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct EventView {
    /// Position in the feed.
    pub id: i64,
    /// `upload.created`, `upload.accepted`, `run.started`, `stage.done`, `stage.failed`, `run.settled`, …
    pub kind: String,
    /// The run it belongs to.
    pub run_id: Option<uuid::Uuid>,
    /// Ids, counts and codes.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// One page of a document's events, oldest first.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct EventPage {
    /// The events.
    pub events: Vec<EventView>,
    /// Pass as `cursor` for what comes later; always present, so that a reader can follow the feed.
    pub next_cursor: String,
}

/// The event feed of a document, oldest first.
#[utoipa::path(get, path = "/v1/documents/{id}/events", tag = "documents",
    params(("id" = String, Path, description = "Document id"), FeedPage),
    responses((status = 200, body = EventPage), (status = 404, body = ProblemBody)))]
pub async fn events(
    State(state): State<ApiState>,
    Viewer(principal): Viewer,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<FeedPage>,
) -> Result<Json<EventPage>, Problem> {
    let id = document_id(&id)?;
    let (limit, tenant) = (page_size(query.limit)?, principal.tenant_id);
    let after: Option<(DocumentId, i64)> =
        query.cursor.as_deref().map(|c| cursor::decode(&state.pepper, tenant, "events", c)).transpose()?;
    if after.as_ref().is_some_and(|(document, _)| *document != id) {
        return Err(Problem::new(docmill_model::Code::CursorInvalid, "the cursor is of another document"));
    }
    let after = after.map_or(0, |(_, position)| position);
    let labels = principal.labels;
    let events: Option<Vec<EventView>> = state
        .database
        .read(tenant, move |connection| {
            Box::pin(async move {
                if find(connection, id, &labels).await?.is_none() {
                    return Ok(None);
                }
                let events = sqlx::query_as(
                    "SELECT id, kind, run_id, data, created_at FROM document_events
                     WHERE tenant_id = current_tenant() AND document_id = $1 AND id > $2 ORDER BY id LIMIT $3",
                )
                .bind(id.0)
                .bind(after)
                .bind(limit)
                .fetch_all(connection)
                .await?;
                Ok(Some(events))
            })
        })
        .await?;
    let events = events.ok_or_else(Problem::not_found)?;
    let position = events.last().map_or(after, |event| event.id);
    let next_cursor = cursor::encode(&state.pepper, tenant, "events", &(id, position));
    Ok(Json(EventPage { events, next_cursor }))
}

/// One job of the newest run.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct JobView {
    /// Identifier.
    pub id: JobId,
    /// The run.
    pub run_id: RunId,
    /// Stage.
    pub stage: String,
    /// `blocked`, `ready`, `leased`, `waiting`, `held`, `done`, `dead` or `cancelled`.
    pub state: String,
    /// Code of the last failure.
    pub code: Option<String>,
    /// Attempts that were begun.
    pub attempts: i64,
    /// True when the result came from the stage cache.
    pub cached: bool,
    /// Seconds the successful attempt ran; absent until then.
    pub run_secs: Option<f64>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

type JobRow = (uuid::Uuid, uuid::Uuid, String, String, Option<String>, i64, bool, Option<f64>, Option<OffsetDateTime>);

/// The jobs of the document's newest run.
#[utoipa::path(get, path = "/v1/documents/{id}/jobs", tag = "documents", params(("id" = String, Path, description = "Document id")),
    responses((status = 200, body = Vec<JobView>), (status = 404, body = ProblemBody)))]
pub async fn jobs(
    State(state): State<ApiState>,
    Viewer(principal): Viewer,
    Path(id): Path<String>,
) -> Result<Json<Vec<JobView>>, Problem> {
    let id = document_id(&id)?;
    let labels = principal.labels;
    let rows: Option<Vec<JobRow>> = state
        .database
        .read(principal.tenant_id, move |connection| {
            Box::pin(async move {
                if find(connection, id, &labels).await?.is_none() {
                    return Ok(None);
                }
                let rows = sqlx::query_as(
                    "SELECT j.id, j.run_id, j.stage, j.state, j.code,
                            (SELECT count(*) FROM attempts a WHERE a.tenant_id = j.tenant_id AND a.job_id = j.id), j.cached,
                            (SELECT max(a.run_millis)::float8 / 1000 FROM attempts a
                             WHERE a.tenant_id = j.tenant_id AND a.job_id = j.id AND a.outcome = 'done'), j.finished_at
                     FROM jobs j
                     WHERE j.tenant_id = current_tenant() AND j.run_id =
                           (SELECT r.id FROM runs r WHERE r.tenant_id = current_tenant() AND r.document_id = $1 AND r.cause <> 'sample'
                            ORDER BY r.created_at DESC, r.id DESC LIMIT 1)
                     ORDER BY j.created_at, j.id",
                )
                .bind(id.0)
                .fetch_all(connection)
                .await?;
                Ok(Some(rows))
            })
        })
        .await?;
    let jobs = rows.ok_or_else(Problem::not_found)?.into_iter().map(
        |(id, run_id, stage, state, code, attempts, cached, run_secs, finished_at)| JobView {
            id: id.into(),
            run_id: run_id.into(),
            stage,
            state,
            code,
            attempts,
            cached,
            run_secs,
            finished_at,
        },
    );
    Ok(Json(jobs.collect()))
}
