//! A model server that answers as planned, one answer a request, and remembers what it was asked.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Response};
use axum::routing::post;
use futures::StreamExt;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// One planned answer.
#[derive(Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    wait: Duration,
    cut: bool,
    /// Never ends after its body.
    stalls: bool,
    /// Between two events of a stream.
    pause: Duration,
    /// Waits until this fires.
    gate: Option<CancellationToken>,
    /// For requests to this model only.
    model: Option<String>,
}

/// The last event of a streamed answer.
const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

impl Answer {
    /// A streamed completion of these pieces.
    pub fn stream(pieces: &[&str]) -> Self {
        let piece = |text: &&str| format!("data: {}\n\n", json!({"choices": [{"delta": {"content": text}}]}));
        let body: String = pieces.iter().map(piece).collect();
        Self::raw(&format!("{body}{STOP}data: [DONE]\n\n")).header("content-type", "text/event-stream")
    }

    /// Any events.
    pub fn events(data: &[&str]) -> Self {
        let body: String = data.iter().map(|data| format!("data: {data}\n\n")).collect();
        Self::raw(&body).header("content-type", "text/event-stream")
    }

    /// Without the event that says how the model stopped, and what follows it.
    pub fn without_end(self) -> Self {
        let kept = self.body.find(STOP).unwrap();
        Self { body: self.body[..kept].to_owned(), ..self }
    }

    pub fn with_event(self, data: &str) -> Self {
        Self { body: format!("{}data: {data}\n\n", self.body), ..self }
    }

    pub fn stalling(self) -> Self {
        Self { stalls: true, ..self }
    }

    /// One event at a time.
    pub fn paced(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// A whole completion: 12 tokens in, 3 out.
    pub fn text(content: &str) -> Self {
        let usage = json!({"prompt_tokens": 12, "completion_tokens": 3});
        let choice = json!({"message": {"role": "assistant", "content": content}, "finish_reason": "stop"});
        Self::raw(&json!({"choices": [choice], "usage": usage}).to_string())
    }

    pub fn raw(body: &str) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.to_owned(),
            wait: Duration::ZERO,
            cut: false,
            stalls: false,
            pause: Duration::ZERO,
            gate: None,
            model: None,
        }
    }

    pub fn status(status: u16) -> Self {
        Self { status, ..Self::raw(r#"{"error": {"message": "secret words"}}"#) }
    }

    /// Never ends.
    pub fn hang() -> Self {
        Self::raw("").slow(Duration::from_secs(3600))
    }

    /// Announces more bytes than it sends.
    pub fn cut() -> Self {
        Self { cut: true, ..Self::text("an answer that breaks off") }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn slow(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Waits until `gate` fires.
    pub fn behind(self, gate: &CancellationToken) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    /// Not for requests to another model.
    pub fn of(self, model: &str) -> Self {
        Self { model: Some(model.to_owned()), ..self }
    }

    pub fn finish(self, reason: &str) -> Self {
        Self { body: self.body.replace("\"stop\"", &format!("\"{reason}\"")), ..self }
    }

    /// Says error in the body of a 200.
    pub fn then_error(self) -> Self {
        let mut body: Value = serde_json::from_str(&self.body).unwrap();
        body["error"] = json!({"message": "secret words"});
        Self { body: body.to_string(), ..self }
    }

    async fn send(self) -> Response<Body> {
        tokio::time::sleep(self.wait).await;
        if let Some(gate) = &self.gate {
            gate.cancelled().await;
        }
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        if self.cut {
            let half: Bytes = self.body[..self.body.len() / 2].to_owned().into();
            let parts = [Ok(half), Err(std::io::Error::other("cut"))];
            return response.body(Body::from_stream(futures::stream::iter(parts))).unwrap();
        }
        if self.stalls {
            let begun = futures::stream::iter([Ok::<Bytes, std::io::Error>(self.body.into())]);
            return response.body(Body::from_stream(begun.chain(futures::stream::pending()))).unwrap();
        }
        if !self.pause.is_zero() {
            let events: Vec<Bytes> = self.body.split_inclusive("\n\n").map(|event| event.to_owned().into()).collect();
            let paced = futures::stream::iter(events).enumerate().then(move |(number, event)| async move {
                if number > 0 {
                    tokio::time::sleep(self.pause).await;
                }
                Ok::<_, std::io::Error>(event)
            });
            return response.body(Body::from_stream(paced)).unwrap();
        }
        response.body(self.body.into()).unwrap()
    }
}

#[derive(Default)]
struct State {
    plan: VecDeque<Answer>,
    seen: Vec<(String, Value)>,
}

/// The running server.
pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Adds answers to the plan.
    pub fn plan(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.lock().unwrap().plan.extend(answers);
    }

    /// The `authorization` header and body of every request so far.
    pub fn requests(&self) -> Vec<(String, Value)> {
        self.state.lock().unwrap().seen.clone()
    }
}

pub async fn server() -> Server {
    let state = Arc::new(Mutex::new(State::default()));
    let shared = Arc::clone(&state);
    let answer = move |headers: HeaderMap, body: Bytes| async move {
        let told = ["authorization", "x-api-key", "anthropic-version"].map(|name| headers.get(name));
        let told: Vec<&str> = told.into_iter().flatten().map(|value| value.to_str().unwrap()).collect();
        let key = told.join(" ");
        let planned = {
            let mut state = shared.lock().unwrap();
            let asked: Value = serde_json::from_slice(&body).unwrap();
            let next = state
                .plan
                .iter()
                .position(|answer| answer.model.as_deref().is_none_or(|model| asked["model"] == model));
            state.seen.push((key, asked));
            next.and_then(|next| state.plan.remove(next))
        };
        planned.unwrap_or_else(|| Answer::status(599)).send().await
    };
    let app = Router::new().route("/v1/chat/completions", post(answer.clone())).route("/v1/messages", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    Server { url, state }
}
