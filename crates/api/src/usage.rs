//! `GET /v1/usage`: what was spent, from the ledger, by day, feature, model and how calls ended; budgets are set in [`budgets`].

pub mod budgets;

use crate::auth::Overseer;
use crate::body::QueryParams;
use crate::operate::require_installation;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use docmill_model::TenantId;
use time::{Date, Duration, OffsetDateTime};

/// Longest range of one report, days.
const MAX_DAYS: i64 = 366;

/// The range of the report.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct UsageQuery {
    /// From this RFC 3339 instant; 30 days before `until` when absent.
    #[serde(default, with = "time::serde::rfc3339::option")]
    from: Option<OffsetDateTime>,
    /// Until before this instant; now when absent. At most 366 days after `from`.
    #[serde(default, with = "time::serde::rfc3339::option")]
    until: Option<OffsetDateTime>,
    /// True for every tenant of the installation; only for keys of the operator tenant.
    #[serde(default)]
    all: bool,
}

/// What the calls of one feature that ended alike used on one day (UTC).
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct UsageRow {
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Day, `YYYY-MM-DD`, UTC.
    pub day: String,
    /// `embed`, `ocr`, `answers`, `extract`, `summarize`, …
    pub feature: String,
    /// Provider, `local` for models of this installation.
    pub provider: String,
    /// Model.
    pub model: String,
    /// How the calls ended: `done`, `cached`, `timeout`, `rate_limited`, `error`, …; `started` for one under way.
    pub outcome: String,
    /// Calls.
    pub calls: i64,
    /// Units of the feature: texts, pages.
    pub units: i64,
    /// Tokens sent.
    pub tokens_in: i64,
    /// Tokens received.
    pub tokens_out: i64,
    /// Tokens served from the provider's cache.
    pub tokens_cached: i64,
    /// Cost in millionths of a US dollar.
    pub cost_microusd: i64,
}

/// What was used, by day and feature.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct UsageReport {
    /// Oldest day first.
    pub rows: Vec<UsageRow>,
}

#[derive(sqlx::FromRow)]
struct Row {
    day: Date,
    feature: String,
    provider: String,
    model: String,
    outcome: String,
    calls: i64,
    units: i64,
    tokens_in: i64,
    tokens_out: i64,
    tokens_cached: i64,
    cost_microusd: i64,
}

/// Reports usage of the tenant, or of all.
#[utoipa::path(get, path = "/v1/usage", tag = "operate", params(UsageQuery),
    responses((status = 200, body = UsageReport), (status = 422, body = ProblemBody)))]
pub async fn report(
    State(state): State<ApiState>,
    Overseer(principal): Overseer,
    QueryParams(query): QueryParams<UsageQuery>,
) -> Result<Json<UsageReport>, Problem> {
    let until = query.until.unwrap_or_else(OffsetDateTime::now_utc);
    let month_before = until.checked_sub(Duration::days(30)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let from = query.from.unwrap_or(month_before);
    if from >= until || until - from > Duration::days(MAX_DAYS) {
        return Err(Problem::field("from", "an instant before `until`, by at most 366 days, is expected"));
    }
    let mut tenants = vec![principal.tenant_id];
    if query.all {
        require_installation(&state, &principal)?;
        tenants = state.database.tenants().await?;
    }
    let mut rows = Vec::new();
    for tenant in tenants {
        rows.extend(used(&state, tenant, from, until).await?);
    }
    Ok(Json(UsageReport { rows }))
}

async fn used(
    state: &ApiState,
    tenant_id: TenantId,
    from: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<Vec<UsageRow>, Problem> {
    let read = state.database.read(tenant_id, move |connection| {
        Box::pin(async move {
            let rows: Vec<Row> = sqlx::query_as(
                "SELECT (at AT TIME ZONE 'UTC')::date AS day, feature, provider, model, outcome, count(*) AS calls,
                        sum(units)::bigint AS units, sum(tokens_in)::bigint AS tokens_in, sum(tokens_out)::bigint AS tokens_out,
                        sum(tokens_cached)::bigint AS tokens_cached, sum(cost_microusd)::bigint AS cost_microusd
                 FROM ledger WHERE tenant_id = current_tenant() AND at >= $1 AND at < $2
                 GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5",
            )
            .bind(from)
            .bind(until)
            .fetch_all(connection)
            .await?;
            Ok(rows)
        })
    });
    let rows = read.await?.into_iter().map(|row| UsageRow {
        tenant_id,
        day: row.day.to_string(),
        feature: row.feature,
        provider: row.provider,
        model: row.model,
        outcome: row.outcome,
        calls: row.calls,
        units: row.units,
        tokens_in: row.tokens_in,
        tokens_out: row.tokens_out,
        tokens_cached: row.tokens_cached,
        cost_microusd: row.cost_microusd,
    });
    Ok(rows.collect())
}
