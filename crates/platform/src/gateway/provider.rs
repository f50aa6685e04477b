//! One request to one model at one provider, in the dialect that provider speaks.
//!
//! Here an answer is judged by its status, size and pauses; its body is understood by the dialect and judged in
//! [`super::answer`]. Keys are never part of a failure.

mod anthropic;
mod openai;
mod stream;

pub use stream::Deltas;

use super::answer::{Again, Fault, Reply, stalled};
use super::config::{Dialect, JsonMode, ModelConfig};
use docmill_model::{Code, Failure};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, Url};
use secrecy::ExposeSecret;
use serde_json::Value;
use std::time::Duration;
use stream::Assembly;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::time::timeout;

/// A longer wait is as good as never: no call lasts that long.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);

/// One message of the conversation.
#[derive(Clone, serde::Serialize)]
pub(super) struct Message {
    role: &'static str,
    content: String,
}

impl Message {
    pub(super) fn system(content: String) -> Self {
        Self { role: "system", content }
    }

    pub(super) fn user(content: String) -> Self {
        Self { role: "user", content }
    }

    pub(super) fn assistant(content: String) -> Self {
        Self { role: "assistant", content }
    }

    fn is_system(&self) -> bool {
        self.role == "system"
    }

    fn content(&self) -> &str {
        &self.content
    }
}

/// What is asked for.
pub(super) struct Wanted {
    pub(super) messages: Vec<Message>,
    pub(super) max_output_tokens: u32,
    pub(super) schema: Option<Value>,
    /// Receives the answer while it is written.
    pub(super) deltas: Option<Deltas>,
}

impl Wanted {
    /// Input tokens, rather too many: one for three bytes.
    pub(super) fn estimated_tokens(&self) -> u64 {
        self.messages.iter().map(|message| message.content.len() as u64 / 3 + 8).sum()
    }
}

/// How much and how slowly an answer may come.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max_response_bytes: usize,
    pub(super) stall: Duration,
}

/// One model of one provider.
pub(super) struct Provider {
    client: reqwest::Client,
    url: Url,
    config: ModelConfig,
    bounds: Bounds,
}

impl Provider {
    /// # Errors
    /// `CONFIG_INVALID` for a URL that cannot be used.
    pub(super) fn new(config: &ModelConfig, client: reqwest::Client, bounds: Bounds) -> Result<Self, Failure> {
        let path = match config.api {
            Dialect::Openai => "chat/completions",
            Dialect::Anthropic => "v1/messages",
        };
        let url = Url::parse(&format!("{}/{path}", config.base_url.trim_end_matches('/')));
        let url = url.ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| {
            Failure::new(Code::ConfigInvalid, format!("the base URL of provider `{}` cannot be read", config.provider))
        })?;
        Ok(Self { client, url, config: config.clone(), bounds })
    }

    pub(super) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The host requests go to, for the ledger.
    pub(super) fn endpoint(&self) -> String {
        self.url.host_str().map_or_else(String::new, |host| match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        })
    }

    /// The system message, with the schema where the provider cannot be told it otherwise.
    pub(super) fn system_message(&self, system: &str, schema: Option<&Value>) -> String {
        let is_told = self.config.json == JsonMode::Schema && self.config.api == Dialect::Openai;
        match schema {
            Some(schema) if !is_told => {
                format!(
                    "{system}\n\nAnswer with one JSON value that fits this JSON Schema, and nothing else:\n{schema}"
                )
            }
            _ => system.to_owned(),
        }
    }

    pub(super) async fn send(&self, wanted: &Wanted) -> Result<Reply, Fault> {
        let body = match self.config.api {
            Dialect::Openai => openai::body(&self.config, wanted),
            Dialect::Anthropic => anthropic::body(&self.config, wanted),
        };
        let mut request = self.client.post(self.url.clone()).json(&body);
        if let Some(key) = &self.config.api_key {
            request = match self.config.api {
                Dialect::Openai => request.bearer_auth(key.expose_secret()),
                Dialect::Anthropic => request.header("x-api-key", key.expose_secret()),
            };
        }
        if self.config.api == Dialect::Anthropic {
            request = request.header("anthropic-version", anthropic::VERSION);
        }
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                Fault::new("unreachable", Code::ProviderError, "the model provider cannot be reached", Again::Soon)
            } else {
                broken()
            }
        })?;
        by_status(&response)?;
        match &wanted.deltas {
            Some(deltas) => self.follow(response, deltas, wanted.estimated_tokens()).await,
            None => {
                let body = self.read(response).await?;
                let understand = match self.config.api {
                    Dialect::Openai => openai::understand,
                    Dialect::Anthropic => anthropic::understand,
                };
                understand(&body, wanted.estimated_tokens())
            }
        }
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| broken())? {
            self.check_size(body.len() + chunk.len())?;
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// A streamed answer: each piece within the stall time, the whole within the size.
    async fn follow(&self, mut response: Response, deltas: &Deltas, estimated_input: u64) -> Result<Reply, Fault> {
        let read = match self.config.api {
            Dialect::Openai => openai::event,
            Dialect::Anthropic => anthropic::event,
        };
        let mut assembly = Assembly::new(deltas);
        loop {
            let chunk = timeout(self.bounds.stall, response.chunk()).await.map_err(|_| stalled())?;
            let Ok(Some(chunk)) = chunk else { break };
            if assembly.take(&chunk, read)? {
                break;
            }
            self.check_size(assembly.len())?;
        }
        assembly.finish(estimated_input)
    }

    fn check_size(&self, measured: usize) -> Result<(), Fault> {
        if measured <= self.bounds.max_response_bytes {
            return Ok(());
        }
        let mut fault = Fault::new("too_large", Code::OutputLimit, "", Again::Never).charged();
        let message = "the model provider's answer has too many bytes";
        *fault.failure =
            Failure::limit(Code::OutputLimit, message, self.bounds.max_response_bytes as u64, measured as u64);
        fault.counts = true;
        Err(fault)
    }
}

fn broken() -> Fault {
    Fault::new("broken", Code::ProviderError, "the connection to the model provider broke", Again::Soon).charged()
}

fn by_status(response: &Response) -> Result<(), Fault> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let again = retry_after(response.headers(), OffsetDateTime::now_utc()).map_or(Again::Soon, Again::After);
    let told = |what: &str| format!("the model provider {what} (HTTP {})", status.as_u16());
    Err(match status.as_u16() {
        429 => Fault::new("rate_limited", Code::ProviderError, told("limits our rate"), again),
        408 | 425 | 500.. => Fault::new("error", Code::ProviderError, told("failed"), again),
        _ => Fault::new("refused", Code::ProviderRefused, told("refuses the request"), Again::Never),
    })
}

/// How long the provider wants to be left alone: seconds or an HTTP date (RFC 9110), at most a day.
fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(secs) => Duration::from_secs(secs),
        Err(_) => Duration::try_from(OffsetDateTime::parse(text, &Rfc2822).ok()? - now).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = OffsetDateTime::parse("Wed, 21 Oct 2015 07:28:00 GMT", &Rfc2822).unwrap();
        let wait = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]), now);
        assert_eq!(wait("3"), Some(Duration::from_secs(3)));
        assert_eq!(wait("3600"), Some(Duration::from_secs(3_600)), "never sooner than the provider wants");
        assert_eq!(wait(&u64::MAX.to_string()), Some(MAX_RETRY_AFTER));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:27:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
