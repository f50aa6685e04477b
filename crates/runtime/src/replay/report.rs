//! How far a replay is, and what it came to.

use docmill_model::{Code, Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A replay under way or ended.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ReplayReport {
    /// `running`, `paused`, `done`, `cancelled`, or `stopped` when its budget was used up.
    pub state: String,
    /// Why it was stopped.
    pub code: Option<String>,
    /// The schedule that asked for it, as `pipeline/name`.
    pub schedule: Option<String>,
    /// Documents of the plan.
    pub documents: i64,
    /// Runs by state.
    pub runs: BTreeMap<String, i64>,
    /// Runs that failed or ended in part, by code.
    pub failures: BTreeMap<String, i64>,
    /// Documents of the plan that have no run; of an ended replay they never get one: they were deleted, processed
    /// otherwise meanwhile, or the replay was cancelled first.
    pub without_run: i64,
    /// Documents that were left alone, by code: `FILE_REMOVED` where retention let go of what would have to be read.
    pub skipped: BTreeMap<String, i64>,
    /// Units done so far, by stage.
    pub stages: Vec<StageReport>,
}

/// Units of one stage.
#[derive(Clone, Debug, PartialEq, serde::Serialize, sqlx::FromRow)]
pub struct StageReport {
    /// The stage.
    pub stage: String,
    /// Jobs that computed.
    pub computed: i64,
    /// Jobs whose result came from the cache.
    pub cached: i64,
    /// Jobs that were given up.
    pub dead: i64,
    /// Jobs that have not ended.
    pub open: i64,
}

/// How far a replay is.
///
/// # Errors
/// `NOT_FOUND`, or database failures.
pub async fn report(database: &Database, tenant: TenantId, id: Uuid) -> Result<ReplayReport, Failure> {
    Ok(database.read(tenant, move |connection| Box::pin(async move { report_in(connection, id).await })).await?)
}

/// Turns the notes on skipped documents of a replay that has ended, in the caller's transaction, into counts: a schedule that
/// meets the same documents at every firing leaves no row a document and firing behind.
pub(super) async fn count_skips(connection: &mut PgConnection, id: Uuid) -> Result<(), DbError> {
    sqlx::query(
        "WITH gone AS (DELETE FROM replay_skips WHERE tenant_id = current_tenant() AND replay_id = $1 RETURNING code),
              counted AS (SELECT code, count(*) AS documents FROM gone GROUP BY code)
         UPDATE replays SET skipped = (SELECT coalesce(jsonb_object_agg(code, documents), '{}') FROM counted)
         WHERE tenant_id = current_tenant() AND id = $1",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

async fn report_in(connection: &mut PgConnection, id: Uuid) -> Result<ReplayReport, DbError> {
    let row: Option<(String, Option<String>, Option<String>, i64)> = sqlx::query_as(
        "SELECT state, code, pipeline || '/' || schedule, (plan ->> 'documents')::bigint FROM replays
         WHERE tenant_id = current_tenant() AND id = $1",
    )
    .bind(id)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((state, code, schedule, documents)) = row else {
        return Err(DbError::Failed(Failure::new(Code::NotFound, "there is no such replay")));
    };
    let settled: Vec<(String, Option<String>, i64)> = sqlx::query_as(
        "SELECT state, code, count(*) FROM runs WHERE tenant_id = current_tenant() AND replay_id = $1 GROUP BY state, code",
    )
    .bind(id)
    .fetch_all(&mut *connection)
    .await?;
    let stages = sqlx::query_as(
        "SELECT j.stage, count(*) FILTER (WHERE j.state = 'done' AND NOT j.cached) AS computed,
                count(*) FILTER (WHERE j.state = 'done' AND j.cached) AS cached,
                count(*) FILTER (WHERE j.state = 'dead') AS dead,
                count(*) FILTER (WHERE j.state NOT IN ('done', 'dead', 'cancelled')) AS open
         FROM jobs j JOIN runs r ON r.tenant_id = j.tenant_id AND r.id = j.run_id
         WHERE r.tenant_id = current_tenant() AND r.replay_id = $1 GROUP BY j.stage ORDER BY min(j.id::text)",
    )
    .bind(id)
    .fetch_all(&mut *connection)
    .await?;
    let skipped: Vec<(String, i64)> = sqlx::query_as(
        "SELECT code, sum(documents)::bigint FROM (
            SELECT code, 1::bigint AS documents FROM replay_skips WHERE tenant_id = current_tenant() AND replay_id = $1
            UNION ALL
            SELECT s.key, s.value::bigint FROM replays r, jsonb_each_text(r.skipped) AS s
            WHERE r.tenant_id = current_tenant() AND r.id = $1) AS skipped
         GROUP BY code",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    let (mut runs, mut failures) = (BTreeMap::new(), BTreeMap::new());
    for (state, code, count) in settled {
        if let Some(code) = code.filter(|_| matches!(state.as_str(), "failed" | "partial")) {
            *failures.entry(code).or_default() += count;
        }
        *runs.entry(state).or_default() += count;
    }
    let without_run = documents - runs.values().sum::<i64>();
    Ok(ReplayReport {
        state,
        code,
        schedule,
        documents,
        runs,
        failures,
        without_run: without_run.max(0),
        skipped: skipped.into_iter().collect(),
        stages,
    })
}
