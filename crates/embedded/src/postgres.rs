//! The embedded Postgres: real server binaries, Unix socket only, password per role, full durability.

use crate::database;
use crate::files::{io_failure, secret};
use crate::home::Home;
use crate::parts::PartPaths;
use crate::process::{self, is_ours, wait_until};
use docmill_model::{Code, Failure};
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const NAME: &str = "postgres";
const ROLES: [&str; 4] = ["postgres", "docmill_owner", "docmill_app", "docmill_engine"];

/// How to reach one embedded Postgres.
#[derive(Clone, Debug)]
pub struct EmbeddedPostgres {
    home: Home,
}

impl EmbeddedPostgres {
    /// The server of `home`, running or not.
    #[must_use]
    pub fn of(home: &Home) -> Self {
        Self { home: home.clone() }
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

    /// Starts or attaches, and makes sure the roles exist.
    ///
    /// # Errors
    /// `PART_MISSING` or `CONFIG_INVALID` with the last lines of the log.
    pub fn start(&self, parts: &PartPaths) -> Result<(), Failure> {
        if self.answers() {
            return Ok(());
        }
        if !self.data().join("PG_VERSION").is_file() {
            self.init(parts)?;
        }
        self.clear_stale_pid_file();
        let mut command = self.home.command(&parts.postgres_bin.join("postgres"));
        command.arg("-D").arg(self.data()).args(self.settings().iter().flat_map(|s| ["-c".to_owned(), s.clone()]));
        process::spawn(&self.home, NAME, command)?;
        if !wait_until(Duration::from_secs(60), || self.answers() || process::running(&self.home, NAME).is_none()) || !self.answers() {
            let tail = process::log_tail(&self.home, NAME);
            return Err(Failure::new(Code::ConfigInvalid, format!("Postgres did not start: {tail}")));
        }
        let passwords = ROLES[1..].iter().map(|r| Ok((*r, secret(&self.secret_path(r))?))).collect::<Result<Vec<_>, Failure>>()?;
        database::create_roles(&self.url("postgres", "postgres")?, &passwords)
    }

    fn settings(&self) -> Vec<String> {
        vec![
            format!("unix_socket_directories={}", self.home.run().display()),
            "listen_addresses=".into(),
            "max_connections=200".into(),
            "shared_buffers=128MB".into(),
            "maintenance_work_mem=128MB".into(),
            "max_wal_size=1GB".into(),
            "random_page_cost=1.1".into(),
            "jit=off".into(),
            "logging_collector=off".into(),
            // Statements may hold document text: an error names the code, never the statement.
            "log_min_error_statement=panic".into(),
            "log_error_verbosity=terse".into(),
        ]
    }

    fn init(&self, parts: &PartPaths) -> Result<(), Failure> {
        let data = self.data();
        let _ = fs::remove_dir_all(&data);
        crate::files::private_dir(&data)?;
        self.home.give(&data)?;
        for role in ROLES {
            secret(&self.secret_path(role))?;
            self.home.give(&self.secret_path(role))?;
        }
        let mut command = self.home.command(&parts.postgres_bin.join("initdb"));
        command
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"])
            .arg(format!("--pwfile={}", self.secret_path("postgres").display()))
            .arg("-D")
            .arg(&data);
        let output = command.output().map_err(|e| {
            Failure::new(Code::PartMissing, format!("cannot run initdb: {e}; run `docmill setup`"))
        })?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        let _ = fs::remove_dir_all(&data);
        Err(Failure::new(Code::ConfigInvalid, format!("initdb failed: {text}")))
    }

    /// After `kill -9` of everything the id in `postmaster.pid` may belong to a stranger; Postgres would refuse to start.
    fn clear_stale_pid_file(&self) {
        let path = self.data().join("postmaster.pid");
        let Ok(text) = fs::read_to_string(&path) else { return };
        let pid: Option<u32> = text.lines().next().and_then(|l| l.trim().parse().ok());
        if pid.is_some_and(|pid| !is_ours(&self.home, pid)) {
            let _ = fs::remove_file(&path);
        }
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
        process::running(&self.home, NAME)
    }

    /// Stops the server (fast shutdown).
    pub fn stop(&self) {
        process::stop(&self.home, NAME, Signal::INT, Duration::from_secs(20));
    }

    /// The folder of the data, for `reset`.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when it cannot be removed.
    pub fn erase(&self) -> Result<(), Failure> {
        let data = self.data();
        if data.exists() { fs::remove_dir_all(&data).map_err(|e| io_failure("remove", &data, &e)) } else { Ok(()) }
    }
}
