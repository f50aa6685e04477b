//! What a deployment decides about its model providers.

use super::{Prices, Redaction};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::time::Duration;

/// The entry of a list of models that stands for no model: the documents' own sentences, rules instead of a model.
pub const BUILT_IN: &str = "extractive";

/// Which API a provider speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// OpenAI's chat completions, as most servers do.
    #[default]
    Openai,
    /// Anthropic's messages.
    Anthropic,
}

/// One model at one provider.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name of the provider in ledger, metrics and limits.
    pub provider: String,
    /// The API it speaks.
    #[serde(default)]
    pub api: Dialect,
    /// Base URL: for `openai` up to and without `/chat/completions`, such as `https://api.example/v1`; for `anthropic` up
    /// to and without `/v1/messages`.
    pub base_url: String,
    /// Its key; none for servers that want none.
    #[serde(default)]
    pub api_key: Option<SecretString>,
    /// Name of the environment variable the key stands in, for configuration files that hold no secrets. Whoever loads
    /// the configuration reads it.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// Model name as the provider knows it.
    pub model: String,
    /// How the provider is told to answer in JSON.
    #[serde(default)]
    pub json: JsonMode,
    /// Name of the parameter that limits the output: `max_tokens`, or `max_completion_tokens` where that is required.
    #[serde(default = "max_tokens")]
    pub limit_parameter: String,
    /// Sent as `temperature`. Only answers at 0 are remembered; `null` sends none, for models that refuse it.
    #[serde(default = "coldest")]
    pub temperature: Option<f64>,
    /// Longest prompt in tokens (estimated, rather too many); a longer one goes to the next model.
    #[serde(default)]
    pub max_input_tokens: Option<u64>,
}

fn max_tokens() -> String {
    "max_tokens".to_owned()
}

fn coldest() -> Option<f64> {
    Some(0.0)
}

impl ModelConfig {
    /// A model of a server that speaks OpenAI's API, with defaults for everything else.
    #[must_use]
    pub fn new(provider: &str, base_url: &str, api_key: Option<SecretString>, model: &str) -> Self {
        Self {
            provider: provider.to_owned(),
            api: Dialect::Openai,
            base_url: base_url.to_owned(),
            api_key,
            api_key_env: None,
            model: model.to_owned(),
            json: JsonMode::default(),
            limit_parameter: max_tokens(),
            temperature: coldest(),
            max_input_tokens: None,
        }
    }

    /// `provider/model`, by which lists name it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.provider, self.model)
    }
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

/// What one provider is asked at most.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderLimits {
    /// Requests under way at once.
    pub concurrency: usize,
    /// Requests started per minute; 0 means as many as wanted.
    pub requests_per_minute: u32,
}

impl Default for ProviderLimits {
    fn default() -> Self {
        Self { concurrency: 8, requests_per_minute: 0 }
    }
}

/// What differs for one use; what is absent is as for every other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UseConfig {
    /// Names of its models in order; [`BUILT_IN`] ends the list.
    pub models: Option<Vec<String>>,
    /// Longest single request; a streamed answer has to begin within it.
    pub try_timeout: Option<Duration>,
    /// Longest call, all tries and models included; a streamed answer has to begin within it.
    pub total_timeout: Option<Duration>,
    /// Requests to one model before the next one is used, at least 1.
    pub tries: Option<u32>,
    /// How long the first model has before the next one is asked beside it; zero never asks it.
    pub hedge_after: Option<Duration>,
    /// Longest prompt in tokens (estimated, rather too many).
    pub max_input_tokens: Option<u64>,
    /// Most output tokens of a call, whatever it asks for.
    pub max_output_tokens: Option<u32>,
}

impl UseConfig {
    /// Only these models, in this order.
    #[must_use]
    pub fn of_models(names: &[&str]) -> Self {
        Self { models: Some(names.iter().map(|name| (*name).to_owned()).collect()), ..Self::default() }
    }
}

/// The patience and sizes that hold for one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UseBounds {
    pub(super) try_timeout: Duration,
    pub(super) total_timeout: Duration,
    pub(super) tries: u32,
    pub(super) hedge_after: Option<Duration>,
    pub(super) max_input_tokens: Option<u64>,
    pub(super) max_output_tokens: u32,
}

/// The gateway's settings.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Every model, in order of preference: the next one is used when one fails.
    pub models: Vec<ModelConfig>,
    /// By use (`answers`, `rewrite`, `extract`, `summarize`) what differs for it.
    pub uses: BTreeMap<String, UseConfig>,
    /// Limits by provider; the default where none is named.
    pub limits: BTreeMap<String, ProviderLimits>,
    /// Prices by `provider/model`, else `model`; unknown models count as free, and are not asked under a hard budget.
    pub prices: Prices,
    /// What is replaced before a request leaves.
    pub redactions: Vec<Redaction>,
    /// Longest single request.
    pub try_timeout: Duration,
    /// Longest call, all tries and models included, and longest writing of a streamed answer.
    pub total_timeout: Duration,
    /// Longest pause inside a streamed answer.
    pub stall_timeout: Duration,
    /// When the first model has not answered for this long, the next one is asked beside it; `None` never does.
    pub hedge_after: Option<Duration>,
    /// Requests to one model before the next one is used, at least 1.
    pub tries: u32,
    /// First delay between tries; doubles with jitter.
    pub backoff: Duration,
    /// How long deterministic answers are remembered; zero remembers none.
    pub cache_for: Duration,
    /// Most output tokens of a call, whatever it asks for.
    pub max_output_tokens: u32,
    /// Largest response body.
    pub max_response_bytes: usize,
}

impl GatewayConfig {
    /// Defaults for `models`: committed prices and redactions, 60 s a try, 120 s in all, 3 tries, 8 requests to a provider
    /// at once, answers remembered for 7 days, no hedging.
    #[must_use]
    pub fn new(models: Vec<ModelConfig>) -> Self {
        Self {
            models,
            uses: BTreeMap::new(),
            limits: BTreeMap::new(),
            prices: Prices::committed(),
            redactions: Redaction::committed(),
            try_timeout: Duration::from_secs(60),
            total_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(20),
            hedge_after: None,
            tries: 3,
            backoff: Duration::from_millis(500),
            cache_for: Duration::from_secs(7 * 86_400),
            max_output_tokens: 8192,
            max_response_bytes: 2 << 20,
        }
    }

    /// What holds for `used_for`.
    pub(super) fn bounds_of(&self, used_for: &str) -> UseBounds {
        let own = self.uses.get(used_for).cloned().unwrap_or_default();
        UseBounds {
            try_timeout: own.try_timeout.unwrap_or(self.try_timeout),
            total_timeout: own.total_timeout.unwrap_or(self.total_timeout),
            tries: own.tries.unwrap_or(self.tries).max(1),
            hedge_after: own.hedge_after.or(self.hedge_after).filter(|patience| !patience.is_zero()),
            max_input_tokens: own.max_input_tokens,
            max_output_tokens: own.max_output_tokens.unwrap_or(self.max_output_tokens),
        }
    }
}
