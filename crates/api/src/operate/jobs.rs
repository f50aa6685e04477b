//! `GET /v1/operate/jobs`, `/jobs/{id}`: every unit of work and its attempts.

use crate::auth::Operator;
use crate::body::QueryParams;
use crate::pager::Pager;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_model::{Code, DocumentId, Failure, JobId, RunId};
use time::OffsetDateTime;

const STATES: [&str; 8] = ["blocked", "ready", "leased", "waiting", "held", "done", "dead", "cancelled"];
const COLUMNS: &str =
    "id, run_id, document_id, stage, state, required, failed, lost, code, failure, held_reason, worker,
                       lease_until, available_at, cached, created_at, finished_at";

/// Filter and paging of jobs.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct JobQuery {
    /// Only this state.
    state: Option<String>,
    /// Only this stage.
    stage: Option<String>,
    /// Only this document.
    document: Option<DocumentId>,
    /// Page size, 1 to 200; 50 when absent.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One unit of work.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct OperatorJob {
    /// Identifier.
    pub id: JobId,
    /// The run.
    pub run_id: RunId,
    /// The document.
    pub document_id: DocumentId,
    /// Stage.
    pub stage: String,
    /// `blocked`, `ready`, `leased`, `waiting`, `held`, `done`, `dead` or `cancelled`.
    pub state: String,
    /// Whether its failure fails the run.
    pub required: bool,
    /// Attempts that ended in a typed failure.
    pub failed: i32,
    /// Attempts whose worker was lost.
    pub lost: i32,
    /// Code of the last failure.
    pub code: Option<String>,
    /// The last failure: code, message, limit, measured.
    #[schema(value_type = Option<Object>)]
    pub failure: Option<serde_json::Value>,
    /// Why it is held: `paused` or `budget`.
    pub held_reason: Option<String>,
    /// Who holds the lease.
    pub worker: Option<String>,
    /// Until when.
    #[serde(with = "time::serde::rfc3339::option")]
    pub lease_until: Option<OffsetDateTime>,
    /// Not before this instant.
    #[serde(with = "time::serde::rfc3339")]
    pub available_at: OffsetDateTime,
    /// True when the result came from the stage cache.
    pub cached: bool,
    /// When it was laid out.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// One attempt at a job.
#[derive(Debug, serde::Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct AttemptView {
    /// Fencing number.
    pub fence: i64,
    /// Who tried.
    pub worker: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// `done`, `failed`, `lost`, `released`, `snoozed` or `cancelled`; absent while it runs.
    pub outcome: Option<String>,
    /// Its failure.
    #[schema(value_type = Option<Object>)]
    pub failure: Option<serde_json::Value>,
    /// Milliseconds the stage ran.
    pub run_millis: Option<i64>,
}

/// A job with its attempts.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct JobDetail {
    /// The job.
    pub job: OperatorJob,
    /// Its attempts, oldest first, at most 1,000.
    pub attempts: Vec<AttemptView>,
}

/// One page of jobs, newest first.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<OperatorJob>,
    /// Pass as `cursor` for the next page; absent on the last.
    pub next_cursor: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: uuid::Uuid,
    run_id: uuid::Uuid,
    document_id: uuid::Uuid,
    stage: String,
    state: String,
    required: bool,
    failed: i32,
    lost: i32,
    code: Option<String>,
    failure: Option<serde_json::Value>,
    held_reason: Option<String>,
    worker: Option<String>,
    lease_until: Option<OffsetDateTime>,
    available_at: OffsetDateTime,
    cached: bool,
    created_at: OffsetDateTime,
    finished_at: Option<OffsetDateTime>,
}

impl From<Row> for OperatorJob {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            run_id: row.run_id.into(),
            document_id: row.document_id.into(),
            stage: row.stage,
            state: row.state,
            required: row.required,
            failed: row.failed,
            lost: row.lost,
            code: row.code,
            failure: row.failure,
            held_reason: row.held_reason,
            worker: row.worker,
            lease_until: row.lease_until,
            available_at: row.available_at,
            cached: row.cached,
            created_at: row.created_at,
            finished_at: row.finished_at,
        }
    }
}

/// Lists jobs of the tenant, newest first.
#[utoipa::path(get, path = "/v1/operate/jobs", tag = "operate", params(JobQuery),
    responses((status = 200, body = JobPage), (status = 422, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    QueryParams(query): QueryParams<JobQuery>,
) -> Result<Json<JobPage>, Problem> {
    if query.state.as_ref().is_some_and(|s| !STATES.contains(&s.as_str())) {
        return Err(Problem::field("state", &format!("one of {} is expected", STATES.join(", "))));
    }
    let tenant = principal.tenant_id;
    let pager: Pager<JobId> = Pager::new(&state, tenant, "jobs", query.limit, query.cursor.as_deref())?;
    let (before, limit) = (pager.after, pager.rows());
    let read = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
                "SELECT {COLUMNS} FROM jobs
                 WHERE tenant_id = current_tenant() AND ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR stage = $2)
                   AND ($3::uuid IS NULL OR document_id = $3) AND ($4::uuid IS NULL OR id < $4)
                 ORDER BY id DESC LIMIT $5"
            )))
            .bind(query.state)
            .bind(query.stage)
            .bind(query.document.map(|d| d.0))
            .bind(before.map(|b| b.0))
            .bind(limit)
            .fetch_all(connection)
            .await?;
            Ok(rows)
        })
    });
    let mut rows = read.await?;
    let next_cursor = pager.cut(&state, &mut rows, |row| JobId(row.id));
    Ok(Json(JobPage { jobs: rows.into_iter().map(Into::into).collect(), next_cursor }))
}

/// One job with its attempts.
#[utoipa::path(get, path = "/v1/operate/jobs/{id}", tag = "operate", params(("id" = String, Path, description = "Job id")),
    responses((status = 200, body = JobDetail), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
) -> Result<Json<JobDetail>, Problem> {
    let id: JobId = id.parse().map_err(|_| Problem::not_found())?;
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
                "SELECT {COLUMNS} FROM jobs WHERE tenant_id = current_tenant() AND id = $1"
            )))
            .bind(id.0)
            .fetch_optional(&mut *connection)
            .await?;
            let row = row.ok_or_else(|| Failure::new(Code::NotFound, "no such job"))?;
            let attempts = sqlx::query_as(
                "SELECT fence, worker, started_at, finished_at, outcome, failure, run_millis FROM attempts
                 WHERE tenant_id = current_tenant() AND job_id = $1 ORDER BY fence LIMIT 1000",
            )
            .bind(id.0)
            .fetch_all(connection)
            .await?;
            Ok(JobDetail { job: row.into(), attempts })
        })
    });
    Ok(Json(read.await?))
}
