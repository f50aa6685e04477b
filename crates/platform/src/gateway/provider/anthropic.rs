//! The dialect of Anthropic's messages API (version 2023-06-01).

use super::super::answer::{End, Fault, Reply, Usage, error_inside, judge, malformed};
use super::super::config::ModelConfig;
use super::Wanted;
use super::stream::Piece;
use serde_json::{Value, json};

/// The version of the API every request names.
pub(super) const VERSION: &str = "2023-06-01";

pub(super) fn body(config: &ModelConfig, wanted: &Wanted) -> Value {
    let (system, messages): (Vec<_>, Vec<_>) = wanted.messages.iter().partition(|message| message.is_system());
    let system: Vec<&str> = system.iter().map(|message| message.content()).collect();
    let mut body = json!({
        "model": config.model,
        "max_tokens": wanted.max_output_tokens,
        "system": system.join("\n\n"),
        "messages": messages,
        "stream": wanted.deltas.is_some(),
    });
    if let Some(temperature) = config.temperature {
        body["temperature"] = temperature.into();
    }
    body
}

#[derive(serde::Deserialize)]
struct Body {
    #[serde(default)]
    error: Value,
    #[serde(default)]
    content: Vec<Block>,
    stop_reason: Option<String>,
    usage: Option<RawUsage>,
}

#[derive(serde::Deserialize)]
struct Block {
    #[serde(default)]
    text: String,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct RawUsage {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

impl From<RawUsage> for Usage {
    /// What was read from the provider's cache is told apart there, and part of the input here.
    fn from(usage: RawUsage) -> Self {
        let cached = usage.cache_read_input_tokens.unwrap_or(0);
        let input = usage.input_tokens + cached + usage.cache_creation_input_tokens.unwrap_or(0);
        Self { input, output: usage.output_tokens, cached }
    }
}

/// A whole answer.
pub(super) fn understand(body: &[u8], estimated_input: u64) -> Result<Reply, Fault> {
    let body: Body = serde_json::from_slice(body).map_err(|_| malformed())?;
    if !body.error.is_null() {
        return Err(error_inside());
    }
    let text: String = body.content.iter().map(|block| block.text.as_str()).collect();
    judge(text, end_of(body.stop_reason.as_deref().unwrap_or("end_turn")), body.usage.map(Usage::from), estimated_input)
}

#[derive(serde::Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    MessageStart {
        message: Body,
    },
    ContentBlockDelta {
        delta: Block,
    },
    MessageDelta {
        delta: Stop,
        usage: Option<RawUsage>,
    },
    MessageStop,
    Error,
    #[serde(other)]
    Other,
}

#[derive(serde::Deserialize)]
struct Stop {
    stop_reason: Option<String>,
}

/// One event of a streamed answer.
pub(super) fn event(data: &str) -> Result<Vec<Piece>, Fault> {
    Ok(match serde_json::from_str(data).map_err(|_| malformed())? {
        Event::MessageStart { message } => message.usage.map(|usage| Piece::Usage(usage.into())).into_iter().collect(),
        Event::ContentBlockDelta { delta } if !delta.text.is_empty() => vec![Piece::Text(delta.text)],
        Event::MessageDelta { delta, usage } => {
            let end = delta.stop_reason.map(|reason| Piece::End(end_of(&reason)));
            end.into_iter().chain(usage.map(|usage| Piece::Output(usage.output_tokens))).collect()
        }
        Event::MessageStop => vec![Piece::Closed],
        Event::Error => return Err(error_inside().charged()),
        Event::ContentBlockDelta { .. } | Event::Other => Vec::new(),
    })
}

fn end_of(reason: &str) -> End {
    match reason {
        "max_tokens" | "model_context_window_exceeded" => End::Length,
        "refusal" => End::Refused,
        _ => End::Whole,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_are_usable_or_told_apart() {
        let table = [
            (r#"{"content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn"}"#, "done"),
            (r#"{"content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"hi"}]}"#, "done"),
            (r#"{"type":"error","error":{"type":"overloaded_error","message":"no"}}"#, "error"),
            (r#"{"content":[],"stop_reason":"end_turn"}"#, "empty"),
            (r#"{"content":[{"type":"text","text":"half"}],"stop_reason":"max_tokens"}"#, "length"),
            (r#"{"content":[{"type":"text","text":"no"}],"stop_reason":"refusal"}"#, "refused"),
            ("<html>", "malformed"),
        ];
        for (body, expected) in table {
            let found = understand(body.as_bytes(), 10).map_or_else(|fault| fault.outcome, |_| "done");
            assert_eq!(found, expected, "{body}");
        }
    }

    #[test]
    fn tokens_read_from_the_providers_cache_are_part_of_the_input() {
        let body = r#"{"content":[{"text":"hi"}],"usage":{"input_tokens":5,"cache_read_input_tokens":7,"cache_creation_input_tokens":2,"output_tokens":3}}"#;
        let reply = understand(body.as_bytes(), 10).ok().unwrap();
        assert_eq!(reply.usage, Usage { input: 14, output: 3, cached: 7 });
    }
}
