//! Every event delivered again: whoever relies on hearing of a job once, or in order, is found out.

use crate::plant::Plant;
use anyhow::{Context, Result};
use docmill_model::event::{JOB_EVENT_VERSION, JobEvent};
use docmill_model::{JobId, TenantId};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use uuid::Uuid;

/// How often each event comes.
const TIMES: usize = 10;

/// Publishes the event of every job there is ten times, shuffled and without message ids, so that the broker's
/// deduplication keeps none of them away.
pub fn all_events(plant: &Plant, rng: &mut StdRng) -> Result<String> {
    let url = plant.stack.nats_url()?;
    let (jobs, client) = plant.runtime.block_on(async {
        let sql = "SELECT tenant_id, id, stage, emission FROM jobs ORDER BY id";
        let jobs: Vec<(Uuid, Uuid, String, i32)> = sqlx::query_as(sql).fetch_all(&mut plant.owner().await?).await?;
        let client = docmill_testkit::connect_nats(&url).await.map_err(|error| anyhow::anyhow!(error))?;
        anyhow::Ok((jobs, client))
    })?;
    let mut events = Vec::new();
    for (tenant, job, stage, emission) in &jobs {
        let event = JobEvent {
            v: JOB_EVENT_VERSION,
            tenant_id: TenantId(*tenant),
            job_id: JobId(*job),
            stage: stage.clone(),
            emission: *emission,
            traceparent: None,
        };
        let body = serde_json::to_vec(&event)?;
        events.extend(std::iter::repeat_n((format!("docmill.job.{stage}"), body), TIMES));
    }
    events.shuffle(rng);
    plant.runtime.block_on(async {
        for (subject, body) in events {
            client.publish(subject, body.into()).await?;
        }
        client.flush().await.context("the events were not taken")
    })?;
    Ok(format!("{} jobs", jobs.len()))
}
