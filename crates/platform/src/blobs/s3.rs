//! Any S3 through the official client: path style or virtual hosts, signed with one static key.
//!
//! Every request has time limits and is tried again by the client; bodies that break off are fetched again here.
//! Checksums are SHA-256, sent with the PUT and verified by the store.

use super::{BlobEntry, BlobError, BlobHead, Blobs, LIST_LIMIT, PresignPut, PresignedPut, UploadExpiry, expiry};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumMode;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use docmill_model::{Code, Failure, Sha256Hex};
use secrecy::{ExposeSecret, SecretString};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// From the start of a request to the head of its answer, the upload of a body included.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// A copy inside the store may take as long as the largest file needs.
const COPY_TIMEOUT: Duration = Duration::from_secs(300);
const MAX_ATTEMPTS: u32 = 4;
/// Bodies that break off are fetched again this often.
const BODY_ATTEMPTS: u32 = 3;

/// Which store, and how to sign for it.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// Base URL the services talk to.
    pub endpoint: String,
    /// Base URL that signed uploads name, when clients reach the store under another one.
    pub public_endpoint: Option<String>,
    /// Region of the signature.
    pub region: String,
    /// The bucket; it must exist.
    pub bucket: String,
    /// Key id.
    pub access_key: String,
    /// Secret key.
    pub secret_key: SecretString,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
}

/// Objects in an S3 bucket.
#[derive(Clone)]
pub struct S3Blobs {
    pub(super) client: Client,
    signer: Client,
    pub(super) bucket: String,
}

impl S3Blobs {
    /// Over a store; makes no request. See [`S3Blobs::check`].
    #[must_use]
    pub fn new(config: &S3Config) -> Self {
        let client = client(config, &config.endpoint);
        let signer =
            config.public_endpoint.as_ref().map_or_else(|| client.clone(), |public| self::client(config, public));
        Self { client, signer, bucket: config.bucket.clone() }
    }

    /// Asks the store for the bucket: what a start-up check and readiness need.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the bucket does not exist or we may not use it, `STORE_UNAVAILABLE` otherwise.
    pub async fn check(&self) -> Result<(), Failure> {
        let Err(error) = self.client.head_bucket().bucket(&self.bucket).send().await else { return Ok(()) };
        match (status(&error), classify(&error)) {
            (Some(404), _) => Err(Failure::new(
                Code::ConfigInvalid,
                format!("the object store has no bucket `{}`; create it", self.bucket),
            )),
            (_, refused @ BlobError::Refused(_)) => Err(Failure::new(Code::ConfigInvalid, refused.to_string())),
            (_, other) => Err(other.into()),
        }
    }

    async fn put_once(&self, key: &str, bytes: Bytes, checksum: &str, only_new: bool) -> Result<(), Put> {
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .checksum_sha256(checksum)
            .set_if_none_match(only_new.then(|| "*".to_owned()))
            .body(ByteStream::from(bytes));
        match request.send().await {
            Ok(_) => Ok(()),
            // 409: another conditional write of this key is under way; 501: a store without conditional writes.
            Err(error) if only_new && matches!(status(&error), Some(409 | 412 | 501)) => Err(Put::Conditional),
            Err(error) => Err(Put::Failed(classify(&error))),
        }
    }
}

enum Put {
    Conditional,
    Failed(BlobError),
}

fn client(config: &S3Config, endpoint: &str) -> Client {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build();
    let retries = RetryConfig::standard()
        .with_max_attempts(MAX_ATTEMPTS)
        .with_initial_backoff(Duration::from_millis(100))
        .with_max_backoff(Duration::from_secs(5));
    let credentials =
        Credentials::new(&config.access_key, config.secret_key.expose_secret(), None, None, "docmill-configuration");
    let settings = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client(endpoint))
        .endpoint_url(endpoint)
        .region(Region::new(config.region.clone()))
        .credentials_provider(credentials)
        .force_path_style(config.path_style)
        .timeout_config(timeouts)
        .retry_config(retries)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(settings)
}

/// Plain HTTP needs no certificates, so a machine without any can still run the embedded store.
fn http_client(endpoint: &str) -> SharedHttpClient {
    if endpoint.starts_with("http://") {
        return Builder::new().build_http();
    }
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}

#[async_trait::async_trait]
impl Blobs for S3Blobs {
    async fn put(&self, key: &str, bytes: Bytes, sha256: &Sha256Hex) -> Result<(), BlobError> {
        let checksum = STANDARD.encode(sha256.to_bytes());
        // The object that is already there is most often this one, and readers of it are not disturbed.
        match self.put_once(key, bytes.clone(), &checksum, true).await {
            Ok(()) => return Ok(()),
            Err(Put::Failed(error)) => return Err(error),
            Err(Put::Conditional) => {}
        }
        let same = |head: BlobHead| head.size_bytes == bytes.len() as u64 && head.sha256.as_ref() == Some(sha256);
        if self.head(key).await?.is_some_and(same) {
            // It is the same object only if our bytes have the declared hash, which the store did not get to check.
            let (_, found) = super::hashed(bytes).await;
            return if found == *sha256 { Ok(()) } else { Err(BlobError::HashMismatch) };
        }
        match self.put_once(key, bytes, &checksum, false).await {
            Ok(()) => Ok(()),
            Err(Put::Failed(error)) => Err(error),
            Err(Put::Conditional) => Err(BlobError::Unavailable("conditional write".to_owned())),
        }
    }

    async fn get(&self, key: &str) -> Result<Bytes, BlobError> {
        let mut last = "body".to_owned();
        for _ in 0..BODY_ATTEMPTS {
            let sent = self.client.get_object().bucket(&self.bucket).key(key).send().await;
            let object = sent.map_err(|error| classify(&error))?;
            let announced = object.content_length().and_then(|length| u64::try_from(length).ok());
            match object.body.collect().await {
                Ok(body) => {
                    let bytes = body.into_bytes();
                    if announced.is_none_or(|length| length == bytes.len() as u64) {
                        return Ok(bytes);
                    }
                    last = "body of another length".to_owned();
                }
                Err(_) => last = "body broke off".to_owned(),
            }
        }
        Err(BlobError::Unavailable(last))
    }

    async fn head(&self, key: &str) -> Result<Option<BlobHead>, BlobError> {
        let request = self.client.head_object().bucket(&self.bucket).key(key).checksum_mode(ChecksumMode::Enabled);
        match request.send().await {
            Ok(head) => Ok(Some(BlobHead {
                size_bytes: head.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
                sha256: head.checksum_sha256().and_then(whole_sha256),
                etag: head.e_tag().unwrap_or_default().trim_matches('"').to_owned(),
            })),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(classify(&error)),
        }
    }

    async fn copy_if_absent(&self, from: &str, to: &str, etag: &str) -> Result<(), BlobError> {
        let patience = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(COPY_TIMEOUT).build();
        let copied = self
            .client
            .copy_object()
            .bucket(&self.bucket)
            .key(to)
            .copy_source(format!("{}/{}", percent_encoded(&self.bucket), percent_encoded(from)))
            .copy_source_if_match(format!("\"{etag}\""))
            .if_none_match("*")
            .customize()
            .config_override(aws_sdk_s3::Config::builder().timeout_config(patience))
            .send()
            .await;
        let Err(error) = copied else { return Ok(()) };
        let failed = match status(&error) {
            Some(404) => BlobError::Missing,
            // Either condition may have failed, and a racing copy gives 409: the target decides.
            Some(409 | 412) => BlobError::Changed,
            _ => classify(&error),
        };
        match self.head(to).await? {
            Some(_) => Ok(()),
            None if failed == BlobError::Changed && self.head(from).await?.is_none() => Err(BlobError::Missing),
            None => Err(failed),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), BlobError> {
        match self.client.delete_object().bucket(&self.bucket).key(key).send().await {
            Ok(_) => Ok(()),
            Err(error) => match classify(&error) {
                BlobError::Missing => Ok(()),
                error => Err(error),
            },
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<BlobEntry>, BlobError> {
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .set_start_after(after.map(str::to_owned))
            .max_keys(LIST_LIMIT as i32);
        let page = request.send().await.map_err(|error| classify(&error))?;
        let entry = |object: &aws_sdk_s3::types::Object| {
            Some(BlobEntry {
                key: object.key()?.to_owned(),
                size_bytes: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                modified: object
                    .last_modified()
                    .and_then(|at| OffsetDateTime::from_unix_timestamp_nanos(at.as_nanos()).ok())
                    .unwrap_or_else(OffsetDateTime::now_utc),
            })
        };
        Ok(page.contents().iter().filter_map(entry).collect())
    }

    async fn presign_put(&self, put: PresignPut) -> Result<PresignedPut, BlobError> {
        let refused = |what: &str| BlobError::Refused(what.to_owned());
        let start = SystemTime::now();
        let expiry = PresigningConfig::builder().start_time(start).expires_in(put.expires).build();
        let expiry = expiry.map_err(|_| refused("expiry"))?;
        let length = i64::try_from(put.size_bytes).map_err(|_| refused("length"))?;
        let signed = self
            .signer
            .put_object()
            .bucket(&self.bucket)
            .key(&put.key)
            .content_length(length)
            .content_type(&put.content_type)
            .checksum_sha256(STANDARD.encode(put.sha256.to_bytes()))
            .if_none_match("*")
            .presigned(expiry)
            .await
            .map_err(|error| classify(&error))?;
        Ok(PresignedPut {
            url: signed.uri().to_owned(),
            method: signed.method().to_owned(),
            headers: signed.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            expires_at: OffsetDateTime::from(start) + put.expires,
        })
    }

    async fn upload_expiry(&self) -> Result<Option<UploadExpiry>, BlobError> {
        expiry::read(self).await
    }

    async fn set_upload_expiry(&self, wanted: UploadExpiry) -> Result<bool, BlobError> {
        expiry::write(self, wanted).await
    }
}

/// A whole-object checksum; that of a multipart upload (`…-3`) says nothing about the whole.
fn whole_sha256(base64: &str) -> Option<Sha256Hex> {
    let digest: [u8; 32] = STANDARD.decode(base64).ok()?.try_into().ok()?;
    Some(Sha256Hex::from_digest(&digest))
}

fn percent_encoded(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

pub(super) type Sent<E> = SdkError<E, aws_sdk_s3::config::http::HttpResponse>;

pub(super) fn status<E>(error: &Sent<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

pub(super) fn classify<E: ProvideErrorMetadata>(error: &Sent<E>) -> BlobError {
    let code = error.code().unwrap_or_default();
    let what = match (error, status(error)) {
        (_, Some(status)) if code.is_empty() => format!("HTTP {status}"),
        (_, Some(_)) => code.to_owned(),
        (SdkError::TimeoutError(_), None) => "timeout".to_owned(),
        (SdkError::DispatchFailure(_), None) => "connection".to_owned(),
        (SdkError::ConstructionFailure(_), None) => "request".to_owned(),
        _ => "answer".to_owned(),
    };
    tracing::debug!(error = %what, request_id = error.meta().request_id(), "object store error");
    match (code, status(error)) {
        ("NoSuchBucket", _) => BlobError::Refused(what),
        ("NoSuchKey" | "NotFound", _) | (_, Some(404)) => BlobError::Missing,
        ("BadDigest" | "XAmzContentChecksumMismatch" | "InvalidDigest", _) => BlobError::HashMismatch,
        (_, Some(400 | 401 | 403 | 301)) => BlobError::Refused(what),
        _ => BlobError::Unavailable(what),
    }
}
