//! What goes over the wire: selections, plans and reports.

use docmill_model::{DocumentId, TenantId};
use docmill_runtime::replay::{ReplayFilter, ReplayPlan, ReplayReport};
use std::collections::BTreeMap;
use time::OffsetDateTime;
use uuid::Uuid;

/// Which documents to process again, and from where.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Documents whose last run had this stage; with `status`, the stage's own outcome counts.
    #[serde(default)]
    pub stage: Option<String>,
    /// This document only.
    #[serde(default)]
    pub document_id: Option<DocumentId>,
    /// Documents of the pipeline of this name.
    #[serde(default)]
    pub pipeline: Option<String>,
    /// Documents whose last run followed this version of a pipeline: its hash, or the beginning of it.
    #[serde(default)]
    pub pipeline_version: Option<String>,
    /// `done`, `failed` (includes partial), `partial` or `cancelled`: how the last run, or its stage, ended.
    #[serde(default)]
    pub status: Option<String>,
    /// The last run failed with this code.
    #[serde(default)]
    pub code: Option<String>,
    /// The last run started at or after this RFC 3339 instant.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// The last run started before this RFC 3339 instant.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
    /// Another tenant's documents; needs a key of the operator tenant.
    #[serde(default)]
    pub tenant_id: Option<TenantId>,
    /// Compute `stage` even when the cache has its result.
    #[serde(default)]
    pub recompute: bool,
    /// So many of them, 1 to 100, spread over all that match, and as a sample: their runs show nothing, and what they made
    /// can be compared with what is shown.
    #[serde(default)]
    pub sample: Option<i64>,
}

impl From<Selection> for ReplayFilter {
    fn from(selection: Selection) -> Self {
        Self {
            stage: selection.stage,
            document_id: selection.document_id,
            pipeline: selection.pipeline,
            pipeline_version: selection.pipeline_version,
            status: selection.status,
            code: selection.code,
            since: selection.since,
            until: selection.until,
            recompute: selection.recompute,
            sample: selection.sample,
            ..ReplayFilter::default()
        }
    }
}

/// A replay to start.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartReplay {
    /// Which documents.
    pub select: Selection,
    /// The number of documents the plan measured; needed above 1,000.
    #[serde(default)]
    pub confirm: Option<i64>,
    /// Runs started in any minute, at most; as fast as the work goes when absent.
    #[serde(default)]
    pub per_minute: Option<u32>,
}

/// A replay to look at first.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanReplay {
    /// Which documents.
    pub select: Selection,
}

/// What a replay would do.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PlanView {
    /// Documents that get a run.
    pub documents: i64,
    /// Documents that match and get none, by code: `FILE_REMOVED` where retention let go of what would have to be read.
    pub skipped: BTreeMap<String, i64>,
    /// Documents that match beyond what the budget of a schedule allows: a later firing comes to them.
    pub beyond_budget: i64,
    /// Pipelines those runs follow: name and version.
    pub pipelines: BTreeMap<String, String>,
    /// Per stage, in pipeline order.
    pub stages: Vec<StagePlanView>,
    /// Work time expected from earlier attempts, in seconds over all stages; workers share it.
    pub work_secs: f64,
    /// Cost expected from earlier attempts, in millionths of a dollar.
    pub cost_microusd: i64,
}

/// What a replay would do at one stage.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct StagePlanView {
    /// The stage.
    pub stage: String,
    /// Jobs that compute.
    pub compute: i64,
    /// Jobs whose result is in the cache.
    pub cached: i64,
    /// Work time expected, in seconds.
    pub work_secs: f64,
    /// Cost expected, in millionths of a dollar.
    pub cost_microusd: i64,
}

impl From<ReplayPlan> for PlanView {
    fn from(plan: ReplayPlan) -> Self {
        let stages = plan.stages.into_iter().map(|stage| StagePlanView {
            stage: stage.stage,
            compute: stage.compute,
            cached: stage.cached,
            work_secs: stage.work_secs,
            cost_microusd: stage.cost_microusd,
        });
        Self {
            documents: plan.documents,
            skipped: plan.skipped,
            beyond_budget: plan.beyond_budget,
            pipelines: plan.pipelines,
            stages: stages.collect(),
            work_secs: plan.work_secs,
            cost_microusd: plan.cost_microusd,
        }
    }
}

/// A replay that was started.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct StartedReplay {
    /// Identifier.
    pub id: Uuid,
    /// What it does.
    pub plan: PlanView,
}

/// How far a replay is, and what it came to.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ReplayView {
    /// Identifier.
    pub id: Uuid,
    /// `running`, `paused`, `done`, `cancelled`, or `stopped` when its budget was used up.
    pub state: String,
    /// Why it was stopped.
    pub code: Option<String>,
    /// The schedule that asked for it, as `pipeline/name`.
    pub schedule: Option<String>,
    /// Documents of the plan.
    pub documents: i64,
    /// Runs by state.
    pub runs: BTreeMap<String, i64>,
    /// Runs that failed or ended in part, by code.
    pub failures: BTreeMap<String, i64>,
    /// Documents of the plan that have no run; of an ended replay they never get one: they were deleted, processed
    /// otherwise meanwhile, or the replay was cancelled first.
    pub without_run: i64,
    /// Documents that were left alone, by code: `FILE_REMOVED` where retention let go of what would have to be read.
    pub skipped: BTreeMap<String, i64>,
    /// Units done so far, by stage.
    pub stages: Vec<StageReportView>,
}

/// Units of one stage of a replay.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct StageReportView {
    /// The stage.
    pub stage: String,
    /// Jobs that computed.
    pub computed: i64,
    /// Jobs whose result came from the cache.
    pub cached: i64,
    /// Jobs that were given up.
    pub dead: i64,
    /// Jobs that have not ended.
    pub open: i64,
}

impl ReplayView {
    pub(super) fn new(id: Uuid, report: ReplayReport) -> Self {
        let stages = report.stages.into_iter().map(|stage| StageReportView {
            stage: stage.stage,
            computed: stage.computed,
            cached: stage.cached,
            dead: stage.dead,
            open: stage.open,
        });
        Self {
            id,
            state: report.state,
            code: report.code,
            schedule: report.schedule,
            documents: report.documents,
            runs: report.runs,
            failures: report.failures,
            without_run: report.without_run,
            skipped: report.skipped,
            stages: stages.collect(),
        }
    }
}

/// A replay in the list.
#[derive(Debug, serde::Serialize, sqlx::FromRow, utoipa::ToSchema)]
pub struct ReplayRow {
    /// Identifier.
    pub id: Uuid,
    /// `running`, `paused`, `done`, `cancelled`, or `stopped` when its budget was used up.
    pub state: String,
    /// Why it was stopped.
    pub code: Option<String>,
    /// The schedule that asked for it, as `pipeline/name`.
    pub schedule: Option<String>,
    /// Documents of the plan.
    pub documents: Option<i64>,
    /// What was selected.
    #[schema(value_type = Object)]
    pub select: serde_json::Value,
    /// When it was started.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// The latest replays.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ReplayList {
    /// At most 200, newest first.
    pub replays: Vec<ReplayRow>,
}

/// Where to move a replay.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetReplay {
    /// `running`, `paused` or `cancelled`.
    pub state: String,
}

/// Whose replays.
#[derive(Clone, Copy, Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Whose {
    /// Another tenant's; needs a key of the operator tenant.
    pub tenant_id: Option<TenantId>,
}
