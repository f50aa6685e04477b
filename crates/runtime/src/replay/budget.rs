//! What a replay may use up: documents, and dollars as the ledger counts them.

use super::plan::{PAGE, unreadable};
use super::select::{self, Dated, Pace};
use super::{ReplayFilter, ReplayPlan, report};
use crate::pipeline::Pipelines;
use crate::registry::Registry;
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::BTreeSet;
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// Runs at once while nothing is known of what one costs.
const UNKNOWN_COST_LIMIT: i64 = 8;

/// Narrows a filter to the documents its budget allows, those whose last run is the oldest; returns how many others match.
/// Documents that nothing can be made of any more take no room: they stay the oldest for ever.
pub(crate) async fn within_budget(
    database: &Database,
    registry: &Arc<Registry>,
    pipelines: &Pipelines,
    tenant: TenantId,
    filter: &mut ReplayFilter,
) -> Result<i64, Failure> {
    let Some(limit) = filter.max_documents else { return Ok(0) };
    let (mut looked_at, mut chosen, mut first, mut after) = (0, 0, None, None);
    loop {
        let asked = filter.clone();
        let read = database.read(tenant, move |connection| {
            Box::pin(async move { Ok(select::oldest(connection, &asked, after, PAGE).await?) })
        });
        let page = read.await?;
        let Some(last) = page.last() else { return Ok(0) };
        after = Some((last.created_at, last.candidate.document_id));
        let lost = lost(database, registry, pipelines, tenant, filter, &page).await?;
        for Dated { candidate, created_at } in page {
            if lost.contains(&candidate.document_id) {
                looked_at += 1;
                continue;
            }
            if chosen == limit {
                // Runs that one round started share their moment. All of them are in reach when none is older: the replay
                // counts what it starts.
                let tick = if first == Some(created_at) { Duration::MICROSECOND } else { Duration::ZERO };
                let beyond = matching(database, tenant, filter).await? - looked_at;
                filter.until = Some(created_at + tick);
                return Ok(beyond.max(0));
            }
            first = first.or(Some(created_at));
            chosen += 1;
            looked_at += 1;
        }
    }
}

/// Documents of a page that a run could not read.
async fn lost(
    database: &Database,
    registry: &Arc<Registry>,
    pipelines: &Pipelines,
    tenant: TenantId,
    filter: &ReplayFilter,
    page: &[Dated],
) -> Result<BTreeSet<Uuid>, Failure> {
    let mut lost = BTreeSet::new();
    for Dated { candidate, .. } in page.iter().filter(|dated| dated.candidate.raw_removed) {
        let old = pipelines.resolve(database, &candidate.pipeline_version).await?;
        let pipeline = pipelines.get(&old.name).unwrap_or(old);
        let (registry, forced) = (registry.clone(), filter.stage.clone().filter(|_| filter.recompute));
        let one = candidate.clone();
        let read = database.read(tenant, move |connection| {
            Box::pin(async move {
                unreadable(connection, tenant, &registry, &pipeline, forced.as_deref(), std::slice::from_ref(&one))
                    .await
            })
        });
        lost.extend(read.await?);
    }
    Ok(lost)
}

async fn matching(database: &Database, tenant: TenantId, filter: &ReplayFilter) -> Result<i64, Failure> {
    let asked = filter.clone();
    let read =
        database.read(tenant, |connection| Box::pin(async move { Ok(select::count(connection, &asked).await?) }));
    Ok(read.await?)
}

/// Runs that may be started before what they cost could pass the budget. `None` when it is used up.
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
        return Ok(None);
    }
    let plan: ReplayPlan = serde_json::from_value(plan.clone()).unwrap_or_default();
    let ended = pace.started - pace.under_way;
    let each = (plan.cost_microusd / plan.documents.max(1)).max(spent / ended.max(1));
    let runs = match (each, ended) {
        // Also when all that ended were remembered: the next one may cost.
        (0, _) => UNKNOWN_COST_LIMIT,
        // The last dollar is spent as well: a budget stops a replay, it does not leave it waiting.
        _ => ((limit - spent) / each).max(1),
    };
    Ok(Some(runs.saturating_sub(pace.under_way)))
}

/// Ends a replay whose budget is used up while documents are left; runs under way go on.
pub(super) async fn stop(connection: &mut PgConnection, id: Uuid) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE replays SET state = 'stopped', code = $2, finished_at = now() WHERE tenant_id = current_tenant() AND id = $1",
    )
    .bind(id)
    .bind(Code::BudgetExceeded.as_str())
    .execute(&mut *connection)
    .await?;
    report::count_skips(connection, id).await?;
    metrics::counter!("docmill_replays_stopped_total").increment(1);
    Ok(())
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
