//! The relay: outbox rows become events, and the scheduler in one.
//!
//! It releases only as much as the workers of a stage can soon take, and first what belongs to the tenant that had the
//! least lately, so that the backlog waits in Postgres and whoever has little to do does not wait behind it: what is in
//! the stream is taken in the order it came. A row is marked sent only after the broker's ack; several
//! relays and repeated sends are harmless, since an event is a doorbell and its message id is stable.

mod shares;

use crate::broker::{Broker, Outgoing};
use crate::engine::Core;
use docmill_model::event::{JOB_EVENT_VERSION, JobEvent, RunSettled};
use docmill_model::{DocumentId, JobId, RunId, TenantId};
use docmill_platform::database::DbError;
use shares::Shares;
use sqlx::Connection;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// Most rows of one send.
const BATCH: i64 = 128;

/// A relay, and what it remembers between two rounds.
#[derive(Default)]
pub(crate) struct Relay {
    shares: Shares,
}

impl Relay {
    /// One round over all stages; true when something was sent.
    pub async fn tick(&mut self, core: &Arc<Core>, broker: &Broker) -> Result<bool, DbError> {
        let mut sent = false;
        for window in waiting_stages(core).await? {
            // A stage that many processes work on has more leases than one process has slots.
            let ahead = self.shares.ahead(&window.stage, window.slots.max(window.leased), Instant::now());
            let free = window.slots.max(window.leased) + ahead - window.released - window.leased;
            if free > 0 {
                let ids = pick(core, &window.stage, free.min(BATCH), self.shares.used(&window.stage)).await?;
                let tenants = send_jobs(core, broker, &ids).await?;
                sent |= !tenants.is_empty();
                self.shares.count(&window.stage, tenants, Instant::now());
            }
        }
        sent |= send_settled(core, broker).await? > 0;
        Ok(sent)
    }
}

/// A stage with something to send.
#[derive(sqlx::FromRow)]
struct Window {
    stage: String,
    /// Of this process.
    slots: i64,
    /// Jobs whose events wait in the broker.
    released: i64,
    /// Jobs that run.
    leased: i64,
}

async fn waiting_stages(core: &Arc<Core>) -> Result<Vec<Window>, DbError> {
    let stages: Vec<String> = core.registry.names().into_iter().map(str::to_owned).collect();
    let slots: Vec<i64> = stages.iter().map(|stage| core.slots(stage) as i64).collect();
    let windows = sqlx::query_as(
        "SELECT s.stage, s.slots, f.released, f.leased
         FROM unnest($1::text[], $2::bigint[]) AS s (stage, slots)
         CROSS JOIN LATERAL (
            SELECT count(*) FILTER (WHERE j.state = 'ready') AS released, count(*) FILTER (WHERE j.state = 'leased') AS leased
            FROM jobs j WHERE j.stage = s.stage AND (j.state = 'leased' OR (j.state = 'ready' AND j.emitted_at IS NOT NULL))) AS f
         WHERE EXISTS (SELECT 1 FROM outbox o WHERE o.topic = 'job' AND o.stage = s.stage AND o.sent_at IS NULL)
           AND NOT EXISTS (SELECT 1 FROM pauses p WHERE p.kind = 'stage' AND p.subject = s.stage)",
    );
    Ok(windows.bind(stages).bind(slots).fetch_all(core.database.engine()).await?)
}

/// The rows to release next: each tenant's oldest first, and before the others the tenant that has the least in flight and
/// had the least lately.
async fn pick(
    core: &Arc<Core>,
    stage: &str,
    limit: i64,
    (tenants, used): (Vec<Uuid>, Vec<i64>),
) -> Result<Vec<i64>, DbError> {
    Ok(sqlx::query_scalar(
        "WITH RECURSIVE waiting AS (
            (SELECT o.tenant_id FROM outbox o WHERE o.topic = 'job' AND o.stage = $1 AND o.sent_at IS NULL
             ORDER BY o.tenant_id LIMIT 1)
            UNION ALL
            SELECT (SELECT o.tenant_id FROM outbox o WHERE o.topic = 'job' AND o.stage = $1 AND o.sent_at IS NULL
                    AND o.tenant_id > w.tenant_id ORDER BY o.tenant_id LIMIT 1)
            FROM waiting w WHERE w.tenant_id IS NOT NULL),
         busy AS (
            SELECT j.tenant_id, count(*) AS jobs FROM jobs j
            WHERE j.stage = $1 AND (j.state = 'leased' OR (j.state = 'ready' AND j.emitted_at IS NOT NULL)) GROUP BY j.tenant_id)
         SELECT next.id FROM waiting w LEFT JOIN busy b ON b.tenant_id = w.tenant_id
         LEFT JOIN unnest($3::uuid[], $4::bigint[]) AS had (tenant_id, jobs) ON had.tenant_id = w.tenant_id
         CROSS JOIN LATERAL (
            SELECT oldest.id, row_number() OVER (ORDER BY oldest.priority DESC, oldest.id) AS turn FROM (
                SELECT o.id, o.priority FROM outbox o
                WHERE o.topic = 'job' AND o.stage = $1 AND o.tenant_id = w.tenant_id AND o.sent_at IS NULL
                ORDER BY o.priority DESC, o.id LIMIT $2) AS oldest) AS next
         WHERE w.tenant_id IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM pauses p WHERE p.kind = 'tenant' AND p.subject = w.tenant_id::text)
         ORDER BY coalesce(b.jobs, 0) + coalesce(had.jobs, 0) + next.turn, next.id LIMIT $2",
    )
    .bind(stage)
    .bind(limit)
    .bind(tenants)
    .bind(used)
    .fetch_all(core.database.engine())
    .await?)
}

#[derive(sqlx::FromRow)]
struct JobRow {
    id: i64,
    tenant_id: Uuid,
    job_id: Uuid,
    stage: String,
    emission: i32,
    traceparent: Option<String>,
}

/// Sends the rows; the tenants of those that were sent, one for each.
async fn send_jobs(core: &Arc<Core>, broker: &Broker, ids: &[i64]) -> Result<Vec<TenantId>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut lent = core.database.lend_engine().await?;
    let mut transaction = lent.begin().await?;
    let rows: Vec<JobRow> = sqlx::query_as(
        "SELECT id, tenant_id, job_id, stage, emission, traceparent FROM outbox
         WHERE id = ANY ($1) AND sent_at IS NULL AND job_id IS NOT NULL
         ORDER BY array_position($1, id) FOR UPDATE SKIP LOCKED",
    )
    .bind(ids)
    .fetch_all(&mut *transaction)
    .await?;
    let events = rows.iter().map(|row| job_event(broker, row)).collect();
    core.config.failpoints.hit("publish.before", "relay").await;
    let stored = broker.publish(events, true).await;
    core.config.failpoints.hit("publish.after", "relay").await;
    let stored = rows.iter().zip(&stored).filter(|(_, stored)| **stored);
    let (sent, tenants): (Vec<i64>, Vec<TenantId>) = stored.map(|(row, _)| (row.id, TenantId(row.tenant_id))).unzip();
    // Rows a settlement holds are skipped: their job is moving on anyway. The jobs once more, as arrays: a join with the
    // rows alone may be planned as a look at all jobs.
    sqlx::query(
        "WITH sent AS (UPDATE outbox SET sent_at = now() WHERE id = ANY ($1) RETURNING tenant_id, job_id, emission),
         still AS (
            SELECT j.tenant_id, j.id FROM jobs j JOIN sent s ON s.tenant_id = j.tenant_id AND s.job_id = j.id
            WHERE j.tenant_id = ANY ($2) AND j.id = ANY ($3) AND j.state = 'ready' AND j.emission = s.emission
            FOR NO KEY UPDATE OF j SKIP LOCKED)
         UPDATE jobs j SET emitted_at = now() FROM still
         WHERE j.tenant_id = ANY ($2) AND j.id = ANY ($3) AND j.tenant_id = still.tenant_id AND j.id = still.id",
    )
    .bind(&sent)
    .bind(tenants.iter().map(|tenant| tenant.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.job_id).collect::<Vec<_>>())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    lent.give_back();
    core.config.failpoints.hit("publish.marked", "relay").await;
    finished(broker, "job", rows.len(), sent.len()).await;
    Ok(tenants)
}

fn job_event(broker: &Broker, row: &JobRow) -> Outgoing {
    let event = JobEvent {
        v: JOB_EVENT_VERSION,
        tenant_id: TenantId(row.tenant_id),
        job_id: JobId(row.job_id),
        stage: row.stage.clone(),
        emission: row.emission,
        traceparent: row.traceparent.clone(),
    };
    Outgoing {
        subject: broker.job_subject(&row.stage),
        message_id: format!("{}.{}", row.job_id, row.emission),
        body: serde_json::to_vec(&event).unwrap_or_default(),
    }
}

#[derive(sqlx::FromRow)]
struct SettledRow {
    id: i64,
    tenant_id: Uuid,
    run_id: Uuid,
    document_id: Uuid,
    state: String,
    code: Option<String>,
}

async fn send_settled(core: &Arc<Core>, broker: &Broker) -> Result<usize, DbError> {
    let waiting: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM outbox WHERE topic = 'settled' AND sent_at IS NULL)")
            .fetch_one(core.database.engine())
            .await?;
    if !waiting {
        return Ok(0);
    }
    let mut lent = core.database.lend_engine().await?;
    let mut transaction = lent.begin().await?;
    let rows: Vec<SettledRow> = sqlx::query_as(
        "SELECT o.id, o.tenant_id, o.run_id, r.document_id, r.state, r.code
         FROM outbox o JOIN runs r ON r.tenant_id = o.tenant_id AND r.id = o.run_id
         WHERE o.topic = 'settled' AND o.sent_at IS NULL ORDER BY o.id LIMIT $1 FOR UPDATE OF o SKIP LOCKED",
    )
    .bind(BATCH)
    .fetch_all(&mut *transaction)
    .await?;
    let events = rows.iter().map(|row| settled_event(broker, row)).collect();
    core.config.failpoints.hit("settled.before", "relay").await;
    let stored = broker.publish(events, false).await;
    core.config.failpoints.hit("settled.after", "relay").await;
    let sent: Vec<i64> = rows.iter().zip(&stored).filter(|(_, stored)| **stored).map(|(row, _)| row.id).collect();
    sqlx::query("UPDATE outbox SET sent_at = now() WHERE id = ANY ($1)").bind(&sent).execute(&mut *transaction).await?;
    transaction.commit().await?;
    lent.give_back();
    core.config.failpoints.hit("settled.marked", "relay").await;
    finished(broker, "settled", rows.len(), sent.len()).await;
    Ok(sent.len())
}

fn settled_event(broker: &Broker, row: &SettledRow) -> Outgoing {
    let event = RunSettled {
        v: JOB_EVENT_VERSION,
        tenant_id: TenantId(row.tenant_id),
        document_id: DocumentId(row.document_id),
        run_id: RunId(row.run_id),
        state: row.state.clone(),
        code: row.code.clone(),
    };
    Outgoing {
        subject: broker.settled_subject(TenantId(row.tenant_id)),
        message_id: format!("settled.{}", row.run_id),
        body: serde_json::to_vec(&event).unwrap_or_default(),
    }
}

/// A refused publish usually means that the stream is gone: it is created again before the next round.
async fn finished(broker: &Broker, topic: &'static str, asked: usize, sent: usize) {
    metrics::counter!("docmill_events_published_total", "topic" => topic).increment(sent as u64);
    if sent < asked {
        metrics::counter!("docmill_events_refused_total", "topic" => topic).increment((asked - sent) as u64);
        if let Err(failure) = broker.ensure_streams().await {
            tracing::warn!(code = %failure.code, "{}", failure.message);
        }
    }
}
