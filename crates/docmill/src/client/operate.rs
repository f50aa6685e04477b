//! `dead`, `replay`, `backlog`: what an operator sees and steers.

use super::api::{Api, encode};
use crate::cli::{Cli, DeadCommand, ReplayArgs};
use crate::exit::Ending;
use crate::output::{self, field};
use serde_json::{Value, json};

fn print(cli: &Cli, value: &Value, people: impl FnOnce()) {
    if cli.json { output::json(value) } else { people() }
}

fn rows(list: &Value, pointers: &[&str]) -> Vec<Vec<String>> {
    let rows = list.as_array().into_iter().flatten();
    rows.map(|row| pointers.iter().map(|pointer| output::plain(&field(row, pointer))).collect()).collect()
}

/// `docmill dead …`.
pub async fn dead(cli: &Cli, command: &DeadCommand, api: &Api) -> Result<(), Ending> {
    let base = "/v1/operate/dead";
    match command {
        DeadCommand::List { stage } => {
            let found = api.get(base, &[("stage", stage.clone())]).await?;
            print(cli, &found, || {
                let pointers = ["/job_id", "/stage", "/code", "/failed", "/lost", "/document_id", "/finished_at"];
                let header = ["job", "stage", "code", "failed", "lost", "document", "given up"];
                output::table(&header, rows(&found["jobs"], &pointers));
            });
        }
        DeadCommand::Show { job } => {
            let found = api.get(&format!("{base}/{}", encode(job)), &[]).await?;
            print(cli, &found, || {
                output::line(format!("stage    {}", field(&found, "/job/stage")));
                output::line(format!("document {}", field(&found, "/job/document_id")));
                output::line(format!("failure  {}", output::plain(&field(&found, "/job/failure"))));
                output::line(format!("help     {}\n", field(&found, "/help")));
                let pointers = ["/started_at", "/worker", "/outcome", "/run_millis", "/failure/code"];
                output::table(&["started", "worker", "outcome", "ms", "code"], rows(&found["attempts"], &pointers));
            });
        }
        DeadCommand::Retry { job } => {
            let answer = api.post(&format!("{base}/{}/retry", encode(job)), &json!({})).await?;
            print(cli, &answer, || output::line(format!("retried in run {}", field(&answer, "/run_id"))));
        }
        DeadCommand::Discard { job } => {
            let answer = api.post(&format!("{base}/{}/discard", encode(job)), &json!({})).await?;
            print(cli, &answer, || output::line("discarded"));
        }
    }
    Ok(())
}

/// `docmill replay`.
pub async fn replay(cli: &Cli, args: &ReplayArgs, api: &Api) -> Result<(), Ending> {
    let mut select = json!({"stage": args.stage, "recompute": true});
    for (name, value) in [
        ("document_id", &args.document),
        ("pipeline", &args.pipeline),
        ("status", &args.status),
        ("since", &args.since),
    ] {
        if let Some(value) = value {
            select[name] = json!(value);
        }
    }
    if args.dry_run {
        let plan = api.post("/v1/operate/replays/plan", &json!({ "select": select })).await?;
        print(cli, &plan, || describe(&plan));
        return Ok(());
    }
    let mut body = json!({ "select": select });
    if let Some(count) = args.confirm {
        body["confirm"] = json!(count);
    }
    let started = api.post("/v1/operate/replays", &body).await?;
    print(cli, &started, || {
        output::line(format!("replay {}", field(&started, "/id")));
        describe(started.get("plan").unwrap_or(&started));
    });
    Ok(())
}

fn describe(plan: &Value) {
    output::line(format!("{} documents", field(plan, "/documents")));
    output::table(
        &["stage", "to compute", "from the cache"],
        rows(&plan["stages"], &["/stage", "/compute", "/cached"]),
    );
}

/// `docmill backlog`.
pub async fn backlog(cli: &Cli, api: &Api) -> Result<(), Ending> {
    let report = api.get("/v1/operate/backlog", &[]).await?;
    print(cli, &report, || {
        let pointers = ["/stage", "/ready", "/running", "/retrying", "/held", "/blocked"];
        let stages = report.get("stages").unwrap_or(&report);
        output::table(&["stage", "ready", "running", "retrying", "held", "blocked"], rows(stages, &pointers));
    });
    Ok(())
}
