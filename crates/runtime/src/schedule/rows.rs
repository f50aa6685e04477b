//! The rows of schedules: one for each tenant and each schedule of a file.

use super::Schedule;
use crate::pipeline::{Pipeline, Pipelines};
use docmill_model::{Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

/// How a schedule of a tenant stands.
#[derive(Clone, Debug)]
pub struct ScheduleState {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Its name in the pipeline's file.
    pub name: String,
    /// What the file says.
    pub schedule: Schedule,
    /// When it is due next. In the past: it waits for the replay that is at work, or for the scheduler.
    pub next_at: Option<OffsetDateTime>,
    /// Since when it is paused.
    pub paused_at: Option<OffsetDateTime>,
    /// The time that was served last.
    pub last_slot: Option<OffsetDateTime>,
    /// By this replay; none when no document was due.
    pub last_replay: Option<Uuid>,
    /// State of that replay.
    pub last_state: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    pipeline: String,
    name: String,
    cron: String,
    next_at: Option<OffsetDateTime>,
    paused_at: Option<OffsetDateTime>,
    last_slot: Option<OffsetDateTime>,
    last_replay: Option<Uuid>,
    last_state: Option<String>,
}

/// Every schedule of the files with how it stands for a tenant, by pipeline and name.
///
/// # Errors
/// Database failures.
pub async fn list(database: &Database, pipelines: &Pipelines, tenant: TenantId) -> Result<Vec<ScheduleState>, Failure> {
    let read = database.read(tenant, |connection| {
        Box::pin(async move {
            let rows: Vec<Row> = sqlx::query_as(
                "SELECT s.pipeline, s.name, s.cron, s.next_at, s.paused_at, s.last_slot, s.last_replay, r.state AS last_state
                 FROM schedules s LEFT JOIN replays r ON r.tenant_id = s.tenant_id AND r.id = s.last_replay
                 WHERE s.tenant_id = current_tenant()",
            )
            .fetch_all(connection)
            .await?;
            Ok(rows)
        })
    });
    let rows = read.await?.into_iter().map(|row| ((row.pipeline.clone(), row.name.clone()), row));
    let mut rows: BTreeMap<(String, String), Row> = rows.collect();
    let now = OffsetDateTime::now_utc();
    let mut states = Vec::new();
    for pipeline in pipelines.all() {
        for (name, schedule) in pipeline.schedules.iter() {
            let row = rows.remove(&(pipeline.name.clone(), name.clone()));
            // A row of another time is reckoned anew within a minute.
            let next = row.as_ref().filter(|row| row.cron == schedule.cron.as_str()).and_then(|row| row.next_at);
            states.push(ScheduleState {
                pipeline: pipeline.name.clone(),
                name: name.clone(),
                schedule: schedule.clone(),
                next_at: next.or_else(|| schedule.cron.after(now)),
                paused_at: row.as_ref().and_then(|row| row.paused_at),
                last_slot: row.as_ref().and_then(|row| row.last_slot),
                last_replay: row.as_ref().and_then(|row| row.last_replay),
                last_state: row.and_then(|row| row.last_state),
            });
        }
    }
    Ok(states)
}

/// The next time of a schedule. Not before what was served: the clock that said so may be ahead of this one, and a slot is
/// served once.
pub(super) fn next(schedule: &Schedule, served: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    let now = OffsetDateTime::now_utc();
    schedule.cron.after(served.map_or(now, |served| served.max(now)))
}

/// Pauses a schedule of the current tenant or lets it go on; true when it moved. Times that passed while it was paused
/// are not made up for.
///
/// # Errors
/// The driver's error.
pub async fn set_paused_in(
    connection: &mut PgConnection,
    pipeline: &str,
    name: &str,
    schedule: &Schedule,
    paused: bool,
) -> Result<bool, DbError> {
    let moved = sqlx::query(
        "INSERT INTO schedules (tenant_id, pipeline, name, cron, next_at, paused_at)
         SELECT current_tenant(), $1, $2, $3, $4, now() WHERE $5
         ON CONFLICT (tenant_id, pipeline, name) DO NOTHING",
    );
    let served: Option<OffsetDateTime> = sqlx::query_scalar(
        "SELECT last_slot FROM schedules
         WHERE tenant_id = current_tenant() AND pipeline = $1 AND name = $2 AND last_slot IS NOT NULL FOR UPDATE",
    )
    .bind(pipeline)
    .bind(name)
    .fetch_optional(&mut *connection)
    .await?;
    let next = next(schedule, served);
    let made = moved.bind(pipeline).bind(name).bind(schedule.cron.as_str()).bind(next).bind(paused);
    if made.execute(&mut *connection).await?.rows_affected() == 1 {
        return Ok(true);
    }
    let moved = sqlx::query(
        "UPDATE schedules SET paused_at = CASE WHEN $3 THEN now() END, cron = $4, next_at = $5
         WHERE tenant_id = current_tenant() AND pipeline = $1 AND name = $2 AND (paused_at IS NOT NULL) <> $3",
    );
    let moved = moved.bind(pipeline).bind(name).bind(paused).bind(schedule.cron.as_str()).bind(next);
    Ok(moved.execute(connection).await?.rows_affected() == 1)
}

/// The schedules of the files as columns: pipeline, name, cron.
pub(super) fn columns(pipelines: &[Arc<Pipeline>]) -> [Vec<String>; 3] {
    let mut columns = [Vec::new(), Vec::new(), Vec::new()];
    for pipeline in pipelines {
        for (name, schedule) in pipeline.schedules.iter() {
            let values = [pipeline.name.clone(), name.clone(), schedule.cron.as_str().to_owned()];
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
        }
    }
    columns
}

/// Gives every tenant a row for each schedule of the files, reckons anew those whose time is another, and lays to rest
/// those that no file has.
pub(super) async fn align(database: &Database, pipelines: &Pipelines) -> Result<(), DbError> {
    let all = pipelines.all();
    let [names, schedules, crons] = columns(&all);
    let engine = database.engine();
    sqlx::query(
        "UPDATE schedules s SET cron = '', next_at = NULL
         WHERE s.next_at IS NOT NULL AND NOT EXISTS (
             SELECT 1 FROM unnest($1::text[], $2::text[]) AS file (pipeline, name)
             WHERE file.pipeline = s.pipeline AND file.name = s.name)",
    )
    .bind(&names)
    .bind(&schedules)
    .execute(engine)
    .await?;
    let other: Vec<Other> = sqlx::query_as(
        "SELECT t.id AS tenant_id, file.pipeline, file.name, s.last_slot
         FROM tenants t CROSS JOIN unnest($1::text[], $2::text[], $3::text[]) AS file (pipeline, name, cron)
         LEFT JOIN schedules s ON s.tenant_id = t.id AND s.pipeline = file.pipeline AND s.name = file.name
         WHERE s.cron IS DISTINCT FROM file.cron",
    )
    .bind(&names)
    .bind(&schedules)
    .bind(&crons)
    .fetch_all(engine)
    .await?;
    for row in other {
        let schedule = pipelines.get(&row.pipeline).and_then(|pipeline| pipeline.schedules.get(&row.name).cloned());
        let Some(schedule) = schedule else { continue };
        sqlx::query(
            "INSERT INTO schedules (tenant_id, pipeline, name, cron, next_at) SELECT id, $2, $3, $4, $5 FROM tenants WHERE id = $1
             ON CONFLICT (tenant_id, pipeline, name) DO UPDATE SET cron = excluded.cron, next_at = excluded.next_at
             WHERE schedules.cron <> excluded.cron",
        )
        .bind(row.tenant_id)
        .bind(&row.pipeline)
        .bind(&row.name)
        .bind(schedule.cron.as_str())
        .bind(next(&schedule, row.last_slot))
        .execute(engine)
        .await?;
    }
    Ok(())
}

/// A tenant's schedule that has no row yet, or one that was reckoned from another time.
#[derive(sqlx::FromRow)]
struct Other {
    tenant_id: Uuid,
    pipeline: String,
    name: String,
    last_slot: Option<OffsetDateTime>,
}
