//! `POST /v1/search`: passages for the caller; retrieval decides what is visible to it.

use crate::auth::Asker;
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use docmill_retrieval::{Filters, SearchRequest, SearchResponse};

/// Finds passages by words and by meaning.
#[utoipa::path(post, path = "/v1/search", tag = "questions", request_body = SearchRequest,
    responses((status = 200, body = SearchResponse), (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn search(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    JsonBody(request): JsonBody<SearchRequest>,
) -> Result<Json<SearchResponse>, Problem> {
    check_filters(&request.filters)?;
    Ok(Json(state.search.search(&principal.caller(), &request).await?))
}

/// Filters are compared in the database, which has no form for NUL.
pub(crate) fn check_filters(filters: &Filters) -> Result<(), Problem> {
    let text = serde_json::to_string(filters).unwrap_or_default();
    if text.contains("\\u0000") { Err(Problem::field("filters", "text without NUL is expected")) } else { Ok(()) }
}
