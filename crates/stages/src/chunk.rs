//! chunk: canonical text → passages that fit the embedding model's window.
//!
//! Reads `parsed`, writes `chunks`. Promises: `chunk.text == canonical[span]`; no chunk is longer than the window with
//! its heading path and the model's special tokens; together the spans cover all visible text that is not furniture and
//! overlap nowhere; cuts depend on the words near them only, so a local edit renews a few chunks and leaves the rest, and
//! with them their vectors, as they were. Hidden text is in no chunk: passages end before it and start anew after it.

mod assemble;
mod atoms;
mod boundaries;
mod headings;

#[cfg(test)]
mod tests;

pub use assemble::chunk_document;

use crate::settings::within;
use docmill_model::chunk::ChunkList;
use docmill_model::document::ParsedDocument;
use docmill_model::manifest::{Manifest, kind};
use docmill_model::{Code, Failure};
use docmill_platform::tokens::{TokenCounter, WINDOW};
use docmill_runtime::{JobContext, Stage, StageError};
use sqlx::PgConnection;
use std::sync::Arc;

/// Settings of the chunk stage.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkConfig {
    /// Tokens a passage should have on average; 40 to 200. Longer passages answer broader questions, shorter ones are
    /// cited more precisely.
    #[serde(deserialize_with = "within::<_, 40, 200>")]
    #[schemars(range(min = 40, max = 200))]
    pub target_tokens: u32,
    /// Tokens no passage falls below unless the text around it ends (page, hidden text, end of document); 1 to 80.
    #[serde(deserialize_with = "within::<_, 1, 80>")]
    #[schemars(range(min = 1, max = 80))]
    pub min_tokens: u32,
    /// Tokens the heading path above a passage may take of the model's window; 0 to 100.
    #[serde(deserialize_with = "within::<_, 0, 100>")]
    #[schemars(range(min = 0, max = 100))]
    pub heading_tokens: u32,
}

impl Default for ChunkConfig {
    fn default() -> Self {
        Self { target_tokens: 180, min_tokens: 40, heading_tokens: 40 }
    }
}

impl ChunkConfig {
    /// Most tokens of a passage without its heading path.
    fn body_tokens(&self) -> u32 {
        WINDOW as u32 - SPECIAL_TOKENS - self.heading_tokens
    }
}

/// `[CLS]` and `[SEP]`, which the model's counts include.
const SPECIAL_TOKENS: u32 = 2;

/// The chunk stage.
pub struct ChunkStage {
    tokens: Arc<TokenCounter>,
}

impl ChunkStage {
    /// Counting with the embedding model's tokenizer.
    #[must_use]
    pub fn new(tokens: Arc<TokenCounter>) -> Self {
        Self { tokens }
    }
}

#[async_trait::async_trait]
impl Stage for ChunkStage {
    const NAME: &'static str = "chunk";
    const VERSION: u32 = 2;
    type Config = ChunkConfig;
    type Prepared = ();

    async fn run(&self, job: &JobContext, config: &ChunkConfig) -> Result<Manifest, StageError> {
        let document: ParsedDocument = job.load(kind::PARSED).await?;
        let (tokens, config) = (self.tokens.clone(), config.clone());
        let list: ChunkList =
            tokio::task::spawn_blocking(move || ChunkList { chunks: chunk_document(&document, &tokens, &config) })
                .await
                .map_err(|_| Failure::new(Code::Internal, "chunking failed"))?;
        if list.chunks.is_empty() {
            return Err(Failure::new(Code::EmptyText, "the file holds no text a reader would see").into());
        }
        let total: u64 = list.chunks.iter().map(|chunk| u64::from(chunk.tokens)).sum();
        let mut manifest = Manifest::default();
        manifest.artifacts.insert(kind::CHUNKS.to_owned(), job.store(&list).await?);
        manifest.facts.insert("chunks".to_owned(), list.chunks.len().into());
        manifest.facts.insert("tokens".to_owned(), total.into());
        Ok(manifest)
    }

    async fn prepare(&self, _: &JobContext, _: &ChunkConfig, _: &Manifest) -> Result<(), StageError> {
        Ok(())
    }

    async fn commit(&self, _: &mut PgConnection, _: &JobContext, _: &Manifest, (): ()) -> Result<(), StageError> {
        Ok(())
    }
}
