//! A TCP link that breaks on demand, to stand between Docmill and one service it needs.
//!
//! A link can stall (nothing passes, nothing is closed: a black hole), be cut (every connection is closed), or orphan
//! the connections it has (they stay open and silent for good, as behind a firewall that forgot them, while new ones
//! work). Over HTTP it can also answer with an error of its own, end a body half-way, or change one byte of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where a link leads. Asked at every new connection: a restarted server may have another port.
pub enum Upstream {
    /// A TCP address, once it is known.
    Tcp(Box<dyn Fn() -> Option<SocketAddr> + Send + Sync>),
    /// A Unix socket.
    Unix(PathBuf),
}

/// How the next HTTP exchange goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFault {
    /// The request is answered with 500 and goes nowhere.
    Error,
    /// The connection ends inside the body of the answer to a GET.
    Truncated,
    /// One byte of the body of the answer to a GET is another.
    WrongByte,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    stalled: bool,
    /// Connections up to this one were cut.
    cut: u64,
    /// Connections up to this one are silent for good.
    orphaned: u64,
}

struct Shared {
    upstream: Upstream,
    state: watch::Sender<State>,
    connections: AtomicU64,
    faults: Mutex<VecDeque<HttpFault>>,
}

/// One link; closed when dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl Proxy {
    /// Opens a loopback port that leads to `upstream`. Runs on the current runtime.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn open(upstream: Upstream) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let state = watch::Sender::new(State::default());
        let shared =
            Arc::new(Shared { upstream, state, connections: AtomicU64::new(0), faults: Mutex::new(VecDeque::new()) });
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, shared.clone(), stop.clone()));
        Ok(Self { port, shared, _stop: stop.drop_guard() })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing passes, in either direction, until [`Self::heal`].
    pub fn stall(&self) {
        self.shared.state.send_modify(|state| state.stalled = true);
    }

    /// What was held back passes again.
    pub fn heal(&self) {
        self.shared.state.send_modify(|state| state.stalled = false);
    }

    /// Closes every connection there is.
    pub fn cut(&self) {
        let newest = self.shared.connections.load(Ordering::Acquire);
        self.shared.state.send_modify(|state| state.cut = newest);
    }

    /// Silences every connection there is for good; neither side is told. New connections work.
    pub fn orphan(&self) {
        let newest = self.shared.connections.load(Ordering::Acquire);
        self.shared.state.send_modify(|state| state.orphaned = newest);
    }

    /// The next `count` HTTP exchanges that can go wrong like `fault` do.
    pub fn plan(&self, fault: HttpFault, count: usize) {
        let mut faults = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.extend(std::iter::repeat_n(fault, count));
    }

    /// How many planned faults have not come yet.
    #[must_use]
    pub fn planned(&self) -> usize {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Forgets planned faults; returns how many there were.
    pub fn forget(&self) -> usize {
        std::mem::take(&mut *self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner)).len()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        if let Ok((client, _)) = accepted {
            let id = shared.connections.fetch_add(1, Ordering::AcqRel) + 1;
            let (shared, stop) = (shared.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = connect(client, &shared, id) => {}
                }
            });
        }
    }
}

async fn connect(client: TcpStream, shared: &Arc<Shared>, id: u64) {
    let _ = client.set_nodelay(true);
    let mut state = shared.state.subscribe();
    // A black hole takes the connection and says nothing.
    if passable(&mut state, id).await.is_none() {
        return;
    }
    match &shared.upstream {
        Upstream::Tcp(address) => {
            let Some(address) = address() else { return };
            if let Ok(server) = TcpStream::connect(address).await {
                let _ = server.set_nodelay(true);
                Connection { shared, state, id, fault: None, in_body: false }.run(client, server).await;
            }
        }
        Upstream::Unix(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                Connection { shared, state, id, fault: None, in_body: false }.run(client, server).await;
            }
        }
    }
}

/// Waits until something may pass; `None` when the connection was cut. Never returns for an orphan.
async fn passable(state: &mut watch::Receiver<State>, id: u64) -> Option<()> {
    let passed = state.wait_for(|state| id <= state.cut || (!state.stalled && id > state.orphaned)).await;
    passed.ok().filter(|state| id > state.cut).map(|_| ())
}

struct Connection<'a> {
    shared: &'a Arc<Shared>,
    state: watch::Receiver<State>,
    id: u64,
    /// What goes wrong with the answer that comes next.
    fault: Option<HttpFault>,
    /// The head of that answer has passed.
    in_body: bool,
}

impl Connection<'_> {
    async fn run<S: AsyncRead + AsyncWrite>(mut self, client: TcpStream, server: S) {
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        loop {
            if passable(&mut self.state, self.id).await.is_none() {
                return;
            }
            tokio::select! {
                changed = self.state.changed() => if changed.is_err() { return },
                read = from_client.read(&mut up) => {
                    let Ok(length @ 1..) = read else { return };
                    self.take_fault(&up[..length]);
                    if self.fault == Some(HttpFault::Error) {
                        let _ = to_client.write_all(ERROR).await;
                        return;
                    }
                    if to_server.write_all(&up[..length]).await.is_err() {
                        return;
                    }
                }
                read = from_server.read(&mut down) => {
                    let Ok(length @ 1..) = read else { return };
                    let (kept, ends) = self.spoil(&mut down[..length]);
                    if to_client.write_all(&down[..kept]).await.is_err() || ends {
                        return;
                    }
                }
            }
        }
    }

    /// Looks whether a request begins that the next planned fault fits.
    fn take_fault(&mut self, sent: &[u8]) {
        let reads = sent.starts_with(b"GET /");
        let any = reads || sent.starts_with(b"PUT /") || sent.starts_with(b"HEAD /");
        let mut planned = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = planned.front().is_some_and(|fault| if *fault == HttpFault::Error { any } else { reads });
        if fits {
            self.fault = planned.pop_front();
            self.in_body = false;
        }
    }

    /// Carries out the fault on a piece of the answer; how much of it to send, and whether the connection then ends.
    fn spoil(&mut self, piece: &mut [u8]) -> (usize, bool) {
        let Some(fault) = self.fault else { return (piece.len(), false) };
        let body = if self.in_body {
            Some(0)
        } else {
            piece.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
        };
        self.in_body |= body.is_some();
        let Some(body) = body.filter(|body| *body < piece.len()) else { return (piece.len(), false) };
        self.fault = None;
        match fault {
            HttpFault::Truncated => (body + (piece.len() - body) / 2, true),
            _ => {
                piece[body] = !piece[body];
                (piece.len(), false)
            }
        }
    }
}

const ERROR: &[u8] =
    b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/xml\r\ncontent-length: 41\r\nconnection: close\r\n\r\n\
      <Error><Code>InternalError</Code></Error>";
