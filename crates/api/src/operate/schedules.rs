//! `/v1/operate/schedules`: what is processed again and when. The files of the pipelines say what and when; here it is
//! seen, planned, paused and fired by hand.

use super::replays::{PlanView, StartedReplay, Whose};
use super::tenant_of;
use crate::audit;
use crate::auth::Operator;
use crate::body::{JsonBody, QueryParams};
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::{Code, Failure, TenantId};
use docmill_runtime::pipeline::Pipeline;
use docmill_runtime::schedule::{self, Schedule, ScheduleState};
use serde_json::json;
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

/// A schedule of a pipeline's file, and how it stands for the tenant.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ScheduleView {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Name of the schedule in the pipeline's file.
    pub name: String,
    /// What the file says: `cron` in UTC, the choice of documents, the budget.
    #[schema(value_type = Object)]
    pub schedule: serde_json::Value,
    /// `waiting` for its time, `running` while a firing is at work, `paused`.
    pub state: &'static str,
    /// When it is due next; a time in the past waits for the firing that is at work. Times that were missed are made up
    /// for by one firing.
    #[serde(with = "time::serde::rfc3339::option")]
    pub next_at: Option<OffsetDateTime>,
    /// Since when it is paused.
    #[serde(with = "time::serde::rfc3339::option")]
    pub paused_at: Option<OffsetDateTime>,
    /// The time that was served last.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_slot: Option<OffsetDateTime>,
    /// The replay that served it; none when no document was due.
    pub last_replay: Option<Uuid>,
    /// State of that replay.
    pub last_state: Option<String>,
}

impl From<ScheduleState> for ScheduleView {
    fn from(state: ScheduleState) -> Self {
        let is_running = matches!(state.last_state.as_deref(), Some("running" | "paused"));
        Self {
            state: match state.paused_at {
                Some(_) => "paused",
                None if is_running => "running",
                None => "waiting",
            },
            pipeline: state.pipeline,
            name: state.name,
            schedule: json!(state.schedule.wanted),
            next_at: state.next_at,
            paused_at: state.paused_at,
            last_slot: state.last_slot,
            last_replay: state.last_replay,
            last_state: state.last_state,
        }
    }
}

/// The schedules of the files, by pipeline and name.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ScheduleList {
    /// All of them.
    pub schedules: Vec<ScheduleView>,
}

/// Where to move a schedule.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSchedule {
    /// `paused`, or `waiting` to go on: times that passed meanwhile are not made up for.
    pub state: String,
}

/// The pipeline of that name and its schedule.
fn find(state: &ApiState, pipeline: &str, name: &str) -> Result<(Arc<Pipeline>, Schedule), Problem> {
    let pipeline = state.pipelines.get(pipeline).ok_or_else(Problem::not_found)?;
    let schedule = pipeline.schedules.get(name).cloned().ok_or_else(Problem::not_found)?;
    Ok((pipeline, schedule))
}

/// Lists the schedules of the pipelines' files, and how they stand.
#[utoipa::path(get, path = "/v1/operate/schedules", tag = "operate", params(Whose),
    responses((status = 200, body = ScheduleList), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    QueryParams(whose): QueryParams<Whose>,
) -> Result<Json<ScheduleList>, Problem> {
    let tenant = tenant_of(&state, &principal, whose.tenant_id)?;
    Ok(Json(ScheduleList { schedules: views(&state, tenant).await? }))
}

async fn views(state: &ApiState, tenant: TenantId) -> Result<Vec<ScheduleView>, Problem> {
    let states = schedule::list(&state.database, &state.pipelines, tenant).await?;
    Ok(states.into_iter().map(Into::into).collect())
}

/// Says what a firing would do now; changes nothing.
#[utoipa::path(post, path = "/v1/operate/schedules/{pipeline}/{name}/plan", tag = "operate",
    params(("pipeline" = String, Path, description = "Pipeline"), ("name" = String, Path, description = "Schedule"), Whose),
    responses((status = 200, body = PlanView), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn plan(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path((pipeline, name)): Path<(String, String)>,
    QueryParams(whose): QueryParams<Whose>,
) -> Result<Json<PlanView>, Problem> {
    let tenant = tenant_of(&state, &principal, whose.tenant_id)?;
    let (pipeline, schedule) = find(&state, &pipeline, &name)?;
    let (database, registry, pipelines) = (&state.database, &state.registry, &state.pipelines);
    schedule::check_space(database, tenant, &schedule).await?;
    let (_, plan) = schedule::plan(database, registry, pipelines, tenant, &pipeline, &name).await?;
    Ok(Json(plan.into()))
}

/// Fires a schedule now, whatever its time and also while it is paused, within its budget.
#[utoipa::path(post, path = "/v1/operate/schedules/{pipeline}/{name}/run", tag = "operate",
    params(("pipeline" = String, Path, description = "Pipeline"), ("name" = String, Path, description = "Schedule"), Whose),
    responses((status = 201, body = StartedReplay), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
              (status = 422, body = ProblemBody)))]
pub async fn run(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path((pipeline, name)): Path<(String, String)>,
    QueryParams(whose): QueryParams<Whose>,
) -> Result<(StatusCode, Json<StartedReplay>), Problem> {
    let tenant = tenant_of(&state, &principal, whose.tenant_id)?;
    let (pipeline, schedule) = find(&state, &pipeline, &name)?;
    let (database, registry, pipelines) = (&state.database, &state.registry, &state.pipelines);
    schedule::check_space(database, tenant, &schedule).await?;
    let (filter, plan) = schedule::plan(database, registry, pipelines, tenant, &pipeline, &name).await?;
    let stored = plan.clone();
    let write = database.write(tenant, move |connection| {
        Box::pin(async move {
            let by = principal.principal_id;
            let id = schedule::run_in(connection, by, &pipeline.name, &name, &filter, &stored).await?;
            let data = json!({"replay": id, "documents": stored.documents});
            let subject = format!("{}/{name}", pipeline.name);
            audit::record(connection, &principal, "schedule.run", &subject, data).await?;
            Ok(id)
        })
    });
    let id = write.await?;
    Ok((StatusCode::CREATED, Json(StartedReplay { id, plan: plan.into() })))
}

/// Pauses a schedule of the tenant, or lets it go on. A firing that is at work goes on: pause its replay.
#[utoipa::path(post, path = "/v1/operate/schedules/{pipeline}/{name}/state", tag = "operate", request_body = SetSchedule,
    params(("pipeline" = String, Path, description = "Pipeline"), ("name" = String, Path, description = "Schedule"), Whose),
    responses((status = 200, body = ScheduleView), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
              (status = 422, body = ProblemBody)))]
pub async fn set_state(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path((pipeline, name)): Path<(String, String)>,
    QueryParams(whose): QueryParams<Whose>,
    JsonBody(request): JsonBody<SetSchedule>,
) -> Result<Json<ScheduleView>, Problem> {
    let tenant = tenant_of(&state, &principal, whose.tenant_id)?;
    let (pipeline, schedule) = find(&state, &pipeline, &name)?;
    let is_paused = match request.state.as_str() {
        "paused" => true,
        "waiting" => false,
        _ => return Err(Problem::field("state", "`paused` or `waiting` is expected")),
    };
    let (of, called) = (pipeline.name.clone(), name.clone());
    let write = state.database.write(tenant, move |connection| {
        Box::pin(async move {
            if !schedule::set_paused_in(connection, &of, &called, &schedule, is_paused).await? {
                return Err(Failure::new(Code::Conflict, "the schedule is in this state").into());
            }
            let data = json!({"state": request.state});
            audit::record(connection, &principal, "schedule.state", &format!("{of}/{called}"), data).await
        })
    });
    write.await?;
    let views = views(&state, tenant).await?;
    let found = views.into_iter().find(|view| view.pipeline == pipeline.name && view.name == name);
    Ok(Json(found.ok_or_else(Problem::not_found)?))
}
