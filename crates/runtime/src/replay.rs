//! Replays: documents processed again, as new runs, by choice of an operator.
//!
//! First a plan that says what would happen; then one row that the reconciler of any process drives forward in bounded
//! batches until every document had its run. So a replay survives any kill, never floods the queue, and old rows never
//! change. Unchanged stages come from the stage cache.

mod select;

use crate::dead;
use crate::engine::Core;
use crate::pipeline::{Pipeline, Pipelines};
use crate::registry::Registry;
use crate::runs::{Cause, Repeat, StartRun, start_repeat};
use docmill_model::{Code, DocumentId, Failure, PrincipalId, RunId, TenantId, VersionId};
use docmill_platform::database::{Database, DbError};
use select::{Candidate, candidates, count};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

/// Most documents of a replay that was not confirmed with its count.
pub const UNCONFIRMED_LIMIT: i64 = 1000;
/// Runs of one replay that are under way at once.
const IN_FLIGHT_LIMIT: i64 = 200;
/// Below uploads.
const PRIORITY: i16 = -10;

/// Which documents, and from where.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayFilter {
    /// Documents whose last run had this stage; with `status`, the stage's own outcome counts.
    pub stage: Option<String>,
    /// This document only.
    pub document_id: Option<DocumentId>,
    /// Documents of the pipeline of this name.
    pub pipeline: Option<String>,
    /// `done`, `failed` (includes partial), `partial` or `cancelled`: how the last run, or its stage, ended.
    pub status: Option<String>,
    /// The last run failed with this code.
    pub code: Option<String>,
    /// The last run started at or after this time.
    #[serde(with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// Compute `stage` even when the cache has its result.
    pub recompute: bool,
}

/// What a replay would do.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ReplayPlan {
    /// Documents that get a run.
    pub documents: i64,
    /// The pipelines those runs follow: name and version.
    pub pipelines: BTreeMap<String, String>,
    /// Per stage, in pipeline order.
    pub stages: Vec<StagePlan>,
}

/// What a replay would do at one stage.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StagePlan {
    /// The stage.
    pub stage: String,
    /// Jobs that compute.
    pub compute: i64,
    /// Jobs whose result is expected in the cache.
    pub cached: i64,
}

/// How far a replay is.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ReplayProgress {
    /// `running`, `paused`, `done` or `cancelled`.
    pub state: String,
    /// Documents of the plan.
    pub documents: i64,
    /// Runs by state.
    pub runs: BTreeMap<String, i64>,
}

/// What a filter would replay; changes nothing.
///
/// # Errors
/// `FIELD_INVALID` for an unknown stage, pipeline or status, or database failures.
pub async fn plan(
    database: &Database,
    registry: &Registry,
    pipelines: &Pipelines,
    tenant: TenantId,
    filter: &ReplayFilter,
) -> Result<ReplayPlan, Failure> {
    check(registry, pipelines, filter)?;
    let (documents, groups) = count(database, tenant, filter).await?;
    let mut plan = ReplayPlan { documents, pipelines: BTreeMap::new(), stages: Vec::new() };
    for group in groups {
        let old = pipelines.resolve(database, &group.pipeline_version).await?;
        let new = pipelines.get(&old.name).unwrap_or_else(|| old.clone());
        plan.pipelines.insert(new.name.clone(), new.version.clone());
        estimate(&mut plan.stages, registry, filter, (&old, &new), &group);
    }
    Ok(plan)
}

/// A stage comes from the cache when it was done, its settings are the same, and so for all that come before it.
fn estimate(
    stages: &mut Vec<StagePlan>,
    registry: &Registry,
    filter: &ReplayFilter,
    (old, new): (&Pipeline, &Pipeline),
    group: &select::Group,
) {
    let forced = |name: &str| filter.recompute && filter.stage.as_deref() == Some(name);
    let same = |name: &str| match (old.stage(name), new.stage(name)) {
        (Some(before), Some(now)) => old.settings_hash(before) == new.settings_hash(now) && !forced(name),
        _ => false,
    };
    for stage in &new.stages {
        let cacheable = registry.get(&stage.name).is_some_and(|stage| stage.cacheable());
        let unchanged =
            !stage.on_settled && same(&stage.name) && new.ancestors(&stage.name).iter().all(|name| same(name));
        let done = group.done.get(&stage.name).copied().unwrap_or(0);
        let cached = if cacheable && unchanged { done.min(group.documents) } else { 0 };
        match stages.iter_mut().find(|plan| plan.stage == stage.name) {
            Some(plan) => {
                plan.compute += group.documents - cached;
                plan.cached += cached;
            }
            None => stages.push(StagePlan { stage: stage.name.clone(), compute: group.documents - cached, cached }),
        }
    }
}

fn check(registry: &Registry, pipelines: &Pipelines, filter: &ReplayFilter) -> Result<(), Failure> {
    let invalid = |message: String| Err(Failure::new(Code::FieldInvalid, message));
    if let Some(stage) = filter.stage.as_deref().filter(|stage| registry.get(stage).is_none()) {
        return invalid(format!("there is no stage `{stage}`; this build has {}", registry.names().join(", ")));
    }
    if let Some(name) = filter.pipeline.as_deref().filter(|name| pipelines.get(name).is_none()) {
        return invalid(format!("there is no pipeline `{name}`"));
    }
    if let Some(status) =
        filter.status.as_deref().filter(|s| !matches!(*s, "done" | "failed" | "partial" | "cancelled"))
    {
        return invalid(format!("status `{status}` is none of done, failed, partial, cancelled"));
    }
    if filter.recompute && filter.stage.is_none() {
        return invalid("`recompute` needs `stage`".to_owned());
    }
    Ok(())
}

/// Starts a replay: writes its row; the reconciler starts the runs. `confirm` is the count the operator has seen,
/// needed above [`UNCONFIRMED_LIMIT`].
///
/// # Errors
/// As [`plan`]; `NOT_FOUND` when nothing matches, `CONFLICT` for one document that is being processed,
/// `REPLAY_TOO_LARGE` with the measured count.
pub async fn start(
    database: &Database,
    registry: &Registry,
    pipelines: &Pipelines,
    tenant: TenantId,
    principal: Option<PrincipalId>,
    filter: &ReplayFilter,
    confirm: Option<i64>,
) -> Result<(Uuid, ReplayPlan), Failure> {
    let plan = plan(database, registry, pipelines, tenant, filter).await?;
    check_size(&plan, confirm)?;
    let (filter, stored) = (filter.clone(), plan.clone());
    let id = database.write(tenant, move |connection| {
        Box::pin(async move { start_in(connection, principal, &filter, &stored).await })
    });
    Ok((id.await?, plan))
}

/// Whether a plan may start: above [`UNCONFIRMED_LIMIT`] only with the count the operator has seen.
///
/// # Errors
/// `REPLAY_TOO_LARGE` with the measured count.
pub fn check_size(plan: &ReplayPlan, confirm: Option<i64>) -> Result<(), Failure> {
    if plan.documents > UNCONFIRMED_LIMIT && confirm != Some(plan.documents) {
        let message = "a replay of this many documents must be confirmed with the measured count";
        return Err(Failure::limit(Code::ReplayTooLarge, message, UNCONFIRMED_LIMIT as u64, plan.documents as u64));
    }
    Ok(())
}

/// Writes the row of a planned replay inside the caller's transaction.
///
/// # Errors
/// `NOT_FOUND` when nothing matches, `CONFLICT` for one document that is being processed, or the driver's error.
pub async fn start_in(
    connection: &mut sqlx::PgConnection,
    principal: Option<PrincipalId>,
    filter: &ReplayFilter,
    plan: &ReplayPlan,
) -> Result<Uuid, DbError> {
    if let Some(document) = filter.document_id {
        dead::idle(connection, document).await?;
    }
    if plan.documents == 0 {
        return Err(DbError::Failed(Failure::new(Code::NotFound, "no document matches")));
    }
    let id = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO replays (tenant_id, id, principal_id, filter, plan) VALUES (current_tenant(), $1, $2, $3, $4)",
    )
    .bind(id)
    .bind(principal.map(|principal| principal.0))
    .bind(json!(filter))
    .bind(json!(plan))
    .execute(connection)
    .await?;
    Ok(id)
}

/// How far a replay is.
///
/// # Errors
/// `NOT_FOUND`, or database failures.
pub async fn progress(database: &Database, tenant: TenantId, id: Uuid) -> Result<ReplayProgress, Failure> {
    let progress = database.read(tenant, move |connection| {
        Box::pin(async move {
            let row: Option<(String, i64)> = sqlx::query_as(
                "SELECT state, (plan ->> 'documents')::bigint FROM replays WHERE tenant_id = current_tenant() AND id = $1",
            )
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?;
            let Some((state, documents)) = row else {
                return Err(DbError::Failed(Failure::new(Code::NotFound, "there is no such replay")));
            };
            let runs: Vec<(String, i64)> = sqlx::query_as(
                "SELECT state, count(*) FROM runs WHERE tenant_id = current_tenant() AND replay_id = $1 GROUP BY state",
            )
            .bind(id)
            .fetch_all(connection)
            .await?;
            Ok(ReplayProgress { state, documents, runs: runs.into_iter().collect() })
        })
    });
    Ok(progress.await?)
}

/// Moves a replay between `running`, `paused` and `cancelled`; true when it moved. Runs under way go on.
///
/// # Errors
/// `FIELD_INVALID` for another state, or database failures.
pub async fn set_state(database: &Database, tenant: TenantId, id: Uuid, state: &str) -> Result<bool, Failure> {
    let state = state.to_owned();
    let moved =
        database.write(tenant, move |connection| Box::pin(async move { set_state_in(connection, id, &state).await }));
    Ok(moved.await?)
}

/// [`set_state`] inside the caller's transaction.
///
/// # Errors
/// As [`set_state`].
pub async fn set_state_in(connection: &mut sqlx::PgConnection, id: Uuid, state: &str) -> Result<bool, DbError> {
    if !matches!(state, "running" | "paused" | "cancelled") {
        return Err(Failure::new(Code::FieldInvalid, "a replay is set to running, paused or cancelled").into());
    }
    let moved = sqlx::query(
        "UPDATE replays SET state = $2, finished_at = CASE WHEN $2 = 'cancelled' THEN now() END
         WHERE tenant_id = current_tenant() AND id = $1 AND state IN ('running', 'paused') AND state <> $2",
    )
    .bind(id)
    .bind(state)
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Drives every running replay one batch forward.
pub(crate) async fn advance_all(core: &Arc<Core>) -> Result<(), Failure> {
    let running: Vec<(Uuid, Uuid)> =
        sqlx::query_as("SELECT tenant_id, id FROM replays WHERE state = 'running' ORDER BY created_at")
            .fetch_all(core.database.engine())
            .await
            .map_err(DbError::from)?;
    for (tenant, id) in running {
        advance(core, TenantId(tenant), id).await?;
    }
    Ok(())
}

async fn advance(core: &Arc<Core>, tenant: TenantId, id: Uuid) -> Result<(), Failure> {
    let Some((filter, batch)) = candidates(&core.database, tenant, id, IN_FLIGHT_LIMIT).await? else { return Ok(()) };
    let mut by_version = BTreeMap::new();
    for candidate in &batch {
        if !by_version.contains_key(&candidate.pipeline_version) {
            let old = core.pipelines.resolve(&core.database, &candidate.pipeline_version).await?;
            by_version.insert(candidate.pipeline_version.clone(), core.pipelines.get(&old.name).unwrap_or(old));
        }
    }
    for candidate in batch {
        let pipeline = by_version[&candidate.pipeline_version].clone();
        let recompute: Vec<String> = filter.stage.clone().filter(|_| filter.recompute).into_iter().collect();
        let started = core.database.write(tenant, move |connection| {
            Box::pin(async move { repeat(connection, id, &candidate, &pipeline, &recompute).await })
        });
        match started.await {
            Ok(()) => {}
            // Being processed or deleted meanwhile: the next round looks again.
            Err(DbError::Failed(failure)) if matches!(failure.code, Code::Conflict | Code::NotFound) => {}
            Err(error) => return Err(error.into_failure()),
        }
    }
    Ok(())
}

async fn repeat(
    connection: &mut sqlx::PgConnection,
    replay: Uuid,
    candidate: &Candidate,
    pipeline: &Pipeline,
    recompute: &[String],
) -> Result<(), DbError> {
    dead::idle(connection, DocumentId(candidate.document_id)).await?;
    // Under the document's lock: another reconciler may have been faster.
    let started: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM runs WHERE tenant_id = current_tenant() AND document_id = $1 AND replay_id = $2)",
    )
    .bind(candidate.document_id)
    .bind(replay)
    .fetch_one(&mut *connection)
    .await?;
    if started {
        return Ok(());
    }
    let run = StartRun {
        document_id: DocumentId(candidate.document_id),
        version_id: VersionId(candidate.version_id),
        pipeline,
        cause: Cause::Replay,
        parent_run: Some(RunId(candidate.run_id)),
        priority: PRIORITY,
        traceparent: None,
    };
    start_repeat(connection, run, Repeat { replay_id: Some(replay), recompute }).await.map(|_| ())
}
