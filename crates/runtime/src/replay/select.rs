//! Which documents a replay is about: one query for the plan and for the batches, so that both mean the same.

use super::ReplayFilter;
use docmill_model::{Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use uuid::Uuid;

/// A document with the run that is to be repeated.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Candidate {
    pub document_id: Uuid,
    pub run_id: Uuid,
    pub version_id: Uuid,
    pub pipeline_version: String,
}

/// Candidates of one pipeline version, for the plan.
#[derive(Debug)]
pub(super) struct Group {
    pub pipeline_version: String,
    pub documents: i64,
    /// Jobs done in the last runs, by stage.
    pub done: BTreeMap<String, i64>,
}

/// $1 stage, $2 document, $3 pipeline, $4 status, $5 code, $6 since, $7 before, $8 replay: the last run of each
/// document that began before the replay and does not belong to it, where it matches and has ended.
macro_rules! candidates_sql {
    ($tail:literal) => {
        concat!(
            "WITH candidates AS (
                SELECT d.id AS document_id, r.id AS run_id, r.version_id, r.pipeline_version FROM documents d
                CROSS JOIN LATERAL (
                    SELECT * FROM runs r WHERE r.tenant_id = d.tenant_id AND r.document_id = d.id
                      AND ($7::timestamptz IS NULL OR r.created_at < $7) AND ($8::uuid IS NULL OR r.replay_id IS DISTINCT FROM $8)
                    ORDER BY r.created_at DESC, r.id DESC LIMIT 1) AS r
                JOIN pipeline_versions p ON p.version = r.pipeline_version
                LEFT JOIN jobs j ON j.tenant_id = r.tenant_id AND j.run_id = r.id AND j.stage = $1 AND j.shard = 0
                WHERE d.tenant_id = current_tenant() AND d.deleted_at IS NULL AND r.state <> 'running'
                  AND ($1::text IS NULL OR j.id IS NOT NULL)
                  AND ($2::uuid IS NULL OR d.id = $2) AND ($3::text IS NULL OR p.name = $3)
                  AND ($4::text IS NULL OR CASE WHEN $1::text IS NOT NULL THEN
                        CASE $4 WHEN 'failed' THEN j.state = 'dead' WHEN 'partial' THEN j.state = 'dead' ELSE j.state = $4 END
                      ELSE r.state = $4 OR ($4 = 'failed' AND r.state = 'partial') END)
                  AND ($5::text IS NULL OR coalesce(j.code, r.code) = $5) AND ($6::timestamptz IS NULL OR r.created_at >= $6)
                  AND ($8::uuid IS NULL OR NOT EXISTS (
                        SELECT 1 FROM runs mine WHERE mine.tenant_id = d.tenant_id AND mine.document_id = d.id AND mine.replay_id = $8))) ",
            $tail
        )
    };
}

const BATCH_SQL: &str = candidates_sql!("SELECT * FROM candidates ORDER BY document_id LIMIT $9");
const COUNT_SQL: &str =
    candidates_sql!("SELECT pipeline_version, count(*) FROM candidates GROUP BY pipeline_version ORDER BY 1");
const DONE_SQL: &str = candidates_sql!(
    "SELECT c.pipeline_version, j.stage, count(*) FROM candidates c
     JOIN jobs j ON j.tenant_id = current_tenant() AND j.run_id = c.run_id AND j.state = 'done' GROUP BY 1, 2"
);

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn bound(sql: &'static str, filter: &ReplayFilter, replay: Option<(Uuid, OffsetDateTime)>) -> Query<'static> {
    sqlx::query(sql)
        .bind(filter.stage.clone())
        .bind(filter.document_id.map(|id| id.0))
        .bind(filter.pipeline.clone())
        .bind(filter.status.clone())
        .bind(filter.code.clone())
        .bind(filter.since)
        .bind(replay.map(|(_, before)| before))
        .bind(replay.map(|(id, _)| id))
}

/// How many documents match, by pipeline version.
pub(super) async fn count(
    database: &Database,
    tenant: TenantId,
    filter: &ReplayFilter,
) -> Result<(i64, Vec<Group>), Failure> {
    use sqlx::Row;
    let filter = filter.clone();
    let groups: Vec<Group> = database
        .read(tenant, move |connection| {
            Box::pin(async move {
                let mut groups = Vec::new();
                for row in bound(COUNT_SQL, &filter, None).fetch_all(&mut *connection).await? {
                    groups.push(Group {
                        pipeline_version: row.try_get(0)?,
                        documents: row.try_get(1)?,
                        done: BTreeMap::new(),
                    });
                }
                for row in bound(DONE_SQL, &filter, None).fetch_all(connection).await? {
                    let (version, stage, count): (String, String, i64) =
                        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                    if let Some(group) = groups.iter_mut().find(|group| group.pipeline_version == version) {
                        group.done.insert(stage, count);
                    }
                }
                Ok(groups)
            })
        })
        .await?;
    Ok((groups.iter().map(|group| group.documents).sum(), groups))
}

/// The next documents of a running replay, as many as may be under way; ends it when there are none left. `None` when
/// it is not running or has enough under way.
pub(super) async fn candidates(
    database: &Database,
    tenant: TenantId,
    id: Uuid,
    in_flight_limit: i64,
) -> Result<Option<(ReplayFilter, Vec<Candidate>)>, Failure> {
    let found = database.write(tenant, move |connection| {
        Box::pin(async move {
            // Locked, so that two reconcilers do not start the same document twice.
            let row: Option<(Value, OffsetDateTime)> = sqlx::query_as(
                "SELECT filter, created_at FROM replays
                 WHERE tenant_id = current_tenant() AND id = $1 AND state = 'running' FOR UPDATE SKIP LOCKED",
            )
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?;
            let Some((filter, created_at)) = row else { return Ok(None) };
            let filter: ReplayFilter = serde_json::from_value(filter).unwrap_or_default();
            let under_way = under_way(connection, id).await?;
            let rows = bound(BATCH_SQL, &filter, Some((id, created_at))).bind((in_flight_limit - under_way).max(0));
            let batch = rows.fetch_all(&mut *connection).await?;
            let batch = batch.iter().map(sqlx::FromRow::from_row).collect::<Result<Vec<Candidate>, _>>()?;
            if batch.is_empty() && under_way == 0 {
                sqlx::query(
                    "UPDATE replays SET state = 'done', finished_at = now() WHERE tenant_id = current_tenant() AND id = $1",
                )
                .bind(id)
                .execute(connection)
                .await?;
                return Ok(None);
            }
            Ok(Some((filter, batch)))
        })
    });
    found.await.map_err(DbError::into_failure)
}

async fn under_way(connection: &mut PgConnection, id: Uuid) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM runs WHERE tenant_id = current_tenant() AND replay_id = $1 AND state = 'running'",
    )
    .bind(id)
    .fetch_one(connection)
    .await
}
