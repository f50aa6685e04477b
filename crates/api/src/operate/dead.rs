//! `/v1/operate/dead`: jobs that were given up, why, and what to do about them.

use super::jobs::AttemptView;
use super::runs::RunView;
use crate::audit;
use crate::auth::Operator;
use crate::body::QueryParams;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::{Code, DocumentId, JobId, RunId};
use docmill_runtime::dead::{self, DeadFilter, DeadJob, LIST_LIMIT};
use serde_json::json;
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// Which dead jobs.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeadQuery {
    /// Only this stage.
    stage: Option<String>,
    /// Only this code.
    code: Option<String>,
    /// Only this document.
    document: Option<DocumentId>,
    /// Given up at or after this RFC 3339 instant.
    #[serde(default, with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
    /// True to list also those that were retried or discarded.
    #[serde(default)]
    resolved: bool,
    /// At most this many, 1 to 1,000; 100 when absent.
    limit: Option<i64>,
}

/// A job that was given up.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DeadView {
    /// The job.
    pub job_id: JobId,
    /// Its run.
    pub run_id: RunId,
    /// Its document.
    pub document_id: DocumentId,
    /// Its stage.
    pub stage: String,
    /// Whether its end failed the run.
    pub required: bool,
    /// Why.
    pub code: Option<String>,
    /// Code, message, limit, measured.
    #[schema(value_type = Option<Object>)]
    pub failure: Option<serde_json::Value>,
    /// Attempts that ended in a typed failure.
    pub failed: i32,
    /// Attempts whose worker was lost.
    pub lost: i32,
    /// When it was given up.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// What an operator did: `retried` or `discarded`.
    pub resolution: Option<String>,
}

impl From<DeadJob> for DeadView {
    fn from(job: DeadJob) -> Self {
        Self {
            job_id: job.job_id.into(),
            run_id: job.run_id.into(),
            document_id: job.document_id.into(),
            stage: job.stage,
            required: job.required,
            code: job.code,
            failure: job.failure,
            failed: job.failed,
            lost: job.lost,
            finished_at: job.finished_at,
            resolution: job.resolution,
        }
    }
}

/// Dead jobs, newest first.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DeadList {
    /// The jobs.
    pub jobs: Vec<DeadView>,
}

/// A dead job with everything needed to decide.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DeadDetail {
    /// The job.
    pub job: DeadView,
    /// Its run, and why that was made.
    pub run: RunView,
    /// The earlier runs that its run repeats, newest first: at most 20; there are more when the last names a `parent_run`.
    pub earlier_runs: Vec<RunView>,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptView>,
    /// Manifests it would have read, by stage: hashes and facts, no text.
    #[schema(value_type = Object)]
    pub inputs: BTreeMap<String, serde_json::Value>,
    /// The uploaded file, which is what a stage without inputs reads.
    pub upload: UploadView,
    /// What to do about the code.
    pub help: Option<String>,
    /// What the page of the code says.
    pub code_page: Option<CodePageView>,
}

/// What the page of an error code says, in Markdown; its links are relative to `deploy/codes/`.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct CodePageView {
    /// The code.
    pub code: String,
    /// What happened.
    pub meaning: String,
    /// What to do.
    pub remedy: String,
    /// Where the page is in Docmill's repository.
    pub page: String,
}

impl From<Code> for CodePageView {
    fn from(code: Code) -> Self {
        let page = code.page();
        Self {
            code: code.to_string(),
            meaning: page.meaning.to_owned(),
            remedy: page.remedy.to_owned(),
            page: page.path,
        }
    }
}

/// The file behind a dead job.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct UploadView {
    /// Hash of the bytes, 64 hex digits.
    pub sha256: String,
    /// Length in bytes.
    pub size_bytes: i64,
    /// What they are said to be.
    pub content_type: String,
    /// Where they are in the bucket; none once retention removed them.
    pub object_key: Option<String>,
}

/// The run that repeats the document.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Retried {
    /// The new run.
    pub run_id: RunId,
}

/// Lists dead jobs of the tenant.
#[utoipa::path(get, path = "/v1/operate/dead", tag = "operate", params(DeadQuery),
    responses((status = 200, body = DeadList), (status = 422, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    QueryParams(query): QueryParams<DeadQuery>,
) -> Result<Json<DeadList>, Problem> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=LIST_LIMIT).contains(&limit) {
        return Err(Problem::field("limit", "1 to 1000 is expected"));
    }
    let filter = DeadFilter {
        stage: query.stage,
        code: query.code,
        document_id: query.document,
        since: query.since,
        resolved: query.resolved,
        limit,
    };
    let jobs = dead::list(&state.database, principal.tenant_id, filter).await?;
    Ok(Json(DeadList { jobs: jobs.into_iter().map(Into::into).collect() }))
}

fn job_id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| Problem::not_found())
}

/// One dead job with its attempts, inputs, the runs before it and the page of its code.
#[utoipa::path(get, path = "/v1/operate/dead/{id}", tag = "operate", params(("id" = String, Path, description = "Job id")),
    responses((status = 200, body = DeadDetail), (status = 404, body = ProblemBody)))]
pub async fn show(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
) -> Result<Json<DeadDetail>, Problem> {
    let detail = dead::show(&state.database, principal.tenant_id, job_id(&id)?).await?;
    let attempts = detail.attempts.into_iter().map(|attempt| AttemptView {
        fence: attempt.fence,
        worker: attempt.worker,
        started_at: attempt.started_at,
        finished_at: attempt.finished_at,
        outcome: attempt.outcome,
        failure: attempt.failure,
        run_millis: attempt.run_millis,
    });
    let code = detail.job.code.as_deref().and_then(Code::parse);
    Ok(Json(DeadDetail {
        job: detail.job.into(),
        run: detail.run.into(),
        earlier_runs: detail.earlier_runs.into_iter().map(Into::into).collect(),
        attempts: attempts.collect(),
        inputs: detail.inputs.into_iter().collect(),
        upload: UploadView {
            sha256: detail.upload.sha256,
            size_bytes: detail.upload.size_bytes,
            content_type: detail.upload.content_type,
            object_key: detail.upload.object_key,
        },
        help: detail.help.map(str::to_owned),
        code_page: code.map(Into::into),
    }))
}

/// Retries a dead job: a new run of its document; stages that succeeded come from the cache.
#[utoipa::path(post, path = "/v1/operate/dead/{id}/retry", tag = "operate", params(("id" = String, Path, description = "Job id")),
    responses((status = 200, body = Retried), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
pub async fn retry(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
) -> Result<Json<Retried>, Problem> {
    let (id, tenant) = (job_id(&id)?, principal.tenant_id);
    let pipeline = dead::pipeline_of(&state.database, &state.pipelines, tenant, id).await?;
    let write = state.database.write(tenant, move |connection| {
        Box::pin(async move {
            let run = dead::retry_in(connection, &pipeline, id).await?;
            audit::record(connection, &principal, "dead.retry", &id.to_string(), json!({"run_id": run})).await?;
            Ok(run)
        })
    });
    Ok(Json(Retried { run_id: write.await? }))
}

/// Marks a dead job as dealt with.
#[utoipa::path(post, path = "/v1/operate/dead/{id}/discard", tag = "operate", params(("id" = String, Path, description = "Job id")),
    responses((status = 204), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
pub async fn discard(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = job_id(&id)?;
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            dead::discard_in(connection, id).await?;
            audit::record(connection, &principal, "dead.discard", &id.to_string(), json!({})).await
        })
    });
    write.await?;
    Ok(StatusCode::NO_CONTENT)
}
