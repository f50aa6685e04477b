//! Firing: what is due becomes a replay, once for each time slot, and a row of the audit log.
//!
//! The scheduler is a loop of its own: a plan over many documents takes a while, and nothing else waits for it.

use super::Schedule;
use super::rows::{align, columns, next};
use crate::engine::Core;
use crate::pipeline::{Pipeline, Pipelines};
use crate::reconciler::apart;
use crate::registry::Registry;
use crate::replay::{self, Firing, ReplayFilter, ReplayPlan};
use docmill_model::{Code, Failure, PrincipalId, TenantId};
use docmill_platform::audit;
use docmill_platform::database::{Database, DbError};
use docmill_platform::embedder::Space;
use serde_json::json;
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Schedules fired in one round.
const BATCH: i64 = 100;
/// Between two looks at which tenants and schedules there are.
const ALIGN: Duration = Duration::from_secs(60);

/// Fires what is due until `stop`.
pub(crate) async fn run(core: &Arc<Core>, stop: CancellationToken) {
    if core.pipelines.all().iter().all(|pipeline| pipeline.schedules.is_empty()) {
        // Once, to lay to rest what the files had before.
        if let Err(error) = align(&core.database, &core.pipelines).await {
            tracing::warn!(code = %error.into_failure().code, "schedules are not aligned with the files");
        }
        return;
    }
    let mut aligned: Option<Instant> = None;
    while !stop.is_cancelled() {
        match round(core, aligned.is_none_or(|at| at.elapsed() >= ALIGN)).await {
            Ok(true) => aligned = Some(Instant::now()),
            Ok(false) => {}
            Err(failure) => tracing::warn!(code = %failure.code, "schedules wait: {}", failure.message),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(core.config.tick) => {}
        }
    }
}

/// One look; true when tenants and files were compared.
async fn round(core: &Arc<Core>, to_align: bool) -> Result<bool, Failure> {
    if to_align {
        align(&core.database, &core.pipelines).await?;
    }
    for due in due(core).await? {
        apart("a schedule", fire(core, due).await)?;
    }
    Ok(to_align)
}

#[derive(Clone, sqlx::FromRow)]
struct Due {
    tenant_id: Uuid,
    pipeline: String,
    name: String,
    next_at: OffsetDateTime,
    last_slot: Option<OffsetDateTime>,
}

impl Due {
    /// What the audit log calls it, like a firing by hand.
    fn subject(&self) -> String {
        format!("{}/{}", self.pipeline, self.name)
    }
}

/// What is due and has nothing at work.
async fn due(core: &Arc<Core>) -> Result<Vec<Due>, DbError> {
    let [pipelines, names, crons] = columns(&core.pipelines.all());
    Ok(sqlx::query_as(
        "SELECT s.tenant_id, s.pipeline, s.name, s.next_at, s.last_slot FROM schedules s
         JOIN unnest($1::text[], $2::text[], $3::text[]) AS file (pipeline, name, cron)
           ON file.pipeline = s.pipeline AND file.name = s.name AND file.cron = s.cron
         WHERE s.next_at <= now() AND s.paused_at IS NULL AND NOT EXISTS (
             SELECT 1 FROM replays r WHERE r.tenant_id = s.tenant_id AND r.pipeline = s.pipeline AND r.schedule = s.name
               AND r.state IN ('running', 'paused'))
         ORDER BY s.next_at LIMIT $4",
    )
    .bind(pipelines)
    .bind(names)
    .bind(crons)
    .bind(BATCH)
    .fetch_all(core.database.engine())
    .await?)
}

async fn fire(core: &Arc<Core>, due: Due) -> Result<(), Failure> {
    let Some(pipeline) = core.pipelines.get(&due.pipeline) else { return Ok(()) };
    let tenant = TenantId(due.tenant_id);
    let (filter, plan) = plan(&core.database, &core.registry, &core.pipelines, tenant, &pipeline, &due.name).await?;
    let next =
        pipeline.schedules.get(&due.name).and_then(|schedule| next(schedule, due.last_slot.max(Some(due.next_at))));
    let documents = plan.documents;
    let turn = due.clone();
    let served = core.database.write(tenant, move |connection| {
        Box::pin(async move {
            // Whoever turns the row serves the slot.
            let turned = sqlx::query(
                "UPDATE schedules SET next_at = $4, last_slot = greatest(last_slot, $3), last_replay = NULL
                 WHERE tenant_id = current_tenant() AND pipeline = $1 AND name = $2 AND next_at = $3 AND paused_at IS NULL",
            );
            let turned = turned.bind(&turn.pipeline).bind(&turn.name).bind(turn.next_at).bind(next);
            if turned.execute(&mut *connection).await?.rows_affected() == 0 {
                return Ok(None);
            }
            if plan.documents > 0 {
                let id = start(connection, None, &turn.pipeline, &turn.name, turn.next_at, &filter, &plan).await?;
                let (subject, data) = (turn.subject(), json!({"replay": id, "documents": plan.documents}));
                audit::record(connection, None, "schedule.fire", &subject, data).await?;
            }
            Ok(Some(plan.documents > 0))
        })
    });
    let outcome = match served.await.map_err(DbError::into_failure) {
        Ok(None) => return Ok(()),
        Ok(Some(true)) => "started",
        Ok(Some(false)) => "nothing",
        // Somebody ran it by hand meanwhile: its turn comes when that has ended.
        Err(failure) if failure.code == Code::Conflict => return Ok(()),
        Err(failure) => return Err(failure),
    };
    metrics::counter!("docmill_schedule_firings_total", "outcome" => outcome).increment(1);
    tracing::info!(%tenant, pipeline = due.pipeline, schedule = due.name, slot = %due.next_at, documents, outcome, "a schedule fired");
    Ok(())
}

/// What a firing of a schedule would do now: the choice of documents and the plan. Changes nothing.
///
/// # Errors
/// `NOT_FOUND` for a schedule the pipeline does not have, or database failures.
pub async fn plan(
    database: &Database,
    registry: &Arc<Registry>,
    pipelines: &Pipelines,
    tenant: TenantId,
    pipeline: &Pipeline,
    name: &str,
) -> Result<(ReplayFilter, ReplayPlan), Failure> {
    let unknown = || Failure::new(Code::NotFound, "the pipeline has no schedule of this name");
    let schedule = pipeline.schedules.get(name).ok_or_else(unknown)?;
    let mut filter = schedule.filter(&pipeline.name, OffsetDateTime::now_utc());
    let beyond = replay::within_budget(database, registry, pipelines, tenant, &mut filter).await?;
    let mut plan = replay::plan(database, registry, pipelines, tenant, &filter).await?;
    plan.beyond_budget = beyond;
    Ok((filter, plan))
}

/// Whether the embedding space of a schedule is there, for somebody who asks: without it nothing is ever due.
///
/// # Errors
/// `SPACE_UNKNOWN`, or database failures.
pub async fn check_space(database: &Database, tenant: TenantId, schedule: &Schedule) -> Result<(), Failure> {
    let Some(space) = schedule.wanted.embed_into.clone() else { return Ok(()) };
    let read = database.read(tenant, |connection| Box::pin(async move { Ok(Space::named(connection, &space).await?) }));
    match read.await? {
        Some(space) if space.is_standing() => Ok(()),
        _ => Err(Failure::new(Code::SpaceUnknown, "`embed_into` of the schedule names no embedding space")),
    }
}

/// Fires a schedule now, whatever its time and also while it is paused; returns the replay.
///
/// # Errors
/// `CONFLICT` while a firing is at work, `NOT_FOUND` or `FILE_REMOVED` when no document is due, or the driver's error.
pub async fn run_in(
    connection: &mut PgConnection,
    principal: PrincipalId,
    pipeline: &str,
    name: &str,
    filter: &ReplayFilter,
    plan: &ReplayPlan,
) -> Result<Uuid, DbError> {
    start(connection, Some(principal), pipeline, name, OffsetDateTime::now_utc(), filter, plan).await
}

async fn start(
    connection: &mut PgConnection,
    principal: Option<PrincipalId>,
    pipeline: &str,
    name: &str,
    slot: OffsetDateTime,
    filter: &ReplayFilter,
    plan: &ReplayPlan,
) -> Result<Uuid, DbError> {
    let firing = Firing { pipeline, schedule: name, slot };
    let id = replay::start_firing(connection, principal, filter, plan, Some(firing)).await?;
    // By hand it may come before the scheduler gave a new tenant its row, whose time is then reckoned as of any other.
    sqlx::query(
        "INSERT INTO schedules (tenant_id, pipeline, name, cron, last_slot, last_replay)
         VALUES (current_tenant(), $1, $2, '', $3, $4)
         ON CONFLICT (tenant_id, pipeline, name) DO UPDATE
         SET last_slot = greatest(schedules.last_slot, excluded.last_slot), last_replay = excluded.last_replay",
    )
    .bind(pipeline)
    .bind(name)
    .bind(slot)
    .bind(id)
    .execute(connection)
    .await?;
    Ok(id)
}
