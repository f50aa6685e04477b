//! `/v1/operate/*`: what an operator sees and steers. Ids, states, codes and counts, and no document
//! text: but for the difference that a sample makes, which needs the right to read it as well.
//!
//! An operator is bound to its own tenant, except for keys of the configured operator tenant, which may act on the
//! whole installation.

pub mod backlog;
pub mod dead;
pub mod doctor;
pub mod jobs;
pub mod pauses;
pub mod replays;
pub mod runs;
pub mod schedules;
pub mod spaces;

use crate::auth::Principal;
use crate::problem::Problem;
use crate::router::Table;
use crate::state::ApiState;
use docmill_model::{Code, TenantId};

/// Adds the operators' routes.
pub(crate) fn add(table: Table) -> Table {
    table
        .get("/v1/operate/doctor", doctor::examine)
        .post("/v1/operate/doctor/repair", doctor::repair)
        .get("/v1/operate/backlog", backlog::report)
        .get("/v1/operate/dead", dead::list)
        .get("/v1/operate/dead/{id}", dead::show)
        .post("/v1/operate/dead/{id}/retry", dead::retry)
        .post("/v1/operate/dead/{id}/discard", dead::discard)
        .post("/v1/operate/replays/plan", replays::plan)
        .post("/v1/operate/replays", replays::start)
        .get("/v1/operate/replays", replays::list)
        .get("/v1/operate/replays/{id}", replays::get)
        .post("/v1/operate/replays/{id}/state", replays::set_state)
        .post("/v1/operate/replays/{id}/difference", replays::difference::difference)
        .get("/v1/operate/schedules", schedules::list)
        .post("/v1/operate/schedules/{pipeline}/{name}/plan", schedules::plan)
        .post("/v1/operate/schedules/{pipeline}/{name}/run", schedules::run)
        .post("/v1/operate/schedules/{pipeline}/{name}/state", schedules::set_state)
        .get("/v1/operate/jobs", jobs::list)
        .get("/v1/operate/jobs/{id}", jobs::get)
        .get("/v1/operate/runs/{id}", runs::get)
        .post("/v1/operate/runs/{id}/cancel", runs::cancel)
        .post("/v1/operate/spaces/plan", spaces::plan)
        .post("/v1/operate/spaces", spaces::build)
        .get("/v1/operate/spaces", spaces::list)
        .get("/v1/operate/spaces/{name}", spaces::get)
        .delete("/v1/operate/spaces/{name}", spaces::drop)
        .post("/v1/operate/spaces/{name}/state", spaces::set_state)
        .post("/v1/operate/spaces/{name}/switch", spaces::switch)
        .get("/v1/operate/pauses", pauses::list)
        .post("/v1/operate/pauses", pauses::create)
        .delete("/v1/operate/pauses/{kind}/{subject}", pauses::delete)
}

/// True for keys that may act on the whole installation.
pub(crate) fn is_installation(state: &ApiState, principal: &Principal) -> bool {
    state.config.operator_tenant == Some(principal.tenant_id)
}

/// The tenant a request is about: another than the caller's only for keys of the operator tenant.
fn tenant_of(state: &ApiState, principal: &Principal, wanted: Option<TenantId>) -> Result<TenantId, Problem> {
    match wanted {
        Some(other) if other != principal.tenant_id => {
            require_installation(state, principal)?;
            Ok(other)
        }
        _ => Ok(principal.tenant_id),
    }
}

/// Passes keys that may act on the whole installation.
pub(crate) fn require_installation(state: &ApiState, principal: &Principal) -> Result<(), Problem> {
    if is_installation(state, principal) {
        return Ok(());
    }
    Err(Problem::new(Code::ScopeMissing, "this acts on all tenants: it needs a key of the operator tenant"))
}
