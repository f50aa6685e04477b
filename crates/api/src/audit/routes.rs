//! `GET /v1/audit`, `GET /v1/audit/verify`: what was changed by whom, and that nobody changed the record.

use super::verify;
use crate::auth::Administrator;
use crate::body::QueryParams;
use crate::pager::Pager;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use docmill_model::PrincipalId;
use docmill_platform::audit::Entry;
use time::OffsetDateTime;

/// Paging of the audit log.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Page size, 1 to 200; 50 when absent.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One change.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct AuditView {
    /// Number from 1, without gaps.
    pub seq: i64,
    /// Who did it; none for the timer of a schedule.
    pub principal_id: Option<PrincipalId>,
    /// What was done, e.g. `document.delete`.
    pub action: String,
    /// Identifier of what it was done to.
    pub subject: String,
    /// Ids and counts.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// One page of the audit log, newest first.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct AuditPage {
    /// The changes.
    pub entries: Vec<AuditView>,
    /// Pass as `cursor` for the next page; absent on the last.
    pub next_cursor: Option<String>,
}

/// Lists changes, newest first.
#[utoipa::path(get, path = "/v1/audit", tag = "keys", params(AuditQuery),
    responses((status = 200, body = AuditPage), (status = 422, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    QueryParams(query): QueryParams<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let tenant = principal.tenant_id;
    let pager: Pager<i64> = Pager::new(&state, tenant, "audit", query.limit, query.cursor.as_deref())?;
    let (before, limit) = (pager.after, pager.rows());
    let read = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let rows: Vec<Entry> = sqlx::query_as(
                "SELECT seq, principal_id, action, subject, data, at FROM audit_log
                 WHERE tenant_id = current_tenant() AND ($1::bigint IS NULL OR seq < $1) ORDER BY seq DESC LIMIT $2",
            )
            .bind(before)
            .bind(limit)
            .fetch_all(connection)
            .await?;
            Ok(rows)
        })
    });
    let mut rows = read.await?;
    let next_cursor = pager.cut(&state, &mut rows, |row| row.seq);
    let entries = rows.into_iter().map(|row| AuditView {
        seq: row.seq,
        principal_id: row.principal_id.map(Into::into),
        action: row.action,
        subject: row.subject,
        data: row.data,
        at: row.at,
    });
    Ok(Json(AuditPage { entries: entries.collect(), next_cursor }))
}

/// What [`verify`] found.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Verified {
    /// Rows that fit the chain, from the first.
    pub rows: i64,
    /// Number of the first row that does not fit or is missing.
    pub first_broken: Option<i64>,
}

/// Checks the chain of the audit log from its first row.
#[utoipa::path(get, path = "/v1/audit/verify", tag = "keys", responses((status = 200, body = Verified)))]
pub async fn check(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
) -> Result<Json<Verified>, Problem> {
    let tenant = principal.tenant_id;
    let read = state.database.read(tenant, move |connection| Box::pin(async move { verify(connection, tenant).await }));
    let found = read.await?;
    Ok(Json(Verified { rows: found.rows, first_broken: found.first_broken }))
}
