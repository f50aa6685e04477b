//! The command line: what can be asked for, with an example each. What is done stands in the module of the command.

use crate::client::lifecycle::{DeleteArgs, RetentionCommand};
use crate::client::query::QueryArgs;
use crate::exit;
use crate::operator::args::{
    BacklogArgs, DeadCommand, DoctorArgs, JobsArgs, PauseArgs, ReplayArgs, ReplaysArgs, SchedulesArgs,
};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Documents in, searchable, cited, structured knowledge out.
#[derive(Parser)]
#[command(name = "docmill", version, after_help = exit::HELP, max_term_width = 110, propagate_version = true)]
pub struct Cli {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// Settings file; environment variables win over it.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of the embedded stack.
    #[arg(long, global = true, env = "DOCMILL_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Address of the API; the embedded one when absent.
    #[arg(long, global = true, env = "DOCMILL_URL", value_name = "URL")]
    pub url: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand)]
pub enum Command {
    /// Run the whole job on the sample documents: set up, start, upload, wait, ask.
    #[command(after_help = "Example: docmill demo --keep")]
    Demo(DemoArgs),
    /// Fetch and verify the pinned parts of the embedded stack.
    Setup,
    /// Start the embedded stack and all roles in the background, or attach to it.
    Up,
    /// Stop the embedded stack.
    Down,
    /// Show what runs and where.
    Status,
    /// Delete all data of the stopped embedded stack; parts and passwords stay.
    Reset {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Run roles in the foreground, against configured services.
    #[command(after_help = "Example: docmill serve --roles api,relay,reconciler,worker")]
    Serve(ServeArgs),
    /// Run stage workers in the foreground.
    #[command(after_help = "Example: docmill worker --stages embed,index")]
    Worker {
        /// Stages to work on.
        #[arg(long, value_delimiter = ',', required = true)]
        stages: Vec<String>,
    },
    /// Apply the migrations, as the owner role.
    Migrate,
    /// Upload files and folders.
    #[command(after_help = "Example: docmill upload reports/ --collection finance --metadata year=2026 --wait")]
    Upload(UploadArgs),
    /// List documents, newest first.
    Docs(DocsArgs),
    /// Show one document: stages, events, and on request its text, summary, extraction or chunks.
    #[command(after_help = "Example: docmill show 0198… --summary --extraction")]
    Show(ShowArgs),
    /// Find passages.
    #[command(
        after_help = "Examples: docmill search gearbox temperature -k 5\n          docmill search gearbox --section 800 --copies"
    )]
    Search(crate::client::SearchArgs),
    /// Ask a question and get an answer with citations.
    #[command(after_help = "Example: docmill ask \"When is the pier closed?\"")]
    Ask(QueryArgs),
    /// List the versions of a document, and which of them answers.
    Versions {
        /// Document id.
        document: String,
    },
    /// Delete documents, a collection or a tenant, with a receipt.
    #[command(
        after_help = "Examples: docmill delete 0198… --receipt\n          docmill delete --collection drafts --yes"
    )]
    Delete(DeleteArgs),
    /// List the receipts of deletions, newest first.
    Deletions {
        /// Most receipts to list.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show, set and apply how long things are kept.
    #[command(subcommand)]
    Retention(RetentionCommand),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Check and show pipeline files.
    #[command(subcommand)]
    Pipelines(PipelinesCommand),
    /// Check the installation and evaluate the invariants on live data.
    #[command(after_help = "Example: docmill doctor --repair")]
    Doctor(DoctorArgs),
    /// Judge retrieval, answers, extraction and summaries on labelled data, outside the live path.
    #[command(subcommand)]
    Eval(crate::eval::EvalCommand),
    /// Jobs that nothing will retry by itself.
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Process documents again: first a plan, then the work with its progress, at the end a report.
    #[command(
        after_help = "Examples: docmill replay --stage extract --recompute --pipeline default --dry-run\n          \
                            docmill replay --status failed --code OCR_UNAVAILABLE --yes\n          \
                            docmill replay --pipeline default --sample 20 --question 'When does the lease end?'"
    )]
    Replay(ReplayArgs),
    /// List, show, pause, resume and cancel replays; compare what a sample made.
    Replays(ReplaysArgs),
    /// What the pipeline files have processed again, and when: list, plan, pause, resume, run.
    Schedules(SchedulesArgs),
    /// List jobs, newest first, or show one with its attempts.
    #[command(after_help = "Example: docmill jobs --state waiting --stage embed")]
    Jobs(JobsArgs),
    /// Stop a stage, a pipeline or a tenant; work waits, nothing is lost.
    #[command(after_help = "Example: docmill pause stage embed")]
    Pause(PauseArgs),
    /// Let what was paused go on.
    #[command(after_help = "Example: docmill resume stage embed")]
    Resume(PauseArgs),
    /// Cancel a run.
    Cancel {
        /// Run id.
        run: String,
    },
    /// Show what waits and runs, by stage.
    #[command(after_help = "Example: docmill backlog --all --watch")]
    Backlog(BacklogArgs),
    /// Embedding spaces: build one with another model, switch to it, drop the former.
    #[command(subcommand)]
    Spaces(crate::client::spaces::SpacesCommand),
    /// Prompts of model providers: versions, rollouts, rollback.
    #[command(subcommand)]
    Prompts(crate::client::prompts::PromptsCommand),
    /// Show what models cost, and set budgets.
    #[command(after_help = "Example: docmill usage --from 2026-01-01T00:00:00Z")]
    Usage(crate::client::usage::UsageArgs),
    /// Webhooks: make, list and remove them, rotate their secrets, see what they were sent, and send it again.
    #[command(subcommand)]
    Webhooks(crate::client::webhooks::WebhooksCommand),
    /// Serve tools for assistants (Model Context Protocol) over standard input and output.
    #[command(after_help = "Example, in an assistant's settings: {\"command\": \"docmill\", \"args\": [\"mcp\"]}")]
    Mcp,
    /// Read a file here, without a stack, and show what came out.
    #[command(after_help = "Example: docmill inspect report.pdf --html report.html")]
    Inspect(crate::inspect::InspectArgs),
    /// Ask a role whether it is ready; for container health checks.
    Health {
        /// What to ask; the own listen address when absent.
        #[arg(long = "at", value_name = "URL")]
        at: Option<String>,
    },
    /// The sandboxed parser; started by the roles themselves.
    #[command(hide = true)]
    ParseChild,
    /// The object store of the embedded stack.
    #[command(hide = true)]
    ObjectStore {
        /// Folder of the stack.
        root: PathBuf,
    },
    /// Keeps the embedded stack and its roles up.
    #[command(hide = true)]
    Supervise {
        /// Folder of the stack.
        root: PathBuf,
    },
}

/// Arguments of `demo`.
#[derive(Args)]
pub struct DemoArgs {
    /// Leave the stack up afterwards.
    #[arg(long)]
    pub keep: bool,
    /// Folder with documents and `questions.yaml`; the repository's when absent.
    #[arg(long, value_name = "DIR")]
    pub samples: Option<PathBuf>,
    /// Only files whose name contains this; for a quick look.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
}

/// Arguments of `serve`.
#[derive(Args)]
pub struct ServeArgs {
    /// Roles: api, relay, reconciler, worker; all when absent.
    #[arg(long, value_delimiter = ',')]
    pub roles: Vec<String>,
    /// Use the embedded stack in this folder for whatever is not configured.
    #[arg(long, hide = true, value_name = "DIR")]
    pub embedded: Option<PathBuf>,
}

/// Arguments of `upload`.
#[derive(Args)]
pub struct UploadArgs {
    /// Files and folders; folders are walked.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Collection to put them into.
    #[arg(long)]
    pub collection: Option<String>,
    /// Pipeline to process them with.
    #[arg(long)]
    pub pipeline: Option<String>,
    /// Access label; may be repeated.
    #[arg(long = "label")]
    pub labels: Vec<String>,
    /// Metadata as KEY=VALUE; numbers and true/false are kept as such; may be repeated.
    #[arg(long = "metadata", value_name = "KEY=VALUE")]
    pub metadata: Vec<String>,
    /// Use each file's path as its external id, so that a changed file becomes a new version.
    #[arg(long)]
    pub external_id: bool,
    /// Wait until everything is processed.
    #[arg(long)]
    pub wait: bool,
    /// Stay and upload what appears or changes.
    #[arg(long)]
    pub watch: bool,
    /// Uploads at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel: u16,
}

/// Arguments of `docs`.
#[derive(Args)]
pub struct DocsArgs {
    /// Only this collection.
    #[arg(long)]
    pub collection: Option<String>,
    /// Only this state.
    #[arg(long)]
    pub state: Option<String>,
    /// Only names that contain this.
    #[arg(long)]
    pub name: Option<String>,
    /// Most documents to list.
    #[arg(long, default_value_t = 50)]
    pub limit: usize,
}

/// Arguments of `show`.
#[derive(Args)]
pub struct ShowArgs {
    /// Document id.
    pub id: String,
    /// Print the canonical text.
    #[arg(long)]
    pub text: bool,
    /// Print the summary.
    #[arg(long)]
    pub summary: bool,
    /// Print the extracted fields.
    #[arg(long)]
    pub extraction: bool,
    /// Print the chunks.
    #[arg(long)]
    pub chunks: bool,
    /// Print the events.
    #[arg(long)]
    pub events: bool,
}

/// `keys …`
#[derive(Subcommand)]
pub enum KeysCommand {
    /// Make a key; it is shown once.
    #[command(after_help = "Example: docmill keys create --name scanner --scopes upload")]
    Create {
        /// Name for people.
        #[arg(long, default_value = "made by docmill keys create")]
        name: String,
        /// upload, query, operate, content:read, admin.
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<String>,
        /// Access label the holder has; may be repeated.
        #[arg(long = "label")]
        labels: Vec<String>,
        /// Tenant, created when it is new: the key is then made in the database, also that of an embedded stack.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// List keys.
    List,
    /// Revoke a key; takes effect at its next request.
    Revoke {
        /// Key id.
        id: String,
    },
}

/// `pipelines …`
#[derive(Subcommand)]
pub enum PipelinesCommand {
    /// Validate pipeline files.
    Check {
        /// Files; the configured folder when absent.
        files: Vec<PathBuf>,
    },
    /// Draw a pipeline.
    Show {
        /// Its name.
        #[arg(default_value = "default")]
        name: String,
        /// As a Mermaid graph.
        #[arg(long)]
        mermaid: bool,
    },
    /// Print the JSON Schema of pipeline files.
    Schema,
}
