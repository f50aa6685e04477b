//! Reading: whole objects, ranges, conditions, and pages of the listing.

use super::faults::{Fault, Faults};
use super::files::ObjectFiles;
use super::meta::ObjectMeta;
use super::service::{disk, etag, modified};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use s3s::dto::*;
use s3s::{S3Response, S3Result, s3_error};
use std::io::SeekFrom;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

const MAX_PAGE: i32 = 1000;
const CHUNK_BYTES: usize = 64 * 1024;

pub(super) fn conditions(
    meta: &ObjectMeta,
    if_match: Option<&IfMatch>,
    if_none_match: Option<&IfNoneMatch>,
) -> S3Result<()> {
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

/// `HeadObject`.
pub(super) fn head(files: &ObjectFiles, input: &HeadObjectInput) -> S3Result<S3Response<HeadObjectOutput>> {
    let meta = files.head(&input.bucket, &input.key).ok_or_else(|| s3_error!(NoSuchKey))?;
    conditions(&meta, input.if_match.as_ref(), input.if_none_match.as_ref())?;
    Ok(S3Response::new(HeadObjectOutput {
        content_length: Some(meta.size_bytes as i64),
        e_tag: Some(etag(&meta)),
        last_modified: Some(modified(&meta)),
        accept_ranges: Some("bytes".to_owned()),
        content_type: Some(meta.media_type()),
        metadata: Some(meta.metadata.clone().into_iter().collect()),
        checksum_sha256: Some(meta.sha256),
        ..Default::default()
    }))
}

/// `GetObject`.
pub(super) async fn get(
    files: &ObjectFiles,
    faults: &Faults,
    input: GetObjectInput,
) -> S3Result<S3Response<GetObjectOutput>> {
    let fault = faults.take();
    match fault {
        Some(Fault::Error) => return Err(s3_error!(InternalError, "a planned failure")),
        Some(Fault::Slow(duration)) => tokio::time::sleep(duration).await,
        _ => {}
    }
    let opened = files.open_object(&input.bucket, &input.key).map_err(|e| disk(&e))?;
    let (meta, file) = opened.ok_or_else(|| s3_error!(NoSuchKey))?;
    conditions(&meta, input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let range = match input.range {
        Some(range) => Some(range.check(meta.size_bytes).map_err(|_| s3_error!(InvalidRange))?),
        None => None,
    };
    let bytes = range.clone().unwrap_or(0..meta.size_bytes);
    let length = bytes.end - bytes.start;
    let mut file = tokio::fs::File::from_std(file);
    file.seek(SeekFrom::Start(bytes.start)).await.map_err(|e| disk(&e))?;
    let sent = if fault == Some(Fault::Truncated) { length / 2 } else { length };
    let mut wrong = fault == Some(Fault::WrongBytes);
    let stream = ReaderStream::with_capacity(file.take(sent), CHUNK_BYTES).map(move |chunk| {
        let chunk = chunk?;
        Ok::<_, std::io::Error>(if std::mem::take(&mut wrong) { with_first_byte_changed(&chunk) } else { chunk })
    });
    Ok(S3Response::new(GetObjectOutput {
        body: Some(StreamingBlob::wrap(stream)),
        content_length: Some(length as i64),
        content_range: range.as_ref().map(|r| format!("bytes {}-{}/{}", r.start, r.end - 1, meta.size_bytes)),
        e_tag: Some(etag(&meta)),
        last_modified: Some(modified(&meta)),
        accept_ranges: Some("bytes".to_owned()),
        content_type: Some(meta.media_type()),
        metadata: Some(meta.metadata.clone().into_iter().collect()),
        checksum_sha256: range.is_none().then_some(meta.sha256),
        ..Default::default()
    }))
}

fn with_first_byte_changed(chunk: &Bytes) -> Bytes {
    let mut changed = chunk.to_vec();
    if let Some(first) = changed.first_mut() {
        *first = !*first;
    }
    changed.into()
}

/// `ListObjectsV2`.
pub(super) fn list(files: &ObjectFiles, input: ListObjectsV2Input) -> S3Result<S3Response<ListObjectsV2Output>> {
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
    let mut found = files.list(&input.bucket, &prefix, &token);
    let truncated = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| truncated).map(|meta| STANDARD.encode(&meta.key));
    let entry = |meta: &ObjectMeta| Object {
        key: Some(meta.key.clone()),
        size: Some(meta.size_bytes as i64),
        e_tag: Some(etag(meta)),
        last_modified: Some(modified(meta)),
        ..Default::default()
    };
    Ok(S3Response::new(ListObjectsV2Output {
        key_count: Some(found.len() as i32),
        contents: Some(found.iter().map(entry).collect()),
        is_truncated: Some(truncated),
        next_continuation_token: next,
        name: Some(input.bucket),
        prefix: input.prefix,
        max_keys: Some(limit as i32),
        ..Default::default()
    }))
}
