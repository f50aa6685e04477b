//! Metrics of this process for Prometheus, and of every request by its route.
//!
//! Labels are the matched path, a known method and the status: never an identifier, never what a caller wrote.

use crate::problem::Problem;
use crate::state::ApiState;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use docmill_model::{Code, Sha256Hex};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// Upper bounds of the latency histograms, seconds.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// A gauge that nobody has set for so long is no longer told. Each invariant over content has its turn within that time, as long
/// as looks of half a minute, one every ten, suffice for one of them.
const GAUGES_STAND: Duration = Duration::from_secs(7_200);

/// Installs the process-wide recorder; `None` when another one is already there.
#[must_use]
pub fn install() -> Option<PrometheusHandle> {
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS).ok()?;
    let recorder = builder.idle_timeout(MetricKindMask::GAUGE, Some(GAUGES_STAND)).build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok().map(|()| handle)
}

/// Counts one handled request.
pub(crate) fn record(method: &Method, path: Option<String>, status: StatusCode, took: Duration) {
    let path = path.unwrap_or_else(|| "unmatched".to_owned());
    let method = match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    };
    let labels = [("method", method.to_owned()), ("path", path.clone()), ("status", status.as_u16().to_string())];
    metrics::counter!("docmill_http_requests_total", &labels).increment(1);
    metrics::histogram!("docmill_http_request_seconds", "method" => method, "path" => path).record(took.as_secs_f64());
}

/// Metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "service",
    responses((status = 200, content_type = "text/plain", body = String), (status = 401, body = crate::problem::ProblemBody)))]
pub async fn metrics_text(State(state): State<ApiState>, headers: HeaderMap) -> Result<Response, Problem> {
    if !may_read(state.config.metrics_token.as_ref(), &headers) {
        return Err(Problem::new(Code::KeyMissing, "metrics need the configured bearer token"));
    }
    let handle = state.metrics.as_ref().ok_or_else(Problem::not_found)?;
    handle.run_upkeep();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()).into_response())
}

/// Whether a request shows the configured token, if there is one.
pub(crate) fn may_read(token: Option<&SecretString>, headers: &HeaderMap) -> bool {
    let Some(token) = token else { return true };
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // Hashes are compared, so the time it takes tells nothing about the token.
    Sha256Hex::of(shown.as_bytes()) == Sha256Hex::of(token.expose_secret().as_bytes())
}
