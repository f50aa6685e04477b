//! Leases of this process, renewed by an OS thread of its own.
//!
//! Parsing, OCR and embedding keep every core busy; a renewal that waits for its turn on the shared runtime would come
//! too late. So one thread with a runtime, a connection and a broker client of its own renews all leases in one
//! statement at a third of their length and tells the broker that the messages are in progress. A lease that is no
//! longer ours fires the job's cancel token. A commit checks the fence, never the expiry.

use crate::broker::{self, BrokerConfig};
use crate::claim::Claimed;
use docmill_model::{JobId, TenantId};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

struct Entry {
    tenant_id: TenantId,
    fence: i64,
    reply: Option<String>,
    cancel: CancellationToken,
    lost: Arc<AtomicBool>,
}

type Held = Arc<Mutex<BTreeMap<JobId, Entry>>>;

/// All leases of one worker.
pub(crate) struct Leases {
    held: Held,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// One lease; renewed until it is dropped.
pub(crate) struct Lease {
    job_id: JobId,
    held: Held,
    /// Fires when the lease is lost; the worker fires it when it shuts down.
    pub cancel: CancellationToken,
    lost: Arc<AtomicBool>,
}

impl Lease {
    /// True when somebody else owns the job now.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.job_id);
    }
}

impl Leases {
    /// Starts the thread. `options` connect as the engine role.
    pub fn start(options: Arc<PgConnectOptions>, broker: BrokerConfig, lease: Duration) -> std::io::Result<Self> {
        let (held, stop) = (Held::default(), CancellationToken::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let renewer = Renewer { held: held.clone(), stop: stop.clone(), lease };
        let thread = std::thread::Builder::new().name("docmill-leases".to_owned()).spawn(move || {
            runtime.block_on(renewer.run(options, broker));
        })?;
        Ok(Self { held, stop, thread: Some(thread) })
    }

    /// Renews a claimed job's lease from now on; `reply` is where the broker hears about progress.
    pub fn hold(&self, claimed: &Claimed, reply: Option<String>) -> Lease {
        let (cancel, lost) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
        let entry = Entry {
            tenant_id: claimed.tenant_id,
            fence: claimed.fence,
            reply,
            cancel: cancel.clone(),
            lost: lost.clone(),
        };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(claimed.job_id, entry);
        Lease { job_id: claimed.job_id, held: self.held.clone(), cancel, lost }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.stop.cancel();
        // Not joined: the thread ends at its next await, and a drop must not block the runtime.
        drop(self.thread.take());
    }
}

struct Renewer {
    held: Held,
    stop: CancellationToken,
    lease: Duration,
}

impl Renewer {
    async fn run(self, options: Arc<PgConnectOptions>, broker: BrokerConfig) {
        let third = self.lease / 3;
        let pool =
            PgPoolOptions::new().max_connections(1).acquire_timeout(third).connect_lazy_with(options.as_ref().clone());
        let progress = broker::Progress::new(broker);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(third) => {}
            }
            let held = self.snapshot();
            if held.is_empty() {
                continue;
            }
            match tokio::time::timeout(self.lease, renew(&pool, &held, self.lease)).await {
                Ok(Ok(ours)) => self.drop_lost(&held, &ours),
                Ok(Err(error)) => {
                    tracing::warn!(error = %kind(&error), "leases could not be renewed; commits are fenced")
                }
                Err(_) => tracing::warn!("renewing leases took longer than a lease; commits are fenced"),
            }
            let replies: Vec<String> = held.iter().filter_map(|entry| entry.3.clone()).collect();
            let told = tokio::time::timeout(third, progress.tell(&replies)).await;
            if !matches!(told, Ok(Ok(()))) {
                tracing::debug!("the broker was not told about progress; the reconciler covers a second delivery");
            }
        }
    }

    fn snapshot(&self) -> Vec<(TenantId, JobId, i64, Option<String>)> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().map(|(job, entry)| (entry.tenant_id, *job, entry.fence, entry.reply.clone())).collect()
    }

    fn drop_lost(&self, asked: &[(TenantId, JobId, i64, Option<String>)], ours: &BTreeSet<Uuid>) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, job, fence, _) in asked.iter().filter(|(_, job, _, _)| !ours.contains(&job.0)) {
            if let Some(entry) = held.get(job).filter(|entry| entry.fence == *fence) {
                metrics::counter!("docmill_leases_lost_total").increment(1);
                entry.lost.store(true, Ordering::Release);
                entry.cancel.cancel();
            }
        }
    }
}

fn kind(error: &sqlx::Error) -> &'static str {
    if docmill_platform::database::is_unavailable(error) { "database unavailable" } else { "database error" }
}

/// Extends every lease that is still ours and returns those jobs. Rows locked by a settlement are skipped (it is ours
/// or it ends the lease), so a slow commit cannot make the other leases late.
async fn renew(
    pool: &PgPool,
    held: &[(TenantId, JobId, i64, Option<String>)],
    lease: Duration,
) -> Result<BTreeSet<Uuid>, sqlx::Error> {
    let tenants: Vec<Uuid> = held.iter().map(|entry| entry.0.0).collect();
    let jobs: Vec<Uuid> = held.iter().map(|entry| entry.1.0).collect();
    let fences: Vec<i64> = held.iter().map(|entry| entry.2).collect();
    let mut connection = pool.acquire().await?;
    sqlx::query(
        "WITH ours AS (
            SELECT j.tenant_id, j.id FROM jobs j
            JOIN unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS h (tenant_id, id, fence)
              ON j.tenant_id = h.tenant_id AND j.id = h.id AND j.fence = h.fence
            WHERE j.state = 'leased' FOR UPDATE OF j SKIP LOCKED)
         UPDATE jobs j SET lease_until = now() + make_interval(secs => $4) FROM ours
         WHERE j.tenant_id = ours.tenant_id AND j.id = ours.id",
    )
    .bind(&tenants)
    .bind(&jobs)
    .bind(&fences)
    .bind(lease.as_secs_f64())
    .execute(&mut *connection)
    .await?;
    let ours: Vec<Uuid> = sqlx::query_scalar(
        "SELECT j.id FROM jobs j JOIN unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS h (tenant_id, id, fence)
           ON j.tenant_id = h.tenant_id AND j.id = h.id AND j.fence = h.fence
         WHERE j.state = 'leased'",
    )
    .bind(&tenants)
    .bind(&jobs)
    .bind(&fences)
    .fetch_all(&mut *connection)
    .await?;
    Ok(ours.into_iter().collect())
}
