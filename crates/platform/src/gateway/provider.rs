//! One request to one OpenAI-compatible server.
//!
//! Here an answer is judged by its status and size, in [`super::answer`] by its body. Keys are never part of a failure.

use super::answer::{Again, Fault, Reply, understand};
use super::{JsonMode, ModelConfig};
use docmill_model::{Code, Failure};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// No longer wait is taken from a provider.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

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
}

/// What is asked for.
pub(super) struct Wanted {
    pub(super) messages: Vec<Message>,
    pub(super) max_output_tokens: u32,
    pub(super) schema: Option<Value>,
}

impl Wanted {
    /// Input tokens, rather too many: one for three bytes.
    pub(super) fn estimated_tokens(&self) -> u64 {
        self.messages.iter().map(|message| message.content.len() as u64 / 3 + 8).sum()
    }
}

/// One model of one server.
pub(super) struct Provider {
    client: reqwest::Client,
    url: Url,
    key: Option<SecretString>,
    config: ModelConfig,
    max_response_bytes: usize,
}

impl Provider {
    pub(super) fn new(
        config: &ModelConfig,
        client: reqwest::Client,
        max_response_bytes: usize,
    ) -> Result<Self, Failure> {
        let url = Url::parse(&format!("{}/chat/completions", config.base_url.trim_end_matches('/')));
        let url = url.ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| {
            Failure::new(Code::ConfigInvalid, format!("the base URL of provider `{}` cannot be read", config.provider))
        })?;
        Ok(Self { client, url, key: config.api_key.clone(), config: config.clone(), max_response_bytes })
    }

    pub(super) fn name(&self) -> &str {
        &self.config.provider
    }

    pub(super) fn model(&self) -> &str {
        &self.config.model
    }

    /// The system message, with the schema where the provider cannot be told it otherwise.
    pub(super) fn system_message(&self, system: &str, schema: Option<&Value>) -> String {
        match schema {
            Some(schema) if self.config.json != JsonMode::Schema => {
                format!(
                    "{system}\n\nAnswer with one JSON value that fits this JSON Schema, and nothing else:\n{schema}"
                )
            }
            _ => system.to_owned(),
        }
    }

    pub(super) async fn send(&self, wanted: &Wanted) -> Result<Reply, Fault> {
        let mut request = self.client.post(self.url.clone()).json(&self.body(wanted));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose_secret());
        }
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                Fault::new("unreachable", Code::ProviderError, "the model provider cannot be reached", Again::Soon)
            } else {
                Fault::new("broken", Code::ProviderError, "the connection to the model provider broke", Again::Soon)
                    .charged()
            }
        })?;
        by_status(&response)?;
        let body = self.read(response).await?;
        let estimate = wanted.estimated_tokens();
        understand(&body, estimate)
    }

    fn body(&self, wanted: &Wanted) -> Value {
        let mut body = json!({"model": self.config.model, "messages": wanted.messages, "stream": false});
        body[&self.config.limit_parameter] = wanted.max_output_tokens.into();
        match (&wanted.schema, self.config.json) {
            (Some(schema), JsonMode::Schema) => {
                body["response_format"] =
                    json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
            }
            (Some(_), JsonMode::Object) => body["response_format"] = json!({"type": "json_object"}),
            _ => {}
        }
        body
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > self.max_response_bytes => {
                    let limit = self.max_response_bytes as u64;
                    let mut fault = Fault::new("too_large", Code::OutputLimit, "", Again::Never).charged();
                    let message = "the model provider's answer has too many bytes";
                    let measured = (body.len() + chunk.len()) as u64;
                    *fault.failure = Failure::limit(Code::OutputLimit, message, limit, measured);
                    fault.counts = true;
                    return Err(fault);
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body),
                Err(_) => {
                    return Err(Fault::new(
                        "broken",
                        Code::ProviderError,
                        "the model provider's answer broke off",
                        Again::Soon,
                    )
                    .charged());
                }
            }
        }
    }
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

/// How long the provider wants to be left alone: seconds or an HTTP date (RFC 9110), at most a minute.
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
        assert_eq!(wait("86400"), Some(MAX_RETRY_AFTER));
        assert_eq!(wait("Wed, 21 Oct 2015 07:28:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(wait("Wed, 21 Oct 2015 07:27:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
