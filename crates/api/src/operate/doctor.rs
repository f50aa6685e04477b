//! `GET /v1/operate/doctor`, `POST …/repair`: the invariants, evaluated on live data, and what can be set right. Looks at
//! all tenants, so only for the operator tenant. A request changes no metric: what it found may be healed before the next.

mod elsewhere;

use super::require_installation;
use crate::audit;
use crate::auth::Operator;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use docmill_lifecycle::collect::{self, Ages};
use docmill_model::{Failure, TenantId};
use docmill_runtime::doctor::{self, Examined, Repair, Violation};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long an examination takes at most, so that it ends within a request.
const PATIENCE: Duration = Duration::from_secs(40);

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
    /// True when every invariant was judged and holds; false also when some are `unfinished`.
    pub healthy: bool,
    /// Names of the invariants that the time did not suffice for (on a large installation, those over all content), or whose
    /// store did not answer. What they say is not known.
    pub unfinished: Vec<String>,
    /// Every invariant with its violations.
    pub invariants: Vec<InvariantView>,
}

/// One thing that was set right.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct RepairView {
    /// Name of the invariant that was broken.
    pub invariant: String,
    /// What broke it.
    pub subject: String,
    /// What was done.
    pub action: String,
}

/// What a repair did.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct RepairReport {
    /// What was set right now; what the reconciler heals by itself is not among it.
    pub repairs: Vec<RepairView>,
    /// Violations that were found before.
    pub found: usize,
}

/// Sets right whatever follows from facts that are still there. What was lost in a crash, the reconciler heals by itself.
#[utoipa::path(post, path = "/v1/operate/doctor/repair", tag = "operate",
    responses((status = 200, body = RepairReport), (status = 403, body = ProblemBody)))]
pub async fn repair(
    State(state): State<ApiState>,
    Operator(principal): Operator,
) -> Result<Json<RepairReport>, Problem> {
    require_installation(&state, &principal)?;
    let found = database(&state, Instant::now() + PATIENCE).await?.violations;
    let mut repairs = doctor::repair(&state.database, &state.pipelines, &found).await?;
    // What was done is on record also where the rest of it fails.
    let begun = begin_collections(&state, &found, &mut repairs).await;
    let data = json!({"found": found.len(), "repairs": repairs});
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move { audit::record(connection, &principal, "doctor.repair", "installation", data).await })
    });
    write.await?;
    begun?;
    let repairs = repairs.into_iter().map(|repair| RepairView {
        invariant: repair.invariant,
        subject: repair.subject,
        action: repair.action,
    });
    Ok(Json(RepairReport { repairs: repairs.collect(), found: found.len() }))
}

/// Evaluates every invariant.
#[utoipa::path(get, path = "/v1/operate/doctor", tag = "operate",
    responses((status = 200, body = DoctorReport), (status = 403, body = ProblemBody)))]
pub async fn examine(
    State(state): State<ApiState>,
    Operator(principal): Operator,
) -> Result<Json<DoctorReport>, Problem> {
    require_installation(&state, &principal)?;
    let until = Instant::now() + PATIENCE;
    let mut examined = database(&state, until).await?;
    examined.merge(elsewhere::examine(&state, until, 0).await?);
    let invariants = doctor::invariants().map(|invariant| (invariant.name, invariant.sentence));
    let invariants = invariants.chain(elsewhere::INVARIANTS).map(|(name, sentence)| InvariantView {
        name: name.to_owned(),
        sentence: sentence.to_owned(),
        violations: examined
            .violations
            .iter()
            .filter(|violation| violation.invariant == name)
            .map(|violation| ViolationView { subject: violation.subject.clone(), detail: violation.detail.clone() })
            .collect(),
    });
    let invariants: Vec<InvariantView> = invariants.collect();
    let unfinished: Vec<String> = examined.unfinished.iter().map(|name| (*name).to_owned()).collect();
    Ok(Json(DoctorReport { healthy: is_healthy(&invariants, &unfinished), unfinished, invariants }))
}

/// Judges now and then, until `stop` fires, what no reconciler judges: the lexical index of this node, the audit log and the
/// object store. For the metric and the log.
pub async fn watch(state: ApiState, stop: CancellationToken) {
    doctor::watch(stop, |until, first| elsewhere::examine(&state, until, first)).await;
}

/// Whether nothing is violated and nothing was left out.
fn is_healthy(invariants: &[InvariantView], unfinished: &[String]) -> bool {
    unfinished.is_empty() && invariants.iter().all(|invariant| invariant.violations.is_empty())
}

/// The invariants of the database: first those of the engine, which cost little.
async fn database(state: &ApiState, until: Instant) -> Result<Examined, Failure> {
    let mut examined = doctor::examine(&state.database).await?;
    examined.merge(doctor::examine_content(&state.database, until, 0).await?);
    Ok(examined)
}

/// Begins a collection where vectors were found without a chunk; the sweeper takes them away once no open run may need them.
/// What was begun is entered in `repairs`, also where another fails.
async fn begin_collections(state: &ApiState, found: &[Violation], repairs: &mut Vec<Repair>) -> Result<(), Failure> {
    for violation in found.iter().filter(|violation| violation.invariant == doctor::UNUSED_VECTOR) {
        let id = violation.subject.split(' ').nth(1).and_then(|id| id.parse::<TenantId>().ok());
        let Some(tenant) = id else { continue };
        if collect::begin_pass(&state.stores(), tenant, Ages::default()).await? {
            let action = "what nothing uses is being collected";
            tracing::warn!(invariant = violation.invariant, subject = violation.subject, action, "repaired");
            repairs.push(Repair {
                invariant: violation.invariant.clone(),
                subject: violation.subject.clone(),
                action: action.to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_judged_is_not_healthy() {
        let invariant = |subjects: &[&str]| InvariantView {
            name: "run_has_open_job".to_owned(),
            sentence: String::new(),
            violations: subjects
                .iter()
                .map(|subject| ViolationView { subject: (*subject).to_owned(), detail: String::new() })
                .collect(),
        };
        let unfinished = ["chunk_has_vector".to_owned()];
        assert!(is_healthy(&[invariant(&[])], &[]));
        assert!(!is_healthy(&[invariant(&[])], &unfinished));
        assert!(!is_healthy(&[invariant(&[]), invariant(&["run 1"])], &[]));
    }
}
