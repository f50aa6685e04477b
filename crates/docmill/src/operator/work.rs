//! `dead`, `jobs`, `pause`, `resume`, `cancel`, `backlog`: what waits, what failed, and stopping it.

use super::args::{BacklogArgs, DeadCommand, DeadMany, DeadWhich, JobsArgs, PauseArgs, Stoppable};
use crate::cli::Cli;
use crate::client::api::{Api, encode};
use crate::confirm::agreed;
use crate::exit::Ending;
use crate::output::{self, field};
use docmill_model::Code;
use serde_json::{Value, json};
use std::time::Duration;

/// Between two looks of `backlog --watch`.
const REFRESH: Duration = Duration::from_secs(2);
const DEAD: &str = "/v1/operate/dead";
/// Most dead jobs the API lists at once.
const DEAD_LIMIT: u32 = 1000;

/// One JSON value for programs, something to read for people.
pub fn print(cli: &Cli, value: &Value, people: impl FnOnce()) {
    if cli.json { output::json(value) } else { people() }
}

/// Cells of each row by JSON pointers.
pub fn rows(list: &Value, pointers: &[&str]) -> Vec<Vec<String>> {
    let rows = list.as_array().into_iter().flatten();
    rows.map(|row| pointers.iter().map(|pointer| output::plain(&field(row, pointer))).collect()).collect()
}

/// `docmill dead …`.
pub async fn dead(cli: &Cli, command: &DeadCommand, api: &Api) -> Result<(), Ending> {
    match command {
        DeadCommand::List { which, resolved, limit } => {
            let found = api.get(DEAD, &dead_query(which, *resolved, *limit)).await?;
            print(cli, &found, || {
                let pointers =
                    ["/job_id", "/stage", "/code", "/failed", "/lost", "/document_id", "/finished_at", "/resolution"];
                let header = ["job", "stage", "code", "failed", "lost", "document", "given up", "resolution"];
                output::table(&header, rows(&found["jobs"], &pointers));
            });
        }
        DeadCommand::Show { job } => {
            let found = api.get(&format!("{DEAD}/{}", encode(job)), &[]).await?;
            print(cli, &found, || show_dead(&found));
        }
        DeadCommand::Retry(many) => return deal_with(cli, many, "retry", api).await,
        DeadCommand::Discard(many) => return deal_with(cli, many, "discard", api).await,
    }
    Ok(())
}

fn dead_query(which: &DeadWhich, resolved: bool, limit: u32) -> [(&'static str, Option<String>); 6] {
    [
        ("stage", which.stage.clone()),
        ("code", which.code.clone()),
        ("document", which.document.clone()),
        ("since", which.since.clone()),
        ("resolved", resolved.then(|| "true".to_owned())),
        ("limit", Some(limit.to_string())),
    ]
}

/// Retries or discards; what is being processed or was dealt with meanwhile is told and passed over.
async fn deal_with(cli: &Cli, many: &DeadMany, action: &str, api: &Api) -> Result<(), Ending> {
    let mut jobs = many.jobs.clone();
    if jobs.is_empty() {
        let found = api.get(DEAD, &dead_query(&many.which, false, DEAD_LIMIT)).await?;
        jobs = rows(&found["jobs"], &["/job_id"]).into_iter().flatten().collect();
        agreed(&format!("{action} {} dead jobs", jobs.len()), many.yes)?;
    }
    let (mut done, mut passed_over) = (Vec::new(), Vec::new());
    for job in &jobs {
        match api.post(&format!("{DEAD}/{}/{action}", encode(job)), &json!({})).await {
            Ok(answer) => done.push(json!({"job_id": job, "run_id": answer["run_id"]})),
            Err(Ending::Refused(failure)) if jobs.len() > 1 && failure.code == Code::Conflict => {
                passed_over.push(json!({"job_id": job, "why": failure.message}));
            }
            Err(error) => return Err(error),
        }
    }
    let report = json!({"action": action, "done": done, "passed_over": passed_over});
    print(cli, &report, || {
        output::line(format!("{action}: {} done, {} passed over", done.len(), passed_over.len()));
        output::table(&["job", "in run"], rows(&report["done"], &["/job_id", "/run_id"]));
        if !passed_over.is_empty() {
            output::table(&["passed over", "why"], rows(&report["passed_over"], &["/job_id", "/why"]));
        }
    });
    Ok(())
}

fn show_dead(found: &Value) {
    output::line(format!("stage    {}", field(found, "/job/stage")));
    output::line(format!("document {}", field(found, "/job/document_id")));
    let [id, cause, version] = ["/id", "/cause", "/pipeline_version"].map(|pointer| field(&found["run"], pointer));
    output::line(format!("run      {id}, cause {cause}, pipeline version {version:.12}"));
    output::line(format!("failure  {}", output::plain(&field(found, "/job/failure"))));
    if !found["code_page"].is_null() {
        let [page, meaning, remedy] =
            ["/page", "/meaning", "/remedy"].map(|pointer| output::plain(&field(&found["code_page"], pointer)));
        output::line(format!("page     {page}\n\n{meaning}\n\n{remedy}"));
    }
    output::line("");
    let pointers = ["/fence", "/started_at", "/worker", "/outcome", "/run_millis", "/failure/code", "/failure/message"];
    output::table(
        &["attempt", "started", "worker", "outcome", "ms", "code", "message"],
        rows(&found["attempts"], &pointers),
    );
    show_earlier(&found["earlier_runs"]);
    let mut artifacts = Vec::new();
    for (stage, manifest) in found["inputs"].as_object().into_iter().flatten() {
        for (kind, reference) in manifest["artifacts"].as_object().into_iter().flatten() {
            artifacts.push(vec![
                stage.clone(),
                kind.clone(),
                field(reference, "/sha256"),
                field(reference, "/size_bytes"),
            ]);
        }
    }
    let upload = ["/content_type", "/sha256", "/size_bytes"].map(|pointer| field(&found["upload"], pointer));
    artifacts.push([vec!["upload".to_owned()], upload.to_vec()].concat());
    output::line("");
    output::table(&["read from", "artifact", "sha256", "bytes"], artifacts);
}

/// The runs that led to the one of a dead job.
fn show_earlier(runs: &Value) {
    let pointers = ["/id", "/created_at", "/settled_at", "/cause", "/pipeline_version", "/state", "/code"];
    let mut earlier = rows(runs, &pointers);
    if earlier.is_empty() {
        return;
    }
    earlier.iter_mut().for_each(|row| row[4] = format!("{:.12}", row[4]));
    output::line("");
    output::table(&["earlier run", "began", "ended", "cause", "pipeline version", "state", "code"], earlier);
    let last = runs.as_array().and_then(|runs| runs.last());
    if let Some(before) = last.and_then(|run| run["parent_run"].as_str()) {
        output::line(format!("and before them {before}"));
    }
}

/// `docmill jobs`.
pub async fn jobs(cli: &Cli, args: &JobsArgs, api: &Api) -> Result<(), Ending> {
    if let Some(id) = &args.id {
        let found = api.get(&format!("/v1/operate/jobs/{}", encode(id)), &[]).await?;
        print(cli, &found, || {
            for name in [
                "stage",
                "state",
                "document_id",
                "run_id",
                "code",
                "held_reason",
                "worker",
                "lease_until",
                "available_at",
            ] {
                output::line(format!("{name:12} {}", field(&found, &format!("/job/{name}"))));
            }
            output::line("");
            let pointers =
                ["/fence", "/started_at", "/finished_at", "/worker", "/outcome", "/run_millis", "/failure/code"];
            output::table(
                &["attempt", "started", "ended", "worker", "outcome", "ms", "code"],
                rows(&found["attempts"], &pointers),
            );
        });
        return Ok(());
    }
    let query = [
        ("state", args.state.clone()),
        ("stage", args.stage.clone()),
        ("document", args.document.clone()),
        ("limit", Some(args.limit.to_string())),
    ];
    let found = api.get("/v1/operate/jobs", &query).await?;
    print(cli, &found, || {
        let pointers =
            ["/id", "/stage", "/state", "/code", "/failed", "/lost", "/document_id", "/created_at", "/finished_at"];
        let header = ["job", "stage", "state", "code", "failed", "lost", "document", "created", "ended"];
        output::table(&header, rows(&found["jobs"], &pointers));
    });
    Ok(())
}

/// `docmill pause`.
pub async fn pause(cli: &Cli, args: &PauseArgs, api: &Api) -> Result<(), Ending> {
    let mut body = json!({"kind": kind(args.kind)});
    if let Some(name) = &args.name {
        body["subject"] = json!(name);
    }
    let answer = api.post("/v1/operate/pauses", &body).await?;
    print(cli, &answer, || output::line("paused: what runs is finished, the rest waits"));
    Ok(())
}

/// `docmill resume`; a tenant is found among the pauses when it is not named.
pub async fn resume(cli: &Cli, args: &PauseArgs, api: &Api) -> Result<(), Ending> {
    let kind = kind(args.kind);
    let subject = match &args.name {
        Some(name) => name.clone(),
        None => {
            let pauses = api.get("/v1/operate/pauses", &[]).await?;
            let found = pauses["pauses"].as_array().into_iter().flatten().find(|pause| pause["kind"] == kind);
            found.map(|pause| field(pause, "/subject")).unwrap_or_else(|| "-".to_owned())
        }
    };
    let answer = api.delete(&format!("/v1/operate/pauses/{kind}/{}", encode(&subject))).await?;
    print(cli, &answer, || output::line("goes on"));
    Ok(())
}

fn kind(what: Stoppable) -> &'static str {
    match what {
        Stoppable::Stage => "stage",
        Stoppable::Pipeline => "pipeline",
        Stoppable::Tenant => "tenant",
    }
}

/// `docmill cancel`.
pub async fn cancel(cli: &Cli, run: &str, api: &Api) -> Result<(), Ending> {
    let answer = api.post(&format!("/v1/operate/runs/{}/cancel", encode(run)), &json!({})).await?;
    print(cli, &answer, || {
        output::line(format!("{} of document {}", field(&answer, "/state"), field(&answer, "/document_id")))
    });
    Ok(())
}

/// `docmill backlog`.
pub async fn backlog(cli: &Cli, args: &BacklogArgs, api: &Api) -> Result<(), Ending> {
    loop {
        let report = api.get("/v1/operate/backlog", &[("all", args.all.then(|| "true".to_owned()))]).await?;
        if args.watch && !cli.json {
            // Home, and clear what was there.
            output::line("\u{1b}[H\u{1b}[2J");
        }
        print(cli, &report, || show_backlog(&report, args.all));
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(REFRESH).await;
    }
}

fn show_backlog(report: &Value, all: bool) {
    let mut header = vec!["stage", "ready", "running", "retrying", "held", "dead", "blocked", "oldest s", "done/min"];
    let mut pointers = vec![
        "/stage",
        "/ready",
        "/running",
        "/retrying",
        "/held",
        "/dead",
        "/blocked",
        "/oldest_ready_secs",
        "/done_per_minute",
    ];
    if all {
        header.insert(0, "tenant");
        pointers.insert(0, "/tenant_id");
    }
    let mut cells = rows(&report["stages"], &pointers);
    let oldest = header.iter().position(|name| *name == "oldest s").unwrap_or_default();
    for row in &mut cells {
        if let Ok(secs) = row[oldest].parse::<f64>() {
            row[oldest] = format!("{secs:.1}");
        }
    }
    output::table(&header, cells);
}
