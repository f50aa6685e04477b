//! Liveness and readiness, for orchestrators and load balancers. Nothing here needs a key or tells about tenants.

use crate::state::{ApiState, Readiness};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse};
use docmill_platform::database::Database;
use std::time::Duration;

/// Longest wait for the database's sign of life.
const DATABASE_PATIENCE: Duration = Duration::from_secs(2);
/// Which process answered.
pub const INSTANCE_HEADER: &str = "docmill-instance";

/// The process runs.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Health {
    /// Always `ok`.
    pub status: &'static str,
}

/// Whether this process should get requests.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Ready {
    /// True when requests can be answered.
    pub ready: bool,
    /// The database answers.
    pub database: bool,
    /// The broker answers; absent where this process holds no connection. Not required: work waits in the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<bool>,
    /// The lexical index node is in rotation; absent where this process runs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<bool>,
}

/// Tells that the process runs.
#[utoipa::path(get, path = "/healthz", tag = "service", responses((status = 200, body = Health)))]
pub async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Tells whether requests can be answered.
#[utoipa::path(get, path = "/readyz", tag = "service", responses((status = 200, body = Ready), (status = 503, body = Ready)))]
pub async fn readyz(State(state): State<ApiState>) -> impl IntoResponse {
    let instance = state.config.instance.clone().map(|instance| [(INSTANCE_HEADER, instance)]);
    let (status, body) = examine(&state.database, &state.readiness).await;
    (status, AppendHeaders(instance.into_iter().flatten()), body)
}

/// What a probe is told.
pub(crate) async fn examine(database: &Database, readiness: &Readiness) -> (StatusCode, Json<Ready>) {
    let alive = sqlx::query("SELECT 1").execute(database.engine());
    let database = matches!(tokio::time::timeout(DATABASE_PATIENCE, alive).await, Ok(Ok(_)));
    let broker = readiness.broker.as_ref().and_then(docmill_runtime::BrokerStatus::is_connected);
    let index = readiness.index.as_ref().map(docmill_retrieval::follower::FollowerStatus::is_live);
    let ready = database && index != Some(false);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, database, broker, index }))
}
