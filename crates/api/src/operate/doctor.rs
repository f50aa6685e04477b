//! `GET /v1/operate/doctor`: the invariants, evaluated on live data. Looks at all tenants, so only for the operator tenant.

use super::require_installation;
use crate::auth::Operator;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use docmill_runtime::doctor;

/// What was examined.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct InvariantView {
    /// Stable name.
    pub name: String,
    /// What must hold.
    pub sentence: String,
    /// Rows that break it; at most 100 are shown.
    pub violations: Vec<ViolationView>,
}

/// One row that breaks an invariant.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ViolationView {
    /// What breaks it: `run <id>`, `job <id>`, ….
    pub subject: String,
    /// States, counts and ages.
    pub detail: String,
}

/// The doctor's findings.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DoctorReport {
    /// True when every invariant holds.
    pub healthy: bool,
    /// Every invariant with its violations.
    pub invariants: Vec<InvariantView>,
}

/// Evaluates every invariant.
#[utoipa::path(get, path = "/v1/operate/doctor", tag = "operate",
    responses((status = 200, body = DoctorReport), (status = 403, body = ProblemBody)))]
pub async fn examine(
    State(state): State<ApiState>,
    Operator(principal): Operator,
) -> Result<Json<DoctorReport>, Problem> {
    require_installation(&state, &principal)?;
    let violations = doctor::examine(&state.database).await?;
    let healthy = violations.is_empty();
    let invariants = doctor::invariants().iter().map(|invariant| InvariantView {
        name: invariant.name.to_owned(),
        sentence: invariant.sentence.to_owned(),
        violations: violations
            .iter()
            .filter(|violation| violation.invariant == invariant.name)
            .map(|violation| ViolationView { subject: violation.subject.clone(), detail: violation.detail.clone() })
            .collect(),
    });
    Ok(Json(DoctorReport { healthy, invariants: invariants.collect() }))
}
