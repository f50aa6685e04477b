//! What a replay may use up: documents, and dollars as the ledger counts them.

use super::select::{self, Pace};
use super::{ReplayFilter, ReplayPlan};
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Runs at once while nothing is known of what one costs.
const UNKNOWN_COST_LIMIT: i64 = 8;

/// Narrows a filter to the documents its budget allows, those whose last run is the oldest; returns how many others match.
pub(crate) async fn within_budget(
    database: &Database,
    tenant: TenantId,
    filter: &mut ReplayFilter,
) -> Result<i64, Failure> {
    let Some(limit) = filter.max_documents else { return Ok(0) };
    let asked = filter.clone();
    let read = database
        .read(tenant, move |connection| Box::pin(async move { Ok(select::extent(connection, &asked, limit).await?) }));
    let (matching, end) = read.await?;
    if let Some(end) = end {
        filter.until = Some(end);
    }
    Ok((matching - limit).max(0))
}

/// Runs that may be started before what they cost could pass the budget. `None` when it is used up: the replay is then
/// `stopped`, and runs under way go on.
pub(super) async fn affordable(
    connection: &mut PgConnection,
    id: Uuid,
    filter: &ReplayFilter,
    plan: &Value,
    created_at: OffsetDateTime,
    pace: &Pace,
) -> Result<Option<i64>, DbError> {
    let Some(limit) = filter.max_cost_microusd else { return Ok(Some(i64::MAX)) };
    let spent = spent(connection, id, created_at).await?;
    if spent >= limit {
        sqlx::query(
            "UPDATE replays SET state = 'stopped', code = $2, finished_at = now() WHERE tenant_id = current_tenant() AND id = $1",
        )
        .bind(id)
        .bind(Code::BudgetExceeded.as_str())
        .execute(connection)
        .await?;
        metrics::counter!("docmill_replays_stopped_total").increment(1);
        return Ok(None);
    }
    let plan: ReplayPlan = serde_json::from_value(plan.clone()).unwrap_or_default();
    let ended = pace.started - pace.under_way;
    let each = (plan.cost_microusd / plan.documents.max(1)).max(spent / ended.max(1));
    let runs = match (each, ended) {
        (0, 0) => UNKNOWN_COST_LIMIT,
        (0, _) => i64::MAX,
        // The last dollar is spent as well: a budget stops a replay, it does not leave it waiting.
        _ => ((limit - spent) / each).max(1),
    };
    Ok(Some(runs.saturating_sub(pace.under_way)))
}

/// Millionths of a dollar that the runs of a replay have cost.
async fn spent(connection: &mut PgConnection, id: Uuid, since: OffsetDateTime) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT coalesce(sum(l.cost_microusd), 0)::bigint FROM ledger l
         JOIN jobs j ON j.tenant_id = l.tenant_id AND j.id = l.job_id
         JOIN runs r ON r.tenant_id = j.tenant_id AND r.id = j.run_id
         WHERE l.tenant_id = current_tenant() AND l.at >= $2 AND r.replay_id = $1",
    )
    .bind(id)
    .bind(since)
    .fetch_one(connection)
    .await
}
