//! `/v1/operate/pauses`: stopping a tenant, a stage or a pipeline, and letting it go on. Work waits, nothing is lost.
//!
//! Stages and pipelines are shared by all tenants, so only keys of the operator tenant stop those.

use crate::audit;
use crate::auth::{Operator, Principal};
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::Code;
use docmill_runtime::control::{PauseKind, pause_in, resume_in};
use serde_json::json;
use time::OffsetDateTime;

/// What can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stoppable {
    /// One stage, for all tenants.
    Stage,
    /// One pipeline, for all tenants.
    Pipeline,
    /// The caller's tenant.
    Tenant,
}

impl From<Stoppable> for PauseKind {
    fn from(what: Stoppable) -> Self {
        match what {
            Stoppable::Stage => PauseKind::Stage,
            Stoppable::Pipeline => PauseKind::Pipeline,
            Stoppable::Tenant => PauseKind::Tenant,
        }
    }
}

/// Something to stop.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePause {
    /// What.
    pub kind: Stoppable,
    /// Name of the stage or pipeline; not needed for the tenant.
    #[serde(default)]
    pub subject: Option<String>,
}

/// Something that is stopped.
#[derive(Debug, serde::Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct PauseView {
    /// `stage`, `pipeline` or `tenant`.
    pub kind: String,
    /// Which one.
    pub subject: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// What is stopped.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PauseList {
    /// Oldest first.
    pub pauses: Vec<PauseView>,
}

/// Lists what stops work of the tenant.
#[utoipa::path(get, path = "/v1/operate/pauses", tag = "operate", responses((status = 200, body = PauseList)))]
pub async fn list(State(state): State<ApiState>, Operator(principal): Operator) -> Result<Json<PauseList>, Problem> {
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let pauses =
                sqlx::query_as("SELECT kind, subject, created_at FROM pauses ORDER BY created_at, kind, subject");
            Ok(pauses.fetch_all(connection).await?)
        })
    });
    Ok(Json(PauseList { pauses: read.await? }))
}

/// The name to store, if the caller may stop it.
fn subject(state: &ApiState, principal: &Principal, kind: PauseKind, named: Option<&str>) -> Result<String, Problem> {
    if kind == PauseKind::Tenant {
        let own = principal.tenant_id.to_string();
        return if named.is_none_or(|named| named == own) { Ok(own) } else { Err(Problem::not_found()) };
    }
    super::require_installation(state, principal)?;
    let named = named.ok_or_else(|| Problem::field("subject", "the name of the stage or pipeline is expected"))?;
    let known = match kind {
        PauseKind::Stage => state.registry.get(named).is_some(),
        _ => state.pipelines.get(named).is_some(),
    };
    if known {
        Ok(named.to_owned())
    } else {
        Err(Problem::field("subject", "no stage or pipeline of this name exists"))
    }
}

/// Stops work. Jobs that run are finished; the rest waits. Repeating it changes nothing.
#[utoipa::path(post, path = "/v1/operate/pauses", tag = "operate", request_body = CreatePause,
    responses((status = 204), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    JsonBody(request): JsonBody<CreatePause>,
) -> Result<StatusCode, Problem> {
    let kind = PauseKind::from(request.kind);
    let subject = subject(&state, &principal, kind, request.subject.as_deref())?;
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            if pause_in(connection, kind, &subject).await? {
                audit::record(connection, &principal, "pause.create", &subject, json!({"kind": kind.as_str()})).await?;
            }
            Ok(())
        })
    });
    write.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets stopped work go on.
#[utoipa::path(delete, path = "/v1/operate/pauses/{kind}/{subject}", tag = "operate",
    params(("kind" = String, Path, description = "`stage`, `pipeline` or `tenant`"),
           ("subject" = String, Path, description = "Name of the stage or pipeline, or the tenant's id")),
    responses((status = 204), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody)))]
pub async fn delete(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path((kind, subject)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let kind = PauseKind::parse(&kind).ok_or_else(Problem::not_found)?;
    match kind {
        PauseKind::Tenant if subject == principal.tenant_id.to_string() => {}
        PauseKind::Tenant => return Err(Problem::not_found()),
        PauseKind::Stage | PauseKind::Pipeline => super::require_installation(&state, &principal)?,
    }
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            if !resume_in(connection, kind, &subject).await? {
                return Err(docmill_model::Failure::new(Code::NotFound, "no such pause").into());
            }
            audit::record(connection, &principal, "pause.delete", &subject, json!({"kind": kind.as_str()})).await
        })
    });
    write.await?;
    Ok(StatusCode::NO_CONTENT)
}
