//! Keeps the embedded stack up: restarts whatever service or role process died. Nothing depends on its own life: when
//! it is killed, the roles end with it and `docmill up` starts a new one.

use crate::assembly::blocking;
use crate::config::{Config, load};
use crate::exit::Ending;
use crate::roles::on_signal;
use docmill_embedded::process::{Service, Signal};
use docmill_embedded::{Home, Stack, Wanted};
use docmill_model::Failure;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Between two looks at the processes.
const TICK: Duration = Duration::from_millis(500);
/// How long the roles may take to hand back their jobs.
const ROLES_GRACE: Duration = Duration::from_secs(20);
/// Longest pause before roles that keep failing are started again.
const BACKOFF_LIMIT: Duration = Duration::from_secs(10);
/// Exit code of roles that can never work as configured.
const HOPELESS: i32 = 3;

/// Name the supervisor gives itself.
pub const SUPERVISOR: &str = "docmill-supervisor";
/// Name the process of the roles gives itself.
pub const ROLES: &str = "docmill-roles";

/// The supervisor of a home, as others find it.
pub fn supervisor(home: &Home) -> Service {
    Service::new(home, "supervisor", SUPERVISOR, home.root())
}

/// The process of the roles, as others find it.
pub fn roles(home: &Home) -> Service {
    Service::new(home, "roles", ROLES, home.root())
}

/// Which services the configuration leaves to the embedded stack.
pub fn wanted(config: &Config) -> Wanted {
    Wanted {
        postgres: config.database.url.is_none(),
        nats: config.nats.url.is_none(),
        objects: config.s3.endpoint.is_none(),
    }
}

/// `docmill object-store`: the life of the object store's process.
pub async fn object_store(root: &Path) -> Result<(), Ending> {
    let root = root.to_owned();
    let stack = blocking(move || Stack::of(&Home::open(Some(root), None)?)).await?;
    Ok(stack.serve_store(on_signal()?).await?)
}

/// `docmill supervise`: the life of the supervisor.
pub async fn run(root: &Path) -> Result<(), Ending> {
    let config = load::load(None)?;
    let stop = on_signal()?;
    let root = root.to_owned();
    let (home, wanted) = (blocking(move || Home::open(Some(root), None)).await?, wanted(&config));
    let stack = Stack::of(&home)?;
    let mut roles = RolesProcess::new(home);
    loop {
        let (services, looked) = (stack.clone(), stop.clone());
        let healed = blocking(move || {
            if !looked.is_cancelled() && services.is_down(wanted) {
                services.start(wanted, &["object-store"])?;
            }
            Ok(())
        });
        if let Err(failure) = healed.await {
            eprintln!("supervisor: {failure}");
        }
        // The roles die with the thread that starts them, so that has to be one that stays: this task runs on the main
        // thread for as long as the process lives.
        if !stop.is_cancelled() && roles.keep_up()? {
            return Err(Ending::Found);
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(TICK) => {}
        }
    }
    roles.stop().await;
    Ok(())
}

/// The one child.
struct RolesProcess {
    home: Home,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
}

impl RolesProcess {
    fn new(home: Home) -> Self {
        Self { home, child: None, started: Instant::now(), pause: Duration::ZERO }
    }

    /// Starts or restarts the roles; true when there is no use in trying again.
    fn keep_up(&mut self) -> Result<bool, Failure> {
        if let Some(child) = &mut self.child {
            let Ok(Some(status)) = child.try_wait() else { return Ok(false) };
            self.child = None;
            return Ok(self.ended(status));
        }
        if self.started.elapsed() < self.pause {
            return Ok(false);
        }
        let mut command = self.home.command(Path::new("/proc/self/exe"));
        command.arg0(ROLES).arg("serve").arg("--embedded").arg(self.home.root()).envs(settings());
        self.started = Instant::now();
        self.child = Some(roles(&self.home).spawn_kept(command)?);
        Ok(false)
    }

    fn ended(&mut self, status: ExitStatus) -> bool {
        eprintln!("supervisor: the roles ended ({status}) after {:.1} s", self.started.elapsed().as_secs_f64());
        let lived = self.started.elapsed() > BACKOFF_LIMIT;
        // Somebody's kill says nothing about the next start; a failure of its own does.
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        self.pause = if lived || killed { Duration::ZERO } else { (self.pause * 2).clamp(TICK, BACKOFF_LIMIT) };
        status.code() == Some(HOPELESS) && !lived
    }

    async fn stop(&mut self) {
        let Some(child) = &mut self.child else { return };
        roles(&self.home).signal(Signal::TERM);
        let asked = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if asked.elapsed() > ROLES_GRACE {
                let _ = child.kill();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What of the environment the background processes get: the settings, and nothing of the shell.
pub fn settings() -> Vec<(String, String)> {
    let kept = |name: &str| name.starts_with("DOCMILL_") && name != "DOCMILL_HOME" && name != "DOCMILL_API_KEY";
    let tools = ["RUST_BACKTRACE", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    std::env::vars().filter(|(name, _)| kept(name) || tools.contains(&name.as_str())).collect()
}
