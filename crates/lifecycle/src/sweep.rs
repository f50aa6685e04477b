//! The sweeper: goes on with open deletions, applies retention, collects. Any number may run.

use crate::collect::{self, Ages};
use crate::retention::{self, PipelineRules};
use crate::{Stores, delete, finish, tenant};
use docmill_model::{Failure, TenantId};
use docmill_platform::database::DbError;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Pause between looks at open deletions.
const PAUSE: Duration = Duration::from_secs(5);
/// Deletions taken up at one look.
const BATCH: i64 = 500;

/// What the sweeper works by.
#[derive(Clone, Debug)]
pub struct SweepConfig {
    /// Retention by pipeline, from today's files.
    pub rules: PipelineRules,
    /// Ages for collecting.
    pub ages: Ages,
    /// Pause between passes of retention and collection.
    pub every: Duration,
}

/// Sweeps until `stop`. Failures are logged and tried again.
pub async fn run(stores: Stores, config: SweepConfig, stop: CancellationToken) {
    let mut swept: Option<Instant> = None;
    while tokio::time::timeout(PAUSE, stop.cancelled()).await.is_err() {
        report(open_deletions(&stores, &stop).await, "deletions");
        report(tenant::advance_all(&stores).await, "removals of tenants");
        if swept.is_none_or(|at| at.elapsed() >= config.every) {
            swept = Some(Instant::now());
            report(sweep_tenants(&stores, &config, &stop).await, "retention and collection");
        }
    }
}

fn report(result: Result<(), Failure>, what: &str) {
    if let Err(failure) = result {
        tracing::warn!(code = %failure.code, "{what} go on later: {}", failure.message);
    }
}

/// Goes on with every deletion that is not finished.
///
/// # Errors
/// Of the database.
pub async fn open_deletions(stores: &Stores, stop: &CancellationToken) -> Result<(), Failure> {
    let open: Vec<(Uuid, Uuid, bool)> = sqlx::query_as(
        "SELECT tenant_id, id, rows_removed FROM (
             SELECT tenant_id, id, rows_removed, created_at,
                    row_number() OVER (PARTITION BY tenant_id ORDER BY rows_removed, created_at) AS place
             FROM deletions WHERE finished_at IS NULL AND (finish_after <= now() OR NOT rows_removed)) AS open
         ORDER BY place, created_at LIMIT $1",
    )
    .bind(BATCH)
    .fetch_all(stores.database.engine())
    .await
    .map_err(DbError::from)?;
    for (tenant, id, rows_removed) in open {
        if stop.is_cancelled() {
            return Ok(());
        }
        if let Err(failure) = complete(stores, tenant.into(), id, rows_removed, stop).await {
            tracing::warn!(deletion = %id, code = %failure.code, "a deletion is tried again later");
        }
    }
    Ok(())
}

async fn complete(
    stores: &Stores,
    tenant: TenantId,
    id: Uuid,
    mut rows_removed: bool,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    while !rows_removed && !stop.is_cancelled() {
        rows_removed = delete::advance(stores, tenant, id).await?;
    }
    if rows_removed {
        finish(stores, tenant, id).await?;
    }
    Ok(())
}

/// The second half of a deletion: removes what nothing else uses any more; true when it is finished.
///
/// # Errors
/// `DATABASE_UNAVAILABLE`, `STORE_UNAVAILABLE`: the rest is done by the next call.
pub async fn finish(stores: &Stores, tenant: TenantId, id: Uuid) -> Result<bool, Failure> {
    finish::finish(stores, tenant, id).await
}

async fn sweep_tenants(stores: &Stores, config: &SweepConfig, stop: &CancellationToken) -> Result<(), Failure> {
    for tenant in stores.database.tenants().await? {
        if stop.is_cancelled() {
            return Ok(());
        }
        // One tenant's trouble is not the next one's.
        report(sweep_tenant(stores, config, tenant).await, "retention and collection of a tenant");
    }
    Ok(())
}

async fn sweep_tenant(stores: &Stores, config: &SweepConfig, tenant: TenantId) -> Result<(), Failure> {
    let plan = retention::plan(&stores.database, tenant, &config.rules).await?;
    if !plan.is_empty() {
        let counts = retention::apply(stores, tenant, plan).await?;
        tracing::info!(%tenant, ?counts, "retention");
    }
    let counts = collect::pass(stores, tenant, config.ages).await?;
    if counts != Default::default() {
        tracing::info!(%tenant, ?counts, "collected");
    }
    Ok(())
}
