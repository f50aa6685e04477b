//! The embedded NATS server: JetStream with every write synced, loopback only, a password required.

use crate::files::{replace, secret};
use crate::home::Home;
use crate::parts::PartPaths;
use crate::ports::Port;
use crate::process::Service;
use docmill_model::{Code, Failure};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

const START_PATIENCE: Duration = Duration::from_secs(30);
/// A port can be taken by a stranger between choosing and binding it.
const ATTEMPTS: usize = 3;
/// The one user.
const USER: &str = "docmill";

/// One embedded NATS server.
#[derive(Clone, Debug)]
pub struct EmbeddedNats {
    home: Home,
    service: Service,
    port: Port,
}

impl EmbeddedNats {
    /// The server of `home`, running or not.
    #[must_use]
    pub fn of(home: &Home) -> Self {
        let service = Service::new(home, "nats", "nats-server", &config_path(home));
        Self { home: home.clone(), service, port: Port::kept_in(home.run().join("nats.port")) }
    }

    fn store(&self) -> PathBuf {
        self.home.data().join("nats")
    }

    /// The URL with user and password: the client library sends a lone user name as a user, never as a token.
    ///
    /// # Errors
    /// `BROKER_UNAVAILABLE` when the server was never started.
    pub fn url(&self) -> Result<String, Failure> {
        let port = self.port.get();
        let port =
            port.ok_or_else(|| Failure::new(Code::BrokerUnavailable, "the embedded NATS server was never started"))?;
        Ok(format!("nats://{USER}:{}@127.0.0.1:{port}", self.password()?))
    }

    fn password(&self) -> Result<String, Failure> {
        secret(&self.home.secrets().join("nats.password"))
    }

    /// Starts, or attaches to the one that runs.
    ///
    /// # Errors
    /// `PART_MISSING` or `CONFIG_INVALID` with the last lines of the log.
    pub fn start(&self, parts: &PartPaths) -> Result<(), Failure> {
        if self.pid().is_some() {
            // One that an older build started may know other credentials.
            if self.configured_alike() && self.service.wait_ready(START_PATIENCE, || self.answers()) {
                return Ok(());
            }
            self.stop();
        }
        crate::files::private_dir(&self.store())?;
        self.home.give(&self.store())?;
        for _ in 0..ATTEMPTS {
            self.configure()?;
            let mut command = self.home.command(&parts.nats_server);
            command.arg("-c").arg(config_path(&self.home));
            self.service.spawn(command)?;
            if self.service.wait_ready(START_PATIENCE, || self.answers()) {
                return Ok(());
            }
            self.stop();
        }
        Err(Failure::new(Code::ConfigInvalid, format!("NATS did not start: {}", self.service.log_tail())))
    }

    fn credentials(&self) -> Result<String, Failure> {
        Ok(format!("authorization {{ user: {USER}, password: \"{}\" }}", self.password()?))
    }

    fn configured_alike(&self) -> bool {
        let written = std::fs::read_to_string(config_path(&self.home)).unwrap_or_default();
        self.credentials().is_ok_and(|credentials| written.lines().any(|line| line == credentials))
    }

    fn configure(&self) -> Result<(), Failure> {
        let config = format!(
            "listen: \"127.0.0.1:{}\"\nserver_name: \"{}\"\n{}\nmax_payload: 1MB\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always, max_memory_store: 64MB, max_file_store: 4GB }}\n",
            self.port.choose()?,
            self.home.tag(),
            self.credentials()?,
            self.store().display()
        );
        let path = config_path(&self.home);
        replace(&path, config.as_bytes(), 0o600)?;
        self.home.give(&path)
    }

    /// True when the server on our port says it is ours.
    #[must_use]
    pub fn answers(&self) -> bool {
        let Some(stream) = self.port.connect() else { return false };
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).is_ok() && line.contains(&self.home.tag())
    }

    /// The process id, when it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.service.pid()
    }

    /// Stops the server.
    pub fn stop(&self) {
        self.service.stop(&[(Signal::TERM, Duration::from_secs(10))]);
    }
}

fn config_path(home: &Home) -> PathBuf {
    home.run().join("nats.conf")
}
