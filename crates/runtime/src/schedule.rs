//! Schedules: documents of a pipeline are processed again at times its file names.
//!
//! A schedule is policy, like retention: it stands in today's pipeline file, is no part of a version, and holds for every
//! tenant apart. A firing is a replay with a plan, a budget and the lowest priority, bound to the time slot it serves.
//! The row of the schedule is turned to its next time in the transaction that writes the replay: a slot is served once,
//! whatever is killed. While a firing is at work no other begins, and times that were missed meanwhile, or while
//! everything was down, are made up for by one.

mod cron;
mod fire;
mod rows;

pub use cron::Cron;
pub(crate) use fire::run;
pub use fire::{check_space, plan, run_in};
pub use rows::{ScheduleState, list, set_paused_in};

use crate::pipeline::PipelineStage;
use crate::replay::{RUNS_EVERY_TIME, ReplayFilter};
use time::{Duration, OffsetDateTime};

/// The stage that writes vectors.
const EMBED: &str = "embed";
/// Documents of one firing when the file names no number.
const DOCUMENTS: u32 = 1_000;
/// Most documents of one firing.
const DOCUMENTS_LIMIT: u32 = 100_000;
/// Most dollars of one firing.
const COST_LIMIT_USD: f64 = 1e6;
/// Oldest age that can be asked for: a hundred years.
const DAYS_LIMIT: u32 = 36_500;

/// What a pipeline file says of a schedule.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// When, in UTC: minute, hour, day of the month, month, day of the week, as in crontab.
    pub cron: String,
    /// Documents whose last run had this stage; with `status`, the stage's own outcome counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Compute that stage even when its result is remembered.
    #[serde(default)]
    pub recompute: bool,
    /// `done`, `failed` (includes partial), `partial` or `cancelled`: how the last run, or its stage, ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The last run failed with this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Only documents whose last run began so many days ago, 1 to 36,500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 36500))]
    pub older_than_days: Option<u32>,
    /// Only documents with a visible passage that has no vector in the embedding space of this name. They are embedded into it
    /// also while it is paused: a space that is entered paused is built by its schedules alone, within their budgets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embed_into: Option<String>,
    /// Documents of one firing, 1 to 100,000; those whose last run is the oldest come first.
    #[serde(default = "documents")]
    #[schemars(range(min = 1, max = 100000))]
    pub max_documents: u32,
    /// Dollars of one firing: when they are spent it starts no more runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_usd: Option<f64>,
    /// Runs started in any minute, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub per_minute: Option<u32>,
}

fn documents() -> u32 {
    DOCUMENTS
}

/// A checked schedule of a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// When.
    pub cron: Cron,
    /// What, as the file says it.
    pub wanted: Wanted,
}

impl Schedule {
    /// Checks what a file says against the stages of its pipeline; `is_remembered` tells whether the cache keeps what a
    /// stage gives.
    ///
    /// # Errors
    /// One sentence with the key in backticks.
    pub(crate) fn check(
        wanted: Wanted,
        stages: &[PipelineStage],
        is_remembered: impl Fn(&str) -> bool,
    ) -> Result<Self, String> {
        let cron = Cron::parse(&wanted.cron).map_err(|problem| format!("`cron`: {problem}"))?;
        if wanted.embed_into.is_some() && stages.iter().all(|stage| stage.name != EMBED) {
            return Err(format!("`embed_into`: the pipeline has no stage {EMBED}"));
        }
        if let Some(stage) = wanted.stage.as_deref().filter(|name| stages.iter().all(|stage| stage.name != *name)) {
            return Err(format!("`stage`: the pipeline has no stage {stage}"));
        }
        if wanted.recompute && wanted.stage.is_none() {
            return Err("`recompute` needs `stage`".to_owned());
        }
        if let Some(stage) = wanted.stage.as_deref().filter(|stage| wanted.recompute && !is_remembered(stage)) {
            return Err(format!("`recompute` does nothing for stage {stage}: {RUNS_EVERY_TIME}"));
        }
        let known = ["done", "failed", "partial", "cancelled"];
        if let Some(status) = wanted.status.as_deref().filter(|status| !known.contains(status)) {
            return Err(format!("`status`: {status} is none of {}", known.join(", ")));
        }
        if !(1..=DOCUMENTS_LIMIT).contains(&wanted.max_documents) {
            return Err(format!("`max_documents` is 1 to {DOCUMENTS_LIMIT}"));
        }
        if wanted.max_cost_usd.is_some_and(|usd| !(0.0..=COST_LIMIT_USD).contains(&usd)) {
            return Err(format!("`max_cost_usd` is 0 to {COST_LIMIT_USD}"));
        }
        if wanted.per_minute == Some(0) {
            return Err("`per_minute` is at least 1".to_owned());
        }
        if wanted.older_than_days.is_some_and(|days| !(1..=DAYS_LIMIT).contains(&days)) {
            return Err(format!("`older_than_days` is 1 to {DAYS_LIMIT}"));
        }
        Ok(Self { cron, wanted })
    }

    /// The documents that are due at `now`, as a replay chooses them.
    fn filter(&self, pipeline: &str, now: OffsetDateTime) -> ReplayFilter {
        let wanted = &self.wanted;
        ReplayFilter {
            stage: wanted.stage.clone(),
            pipeline: Some(pipeline.to_owned()),
            status: wanted.status.clone(),
            code: wanted.code.clone(),
            until: wanted.older_than_days.map(|days| now - Duration::days(i64::from(days))),
            recompute: wanted.recompute,
            embed_into: wanted.embed_into.clone(),
            per_minute: wanted.per_minute,
            max_documents: Some(i64::from(wanted.max_documents)),
            max_cost_microusd: wanted.max_cost_usd.map(|usd| (usd * 1e6).round() as i64),
            ..ReplayFilter::default()
        }
    }
}
