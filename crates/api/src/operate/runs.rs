//! `GET /v1/operate/runs/{id}`, `POST …/cancel`.

use crate::audit;
use crate::auth::Operator;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_model::{Code, DocumentId, Failure, RunId, VersionId};
use docmill_platform::database::DbError;
use docmill_runtime::runs::{RunRow, cancel_run, chain};
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// One processing of one version.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct RunView {
    /// Identifier.
    pub id: RunId,
    /// The document.
    pub document_id: DocumentId,
    /// The version.
    pub version_id: VersionId,
    /// The pinned pipeline version.
    pub pipeline_version: String,
    /// `upload`, `replay`, `schedule`, `operator` or `sample`.
    pub cause: String,
    /// The run this one repeats.
    pub parent_run: Option<RunId>,
    /// `running`, `done`, `partial`, `failed` or `cancelled`.
    pub state: String,
    /// Code of the failure.
    pub code: Option<String>,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it settled.
    #[serde(with = "time::serde::rfc3339::option")]
    pub settled_at: Option<OffsetDateTime>,
}

impl From<RunRow> for RunView {
    fn from(row: RunRow) -> Self {
        Self {
            id: row.id.into(),
            document_id: row.document_id.into(),
            version_id: row.version_id.into(),
            pipeline_version: row.pipeline_version,
            cause: row.cause,
            parent_run: row.parent_run.map(Into::into),
            state: row.state,
            code: row.code,
            created_at: row.created_at,
            settled_at: row.settled_at,
        }
    }
}

async fn find(connection: &mut PgConnection, id: RunId) -> Result<RunView, DbError> {
    let row = chain(connection, id, 1).await?.into_iter().next();
    Ok(row.ok_or_else(|| Failure::new(Code::NotFound, "no such run"))?.into())
}

/// One run.
#[utoipa::path(get, path = "/v1/operate/runs/{id}", tag = "operate", params(("id" = String, Path, description = "Run id")),
    responses((status = 200, body = RunView), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
) -> Result<Json<RunView>, Problem> {
    let id: RunId = id.parse().map_err(|_| Problem::not_found())?;
    let read =
        state.database.read(principal.tenant_id, move |connection| Box::pin(async move { find(connection, id).await }));
    Ok(Json(read.await?))
}

/// Cancels a run: what is under way stops within a third of a lease and cannot commit any more.
#[utoipa::path(post, path = "/v1/operate/runs/{id}/cancel", tag = "operate", params(("id" = String, Path, description = "Run id")),
    responses((status = 200, body = RunView), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
pub async fn cancel(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
) -> Result<Json<RunView>, Problem> {
    let id: RunId = id.parse().map_err(|_| Problem::not_found())?;
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            find(connection, id).await?;
            if !cancel_run(connection, id).await? {
                return Err(Failure::new(Code::Conflict, "the run has settled").into());
            }
            audit::record(connection, &principal, "run.cancel", &id.to_string(), json!({})).await?;
            find(connection, id).await
        })
    });
    Ok(Json(write.await?))
}
