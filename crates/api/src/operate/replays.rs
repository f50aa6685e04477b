//! `/v1/operate/replays`: processing documents again. First a plan, then a row that the engine drives.

use crate::audit;
use crate::auth::{Operator, Principal};
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::{Code, DocumentId, Failure, TenantId};
use docmill_runtime::replay::{self, ReplayFilter, ReplayPlan, ReplayReport};
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
    /// Documents whose last run followed this version of a pipeline: its hash, or the beginning of it.
    #[serde(default)]
    pub pipeline_version: Option<String>,
    /// `done`, `failed` (includes partial), `partial` or `cancelled`: how the last run, or its stage, ended.
    #[serde(default)]
    pub status: Option<String>,
    /// The last run failed with this code.
    #[serde(default)]
    pub code: Option<String>,
    /// The last run started at or after this RFC 3339 instant.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// The last run started before this RFC 3339 instant.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
    /// Another tenant's documents; needs a key of the operator tenant.
    #[serde(default)]
    pub tenant_id: Option<TenantId>,
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
            pipeline_version: selection.pipeline_version,
            status: selection.status,
            code: selection.code,
            since: selection.since,
            until: selection.until,
            recompute: selection.recompute,
            per_minute: None,
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
    /// Runs started in any minute, at most; as fast as the work goes when absent.
    #[serde(default)]
    pub per_minute: Option<u32>,
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
    /// Work time expected from earlier attempts, in seconds over all stages; workers share it.
    pub work_secs: f64,
    /// Cost expected from earlier attempts, in millionths of a dollar.
    pub cost_microusd: i64,
}

/// What a replay would do at one stage.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct StagePlanView {
    /// The stage.
    pub stage: String,
    /// Jobs that compute.
    pub compute: i64,
    /// Jobs whose result is in the cache.
    pub cached: i64,
    /// Work time expected, in seconds.
    pub work_secs: f64,
    /// Cost expected, in millionths of a dollar.
    pub cost_microusd: i64,
}

impl From<ReplayPlan> for PlanView {
    fn from(plan: ReplayPlan) -> Self {
        let stages = plan.stages.into_iter().map(|stage| StagePlanView {
            stage: stage.stage,
            compute: stage.compute,
            cached: stage.cached,
            work_secs: stage.work_secs,
            cost_microusd: stage.cost_microusd,
        });
        Self {
            documents: plan.documents,
            pipelines: plan.pipelines,
            stages: stages.collect(),
            work_secs: plan.work_secs,
            cost_microusd: plan.cost_microusd,
        }
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

/// How far a replay is, and what it came to.
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
    /// Runs that failed or ended in part, by code.
    pub failures: BTreeMap<String, i64>,
    /// Documents of the plan that have no run; of an ended replay they never get one: they were deleted, processed
    /// otherwise meanwhile, or the replay was cancelled first.
    pub without_run: i64,
    /// Units done so far, by stage.
    pub stages: Vec<StageReportView>,
}

/// Units of one stage of a replay.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct StageReportView {
    /// The stage.
    pub stage: String,
    /// Jobs that computed.
    pub computed: i64,
    /// Jobs whose result came from the cache.
    pub cached: i64,
    /// Jobs that were given up.
    pub dead: i64,
    /// Jobs that have not ended.
    pub open: i64,
}

impl ReplayView {
    fn new(id: Uuid, report: ReplayReport) -> Self {
        let stages = report.stages.into_iter().map(|stage| StageReportView {
            stage: stage.stage,
            computed: stage.computed,
            cached: stage.cached,
            dead: stage.dead,
            open: stage.open,
        });
        Self {
            id,
            state: report.state,
            documents: report.documents,
            runs: report.runs,
            failures: report.failures,
            without_run: report.without_run,
            stages: stages.collect(),
        }
    }
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

/// The tenant a selection is about: another than the caller's only for keys of the operator tenant.
fn tenant_of(state: &ApiState, principal: &Principal, selection: &Selection) -> Result<TenantId, Problem> {
    match selection.tenant_id {
        Some(other) if other != principal.tenant_id => {
            super::require_installation(state, principal)?;
            Ok(other)
        }
        _ => Ok(principal.tenant_id),
    }
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
    let tenant = tenant_of(&state, &principal, &request.select)?;
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
    let tenant = tenant_of(&state, &principal, &request.select)?;
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

/// Tells how far a replay is; of one that ended, what it came to.
#[utoipa::path(get, path = "/v1/operate/replays/{id}", tag = "operate", params(("id" = String, Path, description = "Replay id")),
    responses((status = 200, body = ReplayView), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
) -> Result<Json<ReplayView>, Problem> {
    let id: Uuid = id.parse().map_err(|_| Problem::not_found())?;
    Ok(Json(ReplayView::new(id, replay::report(&state.database, principal.tenant_id, id).await?)))
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
    replay::report(&state.database, principal.tenant_id, id).await?;
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
    Ok(Json(ReplayView::new(id, replay::report(&state.database, tenant, id).await?)))
}
