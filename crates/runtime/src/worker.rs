//! A worker: takes an event, claims its job, runs the stage, settles the job, acks.
//!
//! Shutdown gives running jobs a moment, then hands them back without burning an attempt. A lost lease or a cancelled
//! run stops the stage and writes nothing: whoever owns the job now decides.

use crate::broker::Delivery;
use crate::cache;
use crate::claim::{self, Claimed, Offer};
use crate::consumer;
use crate::engine::{Core, LOOP_LIMIT, within};
use crate::lease::{Lease, Leases};
use crate::machine::Outcome;
use crate::registry::ErasedStage;
use crate::settle::{self, Completion, Settled, Target};
use crate::stage::{InSample, JobContext, StageError};
use crate::turn::{Turn, Turns};
use docmill_model::event::{JOB_EVENT_VERSION, JobEvent};
use docmill_model::manifest::Manifest;
use docmill_model::{Code, Failure};
use docmill_platform::database::{DbError, is_unavailable};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Between two tries to write a settlement while the database is away.
const SETTLE_PAUSE: Duration = Duration::from_millis(250);
/// Tries of one commit before its failure is settled.
const COMMIT_TRIES: u32 = 5;
/// An event met while the database is away comes back after this long.
const AWAY_DELAY: Duration = Duration::from_secs(1);

/// All slots of one process.
pub(crate) struct Worker {
    pub core: Arc<Core>,
    /// No more events are fetched.
    pub stop: CancellationToken,
    leases: Leases,
    turns: Turns,
}

/// Serves the configured stages until `stop` fires and every running job has ended or was handed back.
pub(crate) async fn run(core: Arc<Core>, stop: CancellationToken) -> Result<(), Failure> {
    let stages = core.served_stages()?;
    let leases = Leases::start(core.database.engine().connect_options(), core.broker_config(), core.config.lease)
        .map_err(|_| Failure::new(Code::Internal, "the lease thread could not be started"))?;
    let worker = Arc::new(Worker { core: core.clone(), stop, leases, turns: Turns::default() });
    let mut serving = JoinSet::new();
    for stage in stages {
        let slots = core.slots(&stage);
        serving.spawn(consumer::serve(worker.clone(), stage, slots));
    }
    while serving.join_next().await.is_some() {}
    Ok(())
}

/// Everything one event leads to.
pub(crate) async fn handle(worker: &Arc<Worker>, stage: &str, delivery: &Delivery) {
    let core = &worker.core;
    let failpoints = &core.config.failpoints;
    let event = match read(stage, delivery) {
        Ok(event) => event,
        Err(reason) => return park(core, delivery, reason).await,
    };
    failpoints.hit("claim.before", stage).await;
    let Some((offer, turn)) = turn_of(worker, &event, delivery).await else { return };
    let pool = core.database.engine();
    let claiming = claim::take(pool, &event, offer, &core.config.worker, core.config.lease);
    let claimed = match within(LOOP_LIMIT, claiming).await {
        Ok(Some(claimed)) => claimed,
        Ok(None) => return delivery.ack().await,
        Err(error) => return unclaimed(delivery, error).await,
    };
    failpoints.hit("claim.after", stage).await;
    let lease = worker.leases.hold(&claimed, delivery.reply());
    attempt(worker, &claimed, &lease).await;
    drop(turn);
    core.kick.notify_one();
    failpoints.hit("ack.before", stage).await;
    delivery.ack().await;
    failpoints.hit("ack.after", stage).await;
}

/// The job of an event with the turn to run it; `None` when there is nothing to run and the delivery has its answer.
async fn turn_of<'w>(worker: &'w Worker, event: &JobEvent, delivery: &Delivery) -> Option<(Offer, Turn<'w>)> {
    let offer = offered(worker, event, delivery).await?;
    if let Some(turn) = worker.turns.free(offer.alone) {
        return Some((offer, turn));
    }
    let turn = {
        let mut next = std::pin::pin!(worker.turns.next(offer.alone));
        loop {
            tokio::select! {
                () = worker.stop.cancelled() => break None,
                turn = &mut next => break Some(turn),
                () = tokio::time::sleep(worker.core.config.lease / 3) => still_heard(worker, event, delivery).await,
            }
        }
    };
    if let Some(turn) = turn {
        // Meanwhile it may have been paused, taken by another process, or have killed one more.
        let again = offered(worker, event, delivery).await?;
        if again.alone == offer.alone {
            return Some((again, turn));
        }
    }
    delivery.nak(Duration::ZERO).await;
    None
}

/// Keeps the broker from delivering the event of a waiting job again, and others from taking the broker to be silent.
async fn still_heard(worker: &Worker, event: &JobEvent, delivery: &Delivery) {
    delivery.is_in_progress().await;
    if let Err(error) = within(LOOP_LIMIT, claim::heard(worker.core.database.engine(), event)).await {
        tracing::debug!(code = %error.into_failure().code, "it was not told that a job waits for its turn");
    }
}

async fn offered(worker: &Worker, event: &JobEvent, delivery: &Delivery) -> Option<Offer> {
    match within(LOOP_LIMIT, claim::look(worker.core.database.engine(), event)).await {
        Ok(Some(offer)) => return Some(offer),
        Ok(None) => delivery.ack().await,
        Err(error) => unclaimed(delivery, error).await,
    }
    None
}

async fn unclaimed(delivery: &Delivery, error: DbError) {
    tracing::warn!(code = %error.into_failure().code, "a job could not be claimed");
    delivery.nak(AWAY_DELAY).await;
}

fn read(stage: &str, delivery: &Delivery) -> Result<JobEvent, &'static str> {
    let event: JobEvent = serde_json::from_slice(delivery.body()).map_err(|_| "unreadable")?;
    if event.v != JOB_EVENT_VERSION {
        return Err("unknown version");
    }
    if event.stage != stage { Err("stage differs from subject") } else { Ok(event) }
}

/// An event nobody can read becomes a row an operator can see; its job, if any, is emitted again by the reconciler.
async fn park(core: &Arc<Core>, delivery: &Delivery, reason: &'static str) {
    metrics::counter!("docmill_events_parked_total").increment(1);
    tracing::warn!(code = %Code::EventInvalid, reason, size_bytes = delivery.body().len(), "an event was parked");
    let parked = sqlx::query("INSERT INTO parked_events (subject, size_bytes, reason) VALUES ($1, $2, $3)")
        .bind(delivery.subject())
        .bind(delivery.body().len() as i32)
        .bind(reason)
        .execute(core.database.engine())
        .await;
    match parked {
        Ok(_) => delivery.ack().await,
        Err(_) => delivery.nak(AWAY_DELAY).await,
    }
}

/// One attempt from claim to settlement.
async fn attempt(worker: &Arc<Worker>, claimed: &Claimed, lease: &Lease) {
    let core = &worker.core;
    let started = Instant::now();
    let ended = execute(worker, claimed, lease).await;
    let seconds = started.elapsed().as_secs_f64();
    let outcome = match ended {
        Ended::Settled(outcome) => outcome,
        Ended::Open(outcome) => {
            let name = outcome.as_str();
            if write_end(worker, claimed, lease, outcome, started).await { name } else { "fenced" }
        }
    };
    core.config.failpoints.hit("commit.after", &claimed.stage).await;
    metrics::counter!("docmill_jobs_total", "stage" => claimed.stage.clone(), "outcome" => outcome).increment(1);
    metrics::histogram!("docmill_job_seconds", "stage" => claimed.stage.clone()).record(seconds);
}

enum Ended {
    /// Written, or fenced off.
    Settled(&'static str),
    /// Still to be written.
    Open(Outcome),
}

impl From<StageError> for Ended {
    fn from(error: StageError) -> Self {
        Ended::Open(match error {
            StageError::Failed(failure) => Outcome::Failed(failure),
            StageError::Snooze(delay) => Outcome::Snoozed(delay),
            StageError::Cancelled => Outcome::Released,
        })
    }
}

/// Runs the stage beside the three things that may stop it: its time limit, its lease, the shutdown.
async fn execute(worker: &Arc<Worker>, claimed: &Claimed, lease: &Lease) -> Ended {
    let core = &worker.core;
    let policy = core.registry.policy(&claimed.stage);
    let work = AssertUnwindSafe(perform(core, claimed, lease)).catch_unwind();
    let stopped = async {
        tokio::select! {
            () = lease.cancel.cancelled() => {}
            () = worker.stop.cancelled() => {
                // Not a child token: a lost lease must not look like a shutdown.
                lease.cancel.cancel();
            }
        }
        tokio::time::sleep(core.config.grace).await;
    };
    tokio::select! {
        biased;
        ended = work => match ended {
            Ok(Ended::Open(Outcome::Failed(_))) if lease.cancel.is_cancelled() => Ended::Open(Outcome::Released),
            Ok(ended) => ended,
            Err(_) => Ended::Open(Outcome::Failed(Failure::new(Code::Internal, "the stage panicked"))),
        },
        () = stopped => Ended::Open(Outcome::Released),
        () = tokio::time::sleep(policy.timeout) => {
            let (limit, measured) = (policy.timeout.as_millis() as u64, policy.timeout.as_millis() as u64);
            let message = format!("stage `{}` ran longer than its limit in milliseconds", claimed.stage);
            Ended::Open(Outcome::Failed(Failure::limit(Code::StageTimeout, message, limit, measured)))
        }
    }
}

/// Inputs, cache, run; then prepare and commit, again when the database was away for a moment: the result is at hand.
async fn perform(core: &Arc<Core>, claimed: &Claimed, lease: &Lease) -> Ended {
    let produced = match produce(core, claimed, lease).await {
        Ok(produced) => produced,
        Err(error) => return error.into(),
    };
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match commit(core, claimed, &produced).await {
            Ok(Settled::Applied(_)) => return Ended::Settled("done"),
            Ok(Settled::Fenced) => return Ended::Settled("fenced"),
            Ok(Settled::Refused(error)) | Err(error) => error,
        };
        match error {
            StageError::Failed(failure) if failure.code == Code::DatabaseUnavailable && tries < COMMIT_TRIES => {
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            error => return error.into(),
        }
    }
}

/// What a run produced, ready to be committed.
struct Produced {
    erased: Arc<dyn ErasedStage>,
    settings: serde_json::Value,
    job: JobContext,
    manifest: Manifest,
    cached: bool,
    cache_key: Option<String>,
    began: Instant,
}

async fn produce(core: &Arc<Core>, claimed: &Claimed, lease: &Lease) -> Result<Produced, StageError> {
    let failpoints = &core.config.failpoints;
    let pipeline = core.pipelines.resolve(&core.database, &claimed.pipeline_version).await?;
    let missing =
        || Failure::new(Code::PipelineInvalid, format!("stage `{}` is not part of this build", claimed.stage));
    let erased = core.registry.get(&claimed.stage).ok_or_else(missing)?.clone();
    let stage = pipeline.stage(&claimed.stage).ok_or_else(missing)?;
    let start = cache::start(core, claimed, &pipeline, stage, &erased).await?;
    let job = JobContext {
        tenant_id: claimed.tenant_id,
        document_id: claimed.document_id,
        version_id: claimed.version_id,
        run_id: claimed.run_id,
        job_id: claimed.job_id,
        fence: claimed.fence,
        pipeline_version: claimed.pipeline_version.clone(),
        schemas: pipeline.schemas.clone(),
        inputs: start.inputs,
        database: core.database.clone(),
        artifacts: core.artifacts.at(&claimed.stage),
        cancel: lease.cancel.clone(),
        traceparent: claimed.traceparent.clone(),
        failpoints: failpoints.at(&claimed.stage),
    };
    failpoints.hit("run.before", &claimed.stage).await;
    let began = Instant::now();
    let cached = start.hit.is_some();
    let manifest = match start.hit {
        Some(manifest) => manifest,
        None => erased.run(&job, &stage.settings).await?,
    };
    failpoints.hit("run.after", &claimed.stage).await;
    let settings = stage.settings.clone();
    Ok(Produced { erased, settings, job, manifest, cached, cache_key: start.key, began })
}

async fn commit(core: &Arc<Core>, claimed: &Claimed, produced: &Produced) -> Result<Settled, StageError> {
    let prepared = produced.erased.clone().prepare(&produced.job, &produced.settings, &produced.manifest).await?;
    core.config.failpoints.hit("prepare.after", &claimed.stage).await;
    let is_shown = !claimed.is_sample || produced.erased.in_sample() == InSample::Whole;
    let completion = Completion {
        job: produced.job.clone(),
        manifest: produced.manifest.clone(),
        prepared: is_shown.then_some(prepared),
        cached: produced.cached,
        cache_key: produced.cache_key.clone(),
        run_millis: produced.began.elapsed().as_millis() as i64,
    };
    core.config.failpoints.hit("commit.before", &claimed.stage).await;
    Ok(settle::complete(core, &Target::from(claimed), completion).await?)
}

/// Writes an end that is not completion, waiting for the database as long as the lease is ours. False when fenced.
async fn write_end(worker: &Arc<Worker>, claimed: &Claimed, lease: &Lease, outcome: Outcome, started: Instant) -> bool {
    let core = &worker.core;
    let target = Target::from(claimed);
    let millis = started.elapsed().as_millis() as i64;
    let deadline = Instant::now() + core.config.lease.max(Duration::from_secs(5)) * 6;
    loop {
        if lease.is_lost() {
            return false;
        }
        match settle::end(core, &target, outcome.clone(), Some(millis)).await {
            Ok(Settled::Applied(settlement)) => {
                log_end(claimed, &settlement);
                return true;
            }
            Ok(_) => return false,
            Err(DbError::Sqlx(error))
                if is_unavailable(&error) && Instant::now() < deadline && !worker.stop.is_cancelled() =>
            {
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            Err(error) => {
                // The lease runs out and the reconciler settles the job as lost.
                tracing::error!(job = %claimed.job_id, code = %error.into_failure().code, "an attempt's end was not written");
                return false;
            }
        }
    }
}

fn log_end(claimed: &Claimed, settlement: &crate::machine::Settlement) {
    if let Some(failure) = &settlement.failure {
        tracing::info!(
            job = %claimed.job_id, document = %claimed.document_id, stage = claimed.stage, code = %failure.code,
            state = settlement.next.state().as_str(), attempt = claimed.fence, "an attempt failed"
        );
    }
}
