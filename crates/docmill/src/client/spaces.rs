//! `spaces …`: building another embedding space, switching to it, dropping the former.

use super::api::{Api, encode};
use crate::cli::Cli;
use crate::confirm::agreed;
use crate::exit::Ending;
use crate::output::{self, field, plain};
use clap::Subcommand;
use docmill_model::Code;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Between two looks at a space.
const POLL: Duration = Duration::from_millis(500);
const SPACES: &str = "/v1/operate/spaces";

/// The commands.
#[derive(Subcommand)]
pub enum SpacesCommand {
    /// List the spaces, the one that answers first, and the models one can be built with.
    List,
    /// Build a space with a model of the settings (`embedding.models`), from the passages that are stored: first a plan,
    /// then the work with its progress. Repeating it goes on.
    #[command(
        after_help = "Examples: docmill spaces build bge-small --dry-run\n          docmill spaces build bge-small --yes --detach"
    )]
    Build {
        /// Name of the model; the space gets the same.
        model: String,
        /// Show the plan only.
        #[arg(long)]
        dry_run: bool,
        /// Do not ask after the plan.
        #[arg(long)]
        yes: bool,
        /// Do not wait for the end.
        #[arg(long)]
        detach: bool,
        /// Enter it paused: only schedules with `embed_into` embed into it, within their budgets, until it is resumed.
        #[arg(long)]
        paused: bool,
        /// Wait for the end this long at most; the work goes on.
        #[arg(long, value_name = "SECS", default_value_t = 86_400)]
        wait: u64,
    },
    /// Make a space the one that answers. Refused while a visible passage has no vector in it.
    #[command(after_help = "Example: docmill spaces switch bge-small --yes")]
    Switch {
        /// Its name.
        space: String,
        /// Try again for this many seconds while something is missing or a service does not answer.
        #[arg(long, value_name = "SECS", default_value_t = 0)]
        wait: u64,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Embed nothing into a space that does not answer.
    Pause {
        /// Its name.
        space: String,
    },
    /// Go on.
    Resume {
        /// Its name.
        space: String,
    },
    /// Drop a space that does not answer: its vectors and their place in the index go for good.
    #[command(after_help = "Example: docmill spaces drop all-minilm-l6-v2 --receipt --yes")]
    Drop {
        /// Its name.
        space: String,
        /// Wait until nothing is left, and show what was removed.
        #[arg(long)]
        receipt: bool,
        /// Wait for that this long at most; the work goes on.
        #[arg(long, value_name = "SECS", default_value_t = 3_600, requires = "receipt")]
        wait: u64,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs a spaces command.
pub async fn run(cli: &Cli, command: &SpacesCommand, api: &Api) -> Result<(), Ending> {
    match command {
        SpacesCommand::List => list(cli, &api.get(SPACES, &[]).await?),
        SpacesCommand::Build { model, dry_run, yes, detach, paused, wait } => {
            let wait = (!detach && !paused).then(|| Duration::from_secs(*wait));
            build(cli, api, &json!({ "model": model, "paused": paused }), *dry_run, *yes, wait).await?;
        }
        SpacesCommand::Switch { space, wait, yes } => {
            agreed(&format!("answer from the embedding space `{}`", plain(space)), *yes)?;
            show(cli, &switch(api, space, Duration::from_secs(*wait)).await?);
        }
        SpacesCommand::Pause { space } => show(cli, &set(api, space, "paused").await?),
        SpacesCommand::Resume { space } => show(cli, &set(api, space, "running").await?),
        SpacesCommand::Drop { space, receipt, wait, yes } => {
            agreed(&format!("remove the embedding space `{}` with all its vectors for good", plain(space)), *yes)?;
            let dropped = api.delete(&one(space)).await?;
            let dropped = if *receipt { gone(api, dropped, Duration::from_secs(*wait)).await? } else { dropped };
            if cli.json {
                output::json(&dropped);
            } else {
                let state = if dropped["finished_at"].is_null() { "goes" } else { "gone" };
                output::line(format!("{}  {state}  {} vectors removed", plain(space), field(&dropped, "/vectors")));
            }
        }
    }
    Ok(())
}

fn one(space: &str) -> String {
    format!("{SPACES}/{}", encode(space))
}

async fn set(api: &Api, space: &str, state: &str) -> Result<Value, Ending> {
    api.post(&format!("{}/state", one(space)), &json!({ "state": state })).await
}

async fn build(
    cli: &Cli,
    api: &Api,
    request: &Value,
    dry_run: bool,
    yes: bool,
    wait: Option<Duration>,
) -> Result<(), Ending> {
    let plan = api.post(&format!("{SPACES}/plan"), request).await?;
    if dry_run && cli.json {
        output::json(&plan);
        return Ok(());
    }
    if !cli.json {
        describe(&plan);
    }
    if dry_run {
        return Ok(());
    }
    agreed(&format!("embed {} texts", field(&plan, "/to_embed")), yes)?;
    let mut space = api.post(SPACES, request).await?;
    if let Some(wait) = wait {
        space = built(cli, api, request["model"].as_str().unwrap_or_default(), space, wait).await?;
    }
    show(cli, &space);
    if wait.is_some() && space["state"] == "building" { Err(Ending::Found) } else { Ok(()) }
}

/// Shows the progress until nothing is missing, or the wait is over.
async fn built(cli: &Cli, api: &Api, model: &str, mut space: Value, wait: Duration) -> Result<Value, Ending> {
    let started = Instant::now();
    if !cli.json {
        output::line("it goes on when this command is stopped");
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} texts, {elapsed} {msg}");
    let bar = if cli.json { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    while space["state"] == "building" && started.elapsed() < wait {
        let count = |pointer: &str| space[pointer].as_u64().unwrap_or_default();
        bar.set_length(count("texts"));
        bar.set_position(count("texts").saturating_sub(count("missing")));
        bar.set_message(field(&space, "/code"));
        tokio::time::sleep(POLL).await;
        space = api.get(&one(model), &[]).await?;
    }
    bar.finish_and_clear();
    Ok(space)
}

/// Switches, again for a while when documents that have just arrived are not through, or a service does not answer.
async fn switch(api: &Api, space: &str, wait: Duration) -> Result<Value, Ending> {
    let started = Instant::now();
    loop {
        match api.post(&format!("{}/switch", one(space)), &json!({})).await {
            Err(Ending::Refused(failure) | Ending::Failed(failure))
                if matches!(failure.code, Code::SpaceIncomplete | Code::DatabaseUnavailable)
                    && started.elapsed() < wait =>
            {
                tokio::time::sleep(POLL).await;
            }
            ended => return ended,
        }
    }
}

/// The receipt once nothing is left, or as it stands when the wait is over.
async fn gone(api: &Api, mut receipt: Value, wait: Duration) -> Result<Value, Ending> {
    let started = Instant::now();
    while receipt["finished_at"].is_null() && started.elapsed() < wait {
        tokio::time::sleep(POLL).await;
        let spaces = api.get(SPACES, &[]).await?;
        let found = spaces["dropped"].as_array().into_iter().flatten().find(|dropped| dropped["id"] == receipt["id"]);
        receipt = found.cloned().unwrap_or(receipt);
    }
    Ok(receipt)
}

fn describe(plan: &Value) {
    output::line(format!(
        "space {}: {} dimensions, {}",
        plain(&field(plan, "/name")),
        field(plan, "/dimensions"),
        if plan["is_indexed"] == true {
            "with an index"
        } else {
            "without an index: every search computes all distances"
        }
    ));
    output::line(format!(
        "{} texts, {} in it already, {} to embed with {} tokens",
        field(plan, "/texts"),
        field(plan, "/cached"),
        field(plan, "/to_embed"),
        field(plan, "/tokens")
    ));
    output::line(format!(
        "about {} s of work beside everything else, about ${:.4}; measured on a sample\n",
        field(plan, "/work_secs"),
        plan["cost_microusd"].as_f64().unwrap_or_default() / 1e6
    ));
}

const COLUMNS: [&str; 9] =
    ["/name", "/state", "/paused", "/dimensions", "/is_served", "/is_indexed", "/texts", "/missing", "/code"];
const HEADER: [&str; 9] = ["space", "state", "paused", "dimensions", "model here", "index", "texts", "missing", "code"];

fn show(cli: &Cli, space: &Value) {
    if cli.json {
        output::json(space);
    } else {
        table(std::slice::from_ref(space));
    }
}

fn table(spaces: &[Value]) {
    output::table(
        &HEADER,
        spaces.iter().map(|space| COLUMNS.iter().map(|column| plain(&field(space, column))).collect()),
    );
}

fn list(cli: &Cli, list: &Value) {
    if cli.json {
        output::json(list);
        return;
    }
    table(list["spaces"].as_array().map(Vec::as_slice).unwrap_or_default());
    output::line(format!("models here: {}", plain(&field(list, "/models"))));
    for dropped in list["dropped"].as_array().into_iter().flatten() {
        output::line(format!(
            "dropped {} ({}): {} vectors removed, {}",
            plain(&field(dropped, "/name")),
            field(dropped, "/created_at"),
            field(dropped, "/vectors"),
            if dropped["finished_at"].is_null() { "going" } else { "gone" }
        ));
    }
}
