//! One connection to the API: the key, the retries, and problems as failures.

use crate::exit::Ending;
use docmill_model::{Code, Failure};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::time::Duration;

/// Tries of one request while the API does not answer or says to wait.
const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause the API may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A client of one API.
#[derive(Clone)]
pub struct Api {
    client: Client,
    url: String,
    key: SecretString,
}

impl Api {
    /// For an address and a key; asks nothing yet.
    ///
    /// # Errors
    /// `CONFIG_INVALID` for an address that is none.
    pub fn new(url: &str, key: &str) -> Result<Self, Failure> {
        let url = url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::new(Code::ConfigInvalid, format!("{url} is no http(s) address")));
        }
        let client =
            Client::builder().connect_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(120)).build();
        let client = client.map_err(|e| Failure::new(Code::Internal, format!("no HTTP client: {e}")))?;
        Ok(Self { client, url, key: SecretString::from(key) })
    }

    /// The client without a key, for signed URLs.
    pub fn bare(&self) -> &Client {
        &self.client
    }

    /// `GET` with query parameters; absent ones are left out.
    pub async fn get(&self, path: &str, query: &[(&str, Option<String>)]) -> Result<Value, Ending> {
        let query: Vec<String> =
            query.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_ref()?)))).collect();
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) };
        self.send(Method::GET, &path, None).await
    }

    /// `POST` of JSON. Repeated after a lost answer under the same idempotency key.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Ending> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// `PUT` of JSON.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value, Ending> {
        self.send(Method::PUT, path, Some(body)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<Value, Ending> {
        self.send(Method::DELETE, path, None).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Ending> {
        let once = uuid::Uuid::new_v4().to_string();
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let request = self.request(&method, path, body, &once);
            let last = attempt >= TRIES;
            match request.send().await {
                Ok(answer) if is_busy(answer.status()) && !last => pause = asked_pause(&answer).unwrap_or(pause),
                Ok(answer) => return read(answer).await,
                Err(error) if last || error.is_builder() => return Err(self.silent(&error).into()),
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        unreachable!("the loop ends by returning")
    }

    fn request(&self, method: &Method, path: &str, body: Option<&Value>, once: &str) -> RequestBuilder {
        let request = self.client.request(method.clone(), format!("{}{path}", self.url));
        let request = request.bearer_auth(self.key.expose_secret());
        match body {
            Some(body) => request.header("Idempotency-Key", once).json(body),
            None => request,
        }
    }

    fn silent(&self, error: &reqwest::Error) -> Failure {
        let why = if error.is_timeout() { "does not answer in time" } else { "does not answer" };
        Failure::new(Code::StoreUnavailable, format!("{} {why}; is it up? (`docmill status`)", self.url))
    }
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

fn asked_pause(answer: &Response) -> Option<Duration> {
    let secs: u64 = answer.headers().get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(secs).min(LONGEST_PAUSE))
}

async fn read(answer: Response) -> Result<Value, Ending> {
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    if status.is_success() {
        if text.is_empty() {
            return Ok(Value::Null);
        }
        let unreadable =
            |_| Failure::new(Code::Internal, "the API's answer cannot be read; is this a Docmill address?");
        return serde_json::from_str(&text).map_err(|e| unreadable(e).into());
    }
    let problem: Value = serde_json::from_str(&text).unwrap_or_default();
    let code = problem["code"].as_str().and_then(Code::parse).unwrap_or(Code::Internal);
    let message = problem["message"].as_str().map_or_else(|| format!("the API answered {status}"), str::to_owned);
    Err(Ending::Refused(Failure {
        code,
        message,
        limit: problem["limit"].as_u64(),
        measured: problem["measured"].as_u64(),
    }))
}

/// Percent-encodes a path segment or a query value.
pub fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}
