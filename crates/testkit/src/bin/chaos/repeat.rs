//! Every event delivered again: whoever relies on hearing of a job once, or in order, is found out.
//!
//! Events of jobs only. That a run has settled is told to listeners outside as well; nothing of Docmill listens to that
//! stream, so there is nobody to tell twice.

use crate::broker::{self, JOBS};
use crate::plant::Plant;
use crate::work;
use anyhow::Result;
use async_nats::jetstream::Context;
use docmill_model::event::{JOB_EVENT_VERSION, JobEvent};
use docmill_model::{JobId, TenantId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How often each event comes.
const TIMES: usize = 10;
/// Events that are on their way at once, and tries of those that the broker does not take.
const PORTION: usize = 100;
const TRIES: usize = 3;
/// Most events that wait in the stream, which refuses what is more than 100,000.
const WAITING: u64 = 80_000;
/// Nothing was taken out of the stream for this long: what is in it stays there.
const STILL: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What was published.
#[derive(Debug, Default)]
pub struct Repeated {
    pub jobs: usize,
    /// Events that should have been published, and those that the broker has stored.
    pub events: usize,
    pub stored: usize,
}

/// What came of it after the end of all work.
#[derive(Debug, Default, serde::Serialize)]
pub struct Figures {
    pub jobs: usize,
    pub events: usize,
    pub stored: usize,
    /// Events that nobody took.
    pub unheard: u64,
    /// Attempts that began although every job had come to its end.
    pub attempts_begun: i64,
    pub seconds: f64,
}

impl Figures {
    /// True when there were events, and all of them were stored and heard.
    pub fn is_whole(&self) -> bool {
        self.events > 0 && self.stored == self.events && self.unheard == 0
    }
}

/// The subject and the body of an event.
type Event = (String, Vec<u8>);

/// Publishes the event of every job there is ten times, shuffled and without message ids, so that the broker's
/// deduplication keeps none of them away.
pub fn all_events(plant: &Plant, rng: &mut StdRng) -> Result<Repeated> {
    plant.runtime.block_on(async {
        let (jobs, mut events) = events(plant).await?;
        events.shuffle(rng);
        let stored = publish(&broker::connect(plant).await?, &events).await;
        Ok(Repeated { jobs, events: events.len(), stored })
    })
}

/// Publishes them all once more when every job has come to its end, and waits until they were heard: nothing may begin.
/// `None` where work has not ended, which this must not wake.
pub fn at_the_end(plant: &Plant, seed: u64) -> Result<Option<Figures>> {
    if plant.count(work::OPEN)? > 0 {
        return Ok(None);
    }
    let attempts = "SELECT count(*) FROM attempts";
    let (before, started) = (plant.count(attempts)?, Instant::now());
    // What the stream holds on to by now, such as a message in a block that lost a bit, is not what this adds.
    let resting = plant.runtime.block_on(async { anyhow::Ok(falls_to(&broker::connect(plant).await?, 0).await) })?;
    let resting = resting.unwrap_or_default();
    let repeated = all_events(plant, &mut StdRng::seed_from_u64(seed.wrapping_add(3)))?;
    let left = plant.runtime.block_on(async { anyhow::Ok(falls_to(&broker::connect(plant).await?, resting).await) })?;
    work::until_quiet(plant)?;
    Ok(Some(Figures {
        jobs: repeated.jobs,
        events: repeated.events,
        stored: repeated.stored,
        unheard: left.map_or(repeated.stored as u64, |left| left.saturating_sub(resting)),
        attempts_begun: plant.count(attempts)? - before,
        seconds: started.elapsed().as_secs_f64(),
    }))
}

/// The jobs there are, and the event of each as often as it comes.
async fn events(plant: &Plant) -> Result<(usize, Vec<Event>)> {
    let sql = "SELECT tenant_id, id, stage, emission FROM jobs ORDER BY id";
    let jobs: Vec<(Uuid, Uuid, String, i32)> = sqlx::query_as(sql).fetch_all(&mut plant.owner().await?).await?;
    let count = jobs.len();
    let mut events = Vec::with_capacity(count * TIMES);
    for (tenant, job, stage, emission) in jobs {
        let subject = format!("docmill.job.{stage}");
        let (tenant_id, job_id) = (TenantId(tenant), JobId(job));
        let event = JobEvent { v: JOB_EVENT_VERSION, tenant_id, job_id, stage, emission, traceparent: None };
        events.extend(std::iter::repeat_n((subject, serde_json::to_vec(&event)?), TIMES));
    }
    Ok((count, events))
}

/// How many of the events the broker has stored.
async fn publish(context: &Context, events: &[Event]) -> usize {
    let mut stored = 0;
    for portion in events.chunks(PORTION) {
        let mut open: Vec<&Event> = portion.iter().collect();
        for _ in 0..TRIES {
            if falls_to(context, WAITING).await.is_none_or(|held| held > WAITING) {
                return stored;
            }
            open = refused(context, open).await;
            if open.is_empty() {
                break;
            }
        }
        stored += portion.len() - open.len();
    }
    stored
}

/// Publishes events together; those that were not stored.
async fn refused<'a>(context: &Context, events: Vec<&'a Event>) -> Vec<&'a Event> {
    let mut sent = Vec::with_capacity(events.len());
    for (subject, body) in &events {
        sent.push(context.publish(subject.clone(), body.clone().into()).await);
    }
    let stored = sent.into_iter().map(|pending| async move {
        match pending {
            Ok(pending) => pending.await.is_ok(),
            Err(_) => false,
        }
    });
    let stored = futures::future::join_all(stored).await;
    events.into_iter().zip(stored).filter(|(_, stored)| !stored).map(|(event, _)| event).collect()
}

/// Waits until the stream holds at most `enough` events, or nothing is taken out of it any more; how many it then holds,
/// `None` when it is not there.
async fn falls_to(context: &Context, enough: u64) -> Option<u64> {
    let (mut least, mut fell) = (u64::MAX, Instant::now());
    loop {
        let stream = context.get_stream(JOBS).await.ok();
        let held = stream.map(|stream| stream.cached_info().state.messages);
        if let Some(now) = held.filter(|now| *now < least) {
            (least, fell) = (now, Instant::now());
        }
        if held.is_some_and(|held| held <= enough) || fell.elapsed() > STILL {
            return held;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
