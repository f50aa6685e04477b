//! Loopback ports that stay the same from one start to the next, kept in a file of the run folder.

use crate::files::replace;
use docmill_model::{Code, Failure};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

/// The remembered port of one service.
#[derive(Clone, Debug)]
pub struct Port {
    path: PathBuf,
}

impl Port {
    /// The port kept in `path`.
    #[must_use]
    pub fn kept_in(path: PathBuf) -> Self {
        Self { path }
    }

    /// The port, once one was chosen.
    #[must_use]
    pub fn get(&self) -> Option<u16> {
        std::fs::read_to_string(&self.path).ok()?.trim().parse().ok()
    }

    /// The remembered port if nothing listens on it, else any free one, which is remembered from now on.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the system has no free port or the file cannot be written.
    pub fn choose(&self) -> Result<u16, Failure> {
        self.choose_among(&[])
    }

    /// As [`Port::choose`], but `usual` is tried before any free one.
    ///
    /// # Errors
    /// As [`Port::choose`].
    pub fn choose_near(&self, usual: u16) -> Result<u16, Failure> {
        self.choose_among(&[usual])
    }

    fn choose_among(&self, usual: &[u16]) -> Result<u16, Failure> {
        let wanted = self.get().into_iter().chain(usual.iter().copied());
        let bound = wanted.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).next();
        let listener = bound.map_or_else(|| TcpListener::bind(("127.0.0.1", 0)), Ok);
        let address = listener.and_then(|listener| listener.local_addr());
        let port =
            address.map_err(|e| Failure::new(Code::ConfigInvalid, format!("no free loopback port: {e}")))?.port();
        replace(&self.path, port.to_string().as_bytes(), 0o644)?;
        Ok(port)
    }

    /// Connects within a second.
    #[must_use]
    pub fn connect(&self) -> Option<TcpStream> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.get()?));
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        Some(stream)
    }
}
