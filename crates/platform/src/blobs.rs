//! Objects by key: uploads, accepted files, artifacts.
//!
//! [`Blobs`] promises what every caller relies on: a put whose bytes do not have the declared hash stores nothing, an
//! object is seen whole or not at all, and of racing conditional writes exactly one wins. One conformance suite
//! (`tests/blobs.rs`) holds [`S3Blobs`] and [`MemoryBlobs`] to it. Not here: which keys exist and when they may go.

mod expiry;
mod memory;
mod s3;

pub use memory::MemoryBlobs;
pub use s3::{S3Blobs, S3Config};

use bytes::Bytes;
use docmill_model::{Code, Failure, Sha256Hex};
use std::collections::BTreeMap;
use std::time::Duration;
use time::OffsetDateTime;

/// Most entries of one [`Blobs::list`].
pub const LIST_LIMIT: usize = 1000;

/// Why an operation on an object failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// No object has this key.
    #[error("the object store has no object of this key")]
    Missing,
    /// The bytes do not have the hash they were declared with.
    #[error("the bytes differ from their sha256")]
    HashMismatch,
    /// The object is no longer the one that was looked at.
    #[error("the object changed since it was looked at")]
    Changed,
    /// The store does not answer, or answers with an error of its own; its code, never a key or a body.
    #[error("the object store failed ({0})")]
    Unavailable(String),
    /// The store has no such operation.
    #[error("the object store does not offer this")]
    Unsupported,
    /// The store refuses us: wrong bucket, key, signature or clock. Tried again all the same, as setting it right needs no new upload.
    #[error("the object store refuses the request ({0}); check bucket, keys, region and clock")]
    Refused(String),
}

impl From<BlobError> for Failure {
    fn from(error: BlobError) -> Self {
        let code = match &error {
            BlobError::Missing => Code::ObjectMissing,
            BlobError::HashMismatch => Code::HashMismatch,
            BlobError::Changed => Code::UploadMismatch,
            BlobError::Unavailable(_) | BlobError::Refused(_) | BlobError::Unsupported => Code::StoreUnavailable,
        };
        Failure::new(code, error.to_string())
    }
}

/// What the store says about an object without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobHead {
    /// Length in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the whole object, when the store keeps one.
    pub sha256: Option<Sha256Hex>,
    /// Entity tag without quotes.
    pub etag: String,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// The key.
    pub key: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// When it was last written.
    pub modified: OffsetDateTime,
}

/// What a signed upload URL is good for: exactly these bytes, once, at this key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresignPut {
    /// The key.
    pub key: String,
    /// Exact length in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: Sha256Hex,
    /// Media type.
    pub content_type: String,
    /// How long the URL is valid, at most seven days.
    pub expires: Duration,
}

/// A signed request for a client to send as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresignedPut {
    /// The URL, which is a secret until it expires.
    pub url: String,
    /// Always `PUT`.
    pub method: String,
    /// Headers that are part of the signature.
    pub headers: BTreeMap<String, String>,
    /// When the URL stops working.
    pub expires_at: OffsetDateTime,
}

/// The rule by which a store itself lets go of uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadExpiry {
    /// Days after which an upload that is still there goes.
    pub days: u32,
    /// Days after which the parts of an unfinished multipart upload go.
    pub unfinished_days: u32,
}

/// An object store.
#[async_trait::async_trait]
pub trait Blobs: Send + Sync {
    /// Stores `bytes` under `key`. Repeating it is fine; an object of other bytes is replaced.
    ///
    /// # Errors
    /// `HashMismatch` when the bytes do not have `sha256`: nothing is stored then.
    async fn put(&self, key: &str, bytes: Bytes, sha256: &Sha256Hex) -> Result<(), BlobError>;

    /// The whole object.
    ///
    /// # Errors
    /// `Missing`, or the store's.
    async fn get(&self, key: &str) -> Result<Bytes, BlobError>;

    /// The whole object, hashed again after it arrived. Wrong bytes are fetched once more before they are an error.
    ///
    /// # Errors
    /// `HashMismatch`, `Missing`, or the store's.
    async fn get_verified(&self, key: &str, sha256: &Sha256Hex) -> Result<Bytes, BlobError> {
        for _ in 0..2 {
            let bytes = self.get(key).await?;
            let (bytes, found) = hashed(bytes).await;
            if found == *sha256 {
                return Ok(bytes);
            }
        }
        Err(BlobError::HashMismatch)
    }

    /// What is known about the object; `None` when there is none.
    ///
    /// # Errors
    /// The store's.
    async fn head(&self, key: &str) -> Result<Option<BlobHead>, BlobError>;

    /// Copies inside the store, provided that `from` still has `etag`. An object that is already at `to` stays: `Ok`.
    ///
    /// # Errors
    /// `Missing` or `Changed` about `from`, or the store's.
    async fn copy_if_absent(&self, from: &str, to: &str, etag: &str) -> Result<(), BlobError>;

    /// Removes an object; a missing one is fine.
    ///
    /// # Errors
    /// The store's.
    async fn delete(&self, key: &str) -> Result<(), BlobError>;

    /// At most [`LIST_LIMIT`] objects whose key starts with `prefix` and comes after `after`, in key order.
    ///
    /// # Errors
    /// The store's.
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<BlobEntry>, BlobError>;

    /// Signs an upload. No request is made.
    ///
    /// # Errors
    /// `Refused` when it cannot be signed.
    async fn presign_put(&self, put: PresignPut) -> Result<PresignedPut, BlobError>;

    /// The lifecycle rule for uploads that is in force in the store; `None` when there is none.
    ///
    /// # Errors
    /// `Unsupported` by a store without such rules, or the store's.
    async fn upload_expiry(&self) -> Result<Option<UploadExpiry>, BlobError>;

    /// Puts the lifecycle rule for uploads in force, and touches no other rule; false when it is so already.
    ///
    /// # Errors
    /// `Unsupported` by a store without such rules, or the store's.
    async fn set_upload_expiry(&self, wanted: UploadExpiry) -> Result<bool, BlobError>;
}

/// The hash of `bytes`; large ones are hashed on a thread that may block.
async fn hashed(bytes: Bytes) -> (Bytes, Sha256Hex) {
    const INLINE_BYTES: usize = 256 * 1024;
    if bytes.len() <= INLINE_BYTES {
        let hash = Sha256Hex::of(&bytes);
        return (bytes, hash);
    }
    let copy = bytes.clone();
    match tokio::task::spawn_blocking(move || Sha256Hex::of(&copy)).await {
        Ok(hash) => (bytes, hash),
        Err(_) => {
            let hash = Sha256Hex::of(&bytes);
            (bytes, hash)
        }
    }
}
