//! `POST /v1/answers`, `GET /v1/answers/{id}`: questions answered with citations that were checked before they are sent.

use crate::auth::Asker;
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::search::check_filters;
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_retrieval::{Answer, AnswerRequest};

/// Answers a question from the documents the caller may see.
#[utoipa::path(post, path = "/v1/answers", tag = "questions", request_body = AnswerRequest,
    responses((status = 200, body = Answer, description = "Also when the documents hold no answer: then `found` is false"),
              (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    JsonBody(request): JsonBody<AnswerRequest>,
) -> Result<Json<Answer>, Problem> {
    check_filters(&request.filters)?;
    Ok(Json(state.answers.answer(&principal.caller(), &request).await?))
}

/// A stored answer as it reads today: citations of deleted documents are withdrawn.
#[utoipa::path(get, path = "/v1/answers/{id}", tag = "questions", params(("id" = String, Path, description = "Answer id")),
    responses((status = 200, body = Answer), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    Path(id): Path<String>,
) -> Result<Json<Answer>, Problem> {
    let id = id.parse().map_err(|_| Problem::not_found())?;
    Ok(Json(state.answers.get(&principal.caller(), id).await?))
}
