//! notify: a settled run becomes one delivery row per webhook endpoint.
//!
//! Runs on settlement, whatever it is, and only inserts rows: deliveries have timers of their own and keep no run open.
//! One id per endpoint and event, derived, so a repeated commit changes nothing and the receiver can recognise a repeat.
//! The payload holds ids, states and codes; no name, no text. Sending and signing is the webhook sender's.

use docmill_model::id::derived_uuid;
use docmill_model::manifest::Manifest;
use docmill_platform::database::DbError;
use docmill_runtime::{JobContext, Stage, StageError};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The one event there is.
const EVENT: &str = "document.settled";

/// Settings of the notify stage; there are none yet.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NotifyConfig {}

/// The notify stage.
pub struct Notify;

#[async_trait::async_trait]
impl Stage for Notify {
    const NAME: &'static str = "notify";
    const VERSION: u32 = 1;
    type Config = NotifyConfig;
    type Prepared = ();

    fn cacheable(&self) -> bool {
        false
    }

    async fn run(&self, _: &JobContext, _: &NotifyConfig) -> Result<Manifest, StageError> {
        Ok(Manifest::default())
    }

    async fn prepare(&self, _: &JobContext, _: &NotifyConfig, _: &Manifest) -> Result<(), StageError> {
        Ok(())
    }

    async fn commit(
        &self,
        connection: &mut PgConnection,
        job: &JobContext,
        _: &Manifest,
        (): (),
    ) -> Result<(), StageError> {
        let endpoints: Vec<uuid::Uuid> = sqlx::query_scalar(
            "SELECT id FROM webhook_endpoints WHERE tenant_id = current_tenant() AND disabled_at IS NULL AND $1 = ANY (events) ORDER BY id",
        )
        .bind(EVENT)
        .fetch_all(&mut *connection)
        .await?;
        if endpoints.is_empty() {
            return Ok(());
        }
        let payload = payload(connection, job).await?;
        for endpoint in endpoints {
            deliver(connection, job, endpoint, &payload).await?;
        }
        Ok(())
    }
}

async fn deliver(
    connection: &mut PgConnection,
    job: &JobContext,
    endpoint: uuid::Uuid,
    payload: &Value,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO deliveries (tenant_id, id, endpoint_id, document_id, run_id, payload)
         VALUES (current_tenant(), $1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(derived_uuid(&[b"delivery", EVENT.as_bytes(), endpoint.as_bytes(), job.run_id.0.as_bytes()]))
    .bind(endpoint)
    .bind(job.document_id.0)
    .bind(job.run_id.0)
    .bind(payload)
    .execute(connection)
    .await?;
    Ok(())
}

/// The body of a Standard Webhooks message: type, timestamp, data.
async fn payload(connection: &mut PgConnection, job: &JobContext) -> Result<Value, DbError> {
    let (state, code, settled_at): (String, Option<String>, Option<OffsetDateTime>) =
        sqlx::query_as("SELECT state, code, settled_at FROM runs WHERE tenant_id = current_tenant() AND id = $1")
            .bind(job.run_id.0)
            .fetch_one(&mut *connection)
            .await?;
    let stages: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT stage, state, code FROM jobs WHERE tenant_id = current_tenant() AND run_id = $1 AND NOT on_settled ORDER BY stage, shard",
    )
    .bind(job.run_id.0)
    .fetch_all(connection)
    .await?;
    let stages: Map<String, Value> =
        stages.into_iter().map(|(stage, state, code)| (stage, json!({ "state": state, "code": code }))).collect();
    let timestamp = settled_at.and_then(|at| at.format(&Rfc3339).ok());
    Ok(json!({
        "type": EVENT,
        "timestamp": timestamp,
        "data": {
            "document_id": job.document_id,
            "version_id": job.version_id,
            "run_id": job.run_id,
            "pipeline_version": job.pipeline_version,
            "state": state,
            "code": code,
            "stages": stages,
        },
    }))
}
