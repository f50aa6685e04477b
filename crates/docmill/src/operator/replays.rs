//! `replay` and `replays`: a plan first, then the work with its progress, at the end a report.

use super::args::{ReplayArgs, ReplaysArgs, ReplaysCommand};
use super::difference;
use super::work::{print, rows};
use crate::cli::Cli;
use crate::client::api::{Api, encode};
use crate::confirm::agreed;
use crate::exit::Ending;
use crate::output::{self, field};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::time::Duration;

/// Between two looks at a replay.
const POLL: Duration = Duration::from_millis(500);

/// `docmill replay`.
pub async fn replay(cli: &Cli, args: &ReplayArgs, api: &Api) -> Result<(), Ending> {
    let select = select(args);
    let plan = api.post("/v1/operate/replays/plan", &json!({ "select": select })).await?;
    if args.dry_run {
        print(cli, &plan, || describe(&plan));
        return Ok(());
    }
    if !cli.json {
        describe(&plan);
    }
    let as_what = if args.sample.is_some() { "again as a sample" } else { "again" };
    agreed(&format!("process {} documents {as_what}", field(&plan, "/documents")), args.yes)?;
    let mut body = json!({"select": select, "confirm": plan["documents"]});
    if let Some(runs) = args.per_minute {
        body["per_minute"] = json!(runs);
    }
    let started = api.post("/v1/operate/replays", &body).await?;
    let id = field(&started, "/id");
    if args.detach {
        print(cli, &started, || output::line(format!("replay {id}; `docmill replays show {id}` says how far it is")));
        return Ok(());
    }
    if !cli.json {
        output::line(format!("replay {id}; it goes on when this command is stopped"));
    }
    if args.sample.is_none() {
        return follow(cli, api, &id, &args.tenant).await;
    }
    let report = ended(cli, api, &id, &args.tenant).await?;
    let found = difference::of(api, &id, &args.questions).await;
    print(cli, &json!({"report": report, "difference": found.as_ref().ok()}), || {
        show(&report);
        if let Ok(found) = &found {
            difference::describe(found);
        }
    });
    found.and(outcome(&report))
}

fn select(args: &ReplayArgs) -> Value {
    let mut select = json!({"recompute": args.recompute, "sample": args.sample});
    for (name, value) in [
        ("stage", &args.stage),
        ("document_id", &args.document),
        ("pipeline", &args.pipeline),
        ("pipeline_version", &args.pipeline_version),
        ("status", &args.status),
        ("code", &args.code),
        ("since", &args.since),
        ("until", &args.until),
        ("tenant_id", &args.tenant),
    ] {
        if let Some(value) = value {
            select[name] = json!(value);
        }
    }
    select
}

/// Shows the progress until the replay has ended, then what it came to.
pub(super) async fn follow(cli: &Cli, api: &Api, id: &str, tenant: &Option<String>) -> Result<(), Ending> {
    let report = ended(cli, api, id, tenant).await?;
    print(cli, &report, || show(&report));
    outcome(&report)
}

fn outcome(report: &Value) -> Result<(), Ending> {
    if report["failures"].as_object().is_some_and(|failures| !failures.is_empty()) {
        Err(Ending::Found)
    } else {
        Ok(())
    }
}

/// Shows the progress until the replay has ended.
async fn ended(cli: &Cli, api: &Api, id: &str, tenant: &Option<String>) -> Result<Value, Ending> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} documents, {elapsed} {msg}");
    let bar = if cli.json { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let report = loop {
        let report = api.get(&format!("/v1/operate/replays/{}", encode(id)), &[("tenant_id", tenant.clone())]).await?;
        let runs = report["runs"].as_object().into_iter().flatten();
        let settled = runs.filter(|(state, _)| *state != "running").filter_map(|(_, count)| count.as_u64()).sum();
        bar.set_length(report["documents"].as_u64().unwrap_or_default());
        bar.set_position(settled);
        bar.set_message(field(&report, "/state"));
        if matches!(field(&report, "/state").as_str(), "done" | "cancelled" | "stopped") {
            break report;
        }
        tokio::time::sleep(POLL).await;
    };
    bar.finish_and_clear();
    Ok(report)
}

pub(super) fn describe(plan: &Value) {
    output::line(format!("{} documents", field(plan, "/documents")));
    for (code, count) in plan["skipped"].as_object().into_iter().flatten() {
        output::line(format!("{count} left alone: {code} (deploy/codes/{code}.md)"));
    }
    if plan["beyond_budget"].as_i64().unwrap_or_default() > 0 {
        output::line(format!("{} more match; the budget leaves them to a later firing", plan["beyond_budget"]));
    }
    for (name, version) in plan["pipelines"].as_object().into_iter().flatten() {
        output::line(format!("pipeline {name}, version {:.12}", field(version, "")));
    }
    let dollars = |value: &Value| format!("{:.4}", value.as_f64().unwrap_or_default() / 1e6);
    let cells = plan["stages"].as_array().into_iter().flatten().map(|stage| {
        let mut cells: Vec<String> =
            ["/stage", "/compute", "/cached", "/work_secs"].iter().map(|p| field(stage, p)).collect();
        cells.push(dollars(&stage["cost_microusd"]));
        cells
    });
    output::table(&["stage", "to compute", "from the cache", "work s", "$"], cells);
    output::line(format!(
        "about {:.0} s of work shared by the workers, about ${}; estimated from earlier attempts\n",
        plan["work_secs"].as_f64().unwrap_or_default(),
        dollars(&plan["cost_microusd"])
    ));
}

fn show(report: &Value) {
    let mut state = field(report, "/state");
    if let Some(code) = report["code"].as_str() {
        state.push_str(&format!(" ({code}: deploy/codes/{code}.md)"));
    }
    if let Some(schedule) = report["schedule"].as_str() {
        state.push_str(&format!(", for the schedule {schedule}"));
    }
    output::line(format!("replay {}: {state}", field(report, "/id")));
    let mut counts: Vec<String> =
        report["runs"].as_object().into_iter().flatten().map(|(state, count)| format!("{state} {count}")).collect();
    if report["without_run"] != 0 {
        counts.push(format!(
            "without a run {} (deleted, processed otherwise, or cancelled first)",
            report["without_run"]
        ));
    }
    output::line(format!("{} documents: {}", field(report, "/documents"), counts.join(", ")));
    for (code, count) in report["skipped"].as_object().into_iter().flatten() {
        output::line(format!("  {count} left alone: {code} (deploy/codes/{code}.md)"));
    }
    for (code, count) in report["failures"].as_object().into_iter().flatten() {
        output::line(format!("  {count} × {code} (deploy/codes/{code}.md)"));
    }
    let pointers = ["/stage", "/computed", "/cached", "/dead", "/open"];
    output::table(&["stage", "computed", "from the cache", "given up", "open"], rows(&report["stages"], &pointers));
}

/// `docmill replays …`.
pub async fn replays(cli: &Cli, args: &ReplaysArgs, api: &Api) -> Result<(), Ending> {
    let whose = [("tenant_id", args.tenant.clone())];
    let (id, state) = match &args.command {
        ReplaysCommand::List => {
            let found = api.get("/v1/operate/replays", &whose).await?;
            print(cli, &found, || {
                let pointers = ["/id", "/state", "/documents", "/created_at", "/finished_at", "/select"];
                output::table(
                    &["replay", "state", "documents", "started", "ended", "selection"],
                    rows(&found["replays"], &pointers),
                );
            });
            return Ok(());
        }
        ReplaysCommand::Show { id } => {
            let report = api.get(&format!("/v1/operate/replays/{}", encode(id)), &whose).await?;
            print(cli, &report, || show(&report));
            return Ok(());
        }
        ReplaysCommand::Difference { id, questions } => {
            let found = difference::of(api, id, questions).await?;
            print(cli, &found, || difference::describe(&found));
            return Ok(());
        }
        ReplaysCommand::Pause { id } => (id, "paused"),
        ReplaysCommand::Resume { id } => (id, "running"),
        ReplaysCommand::Cancel { id } => (id, "cancelled"),
    };
    let of = args.tenant.as_ref().map(|tenant| format!("?tenant_id={}", encode(tenant))).unwrap_or_default();
    let path = format!("/v1/operate/replays/{}/state{of}", encode(id));
    let report = api.post(&path, &json!({ "state": state })).await?;
    print(cli, &report, || show(&report));
    Ok(())
}
