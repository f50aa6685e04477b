//! Versions, deletions with their receipts, retention.

use super::api::{Api, encode};
use crate::cli::Cli;
use crate::confirm::agreed;
use crate::exit::Ending;
use crate::output::{self, field, plain};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Between two looks at a deletion that is waited for.
const POLL: Duration = Duration::from_millis(500);

/// Arguments of `delete`.
#[derive(Args)]
pub struct DeleteArgs {
    /// Documents, by id.
    #[arg(required_unless_present_any = ["collection", "tenant"])]
    pub documents: Vec<String>,
    /// Every document of this collection instead.
    #[arg(long, conflicts_with_all = ["documents", "tenant"])]
    pub collection: Option<String>,
    /// A tenant with all it has instead, by id; needs a key of the operator tenant.
    #[arg(long, conflicts_with = "documents")]
    pub tenant: Option<String>,
    /// Wait until nothing is left, and show what was removed.
    #[arg(long)]
    pub receipt: bool,
    /// Wait for all of that this long at most; the work goes on.
    #[arg(long, value_name = "SECS", default_value_t = 3_600, requires = "receipt")]
    pub wait: u64,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
}

/// Commands of `retention`.
#[derive(Subcommand)]
pub enum RetentionCommand {
    /// Show what is kept for how long.
    Show,
    /// Set the tenant's own rules in days; what is left out is kept as the pipelines say.
    #[command(after_help = "Example: docmill retention set --raw-days 30 --document-days 365")]
    Set {
        /// Days to keep uploaded bytes.
        #[arg(long)]
        raw_days: Option<u32>,
        /// Days to keep what stages handed each other.
        #[arg(long)]
        artifacts_days: Option<u32>,
        /// Days to keep documents.
        #[arg(long)]
        document_days: Option<u32>,
    },
    /// Let go now what is due.
    #[command(after_help = "Example: docmill retention apply --dry-run")]
    Apply {
        /// Only show what is due.
        #[arg(long)]
        dry_run: bool,
    },
}

/// `versions`.
pub async fn versions(cli: &Cli, document: &str, api: &Api) -> Result<(), Ending> {
    let versions = api.get(&format!("/v1/documents/{}/versions", encode(document)), &[]).await?;
    if cli.json {
        output::json(&versions);
        return Ok(());
    }
    let rows = versions.as_array().into_iter().flatten().map(|version| {
        let columns = ["/number", "/answers", "/file_removed", "/size_bytes", "/format", "/pages", "/sha256"];
        columns.iter().map(|pointer| plain(&field(version, pointer))).collect()
    });
    output::table(&["version", "answers", "file removed", "bytes", "format", "pages", "sha256"], rows);
    Ok(())
}

/// `delete`.
pub async fn delete(cli: &Cli, args: &DeleteArgs, api: &Api) -> Result<(), Ending> {
    let (what, paths) = match (&args.collection, &args.tenant) {
        (Some(name), _) => {
            (format!("every document of the collection `{name}`"), vec![format!("/v1/collections/{}", encode(name))])
        }
        (_, Some(id)) => (format!("the tenant {id} with all it has"), vec![format!("/v1/tenants/{}", encode(id))]),
        _ => {
            let paths = args.documents.iter().map(|id| format!("/v1/documents/{}", encode(id))).collect();
            (format!("{} document(s) and everything that came from them", args.documents.len()), paths)
        }
    };
    agreed(&format!("remove {} for good", plain(&what)), args.yes)?;
    let mut receipts = Vec::new();
    for path in paths {
        receipts.push(api.delete(&path).await?);
    }
    if args.receipt {
        let until = Instant::now() + Duration::from_secs(args.wait);
        for receipt in &mut receipts {
            settled(api, receipt, until).await?;
        }
    }
    show(cli, &receipts);
    let open = receipts.iter().filter(|receipt| !is_settled(receipt)).count();
    if args.receipt && open > 0 {
        eprintln!("{open} of {} still go on; `docmill deletions` shows them", receipts.len());
        return Err(Ending::Found);
    }
    Ok(())
}

fn show(cli: &Cli, receipts: &[Value]) {
    if cli.json {
        output::json(&json!({"deletions": receipts}));
        return;
    }
    for receipt in receipts {
        let subject = Some(field(receipt, "/subject")).filter(|s| !s.is_empty()).unwrap_or(field(receipt, "/tenant"));
        output::line(format!("{}  {}  {}", plain(&subject), field(receipt, "/state"), removed(receipt)));
    }
}

/// True when nothing is left, or at least every row is gone.
fn is_settled(receipt: &Value) -> bool {
    receipt["state"] == "finished" || !receipt["rows_removed_at"].is_null()
}

/// The receipt once it is settled, or as it stands when the wait is over.
async fn settled(api: &Api, receipt: &mut Value, until: Instant) -> Result<(), Ending> {
    let path = match receipt["tenant"].as_str() {
        Some(tenant) => format!("/v1/tenants/{tenant}/deletion"),
        None => format!("/v1/deletions/{}", field(receipt, "/id")),
    };
    while !is_settled(receipt) && Instant::now() < until {
        tokio::time::sleep(POLL).await;
        *receipt = api.get(&path, &[]).await?;
    }
    Ok(())
}

fn removed(receipt: &Value) -> String {
    let counts = receipt["removed"].as_object().into_iter().flatten();
    let counts: Vec<String> = counts
        .filter(|(_, count)| **count != 0)
        .map(|(kind, count)| format!("{count} {}", kind.replace('_', " ")))
        .collect();
    counts.join(", ")
}

/// `deletions`.
pub async fn deletions(cli: &Cli, limit: u32, api: &Api) -> Result<(), Ending> {
    let page = api.get("/v1/deletions", &[("limit", Some(limit.to_string()))]).await?;
    if cli.json {
        output::json(&page);
        return Ok(());
    }
    let receipts = page["deletions"].as_array().into_iter().flatten().map(|receipt| {
        let mut row: Vec<String> = ["/id", "/cause", "/subject", "/state", "/created_at"]
            .iter()
            .map(|pointer| plain(&field(receipt, pointer)))
            .collect();
        row.push(removed(receipt));
        row
    });
    output::table(&["receipt", "cause", "of", "state", "asked for", "removed"], receipts);
    Ok(())
}

/// `retention`.
pub async fn retention(cli: &Cli, command: &RetentionCommand, api: &Api) -> Result<(), Ending> {
    match command {
        RetentionCommand::Show => show_rules(cli, &api.get("/v1/retention", &[]).await?),
        RetentionCommand::Set { raw_days, artifacts_days, document_days } => {
            let rules = [("raw_days", raw_days), ("artifacts_days", artifacts_days), ("document_days", document_days)];
            let body: serde_json::Map<String, Value> =
                rules.iter().filter_map(|(name, days)| Some(((*name).to_owned(), json!((**days)?)))).collect();
            show_rules(cli, &api.put("/v1/retention", &Value::Object(body)).await?);
        }
        RetentionCommand::Apply { dry_run } => {
            let report = api.post("/v1/retention/apply", &json!({"dry_run": dry_run})).await?;
            if cli.json {
                output::json(&report);
                return Ok(());
            }
            for (kind, what) in
                [("documents", "documents"), ("raw", "files"), ("runs", "runs with intermediate results")]
            {
                let ids = report[kind].as_array().map_or(0, Vec::len);
                output::line(format!("{ids} {what} due"));
            }
            let gone = removed(&report);
            output::line(if *dry_run {
                "nothing was removed (--dry-run)".to_owned()
            } else {
                format!("removed: {gone}")
            });
        }
    }
    Ok(())
}

fn show_rules(cli: &Cli, view: &Value) {
    if cli.json {
        output::json(view);
        return;
    }
    let row = |name: &str, rules: &Value| {
        let days = |pointer: &str| Some(field(rules, pointer)).filter(|d| !d.is_empty()).unwrap_or("kept".to_owned());
        vec![name.to_owned(), days("/raw_days"), days("/artifacts_days"), days("/document_days")]
    };
    let pipelines = view["pipelines"].as_object().into_iter().flatten().map(|(name, rules)| row(name, rules));
    let rows: Vec<Vec<String>> = std::iter::once(row("(tenant)", &view["tenant"])).chain(pipelines).collect();
    output::table(&["pipeline", "file, days", "intermediate results, days", "document, days"], rows);
    output::line(format!("uploads never completed are forgotten after {} days", field(view, "/abandoned_days")));
    output::line(match view["store"]["state"].as_str() {
        Some("in_force") => format!(
            "the bucket's lifecycle rule lets go of uploads after {} days, of unfinished parts after {}",
            field(view, "/store/uploads_days"),
            field(view, "/store/unfinished_days")
        ),
        other => format!("the bucket has no lifecycle rule for uploads ({})", other.unwrap_or("not told")),
    });
}
