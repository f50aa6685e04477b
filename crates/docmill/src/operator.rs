//! Commands for whoever runs an installation: migrate, doctor, inspect, health; and over the API what waits, failed, and
//! is done again.

pub mod args;
mod difference;
mod replays;
mod schedules;
mod work;

use crate::assembly::{self, blocking};
use crate::cli::{Cli, Command};
use crate::client::{self, api::Api};
use crate::config::{Config, load};
use crate::exit::Ending;
use crate::inspect;
use crate::output::{self, field};
use crate::roles::access;
use crate::stack;
use args::DoctorArgs;
use docmill_embedded::{Stack, database};
use docmill_model::{Code, Failure};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long repairs may take until the invariants hold.
const REPAIR_PATIENCE: Duration = Duration::from_secs(60);

/// Runs one of the commands.
pub async fn run(cli: &Cli) -> Result<(), Ending> {
    match &cli.command {
        Command::Migrate => migrate(cli).await,
        Command::Doctor(args) => doctor(cli, args).await,
        Command::Inspect(args) => inspect::run(cli, &settings(cli).await?, args).await,
        Command::Health { at } => health(cli, at.as_deref()).await,
        _ => Ok(()),
    }
}

/// Runs one of the commands that see and steer the work.
pub async fn steer(cli: &Cli, api: &Api) -> Result<(), Ending> {
    match &cli.command {
        Command::Dead(command) => work::dead(cli, command, api).await,
        Command::Jobs(args) => work::jobs(cli, args, api).await,
        Command::Pause(args) => work::pause(cli, args, api).await,
        Command::Resume(args) => work::resume(cli, args, api).await,
        Command::Cancel { run } => work::cancel(cli, run, api).await,
        Command::Backlog(args) => work::backlog(cli, args, api).await,
        Command::Replay(args) => replays::replay(cli, args, api).await,
        Command::Replays(command) => replays::replays(cli, command, api).await,
        Command::Schedules(command) => schedules::run(cli, command, api).await,
        _ => Ok(()),
    }
}

async fn migrate(cli: &Cli) -> Result<(), Ending> {
    let config = load::load(cli.config.as_deref())?;
    let url = Config::need(&config.database.owner_url, "DOCMILL_DATABASE_OWNER_URL")?.clone();
    let applied = blocking(move || database::migrate(url.expose_secret())).await?;
    if cli.json {
        output::json(&json!({ "applied": applied }));
    } else if applied.is_empty() {
        output::line("nothing to apply");
    } else {
        applied.iter().for_each(|name| output::line(format!("applied {name}")));
    }
    Ok(())
}

/// The settings, with what the embedded stack of this home offers.
pub async fn settings(cli: &Cli) -> Result<Config, Failure> {
    let mut config = load::load(cli.config.as_deref())?;
    if let Some(home) = stack::existing_home(cli)? {
        let (work, pepper) = (home.clone(), String::new());
        let available = blocking(move || Stack::of(&work)?.available(docmill_embedded::stack::DATABASE)).await?;
        access::adopt(&mut config, &home, available, pepper);
    }
    Ok(config)
}

/// One check of the installation.
struct Check {
    name: &'static str,
    result: Result<String, Failure>,
}

async fn doctor(cli: &Cli, args: &DoctorArgs) -> Result<(), Ending> {
    let config = settings(cli).await?;
    let mut checks = vec![
        Check { name: "database", result: assembly::database(&config).await.map(|_| "answers as configured".into()) },
        Check { name: "object store", result: assembly::check_store(&config).await.map(|()| "answers".into()) },
        Check { name: "embedding model", result: assembly::check_model(&config).await },
    ];
    if let Some(folder) = &config.search.rerank_model_dir {
        let loaded = crate::searching::reranker(&config, true).await;
        checks.push(Check { name: "reranking model", result: loaded.map(|_| folder.display().to_string()) });
    }
    let sandbox = async { assembly::parser(&config)?.sandbox_report().await }.await;
    let ocr = sandbox.as_ref().map(|report| report.ocr_packs.join(", ")).unwrap_or_default();
    let walls = sandbox.and_then(|report| {
        report.check()?;
        let seccomp = if report.lockdown.seccomp { "on" } else { "off" };
        let pdfium = if report.lockdown.pdfium { "loaded" } else { "absent" };
        let mib = report.lockdown.address_space_bytes >> 20;
        let (landlock, probes) = (report.lockdown.landlock, report.probe.len());
        Ok(format!(
            "Landlock {landlock}, seccomp {seccomp}, address space {mib} MiB, pdfium {pdfium}, {probes} ways out denied"
        ))
    });
    checks.push(Check { name: "sandbox", result: walls });
    let missing = || Failure::new(Code::OcrUnavailable, "no tesseract: scans end OCR_UNAVAILABLE");
    checks.push(Check { name: "ocr", result: if ocr.is_empty() { Err(missing()) } else { Ok(ocr) } });
    let examined = match client::connect(cli) {
        Ok(api) if args.repair => repair(&api).await,
        Ok(api) => api.get("/v1/operate/doctor", &[]).await.map(|report| (report, Value::Null)),
        Err(failure) => Err(failure.into()),
    };
    let (answer, (report, repairs)) = match examined {
        Ok(examined) => (Ok("answers".into()), examined),
        Err(Ending::Failed(failure) | Ending::Refused(failure)) => (Err(failure), Default::default()),
        Err(Ending::Found) => return Err(Ending::Found),
    };
    checks.push(Check { name: "api", result: answer });
    show_doctor(cli, &checks, &report, &repairs)
}

/// Repairs, and looks again until the invariants hold or the time is over: what is processed again takes a while. Where
/// looking is expensive, it is done half of the time at most.
async fn repair(api: &Api) -> Result<(Value, Value), Ending> {
    let repairs = api.post("/v1/operate/doctor/repair", &json!({})).await?;
    let started = Instant::now();
    loop {
        let began = Instant::now();
        let report = api.get("/v1/operate/doctor", &[]).await?;
        if !is_violated(&report) || started.elapsed() > REPAIR_PATIENCE {
            return Ok((report, repairs["repairs"].clone()));
        }
        tokio::time::sleep(began.elapsed().max(Duration::from_millis(500))).await;
    }
}

/// Whether some invariant is broken; one that was not judged is not.
fn is_violated(report: &Value) -> bool {
    let mut invariants = report["invariants"].as_array().into_iter().flatten();
    invariants.any(|invariant| invariant["violations"].as_array().is_some_and(|found| !found.is_empty()))
}

/// What was not judged is as little a success as what is broken: nobody may rely on it.
fn show_doctor(cli: &Cli, checks: &[Check], report: &Value, repairs: &Value) -> Result<(), Ending> {
    let invariants = report["invariants"].as_array().cloned().unwrap_or_default();
    let unfinished = report["unfinished"].as_array().cloned().unwrap_or_default();
    // Without OCR everything but scans works.
    let broken = checks.iter().any(|check| check.result.as_ref().is_err_and(|f| f.code != Code::OcrUnavailable));
    let healthy = !is_violated(report) && unfinished.is_empty() && !broken;
    if cli.json {
        let shown = checks.iter().map(|c| match &c.result {
            Ok(detail) => json!({"name": c.name, "ok": true, "detail": detail}),
            Err(failure) => json!({"name": c.name, "ok": false, "code": failure.code, "detail": failure.message}),
        });
        output::json(&json!({"healthy": healthy, "checks": shown.collect::<Vec<_>>(), "invariants": invariants,
                    "unfinished": unfinished, "repairs": repairs}));
    } else {
        for check in checks {
            match &check.result {
                Ok(detail) => output::line(format!("ok      {:16} {detail}", check.name)),
                Err(failure) => output::line(format!("FAILED  {:16} {failure}", check.name)),
            }
        }
        for repair in repairs.as_array().into_iter().flatten() {
            let [invariant, subject, action] = ["/invariant", "/subject", "/action"].map(|at| field(repair, at));
            output::line(format!("repaired {invariant}: {subject}: {action}"));
        }
        if report.is_null() {
            output::line("\nThe invariants were not evaluated.");
        }
        for invariant in &invariants {
            let violations = invariant["violations"].as_array().cloned().unwrap_or_default();
            let mark = match violations.is_empty() {
                true if unfinished.contains(&invariant["name"]) => "LATE  ",
                true => "ok    ",
                false => "BROKEN",
            };
            output::line(format!("{mark}  {}", field(invariant, "/sentence")));
            for violation in violations {
                output::line(format!("          {}: {}", field(&violation, "/subject"), field(&violation, "/detail")));
            }
        }
    }
    if !unfinished.is_empty() && !cli.json {
        let names: Vec<&str> = unfinished.iter().filter_map(Value::as_str).collect();
        output::line(format!(
            "\nLATE was not judged, as the time of a request did not suffice, or a store did not answer: {}",
            names.join(", ")
        ));
    }
    if healthy { Ok(()) } else { Err(Ending::Found) }
}

async fn health(cli: &Cli, at: Option<&str>) -> Result<(), Ending> {
    let config = load::load(cli.config.as_deref())?;
    let own = format!("http://127.0.0.1:{}/readyz", config.listen.port());
    let url = at.or(cli.url.as_deref()).unwrap_or(&own);
    let client = reqwest::Client::builder().timeout(std::time::Duration::from_secs(3)).build();
    let client = client.map_err(|e| Failure::new(Code::Internal, format!("no HTTP client: {e}")))?;
    let answer = client.get(url).send().await;
    let answer = answer.map_err(|_| Failure::new(Code::StoreUnavailable, format!("{url} does not answer")))?;
    if answer.status().is_success() { Ok(()) } else { Err(Ending::Found) }
}
