//! `usage`: what models cost, by day, feature and how calls ended, and what may be spent on them.

use super::api::Api;
use crate::cli::Cli;
use crate::exit::Ending;
use crate::output::{self, field};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// Arguments of `usage`.
#[derive(Args)]
pub struct UsageArgs {
    /// From this RFC 3339 instant; 30 days ago when absent.
    #[arg(long)]
    pub from: Option<String>,
    /// Until before this instant; now when absent.
    #[arg(long)]
    pub until: Option<String>,
    /// Every tenant of the installation; needs a key of the operator tenant.
    #[arg(long)]
    pub all: bool,
    /// Show or set budgets instead.
    #[command(subcommand)]
    pub command: Option<UsageCommand>,
}

/// What else usage can do.
#[derive(Subcommand)]
pub enum UsageCommand {
    /// Show budgets and what was spent this month.
    Budgets,
    /// Set the monthly budget of `total`, answers, rewrite, extract or summarize, in US dollars.
    #[command(after_help = "Example: docmill usage budget answers --soft 20 --hard 50")]
    Budget {
        /// What is budgeted.
        name: String,
        /// Passing it warns.
        #[arg(long, value_name = "USD")]
        soft: Option<f64>,
        /// It is never passed; without both the budget is removed.
        #[arg(long, value_name = "USD")]
        hard: Option<f64>,
    },
}

const BUDGETS: &str = "/v1/usage/budgets";

/// Runs `usage`.
pub async fn run(cli: &Cli, args: &UsageArgs, api: &Api) -> Result<(), Ending> {
    match &args.command {
        None => report(cli, args, api).await,
        Some(UsageCommand::Budgets) => {
            budgets(cli, &api.get(BUDGETS, &[]).await?);
            Ok(())
        }
        Some(UsageCommand::Budget { name, soft, hard }) => {
            let mut all = api.get(BUDGETS, &[]).await?["budgets"].as_object().cloned().unwrap_or_default();
            let limits = json!({"soft": soft.map(microusd), "hard": hard.map(microusd)});
            if soft.is_none() && hard.is_none() {
                all.remove(name);
            } else {
                all.insert(name.clone(), limits);
            }
            budgets(cli, &api.put(BUDGETS, &Value::Object(all)).await?);
            Ok(())
        }
    }
}

async fn report(cli: &Cli, args: &UsageArgs, api: &Api) -> Result<(), Ending> {
    let query =
        [("from", args.from.clone()), ("until", args.until.clone()), ("all", args.all.then(|| "true".to_owned()))];
    let report = api.get("/v1/usage", &query).await?;
    if cli.json {
        output::json(&report);
        return Ok(());
    }
    let row = |row: &Value| {
        let mut cells = vec![field(row, "/day"), field(row, "/feature")];
        cells.push(format!("{}/{}", field(row, "/provider"), field(row, "/model")));
        cells.push(field(row, "/outcome"));
        cells.extend(["/calls", "/units", "/tokens_in", "/tokens_out", "/tokens_cached"].map(|name| field(row, name)));
        cells.push(usd(&row["cost_microusd"]));
        if args.all {
            cells.insert(0, field(row, "/tenant_id"));
        }
        cells
    };
    let mut header = vec!["day", "feature", "model", "outcome", "calls", "units", "tokens in", "out", "cached", "USD"];
    if args.all {
        header.insert(0, "tenant");
    }
    output::table(&header, report["rows"].as_array().into_iter().flatten().map(row));
    Ok(())
}

fn budgets(cli: &Cli, view: &Value) {
    if cli.json {
        output::json(view);
        return;
    }
    let spent = |name: &str| match name {
        "total" => {
            json!(view["spent_microusd"].as_object().into_iter().flatten().filter_map(|(_, v)| v.as_i64()).sum::<i64>())
        }
        name => view["spent_microusd"].get(name).cloned().unwrap_or(json!(0)),
    };
    let row = |(name, budget): (&String, &Value)| {
        vec![name.clone(), usd(&budget["soft"]), usd(&budget["hard"]), usd(&spent(name))]
    };
    let rows = view["budgets"].as_object().into_iter().flatten().map(row);
    output::table(&["budget", "soft USD", "hard USD", "spent this month"], rows);
}

fn microusd(usd: f64) -> i64 {
    (usd * 1e6).round() as i64
}

fn usd(microusd: &Value) -> String {
    microusd.as_i64().map_or_else(String::new, |microusd| format!("{:.4}", microusd as f64 / 1e6))
}
