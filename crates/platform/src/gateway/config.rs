//! What a deployment decides about its model providers.

use super::{Prices, Redaction};
use secrecy::SecretString;
use std::time::Duration;

/// One model at one provider.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name of the provider in ledger and metrics.
    pub provider: String,
    /// Base URL up to and without `/chat/completions`, such as `https://api.example/v1`.
    pub base_url: String,
    /// Key sent as a bearer token; none for servers that want none.
    #[serde(default)]
    pub api_key: Option<SecretString>,
    /// Model name as the provider knows it.
    pub model: String,
    /// How the provider is told to answer in JSON.
    #[serde(default)]
    pub json: JsonMode,
    /// Name of the parameter that limits the output: `max_tokens`, or `max_completion_tokens` where that is required.
    #[serde(default = "max_tokens")]
    pub limit_parameter: String,
}

fn max_tokens() -> String {
    "max_tokens".to_owned()
}

/// What a provider can be told about the JSON that is wanted. The answer is validated in every mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JsonMode {
    /// `response_format` with the schema.
    Schema,
    /// `response_format` that asks for any JSON object; the schema is part of the prompt.
    Object,
    /// Nothing; the schema is part of the prompt.
    #[default]
    Prompt,
}

/// The gateway's settings.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// In order of preference: the next one is used when one fails.
    pub models: Vec<ModelConfig>,
    /// Prices by `provider/model`, else `model`; unknown models cost nothing.
    pub prices: Prices,
    /// What is replaced before a request leaves.
    pub redactions: Vec<Redaction>,
    /// Longest single request.
    pub try_timeout: Duration,
    /// Longest call, all tries and models included.
    pub total_timeout: Duration,
    /// Requests to one model before the next one is used, at least 1.
    pub tries: u32,
    /// First delay between tries; doubles with jitter.
    pub backoff: Duration,
    /// Calls under way at once.
    pub concurrency: usize,
    /// Most output tokens of a call, whatever it asks for.
    pub max_output_tokens: u32,
    /// Largest response body.
    pub max_response_bytes: usize,
}

impl GatewayConfig {
    /// Defaults for `models`: committed prices and redactions, 60 s a try, 120 s in all, 3 tries, 8 calls at once.
    #[must_use]
    pub fn new(models: Vec<ModelConfig>) -> Self {
        Self {
            models,
            prices: Prices::committed(),
            redactions: Redaction::committed(),
            try_timeout: Duration::from_secs(60),
            total_timeout: Duration::from_secs(120),
            tries: 3,
            backoff: Duration::from_millis(500),
            concurrency: 8,
            max_output_tokens: 8192,
            max_response_bytes: 2 << 20,
        }
    }
}
