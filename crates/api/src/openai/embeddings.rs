//! `POST /v1/embeddings`: the vectors of the model of the settings, in OpenAI's shape.

use super::EMBEDDING_MODEL;
use crate::auth::Asker;
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use docmill_model::{Code, Failure, TenantId};
use serde_json::{Value, json};

/// Most texts of one request.
const MAX_TEXTS: usize = 256;
/// Longest text, characters; the model reads its first 256 tokens.
const MAX_CHARS: usize = 32_768;

/// Texts to embed.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
pub struct EmbeddingRequest {
    /// A text, or up to 256 of them.
    #[schema(value_type = Object)]
    input: Input,
    /// Any name; there is one model.
    #[serde(default)]
    model: String,
    /// `float` or `base64` (little-endian 32-bit floats).
    #[serde(default)]
    encoding_format: Encoding,
    /// Dimensions; only those the model has.
    #[serde(default)]
    dimensions: Option<usize>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

impl Input {
    fn texts(self) -> Result<Vec<String>, Problem> {
        let texts = match self {
            Input::One(text) => vec![text],
            Input::Many(texts) => texts,
        };
        let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        for (what, limit, measured) in [("texts", MAX_TEXTS, texts.len()), ("characters", MAX_CHARS, longest)] {
            if measured > limit {
                let message = format!("`input`: too many {what}");
                return Err(Failure::limit(Code::FieldInvalid, message, limit as u64, measured as u64).into());
            }
        }
        if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
            return Err(Problem::field("input", "a text, or a list of texts, none of them empty, is expected"));
        }
        Ok(texts)
    }
}

/// Embeds texts with the embedding model of the settings; documents may be in the space of another.
#[utoipa::path(post, path = "/v1/embeddings", tag = "assistants", request_body = EmbeddingRequest,
    responses((status = 200, description = "`usage` is reckoned: a token for four characters", body = Object),
              (status = 422, body = ProblemBody)))]
pub async fn embed(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    JsonBody(request): JsonBody<EmbeddingRequest>,
) -> Result<Json<Value>, Problem> {
    let embedder = state.search.embedder().clone();
    if request.dimensions.is_some_and(|wanted| wanted != embedder.dimensions()) {
        return Err(Problem::field("dimensions", &format!("the model has {}", embedder.dimensions())));
    }
    let texts = request.input.texts()?;
    let tokens: usize = texts.iter().map(|text| text.chars().count().div_ceil(4)).sum();
    let vectors = embedder.embed(&texts).await?;
    charge(&state, principal.tenant_id, texts.len(), tokens).await?;
    let shown = |vector: &Vec<f32>| match request.encoding_format {
        Encoding::Float => json!(vector),
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            json!(STANDARD.encode(bytes))
        }
    };
    let data: Vec<Value> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": shown(vector)}))
        .collect();
    let model = if request.model.is_empty() { EMBEDDING_MODEL } else { &request.model };
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(Json(json!({"object": "list", "data": data, "model": model, "usage": usage})))
}

/// The ledger row of the request.
async fn charge(state: &ApiState, tenant: TenantId, texts: usize, tokens: usize) -> Result<(), Problem> {
    let write = state.database.write(tenant, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO ledger (tenant_id, feature, task, provider, model, units, tokens_in)
                 VALUES (current_tenant(), 'embed', 'api', 'local', $1, $2, $3)",
            )
            .bind(EMBEDDING_MODEL)
            .bind(texts as i64)
            .bind(tokens as i64)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    Ok(write.await?)
}
