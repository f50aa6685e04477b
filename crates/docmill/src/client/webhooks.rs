//! `webhooks …`: where notifications go, the secrets that sign them, what was sent and how it went, and sending it again.
//! A secret stands in the answer that made it and nowhere else.

use super::api::{Api, encode};
use crate::cli::Cli;
use crate::confirm::agreed;
use crate::exit::Ending;
use crate::output::{self, field, plain};
use clap::Subcommand;
use docmill_model::Code;
use serde_json::{Value, json};

const WEBHOOKS: &str = "/v1/webhooks";
/// Largest page of deliveries.
const PAGE: usize = 200;
/// Most dead deliveries that one call sends again.
const MOST_RETRIED: usize = 1000;

/// The commands.
#[derive(Subcommand)]
pub enum WebhooksCommand {
    /// List webhooks, newest first, with when and why one was switched off.
    List,
    /// Notify a URL from now on; the secret that signs is shown once.
    #[command(after_help = "Example: docmill webhooks create https://example.com/docmill")]
    Create {
        /// An https URL on a public address; the embedded stack takes any.
        // Not `url`, which is the API's own.
        #[arg(value_name = "URL")]
        receiver: String,
        /// What to tell; document.settled, which is all there is, when absent.
        #[arg(long, value_delimiter = ',')]
        events: Vec<String>,
    },
    /// Give one a new secret, shown once; the two before it sign along until further rotations push them out.
    #[command(after_help = "Example: docmill webhooks rotate 0198…")]
    Rotate {
        /// Webhook id.
        id: String,
    },
    /// Switch one on again that its receiver switched off by answering 410.
    #[command(after_help = "Example: docmill webhooks enable 0198…")]
    Enable {
        /// Webhook id.
        id: String,
    },
    /// Remove one with its deliveries, also with those that were not sent yet.
    #[command(after_help = "Example: docmill webhooks delete 0198… --yes")]
    Delete {
        /// Webhook id.
        id: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// List what one was sent and is still to be sent, newest first.
    #[command(after_help = "Example: docmill webhooks deliveries 0198… --state dead")]
    Deliveries {
        /// Webhook id.
        id: String,
        /// Only this state: ready (to be sent, or sent again), done or dead.
        #[arg(long)]
        state: Option<String>,
        /// Most deliveries to list.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Send deliveries again that ended, under their own ids. Of a webhook that is off they end dead: enable it first.
    #[command(
        after_help = "Examples: docmill webhooks retry 0198… 0199…\n          docmill webhooks retry 0198… --dead --yes"
    )]
    Retry {
        /// Webhook id.
        id: String,
        /// Delivery ids.
        #[arg(value_name = "DELIVERY", required_unless_present = "dead", conflicts_with = "dead")]
        deliveries: Vec<String>,
        /// All that are dead instead, at most 1,000 a call.
        #[arg(long)]
        dead: bool,
        /// Do not ask when all that are dead are meant.
        #[arg(long)]
        yes: bool,
    },
}

/// Runs a webhooks command.
pub async fn run(cli: &Cli, command: &WebhooksCommand, api: &Api) -> Result<(), Ending> {
    match command {
        WebhooksCommand::List => {
            let list = api.get(WEBHOOKS, &[]).await?;
            show(cli, &list, list["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default());
        }
        WebhooksCommand::Create { receiver, events } => {
            let mut body = json!({"url": receiver});
            if !events.is_empty() {
                body["events"] = json!(events);
            }
            show_secret(cli, &api.post(WEBHOOKS, &body).await?);
        }
        WebhooksCommand::Rotate { id } => {
            show_secret(cli, &api.post(&format!("{}/rotate", one(id)), &Value::Null).await?);
        }
        WebhooksCommand::Enable { id } => {
            let webhook = api.post(&format!("{}/enable", one(id)), &Value::Null).await?;
            show(cli, &webhook, std::slice::from_ref(&webhook));
        }
        WebhooksCommand::Delete { id, yes } => {
            agreed(&format!("remove the webhook {} with its deliveries for good", plain(id)), *yes)?;
            let answer = api.delete(&one(id)).await?;
            if cli.json {
                output::json(&answer);
            } else {
                output::line("removed");
            }
        }
        WebhooksCommand::Deliveries { id, state, limit } => {
            let found = deliveries(api, id, state.as_deref(), *limit).await?;
            if cli.json {
                output::json(&json!({ "deliveries": found }));
            } else {
                table(&found);
            }
        }
        WebhooksCommand::Retry { id, deliveries, dead, yes } => {
            let chosen = if *dead { all_dead(api, id, *yes).await? } else { deliveries.clone() };
            retry(cli, api, id, &chosen).await?;
        }
    }
    Ok(())
}

fn one(id: &str) -> String {
    format!("{WEBHOOKS}/{}", encode(id))
}

/// The newest deliveries of a webhook, from as many pages as it takes.
async fn deliveries(api: &Api, id: &str, state: Option<&str>, limit: usize) -> Result<Vec<Value>, Ending> {
    let mut found: Vec<Value> = Vec::new();
    let mut cursor = None;
    while found.len() < limit {
        let query = [
            ("state", state.map(str::to_owned)),
            ("limit", Some((limit - found.len()).min(PAGE).to_string())),
            ("cursor", cursor),
        ];
        let page = api.get(&format!("{}/deliveries", one(id)), &query).await?;
        found.extend(page["deliveries"].as_array().cloned().unwrap_or_default());
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok(found)
}

/// Ids of the dead deliveries, once somebody agreed that they are sent again.
async fn all_dead(api: &Api, id: &str, yes: bool) -> Result<Vec<String>, Ending> {
    let found = deliveries(api, id, Some("dead"), MOST_RETRIED).await?;
    agreed(&format!("send {} dead deliveries again", found.len()), yes)?;
    Ok(found.iter().map(|delivery| field(delivery, "/id")).collect())
}

/// Sends again; of several, what is being sent already is told and passed over.
async fn retry(cli: &Cli, api: &Api, id: &str, chosen: &[String]) -> Result<(), Ending> {
    let (mut done, mut passed_over) = (Vec::new(), Vec::new());
    for delivery in chosen {
        let path = format!("{}/deliveries/{}/retry", one(id), encode(delivery));
        match api.post(&path, &Value::Null).await {
            Ok(answer) => done.push(answer),
            Err(Ending::Refused(failure)) if chosen.len() > 1 && failure.code == Code::Conflict => {
                passed_over.push(json!({"id": delivery, "why": failure.message}));
            }
            Err(error) => return Err(error),
        }
    }
    if cli.json {
        output::json(&json!({"done": done, "passed_over": passed_over}));
        return Ok(());
    }
    output::line(format!("retry: {} done, {} passed over", done.len(), passed_over.len()));
    table(&done);
    if !passed_over.is_empty() {
        output::table(&["passed over", "why"], passed_over.iter().map(|row| cells(row, &["/id", "/why"])));
    }
    Ok(())
}

fn cells(row: &Value, pointers: &[&str]) -> Vec<String> {
    pointers.iter().map(|pointer| plain(&field(row, pointer))).collect()
}

const COLUMNS: [&str; 6] = ["/id", "/url", "/events", "/secrets", "/disabled_at", "/disabled_reason"];

fn show(cli: &Cli, answer: &Value, webhooks: &[Value]) {
    if cli.json {
        output::json(answer);
        return;
    }
    output::table(
        &["webhook", "url", "events", "secrets", "off since", "why"],
        webhooks.iter().map(|webhook| cells(webhook, &COLUMNS)),
    );
}

fn show_secret(cli: &Cli, made: &Value) {
    if cli.json {
        output::json(made);
        return;
    }
    output::line(format!("webhook {}", field(made, "/id")));
    output::line(format!("secret  {}", field(made, "/secret")));
}

fn table(deliveries: &[Value]) {
    let pointers = [
        "/id",
        "/state",
        "/attempts",
        "/next_at",
        "/last_status",
        "/code",
        "/document_id",
        "/created_at",
        "/finished_at",
    ];
    let row = |delivery: &Value| {
        let mut row = cells(delivery, &pointers);
        // What ended has no next try.
        if delivery["state"] != "ready" {
            row[3].clear();
        }
        row
    };
    output::table(
        &["delivery", "state", "tries", "next try", "status", "code", "document", "written", "ended"],
        deliveries.iter().map(row),
    );
}
