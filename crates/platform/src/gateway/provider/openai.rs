//! The dialect of OpenAI's chat completions, which most servers speak.

use super::super::answer::{End, Fault, Reply, Usage, error_inside, judge, malformed};
use super::super::config::{JsonMode, ModelConfig};
use super::Wanted;
use super::stream::Piece;
use serde_json::{Value, json};

pub(super) fn body(config: &ModelConfig, wanted: &Wanted) -> Value {
    let mut body = json!({"model": config.model, "messages": wanted.messages, "stream": wanted.deltas.is_some()});
    body[&config.limit_parameter] = wanted.max_output_tokens.into();
    if let Some(temperature) = config.temperature {
        body["temperature"] = temperature.into();
    }
    if wanted.deltas.is_some() {
        body["stream_options"] = json!({"include_usage": true});
    }
    match (&wanted.schema, config.json) {
        (Some(schema), JsonMode::Schema) => {
            body["response_format"] =
                json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
        }
        (Some(_), JsonMode::Object) => body["response_format"] = json!({"type": "json_object"}),
        _ => {}
    }
    body
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
    delta: Option<Content>,
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

impl From<RawUsage> for Usage {
    fn from(usage: RawUsage) -> Self {
        let cached = usage.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0);
        Self { input: usage.prompt_tokens, output: usage.completion_tokens, cached }
    }
}

/// A whole answer.
pub(super) fn understand(body: &[u8], estimated_input: u64) -> Result<Reply, Fault> {
    let body: Body = serde_json::from_slice(body).map_err(|_| malformed())?;
    if !body.error.is_null() {
        return Err(error_inside());
    }
    let told = body.usage.map(Usage::from);
    let Some(choice) = body.choices.into_iter().next() else {
        return judge(String::new(), End::Whole, told, estimated_input);
    };
    let (text, refused) = choice.message.map(told_in).unwrap_or_default();
    let end = if refused { End::Refused } else { end_of(choice.finish_reason.as_deref().unwrap_or("stop")) };
    judge(text, end, told, estimated_input)
}

/// One event of a streamed answer.
pub(super) fn event(data: &str) -> Result<Vec<Piece>, Fault> {
    if data == "[DONE]" {
        return Ok(vec![Piece::Closed]);
    }
    let body: Body = serde_json::from_str(data).map_err(|_| malformed())?;
    if !body.error.is_null() {
        return Err(error_inside().charged());
    }
    let mut pieces = Vec::new();
    if let Some(choice) = body.choices.into_iter().next() {
        let (text, refused) = choice.delta.map(told_in).unwrap_or_default();
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        match choice.finish_reason.as_deref() {
            _ if refused => pieces.push(Piece::End(End::Refused)),
            Some(reason) => pieces.push(Piece::End(end_of(reason))),
            None => {}
        }
    }
    pieces.extend(body.usage.map(|usage| Piece::Usage(usage.into())));
    Ok(pieces)
}

fn end_of(reason: &str) -> End {
    match reason {
        "length" => End::Length,
        "content_filter" => End::Filtered,
        _ => End::Whole,
    }
}

/// The content as text (a string, or a list of parts), and whether it is a refusal.
fn told_in(content: Content) -> (String, bool) {
    let text = match content.content {
        Value::String(text) => text,
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        _ => String::new(),
    };
    (text, content.refusal.is_some())
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
