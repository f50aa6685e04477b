//! The embedded NATS server: JetStream with every write synced, loopback only, token required.

use crate::files::{replace, secret};
use crate::home::Home;
use crate::parts::PartPaths;
use crate::process::{self, wait_until};
use docmill_model::{Code, Failure};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

const NAME: &str = "nats";

/// How to reach one embedded NATS server.
#[derive(Clone, Debug)]
pub struct EmbeddedNats {
    home: Home,
}

impl EmbeddedNats {
    /// The server of `home`, running or not.
    #[must_use]
    pub fn of(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    fn port_path(&self) -> PathBuf {
        self.home.run().join("nats.port")
    }

    fn port(&self) -> Option<u16> {
        std::fs::read_to_string(self.port_path()).ok()?.trim().parse().ok()
    }

    /// The URL with its token.
    ///
    /// # Errors
    /// `BROKER_UNAVAILABLE` when the server was never started.
    pub fn url(&self) -> Result<String, Failure> {
        let port = self.port().ok_or_else(|| Failure::new(Code::BrokerUnavailable, "the embedded NATS server was never started"))?;
        Ok(format!("nats://{}@127.0.0.1:{port}", self.token()?))
    }

    fn token(&self) -> Result<String, Failure> {
        secret(&self.home.secrets().join("nats.token"))
    }

    /// Starts or attaches.
    ///
    /// # Errors
    /// `PART_MISSING` or `CONFIG_INVALID` with the last lines of the log.
    pub fn start(&self, parts: &PartPaths) -> Result<(), Failure> {
        if self.answers() {
            return Ok(());
        }
        process::stop(&self.home, NAME, Signal::TERM, Duration::from_secs(5));
        let port = free_port(self.port())?;
        replace(&self.port_path(), port.to_string().as_bytes(), 0o600)?;
        let store = self.home.data().join("nats");
        crate::files::private_dir(&store)?;
        self.home.give(&store)?;
        let config_path = self.home.run().join("nats.conf");
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\nserver_name: \"{}\"\nauthorization {{ token: \"{}\" }}\nmax_payload: 1MB\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always, max_memory_store: 64MB, max_file_store: 4GB }}\n",
            self.home.tag(),
            self.token()?,
            store.display()
        );
        replace(&config_path, config.as_bytes(), 0o600)?;
        self.home.give(&config_path)?;
        let mut command = self.home.command(&parts.nats_server);
        command.arg("-c").arg(&config_path);
        process::spawn(&self.home, NAME, command)?;
        if wait_until(Duration::from_secs(20), || self.answers()) {
            return Ok(());
        }
        Err(Failure::new(Code::ConfigInvalid, format!("NATS did not start: {}", process::log_tail(&self.home, NAME))))
    }

    /// True when the server on our port says it is ours.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.port().is_some_and(|port| greeting(port).is_some_and(|line| line.contains(&self.home.tag())))
    }

    /// The process id, when it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        process::running(&self.home, NAME)
    }

    /// Stops the server.
    pub fn stop(&self) {
        process::stop(&self.home, NAME, Signal::TERM, Duration::from_secs(10));
    }

    /// Removes all streams.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when they cannot be removed.
    pub fn erase(&self) -> Result<(), Failure> {
        let store = self.home.data().join("nats");
        if store.exists() { std::fs::remove_dir_all(&store).map_err(|e| crate::files::io_failure("remove", &store, &e)) } else { Ok(()) }
    }
}

/// The INFO line a NATS server greets with.
fn greeting(port: u16) -> Option<String> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line)
}

/// `wanted` if it is free, else any free loopback port.
///
/// # Errors
/// `CONFIG_INVALID` when the system has none.
pub fn free_port(wanted: Option<u16>) -> Result<u16, Failure> {
    let bound = wanted
        .and_then(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .map_or_else(|| TcpListener::bind(("127.0.0.1", 0)), Ok)
        .and_then(|listener| listener.local_addr());
    bound.map(|a| a.port()).map_err(|e| Failure::new(Code::ConfigInvalid, format!("no free loopback port: {e}")))
}
