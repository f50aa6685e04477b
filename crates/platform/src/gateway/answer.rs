//! What a provider's answer means: usable, or one of the ways not to be.
//!
//! Told apart are a body that says error under status 200, another shape, emptiness, a refusal, and an end that came too
//! early. The body itself is never part of a failure.

use docmill_model::{Code, Failure};
use serde_json::Value;
use std::time::Duration;

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
    pub(super) fn new(outcome: &'static str, code: Code, message: impl Into<String>, again: Again) -> Self {
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

    pub(super) fn charged(mut self) -> Self {
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

/// The text of the answer; `estimated_input` stands in for tokens the provider does not tell.
pub(super) fn understand(body: &[u8], estimated_input: u64) -> Result<Reply, Fault> {
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
}
