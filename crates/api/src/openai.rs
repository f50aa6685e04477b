//! The interfaces that assistants already speak: OpenAI's chat completions, embeddings and models.
//!
//! A chat completion is an answer from the documents: the last user message is the question, what was said before helps to
//! understand it, and nothing else steers it. The text carries footnotes; the field `docmill` beside it carries the
//! citations in full. Not here: tools, other models, free text from a model.

pub mod chat;
pub mod embeddings;
mod text;

pub(crate) use text::content;

use crate::auth::Asker;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

/// The model that answers from the documents.
pub const CHAT_MODEL: &str = "docmill";
/// The embedding model of this installation.
pub const EMBEDDING_MODEL: &str = "docmill-embedding";

fn model(state: &ApiState, name: &str) -> Option<Value> {
    let mut model = json!({"id": name, "object": "model", "created": 0, "owned_by": "docmill"});
    match name {
        CHAT_MODEL => {}
        EMBEDDING_MODEL => model["docmill"] = json!({"fingerprint": state.search.embedder().fingerprint()}),
        _ => return None,
    }
    Some(model)
}

/// The models, in OpenAI's shape.
#[utoipa::path(get, path = "/v1/models", tag = "assistants", responses((status = 200, body = Object)))]
pub async fn models(State(state): State<ApiState>, Asker(_caller): Asker) -> Json<Value> {
    let models: Vec<Value> = [CHAT_MODEL, EMBEDDING_MODEL].iter().filter_map(|name| model(&state, name)).collect();
    Json(json!({"object": "list", "data": models}))
}

/// One model, in OpenAI's shape.
#[utoipa::path(get, path = "/v1/models/{name}", tag = "assistants", params(("name" = String, Path, description = "Its id")),
    responses((status = 200, body = Object), (status = 404, body = ProblemBody)))]
pub async fn get_model(
    State(state): State<ApiState>,
    Asker(_caller): Asker,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    model(&state, &name).map(Json).ok_or_else(Problem::not_found)
}
