//! The object store as a stranger's client meets it: signed URLs over a raw socket, raced, altered, cut off, restarted.
#![allow(clippy::unwrap_used)]

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use docmill_embedded::objects::{Faults, ObjectStoreConfig, serve};
use docmill_model::Code;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BUCKET: &str = "bucket";

struct Store {
    address: String,
    client: aws_sdk_s3::Client,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn config(folder: &tempfile::TempDir) -> ObjectStoreConfig {
    ObjectStoreConfig {
        root: folder.path().join("objects"),
        name: "test".to_owned(),
        access_key: "key".to_owned(),
        secret_key: "secret".to_owned(),
        buckets: vec![BUCKET.to_owned()],
    }
}

async fn start(folder: &tempfile::TempDir) -> Store {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = aws_sdk_s3::Client::from_conf(
        aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(format!("http://{address}"))
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
            .force_path_style(true)
            .build(),
    );
    let stop = CancellationToken::new();
    let (config, stopped) = (config(folder), stop.clone());
    let task = tokio::spawn(async move { serve(config, listener, Faults::default(), stopped).await.unwrap() });
    Store { address, client, stop, task }
}

fn good_for(secs: u64) -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_secs(secs)).unwrap()
}

impl Store {
    async fn put(&self, key: &str, only_new: bool) -> PresignedRequest {
        let put = self.client.put_object().bucket(BUCKET).key(key);
        let put = if only_new { put.if_none_match("*") } else { put };
        put.presigned(good_for(60)).await.unwrap()
    }

    async fn get(&self, key: &str) -> (u16, Vec<u8>) {
        let signed = self.client.get_object().bucket(BUCKET).key(key).presigned(good_for(60)).await.unwrap();
        self.send(&signed, &[], b"", usize::MAX).await
    }

    /// Sends a signed request with further headers and at most `cut` bytes of the body.
    async fn send(&self, signed: &PresignedRequest, more: &[(&str, &str)], body: &[u8], cut: usize) -> (u16, Vec<u8>) {
        let headers: Vec<(&str, &str)> = signed.headers().chain(more.iter().copied()).collect();
        self.send_to(signed.method(), signed.uri(), &headers, body, cut).await
    }

    async fn send_to(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        cut: usize,
    ) -> (u16, Vec<u8>) {
        let path = uri.split_once(&self.address).unwrap().1;
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for (name, value) in headers.iter().filter(|(name, _)| !matches!(*name, "host" | "content-length")) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut socket = TcpStream::connect(&self.address).await.unwrap();
        socket.write_all(text.as_bytes()).await.unwrap();
        socket.write_all(&body[..body.len().min(cut)]).await.unwrap();
        if cut < body.len() {
            return (0, Vec::new());
        }
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        let split = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer[split + 4..].to_vec())
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_uploads_exactly_one_wins_and_its_bytes_stay_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(start(&folder).await);
    let signed = std::sync::Arc::new(store.put("raced", true).await);
    let racers = (0..16u8).map(|number| {
        let (store, signed) = (store.clone(), signed.clone());
        tokio::spawn(async move { (number, store.send(&signed, &[], &[number; 1000], usize::MAX).await.0) })
    });
    let mut winners = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            (number, 200) => winners.push(number),
            (_, status) => assert_eq!(status, 412),
        }
    }
    assert_eq!(winners.len(), 1);
    std::sync::Arc::into_inner(store).unwrap().end().await;
    let again = start(&folder).await;
    assert_eq!(again.get("raced").await, (200, vec![winners[0]; 1000]));
    again.end().await;
}

#[tokio::test]
async fn a_refusal_arrives_though_the_body_is_still_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let store = start(&folder).await;
    let signed = store.put("there", true).await;
    assert_eq!(store.send(&signed, &[], b"x", usize::MAX).await.0, 200);
    for _ in 0..20 {
        assert_eq!(store.send(&signed, &[], &[7; 3_000_000], usize::MAX).await.0, 412);
    }
    store.end().await;
}

#[tokio::test]
async fn what_was_not_signed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = start(&folder).await;
    let signed = store.put("a", false).await;
    let with = |uri: String| async {
        let uri = uri;
        store.send_to("PUT", &uri, &[], b"x", 9).await.0
    };
    assert_eq!(store.send(&signed, &[("x-amz-meta-note", "free")], b"x", 9).await.0, 403, "an unsigned x-amz header");
    assert_eq!(with(signed.uri().replace("/a?", "/b?")).await, 403, "another key");
    assert_eq!(with(signed.uri().replace("X-Amz-Expires=60", "X-Amz-Expires=9999999")).await, 403, "a longer life");
    assert_eq!(with(signed.uri().split('?').next().unwrap().to_owned()).await, 403, "no signature");
    let v2 = format!("{}?AWSAccessKeyId=key&Signature=abc&Expires=9999999999", signed.uri().split('?').next().unwrap());
    assert_eq!(with(v2).await, 403, "signature version 2");
    assert_eq!(store.get("a").await.0, 404, "nothing of this was stored");
    assert_eq!(store.send(&signed, &[], b"x", 9).await.0, 200);
    store.end().await;
}

#[tokio::test]
async fn what_was_not_received_whole_and_right_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = start(&folder).await;
    let sum = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="; // SHA-256 of "abc"
    let put = store.client.put_object().bucket(BUCKET).key("summed").checksum_sha256(sum);
    let signed = put.presigned(good_for(60)).await.unwrap();
    assert_eq!(store.send(&signed, &[], b"abd", 9).await.0, 400);
    assert_eq!(store.get("summed").await.0, 404);
    assert_eq!(store.send(&signed, &[], b"abc", 9).await.0, 200);
    let cut = store.put("cut", false).await;
    store.send(&cut, &[], &[7; 100_000], 50_000).await;
    assert_eq!(store.get("cut").await.0, 404);
    store.end().await;
    let data = folder.path().join("objects");
    let again = start(&folder).await;
    let leftovers = walk(&data).into_iter().filter(|path| path.parent().unwrap().ends_with("data")).count();
    assert_eq!(leftovers, 1, "only the bytes of the one object are kept");
    again.end().await;
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn keys_cannot_reach_out_of_their_bucket_and_may_nest() {
    let folder = tempfile::tempdir().unwrap();
    let store = start(&folder).await;
    for key in ["k", "k/b", "k/b/c", "ümlaut und mehr", "x/../../evil"] {
        let signed = store.put(key, false).await;
        assert_eq!(store.send(&signed, &[], key.as_bytes(), usize::MAX).await.0, 200, "{key}");
        assert_eq!(store.get(key).await, (200, key.as_bytes().to_vec()));
    }
    assert!(!folder.path().join("evil").exists());
    store.end().await;
}

#[tokio::test]
async fn a_folder_is_served_by_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = start(&folder).await;
    // Served once the first request is answered.
    assert_eq!(store.get("none").await.0, 404);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let second = serve(config(&folder), listener, Faults::default(), CancellationToken::new()).await;
    assert_eq!(second.unwrap_err().code, Code::Conflict);
    store.end().await;
}
