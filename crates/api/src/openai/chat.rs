//! `POST /v1/chat/completions`: an answer in the shape of a chat completion, whole or in pieces.

use super::CHAT_MODEL;
use super::text::{Footnotes, NOT_FOUND, content, escaped};
use crate::answers::stream::{self, Event, Happening};
use crate::auth::Asker;
use crate::body::JsonBody;
use crate::conversations::{Memory, Turn, standalone};
use crate::problem::{Problem, ProblemBody};
use crate::search::check_filters;
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use docmill_model::{Code, Failure};
use docmill_retrieval::answers::AnswerEvent;
use docmill_retrieval::{Answer, AnswerRequest, Filters};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// Most messages that are looked at.
const MAX_MESSAGES: usize = 200;

/// A chat completion request. Members that are not named here are taken and have no effect.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
pub struct ChatRequest {
    /// Any name; the answers are the same.
    #[serde(default)]
    model: String,
    /// The conversation; the last `user` message is the question. `system` messages have no effect.
    messages: Vec<ChatMessage>,
    /// True for server-sent events.
    #[serde(default)]
    stream: bool,
    /// With `include_usage`, tokens come in a last chunk.
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    /// Choices; only 1.
    #[serde(default)]
    n: Option<u32>,
    /// `collection` narrows the documents.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// Docmill's own: what an answer request has besides the question.
    #[serde(default)]
    docmill: Option<ChatOptions>,
}

/// One message.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
pub struct ChatMessage {
    /// `system`, `developer`, `user` or `assistant`.
    role: String,
    /// Text, or a list of parts of type `text`.
    #[serde(default)]
    #[schema(value_type = Object)]
    content: Value,
}

#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// What narrows and sizes the answer.
#[derive(Debug, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ChatOptions {
    /// What to narrow to.
    #[serde(default)]
    filters: Filters,
    /// Passages to read, 1–50.
    #[serde(default)]
    k: Option<u32>,
    /// Most sentences, 1–10.
    #[serde(default)]
    max_sentences: Option<u32>,
}

impl ChatMessage {
    fn text(&self) -> String {
        match &self.content {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n"),
            _ => String::new(),
        }
    }
}

impl ChatRequest {
    /// The question, and what was said before it.
    fn read(&self) -> Result<(AnswerRequest, Memory), Problem> {
        if self.messages.len() > MAX_MESSAGES {
            let (limit, measured) = (MAX_MESSAGES as u64, self.messages.len() as u64);
            return Err(Failure::limit(Code::FieldInvalid, "`messages`: too many", limit, measured).into());
        }
        if self.n.is_some_and(|n| n != 1) {
            return Err(Problem::field("n", "1 is expected: there is one answer"));
        }
        let last = self.messages.iter().rposition(|message| message.role == "user");
        let last = last.ok_or_else(|| Problem::field("messages", "a message of role `user` is expected"))?;
        let mut turns: Vec<Turn> = Vec::new();
        for message in &self.messages[..last] {
            match message.role.as_str() {
                "user" => turns.push(Turn { question: message.text(), answer: String::new() }),
                "assistant" => {
                    if let Some(turn) = turns.last_mut() {
                        turn.answer = without_footnotes(&message.text());
                    }
                }
                _ => {}
            }
        }
        let mut request = AnswerRequest::new(self.messages[last].text().trim());
        if let Some(options) = &self.docmill {
            request.filters = options.filters.clone();
            request.k = options.k.unwrap_or(request.k);
            request.max_sentences = options.max_sentences.unwrap_or(request.max_sentences);
        }
        if let Some(collection) = self.metadata.as_ref().and_then(|metadata| metadata["collection"].as_str()) {
            request.filters.collection = Some(collection.to_owned());
        }
        Ok((request, Memory::of_turns(turns)))
    }

    fn model(&self) -> &str {
        if self.model.is_empty() { CHAT_MODEL } else { &self.model }
    }
}

fn without_footnotes(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("[^")).collect::<Vec<_>>().join("\n")
}

/// Answers the last user message from the documents, in the shape of an OpenAI chat completion.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "assistants", request_body = ChatRequest,
    responses((status = 200, description = "A chat completion, or with `stream` its chunks. `docmill` beside the message (in a \
                   stream: in the last chunk with a choice) holds `answer_id`, `found`, `engine` and `sentences` with all citations",
                   body = Object),
              (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn complete(
    State(state): State<ApiState>,
    Asker(principal): Asker,
    JsonBody(chat): JsonBody<ChatRequest>,
) -> Result<Response, Problem> {
    let (mut request, memory) = chat.read()?;
    check_filters(&request.filters)?;
    request.check()?;
    request.question = standalone(&state.answers, principal.tenant_id, None, &memory, &request.question).await;
    let (answers, caller) = (state.answers, principal.caller());
    if !chat.stream {
        let answer = answers.answer(&caller, &request).await?;
        return Ok(Json(completion(chat.model(), &answer)).into_response());
    }
    let told = stream::follow(|events| async move { answers.answer_in(&caller, &request, None, Some(events)).await });
    let mut chunks = Chunks::new(&chat);
    Ok(stream::respond(told, move |happening| chunks.tell(happening)))
}

/// The extension: the answer with its citations in full.
fn extension(answer: &Answer) -> Value {
    json!({"answer_id": answer.id, "found": answer.found, "engine": answer.engine, "sentences": answer.sentences,
           "removed": answer.removed, "note": answer.note})
}

/// Tokens of the model behind the answer; none were used without one.
fn usage(answer: &Answer) -> Value {
    let (input, output) = answer.usage.map_or((0, 0), |usage| (usage.tokens_in, usage.tokens_out));
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

fn completion(model: &str, answer: &Answer) -> Value {
    let message =
        json!({"role": "assistant", "content": content(answer), "refusal": null, "docmill": extension(answer)});
    json!({
        "id": format!("chatcmpl-{}", answer.id), "object": "chat.completion", "created": now(), "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": null}],
        "usage": usage(answer),
    })
}

fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// The chunks of a streamed completion.
struct Chunks {
    id: String,
    model: String,
    include_usage: bool,
    has_begun: bool,
    sentences: usize,
    notes: Footnotes,
}

impl Chunks {
    fn new(chat: &ChatRequest) -> Self {
        Self {
            id: format!("chatcmpl-{}", uuid::Uuid::now_v7()),
            model: chat.model().to_owned(),
            include_usage: chat.stream_options.as_ref().is_some_and(|options| options.include_usage),
            has_begun: false,
            sentences: 0,
            notes: Footnotes::default(),
        }
    }

    fn tell(&mut self, happening: Happening<Answer>) -> Vec<Event> {
        match happening {
            Happening::Event(AnswerEvent::Retrieval { .. }) => self.words(String::new()),
            Happening::Event(AnswerEvent::Token { sentence, text }) => {
                let gap = if sentence > 0 && self.sentences < sentence { " " } else { "" };
                self.sentences = self.sentences.max(sentence);
                self.words(format!("{gap}{}", escaped(&text)))
            }
            Happening::Event(AnswerEvent::Citations { citations, .. }) => {
                let marks = self.notes.marks(&citations);
                self.words(marks)
            }
            Happening::Event(AnswerEvent::Answer(_)) => Vec::new(),
            Happening::Done(answer) => self.end(&answer),
            // Clients of OpenAI's raise on this; no `[DONE]` follows, so nobody takes it for an answer.
            Happening::Failed(failure) => {
                let error = json!({"message": failure.message, "type": "server_error", "code": failure.code});
                vec![data(&json!({"error": error}))]
            }
        }
    }

    fn words(&mut self, text: String) -> Vec<Event> {
        let mut delta = json!({"content": text});
        if !std::mem::replace(&mut self.has_begun, true) {
            delta["role"] = "assistant".into();
        }
        vec![data(&self.chunk(json!([{"index": 0, "delta": delta, "finish_reason": null}]), None))]
    }

    fn end(&mut self, answer: &Answer) -> Vec<Event> {
        let rest = if answer.found { self.notes.text() } else { NOT_FOUND.to_owned() };
        let mut events = self.words(rest);
        let delta = json!({"docmill": extension(answer)});
        events.push(data(&self.chunk(json!([{"index": 0, "delta": delta, "finish_reason": "stop"}]), None)));
        if self.include_usage {
            events.push(data(&self.chunk(json!([]), Some(usage(answer)))));
        }
        events.push(Event::default().data("[DONE]"));
        events
    }

    fn chunk(&self, choices: Value, usage: Option<Value>) -> Value {
        let mut chunk = json!({"id": self.id, "object": "chat.completion.chunk", "created": now(), "model": self.model,
                               "choices": choices});
        if self.include_usage {
            chunk["usage"] = usage.unwrap_or(Value::Null);
        }
        chunk
    }
}

fn data(value: &Value) -> Event {
    Event::default().data(value.to_string())
}
