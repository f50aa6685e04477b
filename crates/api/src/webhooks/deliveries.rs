//! `/v1/webhooks/{id}/deliveries`: what was sent to an endpoint, how it went, and sending it again.

use super::found;
use crate::audit;
use crate::auth::Administrator;
use crate::body::QueryParams;
use crate::pager::Pager;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_model::{Code, DeliveryId, DocumentId, EndpointId, RunId};
use serde_json::json;
use time::OffsetDateTime;

const STATES: [&str; 3] = ["ready", "done", "dead"];

/// Filter and paging of deliveries.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeliveryQuery {
    /// Only this state: `ready`, `done` or `dead`.
    state: Option<String>,
    /// Page size, 1 to 200; 50 when absent.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One notification to one endpoint.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DeliveryView {
    /// Identifier; the `webhook-id` header of every try.
    pub id: DeliveryId,
    /// What it tells about.
    pub document_id: DocumentId,
    /// The run that settled.
    pub run_id: RunId,
    /// `ready` (to be sent or sent again), `done` or `dead`.
    pub state: String,
    /// Tries so far.
    pub attempts: i32,
    /// When it is tried next.
    #[serde(with = "time::serde::rfc3339")]
    pub next_at: OffsetDateTime,
    /// HTTP status of the last try.
    pub last_status: Option<i32>,
    /// Code of the last failure.
    pub code: Option<String>,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// One page of deliveries, newest first.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DeliveryPage {
    /// The deliveries.
    pub deliveries: Vec<DeliveryView>,
    /// Pass as `cursor` for the next page; absent on the last.
    pub next_cursor: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: uuid::Uuid,
    document_id: uuid::Uuid,
    run_id: uuid::Uuid,
    state: String,
    attempts: i32,
    next_at: OffsetDateTime,
    last_status: Option<i32>,
    code: Option<String>,
    created_at: OffsetDateTime,
    finished_at: Option<OffsetDateTime>,
}

impl From<Row> for DeliveryView {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            document_id: row.document_id.into(),
            run_id: row.run_id.into(),
            state: row.state,
            attempts: row.attempts,
            next_at: row.next_at,
            last_status: row.last_status,
            code: row.code,
            created_at: row.created_at,
            finished_at: row.finished_at,
        }
    }
}

/// Lists deliveries of one endpoint, newest first.
#[utoipa::path(get, path = "/v1/webhooks/{id}/deliveries", tag = "webhooks",
    params(("id" = String, Path, description = "Webhook id"), DeliveryQuery),
    responses((status = 200, body = DeliveryPage), (status = 404, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<DeliveryQuery>,
) -> Result<Json<DeliveryPage>, Problem> {
    let endpoint: EndpointId = id.parse().map_err(|_| Problem::not_found())?;
    if query.state.as_ref().is_some_and(|s| !STATES.contains(&s.as_str())) {
        return Err(Problem::field("state", "one of ready, done, dead is expected"));
    }
    let (tenant, listing) = (principal.tenant_id, format!("deliveries:{endpoint}"));
    let pager: Pager<(OffsetDateTime, uuid::Uuid)> =
        Pager::new(&state, tenant, listing, query.limit, query.cursor.as_deref())?;
    let (before, limit) = (pager.after, pager.rows());
    let read = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let known: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM webhook_endpoints WHERE tenant_id = current_tenant() AND id = $1",
            )
            .bind(endpoint.0)
            .fetch_one(&mut *connection)
            .await?;
            found(known as u64)?;
            let rows: Vec<Row> = sqlx::query_as(
                "SELECT id, document_id, run_id, state, attempts, next_at, last_status, code, created_at, finished_at
                 FROM deliveries
                 WHERE tenant_id = current_tenant() AND endpoint_id = $1 AND ($2::text IS NULL OR state = $2)
                   AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4))
                 ORDER BY created_at DESC, id DESC LIMIT $5",
            )
            .bind(endpoint.0)
            .bind(query.state)
            .bind(before.map(|b| b.0))
            .bind(before.map(|b| b.1))
            .bind(limit)
            .fetch_all(connection)
            .await?;
            Ok(rows)
        })
    });
    let mut rows = read.await?;
    let next_cursor = pager.cut(&state, &mut rows, |row| (row.created_at, row.id));
    Ok(Json(DeliveryPage { deliveries: rows.into_iter().map(Into::into).collect(), next_cursor }))
}

/// Sends a finished delivery again, under the same id.
#[utoipa::path(post, path = "/v1/webhooks/{id}/deliveries/{delivery}/retry", tag = "webhooks",
    params(("id" = String, Path, description = "Webhook id"), ("delivery" = String, Path, description = "Delivery id")),
    responses((status = 200, body = DeliveryView), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
pub async fn retry(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    Path((id, delivery)): Path<(String, String)>,
) -> Result<Json<DeliveryView>, Problem> {
    let endpoint: EndpointId = id.parse().map_err(|_| Problem::not_found())?;
    let delivery: DeliveryId = delivery.parse().map_err(|_| Problem::not_found())?;
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let known: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM deliveries WHERE tenant_id = current_tenant() AND id = $1 AND endpoint_id = $2",
            )
            .bind(delivery.0)
            .bind(endpoint.0)
            .fetch_one(&mut *connection)
            .await?;
            found(known as u64)?;
            let row: Option<Row> = sqlx::query_as(
                "UPDATE deliveries SET state = 'ready', attempts = 0, next_at = now(), finished_at = NULL, code = NULL
                 WHERE tenant_id = current_tenant() AND id = $1 AND state <> 'ready'
                 RETURNING id, document_id, run_id, state, attempts, next_at, last_status, code, created_at, finished_at",
            )
            .bind(delivery.0)
            .fetch_optional(&mut *connection)
            .await?;
            let row = row.ok_or_else(|| docmill_model::Failure::new(Code::Conflict, "the delivery is still being sent"))?;
            let data = json!({"webhook_id": endpoint});
            audit::record(connection, &principal, "delivery.retry", &delivery.to_string(), data).await?;
            Ok(row)
        })
    });
    Ok(Json(write.await?.into()))
}
