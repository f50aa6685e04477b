//! A receiver of webhooks, as a customer's server would be: it answers 200 and remembers the ids it was sent.

use anyhow::Result;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

type Seen = Arc<Mutex<BTreeMap<String, usize>>>;

/// Lives as long as the program.
pub struct Receiver {
    port: u16,
    seen: Seen,
}

impl Receiver {
    /// Listens on a free port of this machine.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let receiver = Self { port: listener.local_addr()?.port(), seen: Seen::default() };
        let seen = receiver.seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A caller that breaks off tries again; that is its part of the promise.
                let _ = answer(stream, &seen);
            }
        });
        Ok(receiver)
    }

    /// Where to send to.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    /// Forgets what was received under ids that are not these.
    pub fn keep_only(&self, ids: &std::collections::BTreeSet<String>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| ids.contains(id));
    }

    /// How often each webhook id was received.
    pub fn seen(&self) -> BTreeMap<String, usize> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(mut stream: TcpStream, seen: &Seen) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut length, mut id) = (0_u64, None);
    for line in reader.by_ref().lines() {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { if line.is_empty() { break } else { continue } };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "webhook-id" => id = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    if let Some(id) = id {
        *seen.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default() += 1;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}
