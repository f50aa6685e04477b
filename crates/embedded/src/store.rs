//! The embedded object store as a child: this very binary, started again with other arguments.

use crate::files::{private_dir, secret};
use crate::home::Home;
use crate::objects::{self, Faults, ObjectStoreConfig};
use crate::ports::Port;
use crate::process::Service;
use docmill_model::{Code, Failure};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The bucket of the embedded object store.
pub const BUCKET: &str = "docmill";
/// The key id of the embedded object store.
pub const ACCESS_KEY: &str = "docmill";
/// The region requests are signed for.
pub const REGION: &str = "us-east-1";

/// Name the child gives itself, so that it can be told from other processes of the same binary.
const PROGRAM: &str = "docmill-object-store";
const START_PATIENCE: Duration = Duration::from_secs(20);
/// A port can be taken by a stranger between choosing and binding it.
const ATTEMPTS: usize = 3;

/// One embedded object store.
#[derive(Clone, Debug)]
pub struct EmbeddedStore {
    home: Home,
    service: Service,
    port: Port,
}

impl EmbeddedStore {
    /// The store of `home`, running or not.
    #[must_use]
    pub fn of(home: &Home) -> Self {
        let service = Service::new(home, "objects", PROGRAM, home.root());
        Self { home: home.clone(), service, port: Port::kept_in(home.run().join("objects.port")) }
    }

    fn root(&self) -> PathBuf {
        self.home.data().join("objects")
    }

    fn secret_path(&self) -> PathBuf {
        self.home.secrets().join("objects.secret")
    }

    /// The secret key.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when its file cannot be read or made.
    pub fn secret_key(&self) -> Result<String, Failure> {
        secret(&self.secret_path())
    }

    /// The endpoint, path style, plain HTTP on the loopback interface.
    ///
    /// # Errors
    /// `STORE_UNAVAILABLE` when the store was never started.
    pub fn url(&self) -> Result<String, Failure> {
        let port = self.port.get();
        let port =
            port.ok_or_else(|| Failure::new(Code::StoreUnavailable, "the embedded object store was never started"))?;
        Ok(format!("http://127.0.0.1:{port}"))
    }

    /// Starts this binary with `arguments` and the home folder as the last one, or attaches to the one that runs.
    /// Started so, the binary has to call [`EmbeddedStore::serve`].
    ///
    /// # Errors
    /// `CONFIG_INVALID` with the last lines of the log.
    pub fn start(&self, arguments: &[&str]) -> Result<(), Failure> {
        use std::os::unix::process::CommandExt;
        if self.pid().is_some() {
            if self.service.wait_ready(START_PATIENCE, || self.answers()) {
                return Ok(());
            }
            self.stop();
        }
        private_dir(&self.root())?;
        self.home.give(&self.root())?;
        self.secret_key()?;
        self.home.give(&self.secret_path())?;
        for _ in 0..ATTEMPTS {
            self.port.choose()?;
            self.home.give(&self.home.run().join("objects.port"))?;
            // Not by its path: the children's user may not be able to reach the folder of the binary.
            let mut command = self.home.command(Path::new("/proc/self/exe"));
            command.arg0(PROGRAM).args(arguments).arg(self.home.root());
            self.service.spawn(command)?;
            if self.service.wait_ready(START_PATIENCE, || self.answers()) {
                return Ok(());
            }
            self.stop();
        }
        Err(Failure::new(Code::ConfigInvalid, format!("the object store did not start: {}", self.service.log_tail())))
    }

    /// Serves until `stop` fires: the whole life of the child.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the folder or the port cannot be used, `CONFLICT` when the folder is already served.
    pub async fn serve(&self, stop: CancellationToken) -> Result<(), Failure> {
        let port = self.port.get().unwrap_or(0);
        let bound = tokio::net::TcpListener::bind(("127.0.0.1", port)).await;
        let listener =
            bound.map_err(|e| Failure::new(Code::ConfigInvalid, format!("cannot listen on port {port}: {e}")))?;
        objects::serve(self.config()?, listener, Faults::default(), stop).await
    }

    fn config(&self) -> Result<ObjectStoreConfig, Failure> {
        Ok(ObjectStoreConfig {
            root: self.root(),
            name: self.home.tag(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: self.secret_key()?,
            buckets: vec![BUCKET.to_owned()],
        })
    }

    /// True when the server on our port says it is ours.
    #[must_use]
    pub fn answers(&self) -> bool {
        let Some(mut stream) = self.port.connect() else { return false };
        if stream.write_all(b"HEAD / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").is_err() {
            return false;
        }
        let expected = format!("server: {}", self.home.tag());
        BufReader::new(stream).lines().map_while(Result::ok).any(|line| line.eq_ignore_ascii_case(&expected))
    }

    /// The process id, when it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.service.pid()
    }

    /// Stops the store; running requests may end.
    pub fn stop(&self) {
        self.service.stop(&[(Signal::TERM, Duration::from_secs(10))]);
    }
}
