//! Deliveries over a real socket: what the receiver sees, and what never leaves.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header::LOCATION};
use axum::routing::{get, post};
use docmill_model::Code;
use docmill_platform::webhooks::{Delivery, TIMEOUT, WebhookSender, fresh_secret, sign};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

type Seen = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A receiver with a path for each way to answer; counts what arrives.
async fn receiver() -> (String, Seen) {
    let seen = Seen::default();
    let note = |status: u16| {
        let seen = Arc::clone(&seen);
        post(move |headers: HeaderMap, body: Bytes| async move {
            seen.lock().unwrap().push((headers, body));
            (StatusCode::from_u16(status).unwrap(), [(LOCATION, "/ok")], "x".repeat(1000))
        })
    };
    let hang = || async { std::future::pending::<()>().await };
    let app = Router::new()
        .route("/ok", note(204))
        .route("/gone", note(410))
        .route("/moved", note(307))
        .route("/busy", note(503))
        .route("/hang", post(hang).merge(get(hang)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, seen)
}

fn delivery(url: &str) -> Delivery {
    Delivery {
        id: "msg_1".to_owned(),
        url: url.to_owned(),
        secrets: vec![fresh_secret(), fresh_secret()],
        timestamp: 1_700_000_000,
        body: Bytes::from_static(br#"{"type":"document.settled"}"#),
    }
}

#[tokio::test]
async fn the_receiver_can_verify_either_secret_and_redirects_are_not_followed() {
    let (url, seen) = receiver().await;
    let sender = WebhookSender::new(true).unwrap();
    let sent = delivery(&format!("{url}/ok"));
    assert_eq!(sender.send(&sent).await.unwrap(), 204);
    let (headers, body) = seen.lock().unwrap().remove(0);
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!((header("webhook-id"), header("webhook-timestamp")), ("msg_1".to_owned(), "1700000000".to_owned()));
    assert_eq!((header("content-type"), &body), ("application/json".to_owned(), &sent.body));
    let signatures = header("webhook-signature");
    assert_eq!(signatures.split(' ').count(), 2);
    for secret in &sent.secrets {
        let expected = sign(secret, "msg_1", 1_700_000_000, &body).unwrap();
        assert!(signatures.split(' ').any(|signature| signature == expected));
    }
    for (path, status) in [("gone", 410), ("busy", 503), ("moved", 307)] {
        assert_eq!(sender.send(&delivery(&format!("{url}/{path}"))).await.unwrap(), status);
    }
    assert_eq!(seen.lock().unwrap().len(), 3, "the redirect was not followed");
}

#[tokio::test]
async fn silence_and_closed_ports_are_failures_in_time() {
    let (url, _) = receiver().await;
    let sender = WebhookSender::with_timeout(true, Duration::from_millis(300)).unwrap();
    let started = Instant::now();
    let failure = sender.send(&delivery(&format!("{url}/hang"))).await.unwrap_err();
    assert!(failure.code == Code::DeliveryFailed && failure.message.contains("longer"), "{failure}");
    assert!(started.elapsed() < TIMEOUT, "its own limit, not the usual one");
    let failure = sender.send(&delivery("http://127.0.0.1:9/")).await.unwrap_err();
    assert_eq!(failure.code, Code::DeliveryFailed);
    let mut bad = delivery(&format!("{url}/ok"));
    bad.secrets = vec!["whsec_short".into()];
    assert_eq!(sender.send(&bad).await.unwrap_err().code, Code::ConfigInvalid);
}

#[tokio::test]
async fn nothing_is_sent_to_addresses_that_are_not_public() {
    let (url, seen) = receiver().await;
    let port = url.rsplit(':').next().unwrap();
    let sender = WebhookSender::new(false).unwrap();
    for blocked in [
        format!("{url}/ok"),
        format!("https://127.0.0.1:{port}/ok"),
        "https://0x7f.1/".to_owned(),
        "https://localhost/".to_owned(),
        "https://[::ffff:7f00:1]/".to_owned(),
        "https://169.254.169.254/".to_owned(),
    ] {
        assert_eq!(sender.send(&delivery(&blocked)).await.unwrap_err().code, Code::DeliveryBlocked, "{blocked}");
    }
    assert!(seen.lock().unwrap().is_empty());
}
