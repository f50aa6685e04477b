//! `/v1/answers/{id}/feedback`: what readers say of an answer, kept for evaluation. A comment goes when a document the
//! answer cites is deleted, as it may repeat its words.

use crate::auth::{Asker, Principal};
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::{AnswerId, Code, Failure, PrincipalId};
use time::OffsetDateTime;
use uuid::Uuid;

/// Longest comment, characters.
const MAX_COMMENT_CHARS: usize = 4_000;
/// Most remarks on one answer.
const MAX_REMARKS: i64 = 1_000;

/// What a reader thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It answers the question.
    Helpful,
    /// It does not.
    NotHelpful,
    /// A citation does not bear out its sentence.
    WrongCitation,
}

/// A remark on an answer.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeedbackRequest {
    /// What the reader thinks.
    verdict: Verdict,
    /// Which sentence, from 0.
    #[serde(default)]
    sentence: Option<u16>,
    /// Which of its citations, from 0.
    #[serde(default)]
    citation: Option<u16>,
    /// In words, at most 4,000 characters.
    #[serde(default)]
    comment: Option<String>,
}

/// A stored remark.
#[derive(Debug, serde::Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct FeedbackView {
    /// Its id.
    pub id: Uuid,
    /// Who said it.
    #[sqlx(try_from = "Uuid")]
    pub principal_id: PrincipalId,
    /// `helpful`, `not_helpful` or `wrong_citation`.
    pub verdict: String,
    /// Which sentence, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentence: Option<i32>,
    /// Which citation, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub citation: Option<i32>,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Remarks on an answer.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct FeedbackList {
    /// Oldest first, at most 1,000.
    pub feedback: Vec<FeedbackView>,
}

fn answer_id(id: &str) -> Result<AnswerId, Problem> {
    id.parse().map_err(|_| Problem::not_found())
}

/// Remarks on an answer.
#[utoipa::path(post, path = "/v1/answers/{id}/feedback", tag = "questions", request_body = FeedbackRequest,
    params(("id" = String, Path, description = "Answer id")),
    responses((status = 201, body = FeedbackView), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<FeedbackRequest>,
) -> Result<(StatusCode, Json<FeedbackView>), Problem> {
    let answer = answer_id(&id)?;
    let length = request.comment.as_deref().unwrap_or_default().chars().count();
    if length > MAX_COMMENT_CHARS {
        let message = "`comment`: too many characters";
        let failure = Failure::limit(Code::FieldInvalid, message, MAX_COMMENT_CHARS as u64, length as u64);
        return Err(failure.into());
    }
    Ok((StatusCode::CREATED, Json(store(&state, principal, answer, request).await?)))
}

async fn store(
    state: &ApiState,
    principal: Principal,
    answer: AnswerId,
    request: FeedbackRequest,
) -> Result<FeedbackView, Problem> {
    let verdict = serde_json::json!(request.verdict).as_str().unwrap_or_default().to_owned();
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let stored = sqlx::query_as(
                "INSERT INTO answer_feedback (tenant_id, id, answer_id, principal_id, verdict, sentence, citation, comment)
                 SELECT current_tenant(), $2, id, $3, $4, $5, $6, $7 FROM answers WHERE tenant_id = current_tenant() AND id = $1
                 RETURNING id, principal_id, verdict, sentence, citation, comment, created_at",
            )
            .bind(answer.0)
            .bind(Uuid::now_v7())
            .bind(principal.principal_id.0)
            .bind(verdict)
            .bind(request.sentence.map(i32::from))
            .bind(request.citation.map(i32::from))
            .bind(request.comment)
            .fetch_optional(connection)
            .await?;
            stored.ok_or_else(|| Failure::new(Code::NotFound, "no such answer").into())
        })
    });
    Ok(write.await?)
}

/// What was said of an answer. Comments of others may repeat words of the documents it cites: they are shown to who may
/// read all of those.
#[utoipa::path(get, path = "/v1/answers/{id}/feedback", tag = "questions",
    params(("id" = String, Path, description = "Answer id")),
    responses((status = 200, body = FeedbackList), (status = 404, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    Path(id): Path<String>,
) -> Result<Json<FeedbackList>, Problem> {
    let answer = answer_id(&id)?;
    let (reader, labels) = (principal.principal_id.0, principal.labels);
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let exists: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM answers WHERE tenant_id = current_tenant() AND id = $1)",
            )
            .bind(answer.0)
            .fetch_one(&mut *connection)
            .await?;
            if !exists {
                return Err(Failure::new(Code::NotFound, "no such answer").into());
            }
            let rows = sqlx::query_as(
                "SELECT f.id, f.principal_id, f.verdict, f.sentence, f.citation, f.created_at,
                        CASE WHEN f.principal_id = $3 OR NOT EXISTS (
                            SELECT 1 FROM documents d WHERE d.tenant_id = a.tenant_id AND d.id = ANY (a.document_ids)
                              AND NOT document_matches(d, $4, NULL, NULL, NULL, NULL, NULL, NULL)) THEN f.comment END AS comment
                 FROM answer_feedback f JOIN answers a ON a.tenant_id = f.tenant_id AND a.id = f.answer_id
                 WHERE f.tenant_id = current_tenant() AND f.answer_id = $1 ORDER BY f.created_at, f.id LIMIT $2",
            )
            .bind(answer.0)
            .bind(MAX_REMARKS)
            .bind(reader)
            .bind(labels)
            .fetch_all(connection)
            .await?;
            Ok(rows)
        })
    });
    Ok(Json(FeedbackList { feedback: read.await? }))
}
