//! Writing: receive, verify, sync, and only then make visible.

use super::files::{CommitError, ObjectFiles};
use super::meta::ObjectMeta;
use super::service::{disk, etag, modified};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;

/// Largest single PUT in bytes, as S3 has it.
const MAX_PUT_BYTES: i64 = 5 << 30;
const MAX_KEY_BYTES: usize = 1024;

/// What arrived.
struct Received {
    size_bytes: u64,
    sha256: Vec<u8>,
    crc32: String,
}

/// Removes the file unless it was kept: a refused, failed or abandoned request leaves nothing behind.
struct Incoming {
    path: PathBuf,
    kept: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Streams the body into `path` and syncs it.
async fn receive(body: Option<StreamingBlob>, path: &Path) -> S3Result<Received> {
    let mut file = tokio::fs::File::create(path).await.map_err(|e| disk(&e))?;
    let (mut size_bytes, mut hasher) = (0u64, Sha256::new());
    let mut crc = s3s::checksum::ChecksumHasher { crc32: Some(s3s::crypto::Checksum::new()), ..Default::default() };
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| s3_error!(IncompleteBody))?;
            size_bytes += chunk.len() as u64;
            if size_bytes > MAX_PUT_BYTES as u64 {
                return Err(s3_error!(EntityTooLarge));
            }
            hasher.update(&chunk);
            crc.update(&chunk);
            file.write_all(&chunk).await.map_err(|e| disk(&e))?;
        }
    }
    file.sync_all().await.map_err(|e| disk(&e))?;
    let crc32 = crc.finalize().checksum_crc32.unwrap_or_default();
    Ok(Received { size_bytes, sha256: hasher.finalize().to_vec(), crc32 })
}

/// Compares what arrived with what was declared, in headers or in the trailer of a streamed body.
fn verify(req: &S3Request<PutObjectInput>, received: &Received) -> S3Result<()> {
    let trailer = |name: &str| {
        let value = req.trailing_headers.as_ref()?.read(|headers| headers.get(name).cloned())??;
        value.to_str().ok().map(str::to_owned)
    };
    let declared_sha = req.input.checksum_sha256.clone().or_else(|| trailer("x-amz-checksum-sha256"));
    let declared_crc = req.input.checksum_crc32.clone().or_else(|| trailer("x-amz-checksum-crc32"));
    if declared_sha.is_some_and(|declared| declared != STANDARD.encode(&received.sha256))
        || declared_crc.is_some_and(|declared| declared != received.crc32)
    {
        return Err(s3_error!(BadDigest));
    }
    let streamed = req.trailing_headers.is_some();
    if !streamed && req.input.content_length.is_some_and(|length| length as u64 != received.size_bytes) {
        return Err(s3_error!(IncompleteBody));
    }
    Ok(())
}

async fn commit(files: &ObjectFiles, bucket: String, meta: ObjectMeta, only_new: bool) -> S3Result<ObjectMeta> {
    let files = files.clone();
    let committed = tokio::task::spawn_blocking(move || files.commit(&bucket, &meta, only_new).map(|()| meta)).await;
    committed.map_err(|_| s3_error!(InternalError))?.map_err(|error| match error {
        CommitError::Exists => s3_error!(PreconditionFailed),
        CommitError::Io(error) => disk(&error),
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `PutObject`.
pub(super) async fn put(
    files: &ObjectFiles,
    mut req: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    let (bucket, key) = (req.input.bucket.clone(), req.input.key.clone());
    if key.len() > MAX_KEY_BYTES {
        return Err(s3_error!(KeyTooLongError));
    }
    if req.input.content_length.is_some_and(|length| length > MAX_PUT_BYTES) {
        return Err(s3_error!(EntityTooLarge));
    }
    let only_new = req.input.if_none_match.as_ref().is_some_and(|c| matches!(c, ETagCondition::Any));
    if only_new && files.head(&bucket, &key).is_some() {
        return Err(s3_error!(PreconditionFailed));
    }
    let mut incoming = Incoming { path: files.incoming(&bucket), kept: false };
    let received = receive(req.input.body.take(), &incoming.path).await?;
    verify(&req, &received)?;
    let meta = ObjectMeta {
        key,
        data: file_name(&incoming.path),
        size_bytes: received.size_bytes,
        etag: hex::encode(&received.sha256[..16]),
        sha256: STANDARD.encode(&received.sha256),
        content_type: req.input.content_type.map(|t| t.to_string()),
        metadata: req.input.metadata.unwrap_or_default().into_iter().collect(),
        modified: OffsetDateTime::now_utc(),
    };
    // From here the bytes may be an object even if this request is dropped; a sweep at the next start removes them if not.
    incoming.kept = true;
    let meta = commit(files, bucket, meta, only_new).await.inspect_err(|_| incoming.kept = false)?;
    Ok(S3Response::new(PutObjectOutput {
        e_tag: Some(etag(&meta)),
        checksum_sha256: Some(meta.sha256),
        ..Default::default()
    }))
}

/// `CopyObject` inside this store, with `If-None-Match: *` as S3 has it.
pub(super) async fn copy(
    files: &ObjectFiles,
    req: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    let input = req.input;
    let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
        return Err(s3_error!(InvalidRequest, "only bucket/key copy sources are supported"));
    };
    let source = files.head(bucket, key).ok_or_else(|| s3_error!(NoSuchKey))?;
    super::get::conditions(&source, input.copy_source_if_match.as_ref(), None)?;
    let only_new = req.headers.get("if-none-match").is_some_and(|v| v.as_bytes() == b"*");
    let mut incoming = Incoming { path: files.incoming(&input.bucket), kept: false };
    files.share(bucket, &source, &incoming.path).map_err(|_| s3_error!(NoSuchKey))?;
    let meta =
        ObjectMeta { key: input.key, data: file_name(&incoming.path), modified: OffsetDateTime::now_utc(), ..source };
    incoming.kept = true;
    let meta = commit(files, input.bucket, meta, only_new).await.inspect_err(|_| incoming.kept = false)?;
    let result = CopyObjectResult {
        e_tag: Some(etag(&meta)),
        last_modified: Some(modified(&meta)),
        checksum_sha256: Some(meta.sha256),
        ..Default::default()
    };
    Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
}
