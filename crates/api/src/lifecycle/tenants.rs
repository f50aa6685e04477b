//! `DELETE /v1/tenants/{id}`: removing a tenant, by a key of the operator tenant.

use crate::audit;
use crate::auth::{Administrator, Principal};
use crate::operate::is_installation;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_lifecycle::tenant::{self, TenantReceipt};
use docmill_model::{Code, TenantId};
use serde_json::json;
use time::OffsetDateTime;

/// How far the removal of a tenant is.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct TenantDeletionView {
    /// The tenant that was.
    pub tenant: TenantId,
    /// `open` or `finished`.
    pub state: &'static str,
    /// Rows and objects removed so far: `documents`, `vectors`, `artifacts`, `objects`.
    #[schema(value_type = Object)]
    pub removed: serde_json::Value,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the last row was gone.
    #[serde(with = "time::serde::rfc3339::option")]
    pub rows_removed_at: Option<OffsetDateTime>,
    /// When no object had turned up for an hour after that.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

impl From<TenantReceipt> for TenantDeletionView {
    fn from(receipt: TenantReceipt) -> Self {
        Self {
            tenant: receipt.tenant.into(),
            state: if receipt.finished_at.is_some() { "finished" } else { "open" },
            removed: receipt.counts,
            created_at: receipt.created_at,
            rows_removed_at: receipt.rows_removed_at,
            finished_at: receipt.finished_at,
        }
    }
}

/// The tenant of a path, for keys that may act on all of them; to others no tenant exists.
fn tenant_id(state: &ApiState, principal: &Principal, text: &str) -> Result<TenantId, Problem> {
    let known = is_installation(state, principal).then(|| text.parse().ok()).flatten();
    known.ok_or_else(Problem::not_found)
}

/// Removes a tenant with all it has. Its keys stop working at once.
#[utoipa::path(delete, path = "/v1/tenants/{id}", tag = "lifecycle", params(("id" = String, Path, description = "Tenant id")),
    responses((status = 202, body = TenantDeletionView), (status = 404, body = ProblemBody)))]
pub async fn delete(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<TenantDeletionView>), Problem> {
    let tenant = tenant_id(&state, &principal, &id)?;
    if tenant == principal.tenant_id {
        return Err(Problem::new(Code::Conflict, "the operator tenant does not remove itself"));
    }
    let receipt = tenant::delete(&state.stores(), tenant).await?;
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(
            async move { audit::record(connection, &principal, "tenant.delete", &tenant.to_string(), json!({})).await },
        )
    });
    write.await?;
    Ok((StatusCode::ACCEPTED, Json(receipt.into())))
}

/// Shows how far the removal of a tenant is.
#[utoipa::path(get, path = "/v1/tenants/{id}/deletion", tag = "lifecycle", params(("id" = String, Path, description = "Tenant id")),
    responses((status = 200, body = TenantDeletionView), (status = 404, body = ProblemBody)))]
pub async fn deletion(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    Path(id): Path<String>,
) -> Result<Json<TenantDeletionView>, Problem> {
    let receipt = tenant::find(&state.stores(), tenant_id(&state, &principal, &id)?).await?;
    Ok(Json(receipt.ok_or_else(Problem::not_found)?.into()))
}
