//! What the engine refuses to work with, before anything is served.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::Code;
use secrecy::SecretString;
use support::Bench;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// A socket that greets like a nats-server of `version` and answers pings: as much of the protocol as a client needs to
/// connect. No server that old can be installed beside the real one.
async fn greets_as(version: &str) -> SecretString {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let info = serde_json::json!({
        "server_id": "OLD", "server_name": "old", "version": version, "go": "go1.19", "host": "127.0.0.1",
        "port": address.port(), "headers": true, "max_payload": 1_048_576, "proto": 1, "jetstream": true,
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            let greeting = format!("INFO {info}\r\n");
            tokio::spawn(async move {
                write.write_all(greeting.as_bytes()).await.unwrap();
                let mut lines = BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line.starts_with("PING") && write.write_all(b"PONG\r\n").await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    SecretString::from(format!("nats://{address}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_nats_server_is_refused_with_what_to_do() {
    let bench = Bench::new().await;
    let mut config = bench.config("checker");
    config.nats_url = greets_as("2.9.25").await;
    let failure = bench.engine(config).check().await.unwrap_err();
    assert_eq!(failure.code, Code::ConfigInvalid);
    assert_eq!(failure.message, "nats-server 2.9.25 is too old; run 2.10 or newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_sees_the_connection_come_and_only_where_there_is_one() {
    let bench = Bench::new().await;
    let engine = bench.engine(bench.config("probed"));
    let status = engine.broker_status();
    assert_eq!(status.is_connected(), None);
    engine.check().await.unwrap();
    assert_eq!(status.is_connected(), Some(true));
}
