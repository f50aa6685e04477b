//! `/v1/operate/pauses`: stopping a tenant, a stage or a pipeline, and letting it go on. Work waits, nothing is lost.
//!
//! Stages and pipelines are shared by all tenants, so only keys of the operator tenant stop those; they also stop and
//! release any tenant, which the audit log of that tenant tells.

use crate::audit;
use crate::auth::{Operator, Principal};
use crate::body::{JsonBody, QueryParams};
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::{Code, TenantId};
use docmill_runtime::control::{self, Pause, PauseKind, pause_in, resume_in};
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
    /// A tenant: the caller's, or any for the operator tenant.
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
    /// Name of the stage or pipeline, or the id of the tenant; the caller's tenant when absent.
    #[serde(default)]
    pub subject: Option<String>,
}

/// Something that is stopped.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PauseView {
    /// `stage`, `pipeline` or `tenant`.
    pub kind: String,
    /// Which one.
    pub subject: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl From<Pause> for PauseView {
    fn from(pause: Pause) -> Self {
        Self { kind: pause.kind.as_str().to_owned(), subject: pause.subject, created_at: pause.created_at }
    }
}

/// Whose pauses.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PausesQuery {
    /// True for those of all tenants; needs a key of the operator tenant.
    #[serde(default)]
    all: bool,
}

/// What is stopped.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PauseList {
    /// Oldest first.
    pub pauses: Vec<PauseView>,
}

/// Lists what stops work of the tenant: its own pause, and those of stages and pipelines.
#[utoipa::path(get, path = "/v1/operate/pauses", tag = "operate", params(PausesQuery),
    responses((status = 200, body = PauseList), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    QueryParams(query): QueryParams<PausesQuery>,
) -> Result<Json<PauseList>, Problem> {
    let pauses = if query.all {
        super::require_installation(&state, &principal)?;
        control::pauses(&state.database).await?
    } else {
        let read = state.database.read(principal.tenant_id, |connection| Box::pin(control::pauses_in(connection)));
        read.await?
    };
    Ok(Json(PauseList { pauses: pauses.into_iter().map(Into::into).collect() }))
}

/// What is stopped or released, and in whose name that is written down.
struct Target {
    subject: String,
    tenant: TenantId,
}

/// The tenant a pause is about: the caller's own, or any that exists for the operator tenant. Others cannot tell a
/// foreign tenant from one that is not there.
async fn tenant(state: &ApiState, principal: &Principal, named: Option<&str>) -> Result<Target, Problem> {
    let own = principal.tenant_id;
    let tenant = match named {
        None => own,
        Some(named) => named.parse().map_err(|_| Problem::not_found())?,
    };
    if tenant != own {
        if !super::is_installation(state, principal) {
            return Err(Problem::not_found());
        }
        let known = state.database.read(tenant, |connection| {
            Box::pin(async move {
                let known = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM tenants WHERE id = current_tenant())");
                Ok(known.fetch_one(connection).await?)
            })
        });
        if !known.await? {
            return Err(Problem::not_found());
        }
    }
    Ok(Target { subject: tenant.to_string(), tenant })
}

/// The name to store, if the caller may stop it.
async fn target(
    state: &ApiState,
    principal: &Principal,
    kind: PauseKind,
    named: Option<&str>,
) -> Result<Target, Problem> {
    if kind == PauseKind::Tenant {
        return tenant(state, principal, named).await;
    }
    super::require_installation(state, principal)?;
    let named = named.ok_or_else(|| Problem::field("subject", "the name of the stage or pipeline is expected"))?;
    let known = match kind {
        PauseKind::Stage => state.registry.get(named).is_some(),
        _ => state.pipelines.get(named).is_some(),
    };
    if known {
        Ok(Target { subject: named.to_owned(), tenant: principal.tenant_id })
    } else {
        Err(Problem::field("subject", "no stage or pipeline of this name exists"))
    }
}

/// Stops work. Jobs that run are finished; the rest waits. Repeating it changes nothing.
#[utoipa::path(post, path = "/v1/operate/pauses", tag = "operate", request_body = CreatePause,
    responses((status = 204), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
              (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    JsonBody(request): JsonBody<CreatePause>,
) -> Result<StatusCode, Problem> {
    let kind = PauseKind::from(request.kind);
    let Target { subject, tenant } = target(&state, &principal, kind, request.subject.as_deref()).await?;
    let write = state.database.write(tenant, move |connection| {
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
    let Target { subject, tenant } = match kind {
        PauseKind::Tenant => tenant(&state, &principal, Some(&subject)).await?,
        // Also what this build does not know any more can be released.
        PauseKind::Stage | PauseKind::Pipeline => {
            super::require_installation(&state, &principal)?;
            Target { subject, tenant: principal.tenant_id }
        }
    };
    let write = state.database.write(tenant, move |connection| {
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
