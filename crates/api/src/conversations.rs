//! `/v1/conversations`: questions that refer to earlier ones. A follow-up is rewritten into a question that stands alone,
//! which is then answered like any other; what is remembered for that fits a budget.
//!
//! A conversation belongs to the principal that began it, ends by itself when nobody asks any more, and can be deleted.
//! Stored are questions and the ids of answers; the words of documents are read from the documents.

mod memory;
mod rewrite;

pub(crate) use memory::{Memory, Turn};
pub(crate) use rewrite::standalone;

use crate::answers::{plain_event, stream};
use crate::auth::{Asker, Principal};
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::search::check_filters;
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use docmill_model::{AnswerId, Code, ConversationId, Failure};
use docmill_retrieval::answers::AnswerEvent;
use docmill_retrieval::{Answer, AnswerRequest};
use stream::Happening;
use time::OffsetDateTime;
use tokio::sync::mpsc::UnboundedSender;

/// Shortest, usual and longest life after the last question, seconds.
const TTL_SECS: (i64, i64, i64) = (60, 30 * 86_400, 366 * 86_400);
/// Most messages of a conversation.
const MAX_MESSAGES: i32 = 1_000;

/// A conversation to begin.
#[derive(Debug, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginConversation {
    /// Seconds it lives after its last question, 60 to 31,622,400; 30 days when absent.
    #[serde(default)]
    ttl_secs: Option<i64>,
}

/// A conversation.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ConversationView {
    /// Its id.
    pub id: ConversationId,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ends unless somebody asks before.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// Oldest first.
    pub messages: Vec<MessageView>,
}

/// One question of a conversation.
#[derive(Debug, serde::Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct MessageView {
    /// From 1.
    pub number: i32,
    /// As it was asked; empty once a document behind its answer was deleted.
    pub question: String,
    /// As it was understood.
    pub standalone: String,
    /// The answer, to be read at `/v1/answers/{id}`.
    #[sqlx(try_from = "uuid::Uuid")]
    pub answer_id: AnswerId,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// An answer within a conversation.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ConversationAnswer {
    /// Number of the message, from 1.
    pub number: i32,
    /// The question as it was understood.
    pub standalone: String,
    /// The answer.
    pub answer: Answer,
}

/// Begins a conversation.
#[utoipa::path(post, path = "/v1/conversations", tag = "questions", request_body = BeginConversation,
    responses((status = 201, body = ConversationView), (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    JsonBody(request): JsonBody<BeginConversation>,
) -> Result<(StatusCode, Json<ConversationView>), Problem> {
    let (least, usual, most) = TTL_SECS;
    let ttl = request.ttl_secs.unwrap_or(usual);
    if !(least..=most).contains(&ttl) {
        return Err(Problem::field("ttl_secs", "60 to 31622400 seconds are expected"));
    }
    let id = ConversationId::fresh();
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let times: (OffsetDateTime, OffsetDateTime) = sqlx::query_as(
                "INSERT INTO conversations (tenant_id, id, principal_id, ttl_secs, expires_at)
                 VALUES (current_tenant(), $1, $2, $3, now() + make_interval(secs => $3)) RETURNING created_at, expires_at",
            )
            .bind(id.0)
            .bind(principal.principal_id.0)
            .bind(ttl)
            .fetch_one(connection)
            .await?;
            Ok(times)
        })
    });
    let (created_at, expires_at) = write.await?;
    Ok((StatusCode::CREATED, Json(ConversationView { id, created_at, expires_at, messages: Vec::new() })))
}

fn conversation_id(id: &str) -> Result<ConversationId, Problem> {
    id.parse().map_err(|_| Problem::not_found())
}

/// A conversation with its questions.
#[utoipa::path(get, path = "/v1/conversations/{id}", tag = "questions",
    params(("id" = String, Path, description = "Conversation id")),
    responses((status = 200, body = ConversationView), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    Path(id): Path<String>,
) -> Result<Json<ConversationView>, Problem> {
    let id = conversation_id(&id)?;
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let times: Option<(OffsetDateTime, OffsetDateTime)> = sqlx::query_as(
                "SELECT created_at, expires_at FROM conversations
                 WHERE tenant_id = current_tenant() AND id = $1 AND principal_id = $2 AND expires_at > now()",
            )
            .bind(id.0)
            .bind(principal.principal_id.0)
            .fetch_optional(&mut *connection)
            .await?;
            let (created_at, expires_at) = times.ok_or_else(gone)?;
            let messages: Vec<MessageView> = sqlx::query_as(
                "SELECT number, question, standalone, answer_id, created_at FROM conversation_messages
                 WHERE tenant_id = current_tenant() AND conversation_id = $1 ORDER BY number",
            )
            .bind(id.0)
            .fetch_all(connection)
            .await?;
            Ok(ConversationView { id, created_at, expires_at, messages })
        })
    });
    Ok(Json(read.await?))
}

fn gone() -> Failure {
    Failure::new(Code::NotFound, "no such conversation")
}

/// Deletes a conversation with everything that was asked in it. Its answers stay, without questions.
#[utoipa::path(delete, path = "/v1/conversations/{id}", tag = "questions",
    params(("id" = String, Path, description = "Conversation id")),
    responses((status = 204), (status = 404, body = ProblemBody)))]
pub async fn delete(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = conversation_id(&id)?;
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let deleted = sqlx::query(
                "DELETE FROM conversations WHERE tenant_id = current_tenant() AND id = $1 AND principal_id = $2",
            )
            .bind(id.0)
            .bind(principal.principal_id.0)
            .execute(connection)
            .await?;
            if deleted.rows_affected() == 0 { Err(gone().into()) } else { Ok(()) }
        })
    });
    write.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Asks in a conversation; with `stream` as server-sent events, of which the first is `question`.
#[utoipa::path(post, path = "/v1/conversations/{id}/messages", tag = "questions", request_body = AnswerRequest,
    params(("id" = String, Path, description = "Conversation id")),
    responses((status = 200, content((ConversationAnswer = "application/json"), (AnswerEvent = "text/event-stream"))),
              (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn ask(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<AnswerRequest>,
) -> Result<Response, Problem> {
    let id = conversation_id(&id)?;
    check_filters(&request.filters)?;
    request.check()?;
    let memory = memory::load(&state, &principal, id).await?;
    if memory.messages >= MAX_MESSAGES {
        let message = "the conversation has as many messages as it may have; begin another";
        return Err(Failure::limit(Code::Conflict, message, MAX_MESSAGES as u64, memory.messages as u64 + 1).into());
    }
    let streams = request.stream;
    let question = standalone(&state.answers, principal.tenant_id, Some(id), &memory, &request.question).await;
    if !streams {
        // A task of its own: what was asked is kept also when the caller goes away.
        let done = tokio::spawn(answered(state, principal, id, request, question, None)).await;
        let lost = |_| Failure::new(Code::Internal, "unexpected failure");
        return Ok(Json(done.map_err(lost)??).into_response());
    }
    let understood = question.clone();
    let told = stream::follow(move |events| answered(state, principal, id, request, question, Some(events)));
    let mut first = Some(stream::event("question", &serde_json::json!({"standalone": understood})));
    Ok(stream::respond(told, move |happening: Happening<ConversationAnswer>| {
        let event = match happening {
            Happening::Event(event) => plain_event(Happening::Event(event)),
            Happening::Failed(failure) => plain_event(Happening::Failed(failure)),
            Happening::Done(done) => stream::event("message", &serde_json::json!({"number": done.number})),
        };
        first.take().into_iter().chain([event]).collect()
    }))
}

async fn answered(
    state: ApiState,
    principal: Principal,
    id: ConversationId,
    request: AnswerRequest,
    standalone: String,
    events: Option<UnboundedSender<AnswerEvent>>,
) -> Result<ConversationAnswer, Failure> {
    let asked = AnswerRequest { question: standalone.clone(), ..request.clone() };
    let answer = state.answers.answer_in(&principal.caller(), &asked, Some(id), events).await?;
    let number = memory::keep(&state, &principal, id, &request.question, &standalone, answer.id).await?;
    // The reply does not wait for it; the next question does without when it is not done.
    tokio::spawn(async move { memory::shorten(&state, &principal, id).await });
    Ok(ConversationAnswer { number, standalone, answer })
}
