//! `setup`, `up`, `down`, `status`, `reset`: the embedded stack from the outside.

use crate::assembly::blocking;
use crate::cli::{Cli, Command};
use crate::config::{Config, load};
use crate::exit::Ending;
use crate::output;
use crate::roles::access;
use crate::supervise::{self, settings};
use docmill_embedded::process::Signal;
use docmill_embedded::{Home, Stack};
use docmill_model::{Code, Failure};
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the roles may take until they answer.
const READY_PATIENCE: Duration = Duration::from_secs(90);

/// The home of this command, created when it is not there.
pub fn home(cli: &Cli) -> Result<Home, Failure> {
    Home::open(cli.home.clone(), data_dir())
}

/// The user's XDG data folder.
fn data_dir() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    named.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")))
}

/// The home of this command if it was ever made.
pub fn existing_home(cli: &Cli) -> Result<Option<Home>, Failure> {
    let root = Home::location(cli.home.clone(), data_dir())?;
    if root.join("secrets").is_dir() { Home::open(Some(root), None).map(Some) } else { Ok(None) }
}

/// Runs one of the five commands.
pub async fn run(cli: &Cli) -> Result<(), Ending> {
    let home = {
        let (configured, data) = (cli.home.clone(), data_dir());
        blocking(move || Home::open(configured, data)).await?
    };
    match &cli.command {
        Command::Setup => {
            let (stack, shown) = (Stack::of(&home)?, cli.json);
            blocking(move || {
                stack.set_up(&mut |line| {
                    if !shown {
                        eprintln!("{line}")
                    }
                })
            })
            .await?;
            let parts = Stack::of(&home)?.local_parts();
            show(cli, &json!({"home": home.root(), "parts": parts}), || output::line("everything is set up"));
        }
        Command::Up => {
            let config = load::load(cli.config.as_deref())?;
            let json = cli.json;
            let up = up(&home, &config, cli.config.as_deref(), move |line| {
                if !json {
                    eprintln!("{line}")
                }
            })
            .await?;
            let work = home.clone();
            let state = blocking(move || Ok(state(&work))).await?;
            show(cli, &state, || describe(&home, &up));
        }
        Command::Down => {
            let stopped = home.clone();
            blocking(move || {
                down(&stopped);
                Ok(())
            })
            .await?;
            show(cli, &json!({"running": false}), || output::line("stopped"));
        }
        Command::Status => status(cli, &home).await?,
        Command::Reset { yes } => reset(cli, home, *yes).await?,
        _ => {}
    }
    Ok(())
}

fn show(cli: &Cli, value: &serde_json::Value, people: impl FnOnce()) {
    if cli.json { output::json(value) } else { people() }
}

/// A running embedded stack.
#[derive(Clone, Debug)]
pub struct Up {
    /// Address of the API.
    pub url: String,
    /// True when it ran before.
    pub attached: bool,
    /// Seconds until it answered.
    pub seconds: f64,
}

/// Sets up what is missing, starts or attaches, and waits until the API answers.
pub async fn up(
    home: &Home,
    config: &Config,
    file: Option<&Path>,
    mut progress: impl FnMut(&str) + Send + 'static,
) -> Result<Up, Failure> {
    let started = Instant::now();
    let supervisor = supervise::supervisor(home);
    let attached = supervisor.pid().is_some();
    let (work, wanted, file) = (home.clone(), supervise::wanted(config), file.map(std::path::absolute));
    let owner = config.database.owner_url.clone();
    blocking(move || {
        let stack = Stack::of(&work)?;
        stack.set_up(&mut progress)?;
        progress(if attached {
            "attaching to the running stack"
        } else {
            "starting Postgres, NATS and the object store"
        });
        stack.start(wanted, &["object-store"])?;
        migrate(&stack, wanted.postgres, owner)?;
        if attached {
            return Ok(());
        }
        // Roles without a supervisor are on their way out; two processes must not share the lexical index.
        supervise::roles(&work).stop(&[(Signal::TERM, Duration::from_secs(15))]);
        progress("starting the roles");
        let mut command = work.command(Path::new("/proc/self/exe"));
        command.arg0(supervise::SUPERVISOR).arg("supervise").arg(work.root()).envs(settings());
        if let Some(Ok(file)) = file {
            command.env("DOCMILL_CONFIG", file);
        }
        supervise::supervisor(&work).spawn(command)
    })
    .await?;
    let url = ready(home).await?;
    Ok(Up { url, attached, seconds: started.elapsed().as_secs_f64() })
}

fn migrate(stack: &Stack, embedded: bool, owner: Option<secrecy::SecretString>) -> Result<(), Failure> {
    use secrecy::ExposeSecret;
    match owner {
        _ if embedded => stack.migrate().map(|_| ()),
        Some(url) => docmill_embedded::database::migrate(url.expose_secret()).map(|_| ()),
        // Somebody else migrates; the check at the roles' start says if nobody did.
        None => Ok(()),
    }
}

/// Waits until the API of the home answers. Another server may have the port by now, so it must be the one that the
/// home's roles started.
async fn ready(home: &Home) -> Result<String, Failure> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(3)).build();
    let client = client.map_err(|e| Failure::new(Code::Internal, format!("no HTTP client: {e}")))?;
    let (supervisor, roles) = (supervise::supervisor(home), supervise::roles(home));
    let started = Instant::now();
    while started.elapsed() < READY_PATIENCE {
        if supervisor.pid().is_none() {
            let message = format!("the roles do not start: {}", roles.log_tail());
            return Err(Failure::new(Code::ConfigInvalid, message));
        }
        if let Some(url) = url(home)
            && roles.pid().is_some()
            && access::key_path(home).is_file()
            && let Some(instance) = access::instance(home)
            && is_ready(&client, &url, &instance).await
        {
            return Ok(url);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(Failure::new(Code::Internal, format!("the roles do not get ready: {}", roles.log_tail())))
}

async fn is_ready(client: &reqwest::Client, url: &str, instance: &str) -> bool {
    client.get(format!("{url}/readyz")).send().await.is_ok_and(|answer| {
        let named = answer.headers().get(docmill_api::health::INSTANCE_HEADER);
        answer.status().is_success() && named.is_some_and(|named| named.as_bytes() == instance.as_bytes())
    })
}

/// Address of the API of the home, once it had one.
pub fn url(home: &Home) -> Option<String> {
    access::port(home).get().map(|port| format!("http://127.0.0.1:{port}"))
}

/// Stops everything, also what a killed supervisor left behind. Blocks.
pub fn down(home: &Home) {
    supervise::supervisor(home).stop(&[(Signal::TERM, Duration::from_secs(30))]);
    supervise::roles(home).stop(&[(Signal::TERM, Duration::from_secs(20))]);
    if let Ok(stack) = Stack::of(home) {
        stack.stop();
    }
}

fn state(home: &Home) -> serde_json::Value {
    let services = Stack::of(home).map(|stack| stack.status()).unwrap_or_default();
    let (supervisor, roles) = (supervise::supervisor(home).pid(), supervise::roles(home).pid());
    json!({
        "running": supervisor.is_some() && roles.is_some(),
        "url": url(home),
        "home": home.root(),
        "logs": home.logs(),
        "key_file": access::key_path(home),
        "services": services,
        "roles": {"pid": roles},
        "supervisor": {"pid": supervisor},
    })
}

fn describe(home: &Home, up: &Up) {
    output::line(format!(
        "{} at {} ({:.1} s)",
        if up.attached { "already running" } else { "running" },
        up.url,
        up.seconds
    ));
    output::line(format!("home   {}", home.root().display()));
    output::line(format!("logs   {}", home.logs().display()));
    output::line(format!("key    {}", access::key_path(home).display()));
    output::line("next   docmill upload FILE…   docmill ask \"…\"   docmill status   docmill down");
}

async fn status(cli: &Cli, home: &Home) -> Result<(), Ending> {
    let work = home.clone();
    let state = blocking(move || Ok(state(&work))).await?;
    if cli.json {
        output::json(&state);
    } else {
        let pid = |value: &serde_json::Value| output::field(value, "/pid");
        let services = state["services"].as_array().cloned().unwrap_or_default();
        let mut rows: Vec<Vec<String>> = services
            .iter()
            .map(|s| {
                vec![output::field(s, "/name"), if s["running"] == true { "running" } else { "stopped" }.into(), pid(s)]
            })
            .collect();
        for name in ["roles", "supervisor"] {
            let running = if state[name]["pid"].is_null() { "stopped" } else { "running" };
            rows.push(vec![name.into(), running.into(), pid(&state[name])]);
        }
        output::table(&["service", "state", "pid"], rows);
        output::line(format!("\napi    {}\nhome   {}", output::field(&state, "/url"), home.root().display()));
        output::line(format!("logs   {}", home.logs().display()));
    }
    if state["running"] == true { Ok(()) } else { Err(Ending::Found) }
}

async fn reset(cli: &Cli, home: Home, yes: bool) -> Result<(), Ending> {
    if !yes {
        eprint!("Delete all documents and results in {}? Type yes: ", home.data().display());
        let mut answer = String::new();
        let _ = std::io::stdin().read_line(&mut answer);
        if answer.trim() != "yes" {
            return Err(Ending::Found);
        }
    }
    let running = supervise::supervisor(&home).pid().or_else(|| supervise::roles(&home).pid());
    if running.is_some() {
        return Err(Failure::new(Code::Conflict, "the stack is running; run `docmill down` first").into());
    }
    blocking(move || {
        let _ = std::fs::remove_file(access::key_path(&home));
        Stack::of(&home)?.reset()
    })
    .await?;
    show(cli, &json!({"reset": true}), || output::line("all data is deleted; parts and passwords stay"));
    Ok(())
}
