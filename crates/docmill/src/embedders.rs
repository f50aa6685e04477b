//! The embedding models of the settings: the one of `embedding`, and those of `embedding.models`.

use crate::assembly::blocking;
use crate::config::{Config, EmbeddingProvider, FurtherModel};
use docmill_model::{Code, Failure};
use docmill_platform::embedder::{Embedder, Embedders, FastEmbedder, FastEmbedderConfig, HashEmbedder, LocalModel};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The models, or a stand-in for roles that never embed.
///
/// # Errors
/// `CONFIG_INVALID` or `PART_MISSING`, naming the model.
pub async fn embedders(config: &Config, needed: bool) -> Result<Embedders, Failure> {
    if !needed {
        return Ok(Arc::new(HashEmbedder::new()).into());
    }
    let first: Arc<dyn Embedder> = match config.embedding.provider {
        EmbeddingProvider::Hash => Arc::new(HashEmbedder::new()),
        EmbeddingProvider::Local => {
            let model_dir = Config::need(&config.embedding.model_dir, "DOCMILL_MODEL_DIR")?.clone();
            load(FastEmbedderConfig { model_dir, ..settings(config, LocalModel::MiniLm)? }).await?
        }
    };
    let mut further: BTreeMap<String, Arc<dyn Embedder>> = BTreeMap::new();
    for (name, model) in &config.embedding.models {
        let named =
            |failure: Failure| Failure { message: format!("embedding.models.{name}: {}", failure.message), ..failure };
        further.insert(name.clone(), one(config, name, model).await.map_err(named)?);
    }
    Ok(Embedders::new(first, further))
}

async fn one(config: &Config, name: &str, model: &FurtherModel) -> Result<Arc<dyn Embedder>, Failure> {
    for (setting, measured, limit) in [("max_tokens", model.max_tokens, 8_192), ("dimensions", model.dimensions, 4_096)]
    {
        if !(1..=limit).contains(&measured) {
            let message = format!("`{setting}` is between 1 and {limit}");
            return Err(Failure::limit(Code::ConfigInvalid, message, limit as u64, measured as u64));
        }
    }
    if model.provider == EmbeddingProvider::Hash {
        return Ok(Arc::new(HashEmbedder::with_dimensions(model.dimensions)));
    }
    let missing = || Failure::new(Code::ConfigInvalid, "`model_dir` is not set");
    let model_dir = model.model_dir.clone().ok_or_else(missing)?;
    let named = LocalModel::Named {
        name: name.to_owned(),
        pooling: model.pooling,
        max_tokens: model.max_tokens,
        query_prefix: model.query_prefix.clone(),
        passage_prefix: model.passage_prefix.clone(),
    };
    load(FastEmbedderConfig { model_dir, ..settings(config, named)? }).await
}

fn settings(config: &Config, model: LocalModel) -> Result<FastEmbedderConfig, Failure> {
    Ok(FastEmbedderConfig {
        onnxruntime: Config::need(&config.embedding.onnxruntime, "DOCMILL_ONNXRUNTIME")?.clone(),
        model_dir: Default::default(),
        threads: config.embedding.threads,
        model,
    })
}

async fn load(settings: FastEmbedderConfig) -> Result<Arc<dyn Embedder>, Failure> {
    Ok(Arc::new(blocking(move || FastEmbedder::load(settings)).await?))
}
