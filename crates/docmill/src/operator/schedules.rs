//! `schedules`: what the pipeline files have processed again, and when.

use super::args::{SchedulesArgs, SchedulesCommand};
use super::replays::{describe, follow};
use super::work::{print, rows};
use crate::cli::Cli;
use crate::client::api::{Api, encode};
use crate::confirm::agreed;
use crate::exit::Ending;
use crate::output::{self, field};
use docmill_model::{Code, Failure};
use serde_json::{Value, json};

/// `docmill schedules …`.
pub async fn run(cli: &Cli, args: &SchedulesArgs, api: &Api) -> Result<(), Ending> {
    let of = args.tenant.as_ref().map(|tenant| format!("?tenant_id={}", encode(tenant))).unwrap_or_default();
    match &args.command {
        SchedulesCommand::List => {
            let found = api.get("/v1/operate/schedules", &[("tenant_id", args.tenant.clone())]).await?;
            print(cli, &found, || table(&found["schedules"]));
        }
        SchedulesCommand::Plan { schedule } => {
            let plan = api.post(&format!("{}/plan{of}", path(schedule)?), &json!({})).await?;
            print(cli, &plan, || describe(&plan));
        }
        SchedulesCommand::Pause { schedule } => set(cli, api, schedule, &of, "paused").await?,
        SchedulesCommand::Resume { schedule } => set(cli, api, schedule, &of, "waiting").await?,
        SchedulesCommand::Run { schedule, yes, detach } => {
            let path = path(schedule)?;
            let plan = api.post(&format!("{path}/plan{of}"), &json!({})).await?;
            if !cli.json {
                describe(&plan);
            }
            agreed(&format!("process {} documents again", field(&plan, "/documents")), *yes)?;
            let started = api.post(&format!("{path}/run{of}"), &json!({})).await?;
            let id = field(&started, "/id");
            if *detach {
                print(cli, &started, || {
                    output::line(format!("replay {id}; `docmill replays show {id}` says how far it is"));
                });
                return Ok(());
            }
            follow(cli, api, &id, &args.tenant).await?;
        }
    }
    Ok(())
}

async fn set(cli: &Cli, api: &Api, schedule: &str, of: &str, state: &str) -> Result<(), Ending> {
    let set = api.post(&format!("{}/state{of}", path(schedule)?), &json!({ "state": state })).await?;
    print(cli, &set, || table(&json!([set])));
    Ok(())
}

fn path(schedule: &str) -> Result<String, Ending> {
    let refused =
        || Failure::new(Code::FieldInvalid, "a schedule is named PIPELINE/NAME; `docmill schedules list` shows them");
    let (pipeline, name) = schedule.split_once('/').ok_or_else(refused)?;
    Ok(format!("/v1/operate/schedules/{}/{}", encode(pipeline), encode(name)))
}

fn table(schedules: &Value) {
    let pointers =
        ["/pipeline", "/name", "/schedule/cron", "/state", "/next_at", "/last_slot", "/last_replay", "/last_state"];
    output::table(
        &["pipeline", "schedule", "when (UTC)", "state", "next", "last", "its replay", "which is"],
        rows(schedules, &pointers),
    );
}
