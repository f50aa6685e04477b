//! The S3 operations over [`ObjectFiles`].

use super::faults::Faults;
use super::files::{CommitError, ObjectFiles, ObjectMeta};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::SeekFrom;
use std::path::Path;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

/// Largest single PUT in bytes, as S3 has it.
const MAX_PUT_BYTES: i64 = 5 << 30;
const MAX_KEY_BYTES: usize = 1024;
const MAX_PAGE: i32 = 1000;

/// The operations.
pub struct ObjectService {
    files: ObjectFiles,
    faults: Faults,
}

impl ObjectService {
    /// Over a folder of buckets.
    pub fn new(files: ObjectFiles, faults: Faults) -> Self {
        Self { files, faults }
    }

    fn bucket(&self, bucket: &str) -> S3Result<()> {
        if self.files.has_bucket(bucket) { Ok(()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    fn found(&self, bucket: &str, key: &str) -> S3Result<ObjectMeta> {
        self.bucket(bucket)?;
        self.files.head(bucket, key).ok_or_else(|| s3_error!(NoSuchKey))
    }

    fn commit(&self, bucket: &str, meta: &ObjectMeta, only_new: bool) -> S3Result<()> {
        self.files.commit(bucket, meta, only_new).map_err(|error| match error {
            CommitError::Exists => s3_error!(PreconditionFailed),
            CommitError::Io(error) => disk(&error),
        })
    }
}

fn disk(error: &std::io::Error) -> s3s::S3Error {
    tracing::error!(%error, "object store disk error");
    s3_error!(InternalError, "the disk failed")
}

fn etag(meta: &ObjectMeta) -> ETag {
    ETag::Strong(meta.etag.clone())
}

fn modified(meta: &ObjectMeta) -> Timestamp {
    Timestamp::from(meta.modified)
}

/// Streams the body into `path`, syncs it and returns length, SHA-256 and CRC-32 (base64).
async fn receive(body: Option<StreamingBlob>, path: &Path) -> S3Result<(u64, Vec<u8>, String)> {
    let mut file = tokio::fs::File::create(path).await.map_err(|e| disk(&e))?;
    let (mut length, mut hasher) = (0u64, Sha256::new());
    let mut crc = s3s::checksum::ChecksumHasher { crc32: Some(s3s::crypto::Checksum::new()), ..Default::default() };
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| s3_error!(IncompleteBody))?;
            length += chunk.len() as u64;
            hasher.update(&chunk);
            crc.update(&chunk);
            file.write_all(&chunk).await.map_err(|e| disk(&e))?;
        }
    }
    file.sync_all().await.map_err(|e| disk(&e))?;
    Ok((length, hasher.finalize().to_vec(), crc.finalize().checksum_crc32.unwrap_or_default()))
}

fn conditions(meta: &ObjectMeta, if_match: Option<&IfMatch>, if_none_match: Option<&IfNoneMatch>) -> S3Result<()> {
    let same = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(tag) => tag.value() == meta.etag,
    };
    if if_match.is_some_and(|condition| !same(condition)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if if_none_match.is_some_and(same) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

#[async_trait::async_trait]
impl S3 for ObjectService {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.files.create_bucket(&req.input.bucket).map_err(|e| disk(&e))?;
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.bucket(&req.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        self.bucket(&input.bucket)?;
        if input.key.len() > MAX_KEY_BYTES {
            return Err(s3_error!(KeyTooLongError));
        }
        if input.content_length.is_some_and(|length| length > MAX_PUT_BYTES) {
            return Err(s3_error!(EntityTooLarge));
        }
        let only_new = input.if_none_match.as_ref().is_some_and(|c| matches!(c, ETagCondition::Any));
        if only_new && self.files.head(&input.bucket, &input.key).is_some() {
            return Err(s3_error!(PreconditionFailed));
        }
        let path = self.files.incoming(&input.bucket);
        let received = receive(input.body, &path).await;
        let checked = received.and_then(|(length, sha256, crc32)| {
            let trailer = |name: &str| {
                let headers = req.trailing_headers.as_ref()?.read(|h| h.get(name).cloned())??;
                headers.to_str().ok().map(str::to_owned)
            };
            let sha256_b64 = STANDARD.encode(&sha256);
            let declared_sha = input.checksum_sha256.clone().or_else(|| trailer("x-amz-checksum-sha256"));
            let declared_crc = input.checksum_crc32.clone().or_else(|| trailer("x-amz-checksum-crc32"));
            if declared_sha.is_some_and(|d| d != sha256_b64) || declared_crc.is_some_and(|d| d != crc32) {
                return Err(s3_error!(BadDigest));
            }
            if input.content_length.is_some_and(|l| l as u64 != length) && req.trailing_headers.is_none() {
                return Err(s3_error!(IncompleteBody));
            }
            Ok((length, sha256, sha256_b64))
        });
        let committed = checked.and_then(|(size_bytes, sha256, sha256_b64)| {
            let meta = ObjectMeta {
                key: input.key.clone(),
                data: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                size_bytes,
                etag: hex::encode(&sha256[..16]),
                sha256: sha256_b64,
                content_type: input.content_type.map(|t| t.to_string()),
                metadata: input.metadata.unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>(),
                modified: OffsetDateTime::now_utc(),
            };
            self.commit(&input.bucket, &meta, only_new).map(|()| meta)
        });
        match committed {
            Ok(meta) => Ok(S3Response::new(PutObjectOutput {
                e_tag: Some(etag(&meta)),
                checksum_sha256: Some(meta.sha256),
                ..Default::default()
            })),
            Err(error) => {
                let _ = tokio::fs::remove_file(&path).await;
                Err(error)
            }
        }
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let meta = self.found(&input.bucket, &input.key)?;
        conditions(&meta, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(meta.size_bytes as i64),
            e_tag: Some(etag(&meta)),
            last_modified: Some(modified(&meta)),
            accept_ranges: Some("bytes".to_owned()),
            content_type: Some(meta.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned())),
            metadata: Some(meta.metadata.clone().into_iter().collect()),
            checksum_sha256: Some(meta.sha256),
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let meta = self.found(&input.bucket, &input.key)?;
        conditions(&meta, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let range = match input.range {
            Some(range) => Some(range.check(meta.size_bytes).map_err(|_| s3_error!(InvalidRange))?),
            None => None,
        };
        let file = self.files.data(&input.bucket, &meta).map_err(|_| s3_error!(NoSuchKey))?;
        let mut file = tokio::fs::File::from_std(file);
        let bytes = range.clone().unwrap_or(0..meta.size_bytes);
        file.seek(SeekFrom::Start(bytes.start)).await.map_err(|e| disk(&e))?;
        let length = bytes.end - bytes.start;
        let body = StreamingBlob::wrap(ReaderStream::with_capacity(file.take(length), 64 * 1024));
        Ok(S3Response::new(GetObjectOutput {
            body: Some(body),
            content_length: Some(length as i64),
            content_range: range.as_ref().map(|r| format!("bytes {}-{}/{}", r.start, r.end - 1, meta.size_bytes)),
            e_tag: Some(etag(&meta)),
            last_modified: Some(modified(&meta)),
            accept_ranges: Some("bytes".to_owned()),
            content_type: Some(meta.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned())),
            metadata: Some(meta.metadata.clone().into_iter().collect()),
            checksum_sha256: range.is_none().then_some(meta.sha256),
            ..Default::default()
        }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = req.input;
        let CopySource::Bucket { bucket, key, .. } = &input.copy_source else {
            return Err(s3_error!(InvalidRequest, "only bucket/key copy sources are supported"));
        };
        self.bucket(&input.bucket)?;
        let source = self.found(bucket, key)?;
        conditions(&source, input.copy_source_if_match.as_ref(), None)?;
        let only_new = req.headers.get("if-none-match").is_some_and(|v| v.as_bytes() == b"*");
        let path = self.files.incoming(&input.bucket);
        let mut from = self.files.data(bucket, &source).map_err(|_| s3_error!(NoSuchKey))?;
        let target = path.clone();
        let copied = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let mut to = std::fs::File::create(&target)?;
            std::io::copy(&mut from, &mut to)?;
            to.sync_all()
        });
        copied.await.map_err(|_| s3_error!(InternalError))?.map_err(|e| disk(&e))?;
        let meta = ObjectMeta {
            key: input.key.clone(),
            data: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            modified: OffsetDateTime::now_utc(),
            ..source
        };
        if let Err(error) = self.commit(&input.bucket, &meta, only_new) {
            let _ = tokio::fs::remove_file(&path).await;
            return Err(error);
        }
        let result = CopyObjectResult {
            e_tag: Some(etag(&meta)),
            last_modified: Some(modified(&meta)),
            checksum_sha256: Some(meta.sha256),
            ..Default::default()
        };
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.bucket(&req.input.bucket)?;
        self.files.delete(&req.input.bucket, &req.input.key).map_err(|e| disk(&e))?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        self.bucket(&input.bucket)?;
        let token = match &input.continuation_token {
            Some(token) => STANDARD
                .decode(token)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is not one of ours"))?,
            None => input.start_after.clone().unwrap_or_default(),
        };
        let prefix = input.prefix.clone().unwrap_or_default();
        let limit = input.max_keys.unwrap_or(MAX_PAGE).clamp(0, MAX_PAGE) as usize;
        let mut found = self.files.list(&input.bucket, &prefix, &token);
        let truncated = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| truncated).map(|meta| STANDARD.encode(&meta.key));
        let contents = found
            .iter()
            .map(|meta| Object {
                key: Some(meta.key.clone()),
                size: Some(meta.size_bytes as i64),
                e_tag: Some(etag(meta)),
                last_modified: Some(modified(meta)),
                ..Default::default()
            })
            .collect::<Vec<_>>();
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: Some(contents.len() as i32),
            contents: Some(contents),
            is_truncated: Some(truncated),
            next_continuation_token: next,
            name: Some(input.bucket),
            prefix: input.prefix,
            max_keys: Some(limit as i32),
            ..Default::default()
        }))
    }
}
