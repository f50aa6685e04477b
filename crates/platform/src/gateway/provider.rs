//! One request to one OpenAI-compatible server, and what its answer means.
//!
//! Every way an answer can be unusable is told apart here: by status, by a body that says error under status 200, by
//! size, shape, emptiness, or an end that came too early. Bodies and keys are never part of a failure.

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

/// Tokens of one request. `cached` are part of `input`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) cached: u64,
}

/// A usable answer.
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) usage: Usage,
}

/// Whether the same model is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    Soon,
    After(Duration),
}

/// An unusable answer, or none.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) failure: Box<Failure>,
    pub(super) again: Again,
    /// For the ledger.
    pub(super) outcome: &'static str,
    /// True when it speaks against the provider's health.
    pub(super) counts: bool,
    /// Tokens, when the provider told.
    pub(super) usage: Option<Usage>,
    /// True when the provider may charge for it without having told the tokens.
    pub(super) may_be_charged: bool,
}

impl Fault {
    fn new(outcome: &'static str, code: Code, message: impl Into<String>, again: Again) -> Self {
        let counts = again != Again::Never;
        Self {
            failure: Box::new(Failure::new(code, message)),
            again,
            outcome,
            counts,
            usage: None,
            may_be_charged: false,
        }
    }

    fn charged(mut self) -> Self {
        self.may_be_charged = true;
        self
    }

    fn used(mut self, usage: Option<Usage>) -> Self {
        self.usage = usage;
        self
    }
}

/// The try took longer than allowed.
pub(super) fn timed_out() -> Fault {
    Fault::new("timeout", Code::ProviderError, "the model provider did not answer in time", Again::Soon).charged()
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
                        "cut",
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

#[derive(serde::Deserialize)]
struct Body {
    #[serde(default)]
    error: Value,
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<RawUsage>,
}

#[derive(serde::Deserialize)]
struct Choice {
    message: Option<Content>,
    finish_reason: Option<String>,
}

#[derive(serde::Deserialize)]
struct Content {
    #[serde(default)]
    content: Value,
    refusal: Option<String>,
}

#[derive(serde::Deserialize)]
struct RawUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    prompt_tokens_details: Option<Details>,
}

#[derive(serde::Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

fn understand(body: &[u8], estimated_input: u64) -> Result<Reply, Fault> {
    let fault = |outcome, message: &str, again| Fault::new(outcome, Code::ProviderError, message, again);
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        return Err(
            fault("malformed", "the model provider's answer is not the JSON it should be", Again::Soon).charged()
        );
    };
    if !body.error.is_null() {
        return Err(fault("error", "the model provider answered with an error", Again::Soon));
    }
    let told = body.usage.map(|usage| Usage {
        input: usage.prompt_tokens,
        output: usage.completion_tokens,
        cached: usage.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0),
    });
    let Some(choice) = body.choices.into_iter().next() else {
        return Err(fault("empty", "the model provider's answer is empty", Again::Soon).used(told));
    };
    let (text, refused) =
        choice.message.map(|message| (text_of(&message.content), message.refusal.is_some())).unwrap_or_default();
    match choice.finish_reason.as_deref() {
        Some("length") => {
            let message = "the model's answer does not fit the output tokens allowed";
            return Err(Fault::new("length", Code::OutputLimit, message, Again::Never).used(told).charged());
        }
        Some("content_filter") => {
            return Err(Fault::new(
                "filtered",
                Code::ProviderRefused,
                "the model provider filtered the answer",
                Again::Never,
            )
            .used(told));
        }
        _ if refused => {
            return Err(
                Fault::new("refused", Code::ProviderRefused, "the model refused to answer", Again::Never).used(told)
            );
        }
        _ => {}
    }
    if text.trim().is_empty() {
        return Err(fault("empty", "the model provider's answer is empty", Again::Soon).used(told));
    }
    let usage = told.unwrap_or(Usage { input: estimated_input, output: text.len() as u64 / 3 + 1, cached: 0 });
    Ok(Reply { text, usage })
}

/// The content as text: a string, or a list of parts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn outcome(body: &str) -> &'static str {
        understand(body.as_bytes(), 10).map_or_else(|fault| fault.outcome, |_| "done")
    }

    #[test]
    fn answers_are_usable_or_told_apart() {
        let table = [
            (r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#, "done"),
            (r#"{"choices":[{"message":{"content":[{"type":"text","text":"hi"}]}}],"error":null}"#, "done"),
            (r#"{"error":{"message":"no"}}"#, "error"),
            (r#"{"choices":[{"message":{"content":"hi"}}],"error":"no"}"#, "error"),
            (r#"{"choices":[]}"#, "empty"),
            (r#"{"choices":[{"message":{"content":" \n"},"finish_reason":"stop"}]}"#, "empty"),
            (r#"{"choices":[{"message":{"content":null}}]}"#, "empty"),
            (r#"{"choices":[{"message":{"content":"half an"},"finish_reason":"length"}]}"#, "length"),
            (r#"{"choices":[{"message":{"content":""},"finish_reason":"content_filter"}]}"#, "filtered"),
            (r#"{"choices":[{"message":{"content":null,"refusal":"I will not"},"finish_reason":"stop"}]}"#, "refused"),
            ("<html>bad gateway</html>", "malformed"),
            (r#"{"choices":[{"message":{"content":"cut o"#, "malformed"),
            ("", "malformed"),
        ];
        for (body, expected) in table {
            assert_eq!(outcome(body), expected, "{body}");
        }
    }

    #[test]
    fn usage_is_taken_from_the_answer_or_estimated() {
        let told = r#"{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":7,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}}}"#;
        assert_eq!(understand(told.as_bytes(), 10).ok().unwrap().usage, Usage { input: 7, output: 2, cached: 3 });
        let silent = r#"{"choices":[{"message":{"content":"hi"}}]}"#;
        assert_eq!(understand(silent.as_bytes(), 10).ok().unwrap().usage, Usage { input: 10, output: 1, cached: 0 });
    }

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
