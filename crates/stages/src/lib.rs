//! The stages of a pipeline and the one list that names them.
//!
//! Each file holds one stage: what it reads and writes by artifact kind, its settings, its policy. They do not know each
//! other; a pipeline file says what runs after what. Adding a stage is one new file and one line in [`registry`].
//! Not here: how jobs are claimed, leased and settled (runtime), what a model or a store is (platform).

pub mod chunk;
pub mod embed;
pub mod extract;
pub mod index;
pub mod ingest;
mod models;
pub mod notify;
mod settings;
pub mod summarize;
mod visible;

pub use models::{Provider, WhenDown};

use docmill_documents::Parser;
use docmill_platform::embedder::Embedders;
use docmill_platform::gateway::Gateway;
use docmill_platform::gateway::prompts::Prompts;
use docmill_platform::tokens::TokenCounter;
use docmill_runtime::registry::{Registry, RegistryBuilder};
use std::sync::Arc;

/// What the stages need from outside.
#[derive(Clone)]
pub struct StageDeps {
    /// Reads files in a sandboxed child.
    pub parser: Arc<Parser>,
    /// The models that turn texts into vectors.
    pub embedders: Embedders,
    /// Counts tokens as the embedding model does.
    pub tokens: Arc<TokenCounter>,
    /// The only way to a model provider; `None` when none is configured.
    pub gateway: Option<Arc<Gateway>>,
    /// What models are asked by.
    pub prompts: Prompts,
}

/// Every stage a pipeline file may name.
#[must_use]
pub fn registry(deps: StageDeps) -> Registry {
    stages(deps).build()
}

/// The one list, open for more.
#[must_use]
pub fn stages(deps: StageDeps) -> RegistryBuilder {
    let models = models::StageModels { gateway: deps.gateway, prompts: deps.prompts };
    Registry::builder()
        .with(ingest::Ingest::new(deps.parser))
        .with(chunk::ChunkStage::new(deps.tokens))
        .with(embed::Embed::new(deps.embedders.clone()))
        .with(index::Index::default())
        .with(extract::Extract::new(models.clone()))
        .with(summarize::Summarize::new(deps.embedders.first().clone(), models))
        .with(notify::Notify)
}
