//! What an operator can ask for on the command line.

use clap::{Args, Subcommand, ValueEnum};

/// Arguments of `doctor`.
#[derive(Args)]
pub struct DoctorArgs {
    /// Set right what can be, and look again until the invariants hold or a minute has passed.
    #[arg(long)]
    pub repair: bool,
}

/// `dead …`
#[derive(Subcommand)]
pub enum DeadCommand {
    /// List dead jobs.
    #[command(
        after_help = "Example: docmill dead list --stage ingest --code PARSER_CRASHED --since 2026-01-31T00:00:00Z"
    )]
    List {
        #[command(flatten)]
        which: DeadWhich,
        /// Also those that were retried or discarded.
        #[arg(long)]
        resolved: bool,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Show one with its attempts, the runs before it, the artifacts it would have read, and the page of its code.
    Show {
        /// Job id.
        job: String,
    },
    /// Run them again: a new run of each document whose finished stages come from the cache.
    #[command(
        after_help = "Examples: docmill dead retry 0198…\n          docmill dead retry --code OCR_UNAVAILABLE --yes"
    )]
    Retry(DeadMany),
    /// Record that nobody will.
    #[command(after_help = "Example: docmill dead discard --stage notify --yes")]
    Discard(DeadMany),
}

/// Which dead jobs.
#[derive(Args)]
pub struct DeadWhich {
    /// Only this stage.
    #[arg(long)]
    pub stage: Option<String>,
    /// Only this code.
    #[arg(long)]
    pub code: Option<String>,
    /// Only this document.
    #[arg(long)]
    pub document: Option<String>,
    /// Given up at or after this RFC 3339 instant.
    #[arg(long)]
    pub since: Option<String>,
}

/// Jobs by their ids, or all that match, at most 1,000 a call.
#[derive(Args)]
pub struct DeadMany {
    /// Job ids.
    #[arg(value_name = "JOB", required_unless_present_any = ["stage", "code", "document", "since"],
          conflicts_with_all = ["stage", "code", "document", "since"])]
    pub jobs: Vec<String>,
    #[command(flatten)]
    pub which: DeadWhich,
    /// Do not ask when jobs are chosen by what they match.
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `replay`: which documents, from where, how fast.
#[derive(Args)]
pub struct ReplayArgs {
    /// Documents whose last run had this stage; with `--status`, the stage's own outcome counts.
    #[arg(long)]
    pub stage: Option<String>,
    /// Compute that stage even when the cache has its result.
    #[arg(long, requires = "stage")]
    pub recompute: bool,
    /// Only this document.
    #[arg(long)]
    pub document: Option<String>,
    /// Only documents of this pipeline.
    #[arg(long)]
    pub pipeline: Option<String>,
    /// Only documents whose last run followed this version of a pipeline; the beginning of its hash is enough.
    #[arg(long, value_name = "HASH")]
    pub pipeline_version: Option<String>,
    /// Only what ended so: done, failed, partial or cancelled.
    #[arg(long)]
    pub status: Option<String>,
    /// Only what failed with this code.
    #[arg(long)]
    pub code: Option<String>,
    /// The last run started at or after this RFC 3339 instant.
    #[arg(long)]
    pub since: Option<String>,
    /// The last run started before this RFC 3339 instant.
    #[arg(long)]
    pub until: Option<String>,
    /// Another tenant's documents, by its id; for operators of the installation.
    #[arg(long)]
    pub tenant: Option<String>,
    /// Runs started in any minute, at most.
    #[arg(long, value_name = "RUNS")]
    pub per_minute: Option<u32>,
    /// Only so many of them, spread over all that match, as a sample: nothing that is shown changes, and at the end it is told
    /// what would.
    #[arg(long, value_name = "DOCUMENTS", conflicts_with = "tenant")]
    pub sample: Option<i64>,
    /// Compare the best passages for this question, again and again; titles and headings of the sample when absent.
    #[arg(long = "question", value_name = "QUESTION", requires = "sample")]
    pub questions: Vec<String>,
    /// Show the plan only.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask after the plan.
    #[arg(long)]
    pub yes: bool,
    /// Do not wait for the end.
    #[arg(long)]
    pub detach: bool,
}

/// `replays …`
#[derive(Args)]
pub struct ReplaysArgs {
    /// Another tenant's, by its id; for operators of the installation.
    #[arg(long, global = true, value_name = "ID")]
    pub tenant: Option<String>,
    #[command(subcommand)]
    pub command: ReplaysCommand,
}

/// What to do with replays.
#[derive(Subcommand)]
pub enum ReplaysCommand {
    /// List the latest replays.
    List,
    /// Show how far one is, and what it came to.
    Show {
        /// Replay id.
        id: String,
    },
    /// Compare what a sample made with what is shown.
    #[command(after_help = "Example: docmill replays difference ID --question 'Who signs the contract?'")]
    Difference {
        /// Replay id of the sample.
        id: String,
        /// Compare the best passages for this question, again and again; titles and headings of the sample when absent.
        #[arg(long = "question", value_name = "QUESTION")]
        questions: Vec<String>,
    },
    /// Start no more runs; those under way go on.
    Pause {
        /// Replay id.
        id: String,
    },
    /// Go on.
    Resume {
        /// Replay id.
        id: String,
    },
    /// End it; runs under way go on.
    Cancel {
        /// Replay id.
        id: String,
    },
}

/// `schedules …`
#[derive(Args)]
pub struct SchedulesArgs {
    /// Another tenant's, by its id; for operators of the installation.
    #[arg(long, global = true, value_name = "ID")]
    pub tenant: Option<String>,
    #[command(subcommand)]
    pub command: SchedulesCommand,
}

/// What to do with schedules. What they do and when stands in the pipeline files.
#[derive(Subcommand)]
pub enum SchedulesCommand {
    /// List them: when each is due, and what its last firing came to.
    List,
    /// Show what a firing would do now.
    #[command(after_help = "Example: docmill schedules plan default/nightly")]
    Plan {
        /// PIPELINE/NAME
        schedule: String,
    },
    /// Fire no more; a firing that is at work goes on.
    Pause {
        /// PIPELINE/NAME
        schedule: String,
    },
    /// Go on with the next time; those that passed are not made up for.
    Resume {
        /// PIPELINE/NAME
        schedule: String,
    },
    /// Fire now, within the budget, and show the progress.
    #[command(after_help = "Example: docmill schedules run default/nightly --yes --detach")]
    Run {
        /// PIPELINE/NAME
        schedule: String,
        /// Do not ask after the plan.
        #[arg(long)]
        yes: bool,
        /// Do not wait for the end.
        #[arg(long)]
        detach: bool,
    },
}

/// Arguments of `jobs`.
#[derive(Args)]
pub struct JobsArgs {
    /// Show this one with its attempts.
    pub id: Option<String>,
    /// Only this state: blocked, ready, leased, waiting, held, done, dead or cancelled.
    #[arg(long)]
    pub state: Option<String>,
    /// Only this stage.
    #[arg(long)]
    pub stage: Option<String>,
    /// Only this document.
    #[arg(long)]
    pub document: Option<String>,
    /// At most this many, 1 to 200.
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
}

/// What can be stopped.
#[derive(Clone, Copy, ValueEnum)]
pub enum Stoppable {
    /// A stage, for all tenants.
    Stage,
    /// A pipeline, for all tenants.
    Pipeline,
    /// The tenant of the key.
    Tenant,
}

/// Arguments of `pause` and `resume`.
#[derive(Args)]
pub struct PauseArgs {
    /// What kind of thing.
    pub kind: Stoppable,
    /// Name of the stage or pipeline, or id of the tenant; the key's own tenant when absent.
    pub name: Option<String>,
}

/// Arguments of `backlog`.
#[derive(Args)]
pub struct BacklogArgs {
    /// Of all tenants; for operators of the installation.
    #[arg(long)]
    pub all: bool,
    /// Show it again every two seconds.
    #[arg(long)]
    pub watch: bool,
}
