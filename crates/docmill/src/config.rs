//! The one typed tree of settings: committed defaults, then a file, then the environment. Read here and nowhere else.
//!
//! `deploy/local/defaults.yaml` documents every key and names its variable. What is wrong is said in one line that names
//! the setting and where it came from.

pub mod load;
mod uses;

pub use uses::UseSettings;

use docmill_model::{Code, Failure};
use docmill_platform::embedder::Pooling;
use docmill_platform::gateway::{ModelConfig, ProviderLimits, Redaction};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// All settings.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    pub data_dir: Option<PathBuf>,
    pub pipelines: Option<PathBuf>,
    pub pepper: Option<SecretString>,
    pub database: DatabaseSettings,
    pub nats: NatsSettings,
    pub s3: S3Settings,
    pub engine: EngineSettings,
    pub embedding: EmbeddingSettings,
    pub parsing: ParsingSettings,
    pub search: SearchSettings,
    pub api: ApiSettings,
    pub llm: LlmSettings,
    pub log: LogSettings,
}

/// Postgres.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSettings {
    pub url: Option<SecretString>,
    pub engine_url: Option<SecretString>,
    pub owner_url: Option<SecretString>,
    pub max_connections: u32,
    #[serde(with = "humantime_serde")]
    pub acquire_timeout: Duration,
}

/// NATS.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsSettings {
    pub url: Option<SecretString>,
    pub stream_prefix: String,
}

/// The object store.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Settings {
    pub endpoint: Option<String>,
    pub public_endpoint: Option<String>,
    pub region: String,
    pub bucket: String,
    pub access_key: Option<String>,
    pub secret_key: Option<SecretString>,
    pub path_style: bool,
    pub expire_uploads_days: Option<u32>,
}

/// Leases and slots.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSettings {
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    pub slots: BTreeMap<String, usize>,
    pub failpoints: Vec<String>,
}

/// Which embedding model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingProvider {
    /// all-MiniLM-L6-v2 in this process.
    Local,
    /// Hashed words: no model, no meaning.
    Hash,
}

/// Embeddings.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingSettings {
    pub provider: EmbeddingProvider,
    pub model_dir: Option<PathBuf>,
    pub onnxruntime: Option<PathBuf>,
    pub threads: usize,
    pub models: BTreeMap<String, FurtherModel>,
}

/// A model that a further embedding space is built with.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FurtherModel {
    #[serde(default = "local")]
    pub provider: EmbeddingProvider,
    pub model_dir: Option<PathBuf>,
    #[serde(default = "mean")]
    pub pooling: Pooling,
    #[serde(default = "window")]
    pub max_tokens: usize,
    #[serde(default)]
    pub query_prefix: String,
    #[serde(default)]
    pub passage_prefix: String,
    /// Of `hash`.
    #[serde(default = "dimensions")]
    pub dimensions: usize,
}

fn local() -> EmbeddingProvider {
    EmbeddingProvider::Local
}

fn mean() -> Pooling {
    Pooling::Mean
}

fn window() -> usize {
    docmill_platform::tokens::WINDOW
}

fn dimensions() -> usize {
    384
}

/// Searching.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchSettings {
    pub cache_mib: u32,
    pub rerank: bool,
    pub rerank_model_dir: Option<PathBuf>,
    pub rerank_candidates: usize,
    #[serde(with = "humantime_serde")]
    pub rerank_timeout: Duration,
    pub rerank_threads: usize,
}

/// Parsing and OCR.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParsingSettings {
    pub pdfium: Option<PathBuf>,
    pub tesseract: Option<PathBuf>,
    pub tessdata: Option<PathBuf>,
    pub slots: usize,
    pub landlock_required: bool,
}

/// The HTTP side.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSettings {
    pub rate_per_sec: f64,
    pub burst: f64,
    pub cors_origins: Vec<String>,
    pub metrics_token: Option<SecretString>,
    pub operator_tenant: Option<docmill_model::TenantId>,
    pub allow_private_webhooks: bool,
}

/// The model providers.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlmSettings {
    pub base_url: Option<String>,
    pub api_key: Option<SecretString>,
    pub model: Option<String>,
    pub models: Vec<ModelConfig>,
    pub uses: BTreeMap<String, UseSettings>,
    pub limits: BTreeMap<String, ProviderLimits>,
    pub rollouts: BTreeMap<String, RolloutSettings>,
    pub prices: Option<PathBuf>,
    pub redactions: Vec<Redaction>,
    #[serde(with = "humantime_serde")]
    pub try_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub total_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub stall_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub hedge_after: Option<Duration>,
    pub tries: u32,
    #[serde(with = "humantime_serde")]
    pub cache_for: Duration,
}

/// What a version of a prompt has to pass before it is rolled out.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSettings {
    /// Name of a suite file.
    pub evaluation: String,
    /// Conditions on its figures, as `--fail-if`.
    #[serde(default)]
    pub fail_if: Vec<String>,
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Logs.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub format: LogFormat,
    pub filter: String,
}

impl Config {
    /// A setting that this command cannot do without.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming its variable.
    pub fn need<'a, T>(value: &'a Option<T>, variable: &str) -> Result<&'a T, Failure> {
        value.as_ref().ok_or_else(|| {
            let message = format!("{variable} is not set; set it, or use the embedded stack (`docmill up`)");
            Failure::new(Code::ConfigInvalid, message)
        })
    }
}
