//! Webhook deliveries: rows with timers, leases and fences of their own. They keep no run open.
//!
//! The notify stage inserts one row for each endpoint; this loop sends what is due. At least once, under one stable
//! id, on the schedule of Standard Webhooks (ten tries over 75 hours, with jitter). A 410 disables the endpoint until
//! somebody enables it again (the API's).

use crate::engine::{Core, LOOP_LIMIT, within};
use async_trait::async_trait;
use docmill_model::{Code, DeliveryId, Failure, TenantId};
use docmill_platform::database::DbError;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Delays before the second, third, … try: 75.6 hours in all (Standard Webhooks, "retry schedule").
pub const SCHEDULE_SECS: &[u64] = &[5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
/// A delay grows by up to this share, so that receivers are not hit in step.
const JITTER: f64 = 0.1;
/// Deliveries one process sends at once.
const SLOTS: i64 = 8;
/// Longer than any single send may take.
const LEASE_SECS: f64 = 60.0;
const POLL: Duration = Duration::from_millis(500);

/// One delivery to send.
#[derive(Clone)]
pub struct DeliveryRequest {
    /// The stable `webhook-id`.
    pub id: DeliveryId,
    /// Where.
    pub url: String,
    /// Signing secrets, the current one first.
    pub secrets: Vec<String>,
    /// Time of this try, by the database's clock.
    pub timestamp: OffsetDateTime,
    /// The body, byte for byte as signed.
    pub body: Vec<u8>,
}

/// Sends one delivery: signature, address check, no redirects.
#[async_trait]
pub trait DeliverySender: Send + Sync {
    /// The receiver's status.
    ///
    /// # Errors
    /// `DELIVERY_BLOCKED` for an address that is not public (not tried again), `DELIVERY_FAILED` for no answer.
    async fn send(&self, request: &DeliveryRequest) -> Result<u16, Failure>;
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    Done,
    Again(Duration),
    Dead,
    /// The receiver says that it is gone: the endpoint is switched off.
    Gone,
}

/// Decides about a try; `attempts` counts it. `jitter` is a random number in 0..1.
fn verdict(result: &Result<u16, Failure>, attempts: i32, jitter: f64) -> Verdict {
    match result {
        Ok(200..=299) => Verdict::Done,
        Ok(410) => Verdict::Gone,
        Err(failure) if failure.code == Code::DeliveryBlocked => Verdict::Dead,
        _ => match SCHEDULE_SECS.get(attempts.max(1) as usize - 1) {
            Some(&secs) => Verdict::Again(Duration::from_secs_f64(secs as f64 * (1.0 + JITTER * jitter))),
            None => Verdict::Dead,
        },
    }
}

/// Sends what is due until `stop` fires.
pub(crate) async fn run(core: &Arc<Core>, sender: Arc<dyn DeliverySender>, stop: CancellationToken) {
    let mut sending = JoinSet::new();
    while !stop.is_cancelled() {
        while sending.try_join_next().is_some() {}
        let free = SLOTS - sending.len() as i64;
        let due = if free > 0 { within(LOOP_LIMIT, due(core, free)).await.unwrap_or_default() } else { Vec::new() };
        let idle = due.is_empty();
        for (tenant, delivery) in due {
            let (core, sender) = (core.clone(), sender.clone());
            sending.spawn(async move {
                if let Err(error) = deliver(&core, &*sender, TenantId(tenant), delivery).await {
                    tracing::warn!(code = %error.into_failure().code, "a delivery is tried again after its lease");
                }
            });
        }
        if idle {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        } else {
            tokio::task::yield_now().await;
        }
    }
    while sending.join_next().await.is_some() {}
}

async fn due(core: &Arc<Core>, limit: i64) -> Result<Vec<(Uuid, Uuid)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT tenant_id, id FROM deliveries
         WHERE state = 'ready' AND next_at <= now() AND (lease_until IS NULL OR lease_until < now()) ORDER BY next_at LIMIT $1",
    )
    .bind(limit)
    .fetch_all(core.database.engine())
    .await?)
}

#[derive(sqlx::FromRow)]
struct Taken {
    fence: i64,
    attempts: i32,
    endpoint_id: Uuid,
    payload: String,
    url: String,
    secrets: Vec<String>,
    enabled: bool,
    at: OffsetDateTime,
}

async fn deliver(core: &Arc<Core>, sender: &dyn DeliverySender, tenant: TenantId, id: Uuid) -> Result<(), DbError> {
    let Some(taken) = take(core, tenant, id).await? else { return Ok(()) };
    core.config.failpoints.hit("deliver.before", "deliveries").await;
    let result = if taken.enabled {
        let request = DeliveryRequest {
            id: DeliveryId(id),
            url: taken.url.clone(),
            secrets: taken.secrets.clone(),
            timestamp: taken.at,
            body: taken.payload.clone().into_bytes(),
        };
        sender.send(&request).await
    } else {
        Err(Failure::new(Code::DeliveryBlocked, "the endpoint is switched off"))
    };
    core.config.failpoints.hit("deliver.after", "deliveries").await;
    settle(core, tenant, id, &taken, &result).await
}

/// Counts the try before it happens.
async fn take(core: &Arc<Core>, tenant: TenantId, id: Uuid) -> Result<Option<Taken>, DbError> {
    core.database
        .write(tenant, move |connection| {
            Box::pin(async move {
                Ok(sqlx::query_as(
                    "UPDATE deliveries d SET fence = d.fence + 1, attempts = d.attempts + 1,
                         lease_until = now() + make_interval(secs => $2)
                     FROM webhook_endpoints e
                     WHERE d.tenant_id = current_tenant() AND d.id = $1 AND d.state = 'ready' AND d.next_at <= now()
                       AND (d.lease_until IS NULL OR d.lease_until < now())
                       AND e.tenant_id = d.tenant_id AND e.id = d.endpoint_id
                     RETURNING d.fence, d.attempts, d.endpoint_id, d.payload::text AS payload, e.url, e.secrets,
                               e.disabled_at IS NULL AS enabled, now() AS at",
                )
                .bind(id)
                .bind(LEASE_SECS)
                .fetch_optional(connection)
                .await?)
            })
        })
        .await
}

async fn settle(
    core: &Arc<Core>,
    tenant: TenantId,
    id: Uuid,
    taken: &Taken,
    result: &Result<u16, Failure>,
) -> Result<(), DbError> {
    let verdict = verdict(result, taken.attempts, rand::random::<f64>());
    let status = result.as_ref().ok().map(|status| i32::from(*status));
    let code = match (&verdict, result) {
        (Verdict::Done, _) => None,
        (_, Err(failure)) => Some(failure.code.as_str()),
        (_, Ok(_)) => Some(Code::DeliveryFailed.as_str()),
    };
    let (state, delay) = match &verdict {
        Verdict::Done => ("done", Duration::ZERO),
        Verdict::Again(delay) => ("ready", *delay),
        Verdict::Dead | Verdict::Gone => ("dead", Duration::ZERO),
    };
    metrics::counter!("docmill_deliveries_total", "outcome" => state).increment(1);
    let (fence, endpoint, gone) = (taken.fence, taken.endpoint_id, verdict == Verdict::Gone);
    core.database
        .write(tenant, move |connection| {
            Box::pin(async move {
                let ours = sqlx::query(
                    "UPDATE deliveries SET state = $3, next_at = now() + make_interval(secs => $4), lease_until = NULL,
                         last_status = $5, code = $6, finished_at = CASE WHEN $3 <> 'ready' THEN now() END
                     WHERE tenant_id = current_tenant() AND id = $1 AND fence = $2 AND state = 'ready'",
                )
                .bind(id)
                .bind(fence)
                .bind(state)
                .bind(delay.as_secs_f64())
                .bind(status)
                .bind(code)
                .execute(&mut *connection)
                .await?
                .rows_affected()
                    == 1;
                if ours && gone {
                    sqlx::query(
                        "UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = 'the receiver answered 410'
                         WHERE tenant_id = current_tenant() AND id = $1 AND disabled_at IS NULL",
                    )
                    .bind(endpoint)
                    .execute(connection)
                    .await?;
                }
                Ok(())
            })
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_tries_over_three_days() {
        let failed: Result<u16, Failure> = Ok(500);
        let mut total = Duration::ZERO;
        let mut tries = 1;
        while let Verdict::Again(delay) = verdict(&failed, tries, 0.0) {
            total += delay;
            tries += 1;
        }
        assert!(tries >= 10, "{tries} tries");
        assert!(total >= Duration::from_secs(72 * 3600), "{total:?}");
    }

    #[test]
    fn answers_decide() {
        assert_eq!(verdict(&Ok(204), 1, 0.5), Verdict::Done);
        assert_eq!(verdict(&Ok(410), 1, 0.5), Verdict::Gone);
        assert!(matches!(verdict(&Ok(302), 1, 0.5), Verdict::Again(_)), "a redirect is a failure");
        let blocked = Err(Failure::new(Code::DeliveryBlocked, "private address"));
        assert_eq!(verdict(&blocked, 1, 0.5), Verdict::Dead);
        let silent = Err(Failure::new(Code::DeliveryFailed, "no answer"));
        assert_eq!(verdict(&silent, 1, 1.0), Verdict::Again(Duration::from_millis(5500)));
    }
}
