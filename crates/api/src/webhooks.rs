//! `/v1/webhooks`: where notifications go. Addresses are checked here and again when a delivery is sent; secrets are
//! shown once; what its receiver switched off with a 410 is switched on again. Not here: sending (the platform's), when
//! to try again and when to switch off (the engine's deliveries), writing deliveries (the notify stage's).

pub mod deliveries;

use crate::audit;
use crate::auth::Administrator;
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::{Code, EndpointId, Failure};
use docmill_platform::webhooks::{check_url, fresh_secret};
use secrecy::ExposeSecret;
use serde_json::json;
use time::OffsetDateTime;

/// Most endpoints of one tenant.
pub const MAX_ENDPOINTS: i64 = 20;
/// Secrets an endpoint holds at once: the current one and those that are being rotated out.
const MAX_SECRETS: i32 = 3;
/// What can be notified.
const EVENTS: [&str; 1] = ["document.settled"];

/// An endpoint to notify.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWebhook {
    /// An https URL on a public address.
    #[schema(example = "https://example.com/docmill")]
    pub url: String,
    /// What to be told; `["document.settled"]` when absent.
    #[serde(default)]
    pub events: Option<Vec<String>>,
}

/// An endpoint as it is listed.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct WebhookView {
    /// Identifier.
    pub id: EndpointId,
    /// Where notifications go.
    pub url: String,
    /// What is notified.
    pub events: Vec<String>,
    /// Secrets that sign: more than one while rotating.
    pub secrets: i32,
    /// When it was switched off.
    #[serde(with = "time::serde::rfc3339::option")]
    pub disabled_at: Option<OffsetDateTime>,
    /// Why it was switched off.
    pub disabled_reason: Option<String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// An endpoint with the secret it was just given: the only answer that holds it.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub struct WebhookSecret {
    /// Identifier.
    pub id: EndpointId,
    /// Signing secret as in Standard Webhooks (`whsec_…`). It cannot be shown again.
    pub secret: String,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: uuid::Uuid,
    url: String,
    events: Vec<String>,
    secrets: i32,
    disabled_at: Option<OffsetDateTime>,
    disabled_reason: Option<String>,
    created_at: OffsetDateTime,
}

impl From<Row> for WebhookView {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            url: row.url,
            events: row.events,
            secrets: row.secrets,
            disabled_at: row.disabled_at,
            disabled_reason: row.disabled_reason,
            created_at: row.created_at,
        }
    }
}

/// The endpoints of the tenant.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct WebhookList {
    /// Newest first.
    pub webhooks: Vec<WebhookView>,
}

/// Adds an endpoint.
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", request_body = CreateWebhook,
    responses((status = 201, body = WebhookSecret), (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    JsonBody(request): JsonBody<CreateWebhook>,
) -> Result<(StatusCode, Json<WebhookSecret>), Problem> {
    if request.url.len() > 2_000 || request.url.contains('\0') {
        return Err(Problem::field("url", "at most 2000 bytes without NUL are expected"));
    }
    check_url(&request.url, state.config.allow_private_webhooks)?;
    let events = request.events.unwrap_or_else(|| vec![EVENTS[0].to_owned()]);
    if events.is_empty() || events.iter().any(|event| !EVENTS.contains(&event.as_str())) {
        return Err(Problem::field("events", "at least one of `document.settled` is expected"));
    }
    let (id, secret) = (EndpointId::fresh(), fresh_secret());
    let stored = secret.expose_secret().to_owned();
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_endpoints WHERE tenant_id = current_tenant()")
                .fetch_one(&mut *connection)
                .await?;
            if count >= MAX_ENDPOINTS {
                let message = "the tenant has as many webhooks as it may have";
                return Err(Failure::limit(Code::FieldInvalid, message, MAX_ENDPOINTS as u64, count as u64).into());
            }
            sqlx::query(
                "INSERT INTO webhook_endpoints (tenant_id, id, url, secrets, events) VALUES (current_tenant(), $1, $2, $3, $4)",
            )
            .bind(id.0)
            .bind(request.url)
            .bind(vec![stored])
            .bind(&events)
            .execute(&mut *connection)
            .await?;
            audit::record(connection, &principal, "webhook.create", &id.to_string(), json!({"events": events})).await
        })
    });
    write.await?;
    Ok((StatusCode::CREATED, Json(WebhookSecret { id, secret: secret.expose_secret().to_owned() })))
}

/// Lists endpoints, without their secrets.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", responses((status = 200, body = WebhookList)))]
pub async fn list(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
) -> Result<Json<WebhookList>, Problem> {
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let rows: Vec<Row> = sqlx::query_as(
                "SELECT id, url, events, cardinality(secrets) AS secrets, disabled_at, disabled_reason, created_at
                 FROM webhook_endpoints WHERE tenant_id = current_tenant() ORDER BY created_at DESC, id DESC",
            )
            .fetch_all(connection)
            .await?;
            Ok(rows)
        })
    });
    Ok(Json(WebhookList { webhooks: read.await?.into_iter().map(Into::into).collect() }))
}

/// Gives an endpoint a new secret. The ones before it keep signing until two more rotations push them out.
#[utoipa::path(post, path = "/v1/webhooks/{id}/rotate", tag = "webhooks", params(("id" = String, Path, description = "Webhook id")),
    responses((status = 200, body = WebhookSecret), (status = 404, body = ProblemBody)))]
pub async fn rotate(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    Path(id): Path<String>,
) -> Result<Json<WebhookSecret>, Problem> {
    let id: EndpointId = id.parse().map_err(|_| Problem::not_found())?;
    let secret = fresh_secret();
    let stored = secret.expose_secret().to_owned();
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let done = sqlx::query(
                "UPDATE webhook_endpoints SET secrets = (array_prepend($2, secrets))[1:$3]
                 WHERE tenant_id = current_tenant() AND id = $1",
            )
            .bind(id.0)
            .bind(stored)
            .bind(MAX_SECRETS)
            .execute(&mut *connection)
            .await?;
            found(done.rows_affected())?;
            audit::record(connection, &principal, "webhook.rotate", &id.to_string(), json!({})).await
        })
    });
    write.await?;
    Ok(Json(WebhookSecret { id, secret: secret.expose_secret().to_owned() }))
}

/// Switches an endpoint on again that its receiver switched off by answering 410. One that is on stays on. What settled
/// meanwhile was not noted for it; deliveries whose turn came ended dead and can be sent again.
#[utoipa::path(post, path = "/v1/webhooks/{id}/enable", tag = "webhooks", params(("id" = String, Path, description = "Webhook id")),
    responses((status = 200, body = WebhookView), (status = 404, body = ProblemBody)))]
pub async fn enable(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    Path(id): Path<String>,
) -> Result<Json<WebhookView>, Problem> {
    let id: EndpointId = id.parse().map_err(|_| Problem::not_found())?;
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let row: Option<Row> = sqlx::query_as(
                "UPDATE webhook_endpoints SET disabled_at = NULL, disabled_reason = NULL
                 WHERE tenant_id = current_tenant() AND id = $1
                 RETURNING id, url, events, cardinality(secrets) AS secrets, disabled_at, disabled_reason, created_at",
            )
            .bind(id.0)
            .fetch_optional(&mut *connection)
            .await?;
            let row = row.ok_or_else(unknown)?;
            audit::record(connection, &principal, "webhook.enable", &id.to_string(), json!({})).await?;
            Ok(row)
        })
    });
    Ok(Json(write.await?.into()))
}

/// Removes an endpoint and its deliveries.
#[utoipa::path(delete, path = "/v1/webhooks/{id}", tag = "webhooks", params(("id" = String, Path, description = "Webhook id")),
    responses((status = 204), (status = 404, body = ProblemBody)))]
pub async fn delete(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id: EndpointId = id.parse().map_err(|_| Problem::not_found())?;
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let done = sqlx::query("DELETE FROM webhook_endpoints WHERE tenant_id = current_tenant() AND id = $1")
                .bind(id.0)
                .execute(&mut *connection)
                .await?;
            found(done.rows_affected())?;
            audit::record(connection, &principal, "webhook.delete", &id.to_string(), json!({})).await
        })
    });
    write.await?;
    Ok(StatusCode::NO_CONTENT)
}

fn found(rows: u64) -> Result<(), Failure> {
    if rows == 0 { Err(unknown()) } else { Ok(()) }
}

fn unknown() -> Failure {
    Failure::new(Code::NotFound, "no such webhook")
}
