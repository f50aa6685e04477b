//! `/v1/usage/budgets`: what a tenant may spend on models in a month, in all and by feature.
//!
//! Passing a soft limit warns; a hard one stops: answers fall back to the documents' own sentences, stages hold their
//! jobs and go on by themselves within five minutes after it was raised.

use crate::audit;
use crate::auth::{Administrator, Overseer};
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use docmill_platform::database::DbError;
use serde_json::json;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// What can be budgeted: everything, and each use of models.
const NAMES: [&str; 5] = ["total", "answers", "rewrite", "extract", "summarize"];

/// Limits for a calendar month (UTC), in millionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Passing it warns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<i64>,
    /// It is never passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard: Option<i64>,
}

/// Budgets with what was spent this month.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct BudgetView {
    /// By `total` or feature.
    pub budgets: BTreeMap<String, Budget>,
    /// Spent since the month began, by feature, in millionths of a US dollar.
    pub spent_microusd: BTreeMap<String, i64>,
}

async fn view(connection: &mut PgConnection) -> Result<BudgetView, DbError> {
    let stored: Option<serde_json::Value> =
        sqlx::query_scalar("SELECT nullif(settings -> 'budgets', 'null') FROM tenants WHERE id = current_tenant()")
            .fetch_optional(&mut *connection)
            .await?
            .flatten();
    let spent: Vec<(String, i64)> = sqlx::query_as(
        "SELECT feature, sum(cost_microusd)::bigint FROM ledger
         WHERE tenant_id = current_tenant() AND at >= date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
         GROUP BY feature HAVING sum(cost_microusd) > 0",
    )
    .fetch_all(connection)
    .await?;
    let budgets = stored.and_then(|stored| serde_json::from_value(stored).ok()).unwrap_or_default();
    Ok(BudgetView { budgets, spent_microusd: spent.into_iter().collect() })
}

/// The tenant's budgets and what was spent this month.
#[utoipa::path(get, path = "/v1/usage/budgets", tag = "operate", responses((status = 200, body = BudgetView)))]
pub async fn get(State(state): State<ApiState>, Overseer(principal): Overseer) -> Result<Json<BudgetView>, Problem> {
    let read = state.database.read(principal.tenant_id, |connection| Box::pin(async move { view(connection).await }));
    Ok(Json(read.await?))
}

/// Sets all budgets of the tenant; what is not named has none.
#[utoipa::path(put, path = "/v1/usage/budgets", tag = "operate", request_body = BTreeMap<String, Budget>,
    responses((status = 200, body = BudgetView), (status = 422, body = ProblemBody)))]
pub async fn set(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    JsonBody(budgets): JsonBody<BTreeMap<String, Budget>>,
) -> Result<Json<BudgetView>, Problem> {
    for (name, budget) in &budgets {
        if !NAMES.contains(&name.as_str()) {
            return Err(Problem::field("budgets", &format!("one of {} is expected", NAMES.join(", "))));
        }
        if [budget.soft, budget.hard].into_iter().flatten().any(|limit| limit < 0) {
            return Err(Problem::field(name, "limits from 0 are expected"));
        }
    }
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "UPDATE tenants SET settings = jsonb_set(coalesce(settings, '{}'), '{budgets}', $1) WHERE id = current_tenant()",
            )
            .bind(json!(budgets))
            .execute(&mut *connection)
            .await?;
            let subject = principal.tenant_id.to_string();
            let shown = view(&mut *connection).await?;
            audit::record(connection, &principal, "budget.set", &subject, json!({"budgets": shown.budgets})).await?;
            Ok(shown)
        })
    });
    Ok(Json(write.await?))
}
