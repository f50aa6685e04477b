//! Lifecycle rules: objects under a prefix expire some days after their commit. Other kinds of rules are refused.

use super::files::ObjectFiles;
use super::service::disk;
use crate::files::replace;
use s3s::dto::*;
use s3s::{S3Response, S3Result, s3_error};
use std::fs;
use std::path::PathBuf;
use time::OffsetDateTime;

const MAX_RULES: usize = 1000;

/// One rule, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Rule {
    id: Option<String>,
    prefix: String,
    days: i32,
    /// Kept and given back; there are no multipart uploads here that could be left unfinished.
    #[serde(default)]
    unfinished_days: Option<i32>,
    enabled: bool,
}

fn path(files: &ObjectFiles, bucket: &str) -> PathBuf {
    files.bucket(bucket).join("lifecycle.json")
}

fn rules(files: &ObjectFiles, bucket: &str) -> Vec<Rule> {
    fs::read(path(files, bucket)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Keeps only what [`sweep`] carries out; a rule that would silently do nothing is refused.
fn accept(rule: &LifecycleRule) -> S3Result<Rule> {
    let refused = || s3_error!(NotImplemented, "only rules with a prefix and an expiration in days are supported");
    let filter = rule.filter.as_ref();
    let other_filter = filter.is_some_and(|f| {
        f.and.is_some() || f.tag.is_some() || f.object_size_greater_than.is_some() || f.object_size_less_than.is_some()
    });
    let other_action =
        rule.transitions.as_ref().is_some_and(|t| !t.is_empty()) || rule.noncurrent_version_expiration.is_some();
    let days = rule.expiration.as_ref().and_then(|expiration| expiration.days).filter(|days| *days >= 1);
    let Some(days) = days.filter(|_| !other_filter && !other_action) else { return Err(refused()) };
    let prefix = filter.and_then(|f| f.prefix.clone()).or_else(|| rule.prefix.clone()).unwrap_or_default();
    let unfinished_days = rule.abort_incomplete_multipart_upload.as_ref().and_then(|abort| abort.days_after_initiation);
    let enabled = rule.status.as_str() == ExpirationStatus::ENABLED;
    Ok(Rule { id: rule.id.clone(), prefix, days, unfinished_days, enabled })
}

/// `PutBucketLifecycleConfiguration`.
pub(super) fn put(
    files: &ObjectFiles,
    input: PutBucketLifecycleConfigurationInput,
) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
    let given = input.lifecycle_configuration.map(|configuration| configuration.rules).unwrap_or_default();
    if given.is_empty() || given.len() > MAX_RULES {
        return Err(s3_error!(MalformedXML, "1 to 1000 rules are expected"));
    }
    let rules = given.iter().map(accept).collect::<S3Result<Vec<Rule>>>()?;
    let bytes = serde_json::to_vec(&rules).map_err(|_| s3_error!(InternalError))?;
    replace(&path(files, &input.bucket), &bytes, 0o600).map_err(|_| s3_error!(InternalError, "the disk failed"))?;
    Ok(S3Response::new(PutBucketLifecycleConfigurationOutput::default()))
}

/// `GetBucketLifecycleConfiguration`.
pub(super) fn get(files: &ObjectFiles, bucket: &str) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
    let rules = rules(files, bucket);
    if rules.is_empty() {
        return Err(s3_error!(NoSuchLifecycleConfiguration));
    }
    let shown = |rule: Rule| LifecycleRule {
        abort_incomplete_multipart_upload: rule
            .unfinished_days
            .map(|days| AbortIncompleteMultipartUpload { days_after_initiation: Some(days) }),
        expiration: Some(LifecycleExpiration { days: Some(rule.days), ..Default::default() }),
        filter: Some(LifecycleRuleFilter { prefix: Some(rule.prefix), ..Default::default() }),
        id: rule.id,
        noncurrent_version_expiration: None,
        noncurrent_version_transitions: None,
        prefix: None,
        status: ExpirationStatus::from_static(if rule.enabled {
            ExpirationStatus::ENABLED
        } else {
            ExpirationStatus::DISABLED
        }),
        transitions: None,
    };
    Ok(S3Response::new(GetBucketLifecycleConfigurationOutput {
        rules: Some(rules.into_iter().map(shown).collect()),
        ..Default::default()
    }))
}

/// `DeleteBucketLifecycle`.
pub(super) fn delete(files: &ObjectFiles, bucket: &str) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
    match fs::remove_file(path(files, bucket)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(disk(&error)),
        _ => Ok(S3Response::new(DeleteBucketLifecycleOutput::default())),
    }
}

/// Deletes what has expired at `now`, in all buckets; returns how many objects.
pub(super) fn sweep(files: &ObjectFiles, now: OffsetDateTime) -> usize {
    let mut deleted = 0;
    for bucket in files.buckets() {
        for rule in rules(files, &bucket).into_iter().filter(|rule| rule.enabled) {
            let expired = now - time::Duration::days(i64::from(rule.days));
            for meta in files.list(&bucket, &rule.prefix, "").iter().filter(|meta| meta.modified <= expired) {
                deleted += usize::from(files.delete(&bucket, &meta.key).is_ok());
            }
        }
    }
    deleted
}
