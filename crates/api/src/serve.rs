//! The HTTP listener of every role: the whole API, or only the probes of a role without one.

use crate::health::{Ready, examine, healthz};
use crate::state::Readiness;
use crate::telemetry::may_read;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use docmill_platform::database::Database;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use std::io;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves until `stop` fires, then lets running requests end.
///
/// # Errors
/// Of the listener.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

#[derive(Clone)]
struct Probes {
    database: Database,
    readiness: Readiness,
    metrics: Option<PrometheusHandle>,
    token: Option<SecretString>,
}

/// `/healthz`, `/readyz` and `/metrics` of a role without an API.
pub fn probes(
    database: Database,
    readiness: Readiness,
    metrics: Option<PrometheusHandle>,
    token: Option<SecretString>,
) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(Probes { database, readiness, metrics, token })
}

async fn ready(State(probes): State<Probes>) -> (StatusCode, Json<Ready>) {
    examine(&probes.database, &probes.readiness).await
}

async fn metrics_text(State(probes): State<Probes>, headers: HeaderMap) -> impl IntoResponse {
    match &probes.metrics {
        _ if !may_read(probes.token.as_ref(), &headers) => (StatusCode::UNAUTHORIZED, String::new()),
        None => (StatusCode::NOT_FOUND, String::new()),
        Some(handle) => {
            handle.run_upkeep();
            (StatusCode::OK, handle.render())
        }
    }
}
