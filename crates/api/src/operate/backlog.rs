//! `GET /v1/operate/backlog`: what waits and what runs, per stage.

use super::require_installation;
use crate::auth::Operator;
use crate::body::QueryParams;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use docmill_model::TenantId;
use docmill_runtime::backlog::StageBacklog;

/// Whose backlog.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct BacklogQuery {
    /// True for all tenants; needs a key of the operator tenant.
    #[serde(default)]
    all: bool,
}

/// Counts of one stage of one tenant.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct BacklogRow {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The stage.
    pub stage: String,
    /// Waiting for predecessors.
    pub blocked: i64,
    /// Waiting for a worker.
    pub ready: i64,
    /// Running.
    pub running: i64,
    /// Waiting for a retry.
    pub retrying: i64,
    /// Set aside: paused, budget, scan.
    pub held: i64,
    /// Dead letters nobody has dealt with.
    pub dead: i64,
    /// Completed in the last minute.
    pub done_per_minute: i64,
    /// Age of the oldest ready job in seconds.
    pub oldest_ready_secs: Option<f64>,
}

impl From<StageBacklog> for BacklogRow {
    fn from(row: StageBacklog) -> Self {
        Self {
            tenant_id: row.tenant_id.into(),
            stage: row.stage,
            blocked: row.blocked,
            ready: row.ready,
            running: row.running,
            retrying: row.retrying,
            held: row.held,
            dead: row.dead,
            done_per_minute: row.done_per_minute,
            oldest_ready_secs: row.oldest_ready_secs,
        }
    }
}

/// The backlog by stage.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Backlog {
    /// Stages with any job.
    pub stages: Vec<BacklogRow>,
}

/// Counts jobs per stage. Where so many are open that counting takes long, the answer may be two seconds old.
#[utoipa::path(get, path = "/v1/operate/backlog", tag = "operate", params(BacklogQuery),
    responses((status = 200, body = Backlog), (status = 403, body = ProblemBody)))]
pub async fn report(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    QueryParams(query): QueryParams<BacklogQuery>,
) -> Result<Json<Backlog>, Problem> {
    if query.all {
        require_installation(&state, &principal)?;
    }
    let tenant = (!query.all).then_some(principal.tenant_id);
    let rows = state.backlogs.backlog(&state.database, tenant).await?;
    Ok(Json(Backlog { stages: rows.into_iter().map(Into::into).collect() }))
}
