//! Objects in memory: for tests that need a store's meaning and not its socket.

use super::{BlobEntry, BlobError, BlobHead, Blobs, LIST_LIMIT, PresignPut, PresignedPut, UploadExpiry};
use bytes::Bytes;
use docmill_model::Sha256Hex;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use time::OffsetDateTime;

struct Object {
    bytes: Bytes,
    sha256: Sha256Hex,
    modified: OffsetDateTime,
}

/// A store that forgets everything when it is dropped.
#[derive(Default)]
pub struct MemoryBlobs {
    objects: Mutex<BTreeMap<String, Object>>,
}

impl MemoryBlobs {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a client does with a signed upload: true when the object is new.
    ///
    /// # Errors
    /// `HashMismatch` for other bytes than the signed ones.
    pub fn upload(&self, signed: &PresignPut, bytes: Bytes) -> Result<bool, BlobError> {
        if bytes.len() as u64 != signed.size_bytes || Sha256Hex::of(&bytes) != signed.sha256 {
            return Err(BlobError::HashMismatch);
        }
        let mut objects = self.lock();
        let is_new = !objects.contains_key(&signed.key);
        if is_new {
            objects.insert(signed.key.clone(), Object::of(bytes, signed.sha256.clone()));
        }
        Ok(is_new)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object {
    fn of(bytes: Bytes, sha256: Sha256Hex) -> Self {
        Self { bytes, sha256, modified: OffsetDateTime::now_utc() }
    }

    fn etag(&self) -> String {
        self.sha256.as_str()[..32].to_owned()
    }
}

#[async_trait::async_trait]
impl Blobs for MemoryBlobs {
    async fn put(&self, key: &str, bytes: Bytes, sha256: &Sha256Hex) -> Result<(), BlobError> {
        if Sha256Hex::of(&bytes) != *sha256 {
            return Err(BlobError::HashMismatch);
        }
        self.lock().insert(key.to_owned(), Object::of(bytes, sha256.clone()));
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes, BlobError> {
        self.lock().get(key).map(|object| object.bytes.clone()).ok_or(BlobError::Missing)
    }

    async fn head(&self, key: &str) -> Result<Option<BlobHead>, BlobError> {
        Ok(self.lock().get(key).map(|object| BlobHead {
            size_bytes: object.bytes.len() as u64,
            sha256: Some(object.sha256.clone()),
            etag: object.etag(),
        }))
    }

    async fn copy_if_absent(&self, from: &str, to: &str, etag: &str) -> Result<(), BlobError> {
        let mut objects = self.lock();
        if objects.contains_key(to) {
            return Ok(());
        }
        let source = objects.get(from).ok_or(BlobError::Missing)?;
        if source.etag() != etag {
            return Err(BlobError::Changed);
        }
        let copy = Object::of(source.bytes.clone(), source.sha256.clone());
        objects.insert(to.to_owned(), copy);
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<(), BlobError> {
        self.lock().remove(key);
        Ok(())
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<BlobEntry>, BlobError> {
        let objects = self.lock();
        let start = after.filter(|after| *after >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
        let found = objects.range::<str, _>((start, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
        let entry = |(key, object): (&String, &Object)| BlobEntry {
            key: key.clone(),
            size_bytes: object.bytes.len() as u64,
            modified: object.modified,
        };
        Ok(found.take(LIST_LIMIT).map(entry).collect())
    }

    async fn presign_put(&self, put: PresignPut) -> Result<PresignedPut, BlobError> {
        Ok(PresignedPut {
            url: format!("memory:///{}", put.key),
            method: "PUT".to_owned(),
            headers: BTreeMap::from([("content-length".to_owned(), put.size_bytes.to_string())]),
            expires_at: OffsetDateTime::now_utc() + put.expires,
        })
    }

    async fn upload_expiry(&self) -> Result<Option<UploadExpiry>, BlobError> {
        Err(BlobError::Unsupported)
    }

    async fn set_upload_expiry(&self, _: UploadExpiry) -> Result<bool, BlobError> {
        Err(BlobError::Unsupported)
    }
}
