//! `/v1/operate/replays`: processing documents again. First a plan, then a row that the engine drives.

pub mod difference;
mod wire;

pub use wire::{
    PlanReplay, PlanView, ReplayList, ReplayRow, ReplayView, Selection, SetReplay, StagePlanView, StageReportView,
    StartReplay, StartedReplay, Whose,
};

use super::tenant_of;
use crate::audit;
use crate::auth::Operator;
use crate::body::{JsonBody, QueryParams};
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::{Code, Failure};
use docmill_runtime::replay::{self, ReplayFilter};
use serde_json::json;
use uuid::Uuid;

/// Says what a replay would do; changes nothing.
#[utoipa::path(post, path = "/v1/operate/replays/plan", tag = "operate", request_body = PlanReplay,
    responses((status = 200, body = PlanView), (status = 422, body = ProblemBody)))]
pub async fn plan(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    JsonBody(request): JsonBody<PlanReplay>,
) -> Result<Json<PlanView>, Problem> {
    let (database, registry, pipelines) = (&state.database, &state.registry, &state.pipelines);
    let tenant = tenant_of(&state, &principal, request.select.tenant_id)?;
    let plan = replay::plan(database, registry, pipelines, tenant, &request.select.into()).await?;
    Ok(Json(plan.into()))
}

/// Starts a replay.
#[utoipa::path(post, path = "/v1/operate/replays", tag = "operate", request_body = StartReplay,
    responses((status = 201, body = StartedReplay), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
              (status = 422, body = ProblemBody)))]
pub async fn start(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    JsonBody(request): JsonBody<StartReplay>,
) -> Result<(StatusCode, Json<StartedReplay>), Problem> {
    let (database, registry, pipelines) = (&state.database, &state.registry, &state.pipelines);
    let tenant = tenant_of(&state, &principal, request.select.tenant_id)?;
    let filter = ReplayFilter { per_minute: request.per_minute, ..request.select.into() };
    let plan = replay::plan(database, registry, pipelines, tenant, &filter).await?;
    replay::check_size(&plan, request.confirm)?;
    let stored = plan.clone();
    let write = database.write(tenant, move |connection| {
        Box::pin(async move {
            let id = replay::start_in(connection, Some(principal.principal_id), &filter, &stored).await?;
            let data = json!({"documents": stored.documents, "filter": filter});
            audit::record(connection, &principal, "replay.start", &id.to_string(), data).await?;
            Ok(id)
        })
    });
    let id = write.await?;
    Ok((StatusCode::CREATED, Json(StartedReplay { id, plan: plan.into() })))
}

/// Lists the latest replays.
#[utoipa::path(get, path = "/v1/operate/replays", tag = "operate", params(Whose),
    responses((status = 200, body = ReplayList), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    QueryParams(whose): QueryParams<Whose>,
) -> Result<Json<ReplayList>, Problem> {
    let tenant = tenant_of(&state, &principal, whose.tenant_id)?;
    let read = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let rows = sqlx::query_as(
                "SELECT id, state, (plan ->> 'documents')::bigint AS documents, filter AS \"select\", code,
                        pipeline || '/' || schedule AS schedule, created_at, finished_at
                 FROM replays WHERE tenant_id = current_tenant() ORDER BY created_at DESC, id DESC LIMIT 200",
            );
            Ok(rows.fetch_all(connection).await?)
        })
    });
    Ok(Json(ReplayList { replays: read.await? }))
}

/// Tells how far a replay is; of one that ended, what it came to.
#[utoipa::path(get, path = "/v1/operate/replays/{id}", tag = "operate", params(("id" = String, Path, description = "Replay id"), Whose),
    responses((status = 200, body = ReplayView), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
    QueryParams(whose): QueryParams<Whose>,
) -> Result<Json<ReplayView>, Problem> {
    let id: Uuid = id.parse().map_err(|_| Problem::not_found())?;
    let tenant = tenant_of(&state, &principal, whose.tenant_id)?;
    Ok(Json(ReplayView::new(id, replay::report(&state.database, tenant, id).await?)))
}

/// Pauses, resumes or cancels a replay. Runs under way go on.
#[utoipa::path(post, path = "/v1/operate/replays/{id}/state", tag = "operate", request_body = SetReplay,
    params(("id" = String, Path, description = "Replay id"), Whose),
    responses((status = 200, body = ReplayView), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
pub async fn set_state(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
    QueryParams(whose): QueryParams<Whose>,
    JsonBody(request): JsonBody<SetReplay>,
) -> Result<Json<ReplayView>, Problem> {
    let id: Uuid = id.parse().map_err(|_| Problem::not_found())?;
    let tenant = tenant_of(&state, &principal, whose.tenant_id)?;
    replay::report(&state.database, tenant, id).await?;
    let write = state.database.write(tenant, move |connection| {
        Box::pin(async move {
            if !replay::set_state_in(connection, id, &request.state).await? {
                return Err(Failure::new(Code::Conflict, "the replay has ended or is in this state").into());
            }
            audit::record(connection, &principal, "replay.state", &id.to_string(), json!({"state": request.state}))
                .await
        })
    });
    write.await?;
    Ok(Json(ReplayView::new(id, replay::report(&state.database, tenant, id).await?)))
}
