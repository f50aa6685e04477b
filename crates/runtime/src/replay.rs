//! Replays: documents processed again, as new runs, by choice of an operator.
//!
//! First a plan that says what would happen; then one row that the reconciler of any process drives forward in bounded
//! batches until every document had its run; at the end a report. So a replay survives any kill, never floods the
//! queue, and old rows never change. Unchanged stages come from the stage cache.

mod advance;
mod budget;
mod plan;
mod report;
mod select;

pub(crate) use advance::advance_all;
pub(crate) use budget::within_budget;
pub use plan::{ReplayPlan, StagePlan, plan};
pub use report::{ReplayReport, StageReport, report};

use crate::dead;
use crate::pipeline::Pipelines;
use crate::registry::Registry;
use docmill_model::{Code, DocumentId, Failure, PrincipalId, RunId, TenantId};
use docmill_platform::database::{Database, DbError};
use serde_json::json;
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

/// Most documents of a replay that was not confirmed with its count.
pub const UNCONFIRMED_LIMIT: i64 = 1000;

/// Most documents of a sample.
pub const SAMPLE_LIMIT: i64 = 100;

/// Which documents, from where, and how fast.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayFilter {
    /// Documents whose last run had this stage; with `status`, the stage's own outcome counts.
    pub stage: Option<String>,
    /// This document only.
    pub document_id: Option<DocumentId>,
    /// Documents of the pipeline of this name.
    pub pipeline: Option<String>,
    /// Documents whose last run followed this version of a pipeline: its hash, or the beginning of it.
    pub pipeline_version: Option<String>,
    /// `done`, `failed` (includes partial), `partial` or `cancelled`: how the last run, or its stage, ended.
    pub status: Option<String>,
    /// The last run failed with this code.
    pub code: Option<String>,
    /// The last run started at or after this time.
    #[serde(with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// The last run started before this time.
    #[serde(with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
    /// Compute `stage` even when the cache has its result.
    pub recompute: bool,
    /// Documents with a visible passage that has no vector in the embedding space of this name, of the version the last run was
    /// about; their runs embed into it also while it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed_into: Option<String>,
    /// Runs started in any minute, at most; as fast as the work goes when absent.
    pub per_minute: Option<u32>,
    /// So many of the documents, spread over all that match, and as a sample: nothing that their runs make is shown. What it
    /// is can be compared with what is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<i64>,
    /// Documents that get a run, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_documents: Option<i64>,
    /// Millionths of a dollar it may cost: when they are spent it starts no more runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost_microusd: Option<i64>,
}

/// The time of a schedule that a replay serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Firing<'a> {
    /// The pipeline whose file has the schedule.
    pub pipeline: &'a str,
    /// Its name there.
    pub schedule: &'a str,
    /// When it was due.
    pub slot: OffsetDateTime,
}

/// Why nothing is computed anew by force at a stage whose work is an effect.
pub(crate) const RUNS_EVERY_TIME: &str =
    "its results are not remembered, it runs every time; vectors of another model are made by `docmill spaces build`";

pub(crate) fn check(registry: &Registry, pipelines: &Pipelines, filter: &ReplayFilter) -> Result<(), Failure> {
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
    if let Some(stage) = filter.stage.as_deref().filter(|stage| filter.recompute && !registry.remembers(stage)) {
        return invalid(format!("`recompute` does nothing for stage {stage}: {RUNS_EVERY_TIME}"));
    }
    if filter.sample.is_some_and(|sample| !(1..=SAMPLE_LIMIT).contains(&sample)) {
        return invalid(format!("`sample` is from 1 to {SAMPLE_LIMIT} documents"));
    }
    if filter.per_minute == Some(0) {
        return invalid("`per_minute` is at least 1; pause the replay instead".to_owned());
    }
    if filter
        .pipeline_version
        .as_ref()
        .is_some_and(|version| version.is_empty() || !version.chars().all(|c| c.is_ascii_hexdigit()))
    {
        return invalid("`pipeline_version` is the beginning of a hash".to_owned());
    }
    Ok(())
}

/// The embedding space that the runs of a replay were started for, of the replay `run` belongs to, and how many seconds ago
/// the replay was started.
///
/// # Errors
/// Database failures.
pub async fn embed_into(database: &Database, tenant: TenantId, run: RunId) -> Result<Option<(String, f64)>, Failure> {
    let read = database.read(tenant, move |connection| {
        Box::pin(async move {
            let space = sqlx::query_as(
                "SELECT p.filter ->> 'embed_into', extract(epoch FROM now() - p.created_at)::float8
                 FROM runs r JOIN replays p ON p.tenant_id = r.tenant_id AND p.id = r.replay_id
                 WHERE r.tenant_id = current_tenant() AND r.id = $1 AND p.filter ->> 'embed_into' IS NOT NULL",
            );
            Ok(space.bind(run.0).fetch_optional(connection).await?)
        })
    });
    Ok(read.await?)
}

/// Starts a replay: writes its row; the reconciler starts the runs. `confirm` is the count the operator has seen,
/// needed above [`UNCONFIRMED_LIMIT`].
///
/// # Errors
/// As [`plan`]; `NOT_FOUND` when nothing matches, `CONFLICT` for one document that is being processed,
/// `REPLAY_TOO_LARGE` with the measured count.
pub async fn start(
    database: &Database,
    registry: &Arc<Registry>,
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
/// `NOT_FOUND` when nothing matches, `FILE_REMOVED` when what matches cannot be read any more, `CONFLICT` for one document
/// that is being processed, or the driver's error.
pub async fn start_in(
    connection: &mut sqlx::PgConnection,
    principal: Option<PrincipalId>,
    filter: &ReplayFilter,
    plan: &ReplayPlan,
) -> Result<Uuid, DbError> {
    start_firing(connection, principal, filter, plan, None).await
}

/// [`start_in`], for the time of a schedule where there is one; `CONFLICT` then also while the schedule has another
/// replay at work.
pub(crate) async fn start_firing(
    connection: &mut sqlx::PgConnection,
    principal: Option<PrincipalId>,
    filter: &ReplayFilter,
    plan: &ReplayPlan,
    firing: Option<Firing<'_>>,
) -> Result<Uuid, DbError> {
    if let Some(document) = filter.document_id {
        dead::idle(connection, document).await?;
    }
    if plan.documents == 0 {
        let failure = if plan.skipped.is_empty() {
            Failure::new(Code::NotFound, "no document matches")
        } else {
            Failure::new(Code::FileRemoved, "the files of the documents that match are kept no longer")
        };
        return Err(failure.into());
    }
    let id = Uuid::now_v7();
    let made = sqlx::query(
        "INSERT INTO replays (tenant_id, id, principal_id, filter, plan, pipeline, schedule, slot)
         VALUES (current_tenant(), $1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(principal.map(|principal| principal.0))
    .bind(json!(filter))
    .bind(json!(plan))
    .bind(firing.map(|firing| firing.pipeline))
    .bind(firing.map(|firing| firing.schedule))
    .bind(firing.map(|firing| firing.slot))
    .execute(connection)
    .await?;
    if made.rows_affected() == 0 {
        return Err(Failure::new(Code::Conflict, "the schedule has a replay at work").into());
    }
    Ok(id)
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
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if moved == 1 && state == "cancelled" {
        report::count_skips(connection, id).await?;
    }
    Ok(moved == 1)
}
