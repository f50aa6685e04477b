//! Driving a replay: a bounded batch of new runs in each round of the reconciler.

use super::plan::unreadable;
use super::select::{self, Candidate};
use crate::dead;
use crate::engine::Core;
use crate::pipeline::Pipeline;
use crate::reconciler::apart;
use crate::runs::{Cause, Repeat, StartRun, start_repeat};
use docmill_model::{Code, DocumentId, Failure, RunId, TenantId, VersionId};
use docmill_platform::database::DbError;
use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;
use uuid::Uuid;

/// Runs of one replay that are under way at once.
const IN_FLIGHT_LIMIT: i64 = 200;
/// Below uploads; what a schedule asks for is below what an operator does.
const PRIORITY: i16 = -10;
const SCHEDULED_PRIORITY: i16 = -20;

/// Drives every running replay one batch forward.
pub(crate) async fn advance_all(core: &Arc<Core>) -> Result<(), Failure> {
    let running: Vec<(Uuid, Uuid)> =
        sqlx::query_as("SELECT tenant_id, id FROM replays WHERE state = 'running' ORDER BY created_at")
            .fetch_all(core.database.engine())
            .await
            .map_err(DbError::from)?;
    for (tenant, id) in running {
        apart("a replay", advance(core, TenantId(tenant), id).await)?;
    }
    Ok(())
}

async fn advance(core: &Arc<Core>, tenant: TenantId, id: Uuid) -> Result<(), Failure> {
    let Some(batch) = select::next(&core.database, tenant, id, IN_FLIGHT_LIMIT).await? else { return Ok(()) };
    let recompute: Vec<String> = batch.filter.stage.clone().filter(|_| batch.filter.recompute).into_iter().collect();
    let mut by_version = BTreeMap::new();
    for candidate in &batch.documents {
        if !by_version.contains_key(&candidate.pipeline_version) {
            let old = core.pipelines.resolve(&core.database, &candidate.pipeline_version).await?;
            by_version.insert(candidate.pipeline_version.clone(), core.pipelines.get(&old.name).unwrap_or(old));
        }
    }
    let cause = match (batch.filter.sample, batch.is_scheduled) {
        (Some(_), _) => Cause::Sample,
        (None, true) => Cause::Schedule,
        (None, false) => Cause::Replay,
    };
    for candidate in batch.documents {
        let pipeline = by_version[&candidate.pipeline_version].clone();
        let pipeline = if cause == Cause::Sample { Arc::new(pipeline.in_sample(&core.registry)) } else { pipeline };
        let (registry, recompute) = (core.registry.clone(), recompute.clone());
        let started = core.database.write(tenant, move |connection| {
            Box::pin(async move {
                let group = slice::from_ref(&candidate);
                let forced = recompute.first().map(String::as_str);
                if !unreadable(connection, tenant, &registry, &pipeline, forced, group).await?.is_empty() {
                    return skip(connection, id, &candidate).await;
                }
                repeat(connection, id, &candidate, &pipeline, &recompute, cause).await
            })
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

/// Notes that a document gets no run: what it was made of is kept no longer. Not for a replay that has ended meanwhile, whose
/// notes are counted already.
async fn skip(connection: &mut sqlx::PgConnection, replay: Uuid, candidate: &Candidate) -> Result<(), DbError> {
    sqlx::query(
        "WITH replay AS (
            SELECT id FROM replays WHERE tenant_id = current_tenant() AND id = $1 AND state IN ('running', 'paused') FOR SHARE)
         INSERT INTO replay_skips (tenant_id, replay_id, document_id, code)
         SELECT current_tenant(), replay.id, d.id, $3 FROM replay, documents d
         WHERE d.tenant_id = current_tenant() AND d.id = $2
         ON CONFLICT DO NOTHING",
    )
    .bind(replay)
    .bind(candidate.document_id)
    .bind(Code::FileRemoved.as_str())
    .execute(connection)
    .await?;
    Ok(())
}

async fn repeat(
    connection: &mut sqlx::PgConnection,
    replay: Uuid,
    candidate: &Candidate,
    pipeline: &Pipeline,
    recompute: &[String],
    cause: Cause,
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
        cause,
        parent_run: Some(RunId(candidate.run_id)),
        priority: if cause == Cause::Schedule { SCHEDULED_PRIORITY } else { PRIORITY },
        traceparent: None,
    };
    start_repeat(connection, run, Repeat { replay_id: Some(replay), recompute }).await.map(|_| ())
}
