//! One request to the plant's API, over a connection of its own, by a caller who may hang up.

use crate::plant::{Plant, Tenant};
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// What was answered.
pub struct Answer {
    pub status: u16,
    /// As it came, without the head.
    pub body: String,
}

/// The answer; `None` when the caller hung up before it came.
///
/// # Errors
/// Nobody listens, or the server hung up.
pub fn request(
    plant: &Plant,
    tenant: &Tenant,
    (method, path): (&str, &str),
    body: Option<&str>,
    patience: Duration,
) -> Result<Option<Answer>> {
    let mut stream = TcpStream::connect(("127.0.0.1", plant.port()))?;
    let (body, key) = (body.unwrap_or_default(), &tenant.key);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let (until, mut answer, mut piece) = (Instant::now() + patience, Vec::new(), [0; 4096]);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let _ = stream.shutdown(Shutdown::Both);
            return Ok(None);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("an answer without a status")?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok(Some(Answer { status, body }))
}
