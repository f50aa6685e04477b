//! The way in and out, the same for every route: request id, one access log line, metrics, security headers, limits
//! with a clear answer, and problem+json for whatever the framework itself refuses.

use crate::limits::MAX_BODY_BYTES;
use crate::problem::Problem;
use crate::state::ApiState;
use crate::telemetry;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use docmill_model::{Code, Failure};
use std::any::Any;
use std::time::Instant;
use tracing::Instrument;

/// The header that carries the request id, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is taken over from a caller.
const MAX_REQUEST_ID_BYTES: usize = 128;
/// Parameters that people use to put keys into URLs, where every proxy logs them.
const KEY_PARAMETERS: [&str; 5] = ["key", "api_key", "apikey", "token", "access_token"];

/// Headers every response carries unless a handler chose otherwise.
const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
];

/// Outermost: gives the request its id, its span and its line in the log.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), %method, path = path.as_deref());
    let mut response = as_problem(next.run(request).instrument(span.clone()).await);
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response.headers_mut().insert(REQUEST_ID, id);
    let (status, took) = (response.status(), started.elapsed());
    span.in_scope(|| tracing::info!(status = status.as_u16(), ms = took.as_secs_f64() * 1e3, "answered"));
    telemetry::record(&method, path, status, took);
    response
}

/// The caller's id where it is short and plain, else a fresh one.
fn request_id(request: &Request) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        (1..=MAX_REQUEST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(is_plain)
    };
    let given = request.headers().get(REQUEST_ID).filter(plain).cloned();
    given.unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::now_v7().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

/// Refusals of the framework are plain text; they become problems like any other.
fn as_problem(response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_ours = content_type.is_some_and(|value| !value.starts_with(b"text/plain"));
    if is_ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let problem = match status {
        StatusCode::NOT_FOUND => Problem::not_found(),
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(Code::MethodNotAllowed, "this path has no such method"),
        StatusCode::PAYLOAD_TOO_LARGE => body_too_large(None),
        status if status.is_client_error() => Problem::new(Code::BodyInvalid, "the request cannot be read"),
        _ => Problem::new(Code::Internal, "unexpected failure"),
    };
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut answer = problem.into_response();
    if let Some(allow) = allow {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}

/// Inside: refuses what need not be looked at, bounds how many requests run and for how long. Health and metrics pass:
/// they must answer while everything else is full.
pub async fn admit(State(state): State<ApiState>, request: Request<Body>, next: Next) -> Response {
    if holds_key(request.uri().query().unwrap_or_default()) || request.uri().path().contains("dmk_") {
        return Problem::new(Code::KeyInUrl, "an API key stands in the URL").into_response();
    }
    let declared =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > MAX_BODY_BYTES as u64) {
        return body_too_large(declared).into_response();
    }
    if !request.uri().path().starts_with("/v1/") && request.uri().path() != "/mcp" {
        return next.run(request).await;
    }
    let Ok(_slot) = state.slots.try_acquire() else {
        metrics::counter!("docmill_http_overloaded_total").increment(1);
        let message = "as many requests as this process takes are already running";
        let limit = state.config.max_concurrent_requests as u64;
        return Problem::from(Failure { limit: Some(limit), ..Failure::new(Code::Overloaded, message) })
            .into_response();
    };
    match tokio::time::timeout(state.config.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(Code::RequestTimeout, "the request took longer than its limit").into_response(),
    }
}

fn holds_key(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        KEY_PARAMETERS.contains(&name.as_str()) || pair.contains("dmk_")
    })
}

pub(crate) fn body_too_large(measured: Option<u64>) -> Problem {
    let message = "the body is larger than the limit in bytes".to_owned();
    Failure { code: Code::BodyLimit, message, limit: Some(MAX_BODY_BYTES as u64), measured }.into()
}

/// What a caller sees of a panic: that it happened, nothing of what it said.
pub fn after_panic(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    metrics::counter!("docmill_http_panics_total").increment(1);
    Problem::new(Code::Internal, "unexpected failure").into_response()
}

/// No such path.
pub async fn no_route() -> Problem {
    Problem::not_found()
}

/// No such method on this path.
pub async fn no_method() -> Problem {
    Problem::new(Code::MethodNotAllowed, "this path has no such method")
}
