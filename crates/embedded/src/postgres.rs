//! The embedded Postgres: real server binaries, Unix socket only, password per role, full durability.

use crate::database;
use crate::files::{io_failure, secret};
use crate::home::Home;
use crate::parts::PartPaths;
use crate::process::Service;
use docmill_model::{Code, Failure};
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Crash recovery replays at most `max_wal_size` of log.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Backends of a killed server may live until their statement ends; the new one cannot start before.
const ATTEMPTS: usize = 40;
const ROLES: [&str; 4] = ["postgres", "docmill_owner", "docmill_app", "docmill_engine"];

/// One embedded Postgres.
#[derive(Clone, Debug)]
pub struct EmbeddedPostgres {
    home: Home,
    service: Service,
}

impl EmbeddedPostgres {
    /// The server of `home`, running or not.
    #[must_use]
    pub fn of(home: &Home) -> Self {
        let service = Service::new(home, "postgres", "postgres", &home.data().join("postgres"));
        Self { home: home.clone(), service }
    }

    fn data(&self) -> PathBuf {
        self.home.data().join("postgres")
    }

    fn secret_path(&self, role: &str) -> PathBuf {
        self.home.secrets().join(format!("{role}.password"))
    }

    /// A connection URL for `role` and `database` over the Unix socket.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the password file cannot be read or made.
    pub fn url(&self, role: &str, database: &str) -> Result<String, Failure> {
        let password = secret(&self.secret_path(role))?;
        let socket = self.home.run().to_string_lossy().replace('%', "%25").replace('/', "%2F");
        Ok(format!("postgres:///{database}?host={socket}&user={role}&password={password}"))
    }

    /// Starts, or attaches to the one that runs, and makes sure the roles exist.
    ///
    /// # Errors
    /// `PART_MISSING` or `CONFIG_INVALID` with the last lines of the log.
    pub fn start(&self, parts: &PartPaths) -> Result<(), Failure> {
        let attached = self.pid().is_some() && self.service.wait_ready(START_PATIENCE, || self.answers());
        if !attached {
            self.stop();
            self.launch(parts)?;
        }
        let passwords =
            ROLES[1..].iter().map(|r| Ok((*r, secret(&self.secret_path(r))?))).collect::<Result<Vec<_>, Failure>>()?;
        database::create_roles(&self.url("postgres", "postgres")?, &passwords)
    }

    fn launch(&self, parts: &PartPaths) -> Result<(), Failure> {
        if !self.data().join("PG_VERSION").is_file() {
            self.init(parts)?;
        }
        for _ in 0..ATTEMPTS {
            self.disown_lock_files();
            let logged = self.service.log_bytes();
            let mut command = self.home.command(&parts.postgres_bin.join("postgres"));
            command.arg("-D").arg(self.data()).args(self.settings().iter().flat_map(|s| ["-c".to_owned(), s.clone()]));
            self.service.spawn(command)?;
            if self.service.wait_ready(START_PATIENCE, || self.answers()) {
                return Ok(());
            }
            // Backends of a server that was killed say goodbye in the same log, before and after.
            if !self.service.log_says("still in use", logged) {
                break;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        Err(Failure::new(Code::ConfigInvalid, format!("Postgres did not start: {}", self.service.log_tail())))
    }

    fn settings(&self) -> Vec<String> {
        vec![
            format!("unix_socket_directories={}", self.home.run().display()),
            "listen_addresses=".into(),
            "max_connections=200".into(),
            // Holds vectors, their index and the chunks of 100,000 passages but for texts; taken as it is used.
            "shared_buffers=384MB".into(),
            "maintenance_work_mem=128MB".into(),
            "max_wal_size=1GB".into(),
            "random_page_cost=1.1".into(),
            "jit=off".into(),
            // A new stack's tables grow from nothing to thousands of rows within a minute, which is how often statistics are
            // taken by default; until then plans are made for empty tables.
            "autovacuum_naptime=10s".into(),
            "logging_collector=off".into(),
            // Statements may hold document text: an error names the code, never the statement.
            "log_min_error_statement=panic".into(),
            "log_error_verbosity=terse".into(),
        ]
    }

    /// No server of ours runs, so a lock file names a dead one, or a stranger that got its number, which would make
    /// Postgres refuse to start. The number is replaced by one that cannot exist; the rest of `postmaster.pid` stays,
    /// because Postgres finds in it the shared memory of backends that may have survived their server.
    fn disown_lock_files(&self) {
        let _ = fs::remove_file(self.home.run().join(".s.PGSQL.5432.lock"));
        let path = self.data().join("postmaster.pid");
        let Ok(text) = fs::read_to_string(&path) else { return };
        if let Some((_, rest)) = text.split_once('\n') {
            let _ = fs::write(&path, format!("{}\n{rest}", i32::MAX));
        }
    }

    /// Makes the data folder under another name first: a killed set-up leaves no half of it behind.
    fn init(&self, parts: &PartPaths) -> Result<(), Failure> {
        let (data, staging) = (self.data(), self.home.data().join("postgres.new"));
        for leftover in [&data, &staging] {
            let _ = fs::remove_dir_all(leftover);
        }
        for role in ROLES {
            secret(&self.secret_path(role))?;
            self.home.give(&self.secret_path(role))?;
        }
        let mut command = self.home.command(&parts.postgres_bin.join("initdb"));
        command
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--no-instructions"])
            .args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--data-checksums"])
            .arg(format!("--pwfile={}", self.secret_path("postgres").display()))
            .arg("-D")
            .arg(&staging);
        let output = command
            .output()
            .map_err(|e| Failure::new(Code::PartMissing, format!("cannot run initdb: {e}; run `docmill setup`")))?;
        if output.status.success() {
            return fs::rename(&staging, &data).map_err(|e| io_failure("move", &data, &e));
        }
        let text = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        Err(Failure::new(Code::ConfigInvalid, format!("initdb failed: {text}")))
    }

    /// True when the server accepts a connection of the superuser.
    #[must_use]
    pub fn answers(&self) -> bool {
        if !self.home.run().join(".s.PGSQL.5432").exists() {
            return false;
        }
        self.url("postgres", "postgres").is_ok_and(|url| ::postgres::Client::connect(&url, ::postgres::NoTls).is_ok())
    }

    /// The process id, when it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.service.pid()
    }

    /// Stops the server: fast shutdown, then an immediate one (which recovers at the next start).
    pub fn stop(&self) {
        self.service.stop(&[(Signal::INT, Duration::from_secs(20)), (Signal::QUIT, Duration::from_secs(10))]);
    }
}
