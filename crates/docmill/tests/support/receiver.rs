//! A receiver of webhooks that answers as it is told, over plain sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};

/// What tells one notification from another.
pub struct Notification {
    /// The header `webhook-id`.
    pub id: String,
    /// How many signatures the header `webhook-signature` holds.
    pub signatures: usize,
}

/// Answers notifications with these statuses, one after the other, as long as the test runs; returns the URL and what arrives.
pub fn serve(statuses: impl Iterator<Item = u16> + Send + 'static) -> (String, Receiver<Notification>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (arrive, arrived) = mpsc::channel();
    std::thread::spawn(move || {
        for (stream, status) in listener.incoming().flatten().zip(statuses) {
            let _ = arrive.send(read(&stream));
            let head = format!("HTTP/1.1 {status} As told\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = (&stream).write_all(head.as_bytes());
        }
    });
    (url, arrived)
}

fn read(stream: &TcpStream) -> Notification {
    let (mut reader, mut length) = (BufReader::new(stream), 0);
    let mut notification = Notification { id: String::new(), signatures: 0 };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "webhook-id" => notification.id = value.trim().to_owned(),
            "webhook-signature" => notification.signatures = value.split_whitespace().count(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    notification
}
