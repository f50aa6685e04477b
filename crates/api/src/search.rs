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
    let is_refused = serde_json::to_value(filters).is_ok_and(|filters| holds_nul(&filters));
    if is_refused { Err(Problem::field("filters", "text without NUL is expected")) } else { Ok(()) }
}

/// True when a name or text anywhere in `value` holds the character NUL, which is not the same as the six characters
/// of its escape.
pub(crate) fn holds_nul(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::String(text) => text.contains('\0'),
        serde_json::Value::Array(items) => items.iter().any(holds_nul),
        serde_json::Value::Object(fields) => fields.iter().any(|(name, item)| name.contains('\0') || holds_nul(item)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_character_is_refused_and_its_escape_is_text() {
        for (json, ok) in [
            (r#"{"metadata": {"path": "C:\\u0000x", "a\\u0000": ["\\u0000"]}}"#, true),
            (r#"{"collection": "a\u0000b"}"#, false),
            (r#"{"metadata": {"a": ["x", "\u0000"]}}"#, false),
            (r#"{"metadata": {"a\u0000": 1}}"#, false),
        ] {
            let filters: Filters = serde_json::from_str(json).unwrap();
            assert_eq!(check_filters(&filters).is_ok(), ok, "{json}");
        }
    }
}
