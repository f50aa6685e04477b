//! One suite for every object store: what [`Blobs`] promises, shown on the fake and on a real socket, and what only a
//! real store can get wrong.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use docmill_embedded::objects::{Fault, Faults, ObjectStoreConfig, serve};
use docmill_model::{Code, Failure, Sha256Hex};
use docmill_platform::blobs::{BlobError, Blobs, LIST_LIMIT, MemoryBlobs, PresignPut, S3Blobs, S3Config, UploadExpiry};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const BUCKET: &str = "documents";

struct Store {
    blobs: S3Blobs,
    faults: Faults,
    config: S3Config,
    _folder: tempfile::TempDir,
    _stop: DropGuard,
}

/// The embedded object store in this process, and a client of it over a socket.
async fn store() -> Store {
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (faults, stop) = (Faults::default(), CancellationToken::new());
    let served = ObjectStoreConfig {
        root: folder.path().to_owned(),
        name: "test".to_owned(),
        access_key: "key".to_owned(),
        secret_key: "secret".to_owned(),
        buckets: vec![BUCKET.to_owned()],
    };
    tokio::spawn(serve(served, listener, faults.clone(), stop.clone()));
    let config = S3Config {
        endpoint,
        public_endpoint: None,
        region: "us-east-1".to_owned(),
        bucket: BUCKET.to_owned(),
        access_key: "key".to_owned(),
        secret_key: "secret".into(),
        path_style: true,
    };
    let blobs = S3Blobs::new(&config);
    blobs.check().await.unwrap();
    Store { blobs, faults, config, _folder: folder, _stop: stop.drop_guard() }
}

fn data(text: &str) -> (Bytes, Sha256Hex) {
    (Bytes::copy_from_slice(text.as_bytes()), Sha256Hex::of(text.as_bytes()))
}

async fn conforms(blobs: Arc<dyn Blobs>) {
    objects_come_back_as_they_were(&*blobs).await;
    wrong_hashes_store_nothing(&*blobs).await;
    copies_are_conditional(&*blobs).await;
    racing_copies_leave_one_object(Arc::clone(&blobs)).await;
    listings_are_ordered_and_paged(&*blobs).await;
}

async fn objects_come_back_as_they_were(blobs: &dyn Blobs) {
    assert_eq!(blobs.head("a/1").await.unwrap(), None);
    assert_eq!(blobs.get("a/1").await.unwrap_err(), BlobError::Missing);
    let (bytes, hash) = data("first");
    blobs.put("a/1", bytes.clone(), &hash).await.unwrap();
    blobs.put("a/1", bytes.clone(), &hash).await.unwrap();
    assert_eq!(blobs.get("a/1").await.unwrap(), bytes);
    assert_eq!(blobs.get_verified("a/1", &hash).await.unwrap(), bytes);
    let head = blobs.head("a/1").await.unwrap().unwrap();
    assert_eq!((head.size_bytes, head.sha256), (5, Some(hash.clone())));
    assert!(!head.etag.is_empty() && !head.etag.contains('"'));

    let (other, other_hash) = data("second, longer");
    blobs.put("a/1", other.clone(), &other_hash).await.unwrap();
    assert_eq!(blobs.get("a/1").await.unwrap(), other, "other bytes replace the object");
    assert_eq!(blobs.get_verified("a/1", &hash).await.unwrap_err(), BlobError::HashMismatch);

    let (nothing, nothing_hash) = data("");
    blobs.put("a/empty", nothing.clone(), &nothing_hash).await.unwrap();
    assert_eq!(blobs.get_verified("a/empty", &nothing_hash).await.unwrap(), nothing);
    let large = Bytes::from(vec![7u8; 3 << 20]);
    blobs.put("a/large", large.clone(), &Sha256Hex::of(&large)).await.unwrap();
    assert_eq!(blobs.get_verified("a/large", &Sha256Hex::of(&large)).await.unwrap(), large);

    for key in ["a/1", "a/1", "a/empty", "a/large"] {
        blobs.delete(key).await.unwrap();
        assert_eq!(blobs.head(key).await.unwrap(), None);
    }
}

async fn wrong_hashes_store_nothing(blobs: &dyn Blobs) {
    let (bytes, hash) = data("told");
    let (other, _) = data("sent");
    assert_eq!(blobs.put("b/1", other.clone(), &hash).await.unwrap_err(), BlobError::HashMismatch);
    assert_eq!(blobs.head("b/1").await.unwrap(), None);
    blobs.put("b/1", bytes.clone(), &hash).await.unwrap();
    assert_eq!(blobs.put("b/1", other, &hash).await.unwrap_err(), BlobError::HashMismatch);
    assert_eq!(blobs.get("b/1").await.unwrap(), bytes, "the object that was there stays");
}

async fn copies_are_conditional(blobs: &dyn Blobs) {
    let ((one, one_hash), (two, two_hash)) = (data("one"), data("two"));
    let (from, to) = ("c/from", "c/to");
    assert_eq!(blobs.copy_if_absent(from, to, "0").await.unwrap_err(), BlobError::Missing);
    blobs.put(from, one.clone(), &one_hash).await.unwrap();
    let etag = blobs.head(from).await.unwrap().unwrap().etag;
    blobs.put(from, two.clone(), &two_hash).await.unwrap();
    assert_eq!(blobs.copy_if_absent(from, to, &etag).await.unwrap_err(), BlobError::Changed);
    assert_eq!(blobs.head(to).await.unwrap(), None);

    let etag = blobs.head(from).await.unwrap().unwrap().etag;
    blobs.copy_if_absent(from, to, &etag).await.unwrap();
    assert_eq!(blobs.head(to).await.unwrap().unwrap().sha256, Some(two_hash.clone()));
    blobs.put(from, one.clone(), &one_hash).await.unwrap();
    let etag = blobs.head(from).await.unwrap().unwrap().etag;
    blobs.copy_if_absent(from, to, &etag).await.unwrap();
    assert_eq!(blobs.get(to).await.unwrap(), two, "what is already there stays");
    blobs.delete(from).await.unwrap();
    blobs.copy_if_absent(from, to, &etag).await.unwrap();
}

async fn racing_copies_leave_one_object(blobs: Arc<dyn Blobs>) {
    let mut copies = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (bytes, hash) = data(&format!("racer {number}"));
        let from = format!("d/from/{number}");
        blobs.put(&from, bytes, &hash).await.unwrap();
        let etag = blobs.head(&from).await.unwrap().unwrap().etag;
        let blobs = Arc::clone(&blobs);
        copies.spawn(async move { blobs.copy_if_absent(&from, "d/to", &etag).await });
    }
    while let Some(copied) = copies.join_next().await {
        copied.unwrap().unwrap();
    }
    let head = blobs.head("d/to").await.unwrap().unwrap();
    blobs.get_verified("d/to", &head.sha256.unwrap()).await.unwrap();
}

async fn listings_are_ordered_and_paged(blobs: &dyn Blobs) {
    let (bytes, hash) = data("x");
    for number in (0..12).rev() {
        blobs.put(&format!("e/{number:03}"), bytes.clone(), &hash).await.unwrap();
    }
    blobs.put("f/1", bytes.clone(), &hash).await.unwrap();
    let keys =
        |entries: Vec<docmill_platform::blobs::BlobEntry>| entries.into_iter().map(|e| e.key).collect::<Vec<_>>();
    let all: Vec<String> = (0..12).map(|number| format!("e/{number:03}")).collect();
    let found = blobs.list("e/", None).await.unwrap();
    assert!(found.iter().all(|entry| entry.size_bytes == 1 && entry.modified.unix_timestamp() > 1_700_000_000));
    assert_eq!(keys(found), all);
    assert_eq!(keys(blobs.list("e/", Some("e/008")).await.unwrap()), all[9..]);
    assert_eq!(keys(blobs.list("e/", Some("a")).await.unwrap()), all, "before the prefix is before all");
    assert!(blobs.list("e/", Some("e/011")).await.unwrap().is_empty());
    assert!(blobs.list("none/", None).await.unwrap().is_empty());
    assert_eq!(LIST_LIMIT, 1000);
}

#[tokio::test]
async fn memory_conforms() {
    conforms(Arc::new(MemoryBlobs::new())).await;
}

#[tokio::test]
async fn s3_conforms() {
    let store = store().await;
    conforms(Arc::new(store.blobs.clone())).await;
}

#[tokio::test]
async fn memory_takes_signed_uploads_once() {
    let blobs = MemoryBlobs::new();
    let (bytes, sha256) = data("upload");
    let signed = declared("u/1", &bytes, &sha256);
    assert_eq!(blobs.upload(&signed, Bytes::from_static(b"upl0ad")).unwrap_err(), BlobError::HashMismatch);
    assert!(blobs.upload(&signed, bytes.clone()).unwrap());
    assert!(!blobs.upload(&signed, bytes).unwrap());
}

fn declared(key: &str, bytes: &Bytes, sha256: &Sha256Hex) -> PresignPut {
    PresignPut {
        key: key.to_owned(),
        size_bytes: bytes.len() as u64,
        sha256: sha256.clone(),
        content_type: "text/plain".to_owned(),
        expires: Duration::from_secs(60),
    }
}

/// Sends a signed upload the way a client without any S3 library does.
async fn send(
    client: &reqwest::Client,
    signed: &docmill_platform::blobs::PresignedPut,
    change: Option<(&str, &str)>,
    body: Bytes,
) -> u16 {
    let mut headers = signed.headers.clone();
    headers.remove("content-length");
    if let Some((name, value)) = change {
        headers.insert(name.to_owned(), value.to_owned());
    }
    let mut request = client.put(&signed.url).body(body);
    for (name, value) in &headers {
        request = request.header(name, value);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_signed_upload_is_good_for_those_bytes_once() {
    let store = store().await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let (bytes, sha256) = data("exactly these bytes");
    let signed = store.blobs.presign_put(declared("up/1", &bytes, &sha256)).await.unwrap();
    assert_eq!(signed.method, "PUT");
    assert_eq!(signed.headers.get("if-none-match").map(String::as_str), Some("*"));
    assert_eq!(signed.headers.get("content-length").map(String::as_str), Some("19"));
    assert_eq!(signed.headers.get("content-type").map(String::as_str), Some("text/plain"));
    assert!(signed.headers.contains_key("x-amz-checksum-sha256"));
    let names = signed.url.split("X-Amz-SignedHeaders=").nth(1).unwrap().split('&').next().unwrap();
    for name in ["content-length", "content-type", "host", "if-none-match", "x-amz-checksum-sha256"] {
        assert!(names.contains(name), "{name} is not signed: {names}");
    }

    let wrong = Bytes::from_static(b"exactly other bytes");
    assert_eq!(send(&client, &signed, None, wrong.clone()).await, 400);
    assert_eq!(send(&client, &signed, None, Bytes::from_static(b"shorter")).await, 403);
    let other = [
        ("x-amz-checksum-sha256", "AAAA"),
        ("if-none-match", "x"),
        ("content-type", "text/html"),
        ("x-amz-meta-a", "b"),
    ];
    for change in other {
        assert_eq!(send(&client, &signed, Some(change), bytes.clone()).await, 403, "{change:?}");
    }
    assert_eq!(store.blobs.head("up/1").await.unwrap(), None, "nothing of that is visible");
    assert_eq!(send(&client, &signed, None, bytes.clone()).await, 200);
    assert_eq!(send(&client, &signed, None, bytes.clone()).await, 412);
    assert_eq!(store.blobs.head("up/1").await.unwrap().unwrap().sha256, Some(sha256));
}

#[tokio::test]
async fn signed_urls_name_the_public_endpoint() {
    let store = store().await;
    let config = S3Config { public_endpoint: Some("https://files.example".to_owned()), ..store.config.clone() };
    let (bytes, sha256) = data("x");
    let signed = S3Blobs::new(&config).presign_put(declared("up/2", &bytes, &sha256)).await.unwrap();
    assert!(signed.url.starts_with("https://files.example/documents/up/2?"), "{}", signed.url);
    let mut week = declared("up/2", &bytes, &sha256);
    week.expires = Duration::from_secs(8 * 24 * 3600);
    assert!(matches!(store.blobs.presign_put(week).await, Err(BlobError::Refused(_))));
}

#[tokio::test]
async fn reads_survive_what_a_bad_store_does() {
    let store = store().await;
    let text = "some text ".repeat(50_000);
    let (bytes, sha256) = data(&text);
    store.blobs.put("r/1", bytes.clone(), &sha256).await.unwrap();
    for (fault, count) in
        [(Fault::Error, 2), (Fault::Truncated, 2), (Fault::WrongBytes, 1), (Fault::Slow(Duration::from_millis(50)), 1)]
    {
        store.faults.plan(fault, count);
        assert_eq!(store.blobs.get_verified("r/1", &sha256).await.unwrap(), bytes, "{fault:?} {count} times");
    }
    store.faults.plan(Fault::WrongBytes, 2);
    assert_eq!(store.blobs.get_verified("r/1", &sha256).await.unwrap_err(), BlobError::HashMismatch);
    store.faults.plan(Fault::Truncated, 50);
    assert!(matches!(store.blobs.get("r/1").await, Err(BlobError::Unavailable(_))));
}

#[tokio::test]
async fn failures_say_what_to_do_and_never_show_keys() {
    let store = store().await;
    let wrong = S3Blobs::new(&S3Config { secret_key: "other".into(), ..store.config.clone() });
    let refused = Failure::from(wrong.get("private/key").await.unwrap_err());
    assert_eq!(refused.code, Code::StoreUnavailable);
    assert!(refused.message.contains("check bucket, keys") && !refused.message.contains("private"), "{refused}");
    assert_eq!(wrong.check().await.unwrap_err().code, Code::ConfigInvalid);
    let absent = S3Blobs::new(&S3Config { bucket: "absent".to_owned(), ..store.config.clone() });
    assert!(absent.check().await.unwrap_err().message.contains("`absent`"));
    let gone = S3Blobs::new(&S3Config { endpoint: "http://127.0.0.1:9".to_owned(), ..store.config.clone() });
    assert_eq!(Failure::from(gone.get("k").await.unwrap_err()).code, Code::StoreUnavailable);
    assert!(format!("{:?}", store.config).contains("REDACTED"), "{:?}", store.config);
}

#[tokio::test]
async fn the_rule_for_uploads_is_set_once_beside_those_of_others() {
    use aws_sdk_s3::types::{
        BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
    };
    let store = store().await;
    let raw = raw_client(&store.config);
    let theirs = LifecycleRule::builder()
        .id("theirs")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("logs/").build())
        .expiration(LifecycleExpiration::builder().days(3).build())
        .build()
        .unwrap();
    let configuration = BucketLifecycleConfiguration::builder().rules(theirs.clone()).build().unwrap();
    let put = raw.put_bucket_lifecycle_configuration().bucket(BUCKET).lifecycle_configuration(configuration);
    put.send().await.unwrap();
    assert_eq!(store.blobs.upload_expiry().await.unwrap(), None);
    let wanted = UploadExpiry { days: 8, unfinished_days: 8 };
    assert!(store.blobs.set_upload_expiry(wanted).await.unwrap());
    assert!(!store.blobs.set_upload_expiry(wanted).await.unwrap(), "compared first");
    assert_eq!(store.blobs.upload_expiry().await.unwrap(), Some(wanted));
    let later = UploadExpiry { days: 9, unfinished_days: 9 };
    assert!(store.blobs.set_upload_expiry(later).await.unwrap());
    let rules = raw.get_bucket_lifecycle_configuration().bucket(BUCKET).send().await.unwrap();
    let ids: Vec<_> = rules.rules().iter().map(|rule| rule.id().unwrap()).collect();
    assert_eq!((ids, &rules.rules()[0]), (vec!["theirs", "docmill-uploads"], &theirs));
    let prefix = rules.rules()[1].filter().and_then(LifecycleRuleFilter::prefix);
    assert_eq!(prefix, Some("uploads/"), "nothing that was accepted can match");
    assert_eq!(MemoryBlobs::new().upload_expiry().await, Err(BlobError::Unsupported));
}

/// A client of the test's own.
fn raw_client(config: &S3Config) -> aws_sdk_s3::Client {
    use secrecy::ExposeSecret;
    let credentials =
        aws_sdk_s3::config::Credentials::new(&config.access_key, config.secret_key.expose_secret(), None, None, "test");
    let settings = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(&config.endpoint)
        .region(aws_sdk_s3::config::Region::new(config.region.clone()))
        .credentials_provider(credentials)
        .force_path_style(true)
        .build();
    aws_sdk_s3::Client::from_conf(settings)
}
