//! `webhooks …`: where notifications go, and switching on again what its receiver switched off. What shows a secret
//! (making one, rotating it) is the API's alone.

use super::api::{Api, encode};
use crate::cli::Cli;
use crate::exit::Ending;
use crate::output::{self, field, plain};
use clap::Subcommand;
use serde_json::Value;

const WEBHOOKS: &str = "/v1/webhooks";

/// The commands.
#[derive(Subcommand)]
pub enum WebhooksCommand {
    /// List webhooks, newest first, with when and why one was switched off.
    List,
    /// Switch one on again that its receiver switched off by answering 410.
    #[command(after_help = "Example: docmill webhooks enable 0198…")]
    Enable {
        /// Webhook id.
        id: String,
    },
}

/// Runs a webhooks command.
pub async fn run(cli: &Cli, command: &WebhooksCommand, api: &Api) -> Result<(), Ending> {
    match command {
        WebhooksCommand::List => {
            let list = api.get(WEBHOOKS, &[]).await?;
            show(cli, &list, list["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default());
        }
        WebhooksCommand::Enable { id } => {
            let webhook = api.post(&format!("{WEBHOOKS}/{}/enable", encode(id)), &Value::Null).await?;
            show(cli, &webhook, std::slice::from_ref(&webhook));
        }
    }
    Ok(())
}

const COLUMNS: [&str; 5] = ["/id", "/url", "/events", "/disabled_at", "/disabled_reason"];

fn show(cli: &Cli, answer: &Value, webhooks: &[Value]) {
    if cli.json {
        output::json(answer);
        return;
    }
    output::table(
        &["webhook", "url", "events", "off since", "why"],
        webhooks.iter().map(|webhook| COLUMNS.iter().map(|column| plain(&field(webhook, column))).collect()),
    );
}
