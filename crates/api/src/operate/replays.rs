//! `/v1/operate/replays`: processing documents again. First a plan, then a row that the engine drives.

use crate::audit;
use crate::auth::Operator;
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::{Code, DocumentId, Failure};
use docmill_runtime::replay::{self, ReplayFilter, ReplayPlan};
use serde_json::json;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use uuid::Uuid;

/// Which documents to process again, and from where.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Documents whose last run had this stage; with `status`, the stage's own outcome counts.
    #[serde(default)]
    pub stage: Option<String>,
    /// This document only.
    #[serde(default)]
    pub document_id: Option<DocumentId>,
    /// Documents of the pipeline of this name.
    #[serde(default)]
    pub pipeline: Option<String>,
    /// `done`, `failed` (includes partial), `partial` or `cancelled`: how the last run, or its stage, ended.
    #[serde(default)]
    pub status: Option<String>,
    /// The last run failed with this code.
    #[serde(default)]
    pub code: Option<String>,
    /// The last run started at or after this RFC 3339 instant.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// Compute `stage` even when the cache has its result.
    #[serde(default)]
    pub recompute: bool,
}

impl From<Selection> for ReplayFilter {
    fn from(selection: Selection) -> Self {
        Self {
            stage: selection.stage,
            document_id: selection.document_id,
            pipeline: selection.pipeline,
            status: selection.status,
            code: selection.code,
            since: selection.since,
            recompute: selection.recompute,
        }
    }
}

/// A replay to start.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartReplay {
    /// Which documents.
    pub select: Selection,
    /// The number of documents the plan measured; needed above 1,000.
    #[serde(default)]
    pub confirm: Option<i64>,
}

/// A replay to look at first.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanReplay {
    /// Which documents.
    pub select: Selection,
}

/// What a replay would do.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PlanView {
    /// Documents that get a run.
    pub documents: i64,
    /// Pipelines those runs follow: name and version.
    pub pipelines: BTreeMap<String, String>,
    /// Per stage, in pipeline order.
    pub stages: Vec<StagePlanView>,
}

/// What a replay would do at one stage.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct StagePlanView {
    /// The stage.
    pub stage: String,
    /// Jobs that compute.
    pub compute: i64,
    /// Jobs whose result is expected in the cache.
    pub cached: i64,
}

impl From<ReplayPlan> for PlanView {
    fn from(plan: ReplayPlan) -> Self {
        let stages = plan.stages.into_iter();
        let stages = stages.map(|s| StagePlanView { stage: s.stage, compute: s.compute, cached: s.cached }).collect();
        Self { documents: plan.documents, pipelines: plan.pipelines, stages }
    }
}

/// A replay that was started.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct StartedReplay {
    /// Identifier.
    pub id: Uuid,
    /// What it does.
    pub plan: PlanView,
}

/// How far a replay is.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ReplayView {
    /// Identifier.
    pub id: Uuid,
    /// `running`, `paused`, `done` or `cancelled`.
    pub state: String,
    /// Documents of the plan.
    pub documents: i64,
    /// Runs by state.
    pub runs: BTreeMap<String, i64>,
}

/// A replay in the list.
#[derive(Debug, serde::Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct ReplayRow {
    /// Identifier.
    pub id: Uuid,
    /// `running`, `paused`, `done` or `cancelled`.
    pub state: String,
    /// Documents of the plan.
    pub documents: Option<i64>,
    /// What was selected.
    #[schema(value_type = Object)]
    pub select: serde_json::Value,
    /// When it was started.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// The latest replays.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ReplayList {
    /// At most 200, newest first.
    pub replays: Vec<ReplayRow>,
}

/// Where to move a replay.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetReplay {
    /// `running`, `paused` or `cancelled`.
    pub state: String,
}

/// Says what a replay would do; changes nothing.
#[utoipa::path(post, path = "/v1/operate/replays/plan", tag = "operate", request_body = PlanReplay,
    responses((status = 200, body = PlanView), (status = 422, body = ProblemBody)))]
pub async fn plan(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    JsonBody(request): JsonBody<PlanReplay>,
) -> Result<Json<PlanView>, Problem> {
    let (database, registry, pipelines) = (&state.database, &state.registry, &state.pipelines);
    let plan = replay::plan(database, registry, pipelines, principal.tenant_id, &request.select.into()).await?;
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
    let (filter, tenant): (ReplayFilter, _) = (request.select.into(), principal.tenant_id);
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
#[utoipa::path(get, path = "/v1/operate/replays", tag = "operate", responses((status = 200, body = ReplayList)))]
pub async fn list(State(state): State<ApiState>, Operator(principal): Operator) -> Result<Json<ReplayList>, Problem> {
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let rows = sqlx::query_as(
                "SELECT id, state, (plan ->> 'documents')::bigint AS documents, filter AS \"select\", created_at, finished_at
                 FROM replays WHERE tenant_id = current_tenant() ORDER BY created_at DESC, id DESC LIMIT 200",
            );
            Ok(rows.fetch_all(connection).await?)
        })
    });
    Ok(Json(ReplayList { replays: read.await? }))
}

/// Tells how far a replay is.
#[utoipa::path(get, path = "/v1/operate/replays/{id}", tag = "operate", params(("id" = String, Path, description = "Replay id")),
    responses((status = 200, body = ReplayView), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
) -> Result<Json<ReplayView>, Problem> {
    let id: Uuid = id.parse().map_err(|_| Problem::not_found())?;
    let progress = replay::progress(&state.database, principal.tenant_id, id).await?;
    Ok(Json(ReplayView { id, state: progress.state, documents: progress.documents, runs: progress.runs }))
}

/// Pauses, resumes or cancels a replay. Runs under way go on.
#[utoipa::path(post, path = "/v1/operate/replays/{id}/state", tag = "operate", request_body = SetReplay,
    params(("id" = String, Path, description = "Replay id")),
    responses((status = 200, body = ReplayView), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
pub async fn set_state(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<SetReplay>,
) -> Result<Json<ReplayView>, Problem> {
    let id: Uuid = id.parse().map_err(|_| Problem::not_found())?;
    replay::progress(&state.database, principal.tenant_id, id).await?;
    let tenant = principal.tenant_id;
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
    let progress = replay::progress(&state.database, tenant, id).await?;
    Ok(Json(ReplayView { id, state: progress.state, documents: progress.documents, runs: progress.runs }))
}
