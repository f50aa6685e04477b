//! `POST /v1/answers`, `GET /v1/answers/{id}`: questions answered with citations that were checked before they are sent.

pub(crate) mod stream;

use crate::auth::Asker;
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::search::check_filters;
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use docmill_retrieval::answers::AnswerEvent;
use docmill_retrieval::{Answer, AnswerRequest};
use stream::Happening;

/// Answers a question from the documents the caller may see; with `stream` as server-sent events.
#[utoipa::path(post, path = "/v1/answers", tag = "questions", request_body = AnswerRequest,
    responses((status = 200, description = "Also when the documents hold no answer: then `found` is false. With `stream`: \
                   the events `retrieval`, `token`, `citations`, last `answer` or `error`",
                   content((Answer = "application/json"), (AnswerEvent = "text/event-stream"))),
              (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    JsonBody(request): JsonBody<AnswerRequest>,
) -> Result<Response, Problem> {
    check_filters(&request.filters)?;
    let (answers, caller) = (state.answers, principal.caller());
    if !request.stream {
        return Ok(Json(answers.answer(&caller, &request).await?).into_response());
    }
    request.check()?;
    let told = stream::follow(|events| async move { answers.answer_in(&caller, &request, None, Some(events)).await });
    Ok(stream::respond(told, |happening| vec![plain_event(happening)]))
}

/// The event of an answer's own stream.
pub(crate) fn plain_event(happening: Happening<Answer>) -> stream::Event {
    match happening {
        Happening::Event(event) => stream::event(event.name(), &event),
        Happening::Failed(failure) => stream::event("error", &Problem::from(failure).body()),
        Happening::Done(_) => stream::comment("done"),
    }
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
