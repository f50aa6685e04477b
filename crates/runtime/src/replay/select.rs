//! Which documents a replay is about: one query for the plan and for the batches, so that both mean the same.

use super::{ReplayFilter, budget, report};
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A document with the run that is to be repeated.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Candidate {
    pub document_id: Uuid,
    pub run_id: Uuid,
    pub version_id: Uuid,
    pub pipeline_version: String,
    /// Retention let go of the uploaded bytes.
    pub raw_removed: bool,
}

/// $1 stage, $2 document, $3 pipeline, $4 status, $5 code, $6 since, $7 before, $8 replay, $9 pipeline version, $10 until,
/// $11 after this document, $12 embedding space, $13 as the end says: the last run of each document that does not
/// belong to the replay and is of no sample, where it began before the replay, matches and has ended; for a space, where what is visible is of the
/// version it was about, as the run that repeats it embeds nothing else, and lacks a vector that its model has not refused
/// within a day. What was processed otherwise since is not processed again.
macro_rules! candidates {
    ($end:literal) => {
        concat!("WITH candidates AS (
                SELECT d.id AS document_id, r.id AS run_id, r.version_id, r.pipeline_version, r.created_at,
                       v.raw_removed_at IS NOT NULL AS raw_removed FROM documents d
                CROSS JOIN LATERAL (
                    SELECT * FROM runs r WHERE r.tenant_id = d.tenant_id AND r.document_id = d.id AND r.cause <> 'sample'
                      AND ($8::uuid IS NULL OR r.replay_id IS DISTINCT FROM $8)
                    ORDER BY r.created_at DESC, r.id DESC LIMIT 1) AS r
                JOIN pipeline_versions p ON p.version = r.pipeline_version
                JOIN document_versions v ON v.tenant_id = r.tenant_id AND v.id = r.version_id
                LEFT JOIN jobs j ON j.tenant_id = r.tenant_id AND j.run_id = r.id AND j.stage = $1 AND j.shard = 0
                WHERE d.tenant_id = current_tenant() AND d.deleted_at IS NULL AND r.state <> 'running'
                  AND ($7::timestamptz IS NULL OR r.created_at < $7)
                  AND ($1::text IS NULL OR j.id IS NOT NULL)
                  AND ($2::uuid IS NULL OR d.id = $2) AND ($3::text IS NULL OR p.name = $3)
                  AND ($4::text IS NULL OR CASE WHEN $1::text IS NOT NULL THEN
                        CASE $4 WHEN 'failed' THEN j.state = 'dead' WHEN 'partial' THEN j.state = 'dead' ELSE j.state = $4 END
                      ELSE r.state = $4 OR ($4 = 'failed' AND r.state = 'partial') END)
                  AND ($5::text IS NULL OR coalesce(j.code, r.code) = $5) AND ($6::timestamptz IS NULL OR r.created_at >= $6)
                  AND ($8::uuid IS NULL OR NOT EXISTS (
                        SELECT 1 FROM runs mine WHERE mine.tenant_id = d.tenant_id AND mine.document_id = d.id AND mine.replay_id = $8))
                  AND ($8::uuid IS NULL OR NOT EXISTS (
                        SELECT 1 FROM replay_skips s WHERE s.tenant_id = d.tenant_id AND s.replay_id = $8 AND s.document_id = d.id))
      AND ($9::text IS NULL OR starts_with(r.pipeline_version, $9)) AND ($10::timestamptz IS NULL OR r.created_at < $10)
      AND d.id > $11
      AND ($12::text IS NULL OR EXISTS (
            SELECT 1 FROM embedding_spaces s
            JOIN generations g ON g.tenant_id = d.tenant_id AND g.id = d.visible_generation AND g.version_id = r.version_id
            JOIN chunks c ON c.tenant_id = g.tenant_id AND c.generation_id = g.id
            WHERE s.name = $12 AND s.state <> 'dropping' AND NOT EXISTS (
                SELECT 1 FROM vectors x WHERE x.tenant_id = c.tenant_id AND x.space_id = s.id AND x.embed_hash = c.embed_hash)
              AND NOT EXISTS (
                SELECT 1 FROM refused_texts x
                WHERE x.tenant_id = c.tenant_id AND x.space_id = s.id AND x.embed_hash = c.embed_hash
                  AND x.refused_at > now() - interval '1 day')))) ", $end)
    };
}

/// At most $13 of them.
const PAGE: &str = candidates!("SELECT * FROM candidates ORDER BY document_id LIMIT $13");
/// $13 of them whose file is there, spread over all whenever they came: hashes of ids know no order.
const SAMPLE: &str = candidates!(
    "SELECT * FROM candidates WHERE NOT raw_removed
    ORDER BY hashtextextended(document_id::text, 0), document_id LIMIT $13"
);
/// $13 rows of them from the oldest on, after the moment $14 and the document $15 where they are given.
const OLDEST: &str = candidates!(
    "SELECT * FROM candidates WHERE $14::timestamptz IS NULL OR (created_at, document_id) > ($14, $15)
    ORDER BY created_at, document_id LIMIT $13"
);
/// How many there are.
const COUNT: &str = candidates!("SELECT count(*) FROM candidates WHERE $13::bigint IS NOT NULL");

/// One page of what a filter matches, in the order of document ids, after `after`; of a sample the first of it that have no
/// run yet, in an order of its own.
pub(super) async fn page(
    connection: &mut PgConnection,
    filter: &ReplayFilter,
    replay: Option<(Uuid, OffsetDateTime)>,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let query = if filter.sample.is_some() { SAMPLE } else { PAGE };
    bound(query, filter, replay, after, limit).fetch_all(connection).await
}

/// A document with the moment its last run began.
#[derive(sqlx::FromRow)]
pub(super) struct Dated {
    #[sqlx(flatten)]
    pub candidate: Candidate,
    pub created_at: OffsetDateTime,
}

/// One page of what a filter matches, those first whose last run is the oldest, after the last of the page before.
pub(super) async fn oldest(
    connection: &mut PgConnection,
    filter: &ReplayFilter,
    after: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> Result<Vec<Dated>, sqlx::Error> {
    let page = bound(OLDEST, filter, None, Uuid::nil(), limit);
    page.bind(after.map(|(moment, _)| moment)).bind(after.map(|(_, id)| id)).fetch_all(connection).await
}

/// How many documents a filter matches.
pub(super) async fn count(connection: &mut PgConnection, filter: &ReplayFilter) -> Result<i64, sqlx::Error> {
    let (count,) = bound(COUNT, filter, None, Uuid::nil(), 0).fetch_one(connection).await?;
    Ok(count)
}

fn bound<'q, T>(
    query: &'static str,
    filter: &'q ReplayFilter,
    replay: Option<(Uuid, OffsetDateTime)>,
    after: Uuid,
    number: i64,
) -> sqlx::query::QueryAs<'q, sqlx::Postgres, T, sqlx::postgres::PgArguments>
where
    T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
{
    sqlx::query_as(query)
        .bind(&filter.stage)
        .bind(filter.document_id.map(|id| id.0))
        .bind(&filter.pipeline)
        .bind(&filter.status)
        .bind(&filter.code)
        .bind(filter.since)
        .bind(replay.map(|(_, before)| before))
        .bind(replay.map(|(id, _)| id))
        .bind(&filter.pipeline_version)
        .bind(filter.until)
        .bind(after)
        .bind(&filter.embed_into)
        .bind(number)
}

/// Documents to start now.
pub(super) struct Batch {
    pub filter: ReplayFilter,
    pub documents: Vec<Candidate>,
    /// A schedule asked for them.
    pub is_scheduled: bool,
}

/// The next documents of a running replay, as many as may be under way; ends it when there are none left. `None` when
/// it is not running or has enough under way.
pub(super) async fn next(
    database: &Database,
    tenant: TenantId,
    id: Uuid,
    in_flight_limit: i64,
) -> Result<Option<Batch>, Failure> {
    let found = database.write(tenant, move |connection| {
        Box::pin(async move {
            // Locked, so that two reconcilers do not start the same document twice.
            let row: Option<(Value, Value, OffsetDateTime, bool)> = sqlx::query_as(
                "SELECT filter, plan, created_at, schedule IS NOT NULL FROM replays
                 WHERE tenant_id = current_tenant() AND id = $1 AND state = 'running' FOR UPDATE SKIP LOCKED",
            )
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?;
            let Some((filter, plan, created_at, is_scheduled)) = row else { return Ok(None) };
            // A choice this build cannot read is left to one that can: to guess would be to replay everything.
            let filter: ReplayFilter = serde_json::from_value(filter).map_err(|_| {
                Failure::new(Code::FieldInvalid, "the filter of a replay is of another version of docmill")
            })?;
            let pace = pace(connection, id).await?;
            let under_way = pace.under_way;
            let paced = filter.per_minute.map_or(i64::MAX, |limit| i64::from(limit) - pace.this_minute);
            let affordable = budget::affordable(connection, id, &filter, &plan, created_at, &pace).await?;
            let most = filter.max_documents.or(filter.sample);
            let allowed = most.map_or(i64::MAX, |limit| limit - pace.started);
            let free = (in_flight_limit - under_way).min(paced).min(affordable.unwrap_or_default()).min(allowed).max(0);
            // One at least is looked for, to know whether any is left.
            let mut batch = match allowed {
                1.. => page(connection, &filter, Some((id, created_at)), Uuid::nil(), free.max(1)).await?,
                _ => Vec::new(),
            };
            if affordable.is_none() && !batch.is_empty() {
                budget::stop(connection, id).await?;
                return Ok(None);
            }
            if batch.is_empty() && under_way == 0 && !is_open(connection, id).await? {
                sqlx::query(
                    "UPDATE replays SET state = 'done', finished_at = now() WHERE tenant_id = current_tenant() AND id = $1",
                )
                .bind(id)
                .execute(&mut *connection)
                .await?;
                report::count_skips(connection, id).await?;
                return Ok(None);
            }
            batch.truncate(free as usize);
            Ok(Some(Batch { filter, documents: batch, is_scheduled }))
        })
    });
    found.await.map_err(DbError::into_failure)
}

/// Whether any job of the replay, also of what follows the settling of its runs, has not ended.
async fn is_open(connection: &mut PgConnection, id: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (
            SELECT 1 FROM runs r JOIN jobs j ON j.tenant_id = r.tenant_id AND j.run_id = r.id
            WHERE r.tenant_id = current_tenant() AND r.replay_id = $1 AND j.state NOT IN ('done', 'dead', 'cancelled'))",
    )
    .bind(id)
    .fetch_one(connection)
    .await
}

/// Runs of a replay.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub(super) struct Pace {
    pub started: i64,
    pub under_way: i64,
    /// Started in the last minute.
    pub this_minute: i64,
}

async fn pace(connection: &mut PgConnection, id: Uuid) -> Result<Pace, sqlx::Error> {
    sqlx::query_as(
        "SELECT count(*) AS started, count(*) FILTER (WHERE state = 'running') AS under_way,
                count(*) FILTER (WHERE created_at > now() - interval '1 minute') AS this_minute
         FROM runs WHERE tenant_id = current_tenant() AND replay_id = $1",
    )
    .bind(id)
    .fetch_one(connection)
    .await
}
