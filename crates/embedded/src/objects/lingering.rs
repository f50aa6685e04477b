//! A connection that is closed late enough for its last answer to arrive.
//!
//! Closing a socket that still holds unread bytes resets it, and a reset takes along an answer on its way. A request
//! refused by its head (no right to it, the object exists) would look like a broken network to a client that is sending
//! the body. So the sending half is closed first, and what still comes is read and dropped, within bounds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// How long a client may go on sending after its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many bytes of it are read.
const MAX_BYTES: usize = 64 << 20;

/// A socket with a lingering close.
pub(super) struct Lingering {
    socket: TcpStream,
    dropped_bytes: usize,
    until: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, dropped_bytes: 0, until: None }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, dropped_bytes, until } = &mut *self;
        if until.is_none() {
            ready!(Pin::new(&mut *socket).poll_shutdown(cx))?;
        }
        let until = until.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        let mut space = [0; 8192];
        while *dropped_bytes < MAX_BYTES && until.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut *socket).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => *dropped_bytes += buf.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
