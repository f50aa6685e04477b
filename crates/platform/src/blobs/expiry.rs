//! The lifecycle rule of a bucket that lets go of uploads nobody completed, also of parts of unfinished ones.
//!
//! One rule, by its id, below the prefix of uploads: nothing that was accepted can match it. Rules that others put on the
//! bucket stay as they are. The collection removes the same objects earlier; the rule is for what is left when Docmill is
//! not there to collect.

use super::s3::{S3Blobs, classify, status};
use super::{BlobError, UploadExpiry};
use crate::layout::UPLOADS;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleFilter, TransitionDefaultMinimumObjectSize,
};

/// How our rule is known again.
const RULE: &str = "docmill-uploads";

/// The rules of a bucket, and what goes with them.
#[derive(Default)]
struct Rules {
    rules: Vec<LifecycleRule>,
    /// Not ours to change, and reset by whoever leaves it out.
    transition_size: Option<TransitionDefaultMinimumObjectSize>,
}

/// The rules of the bucket; `Unsupported` for a store that has none to offer.
async fn rules(store: &S3Blobs) -> Result<Rules, BlobError> {
    match store.client.get_bucket_lifecycle_configuration().bucket(&store.bucket).send().await {
        Ok(found) => Ok(Rules {
            transition_size: found.transition_default_minimum_object_size().cloned(),
            rules: found.rules.unwrap_or_default(),
        }),
        Err(error) if matches!(status(&error), Some(405 | 501)) => Err(BlobError::Unsupported),
        // A bare 404 may come from anything on the way: only this says that there is nothing to overwrite.
        Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => Ok(Rules::default()),
        Err(error) => Err(classify(&error)),
    }
}

fn is_ours(rule: &LifecycleRule) -> bool {
    rule.id() == Some(RULE)
}

/// What the bucket's rule says; `None` when it has none or the rule is not in force.
pub(super) async fn read(store: &S3Blobs) -> Result<Option<UploadExpiry>, BlobError> {
    let Rules { rules, .. } = rules(store).await?;
    Ok(rules.iter().find(|rule| is_ours(rule)).and_then(expiry))
}

fn expiry(rule: &LifecycleRule) -> Option<UploadExpiry> {
    let below_uploads = rule.filter().and_then(LifecycleRuleFilter::prefix) == Some(UPLOADS);
    let days = |days: Option<i32>| days.and_then(|days| u32::try_from(days).ok());
    let parts = rule.abort_incomplete_multipart_upload();
    (below_uploads && *rule.status() == ExpirationStatus::Enabled)
        .then(|| {
            Some(UploadExpiry {
                days: days(rule.expiration().and_then(LifecycleExpiration::days))?,
                unfinished_days: days(parts.and_then(AbortIncompleteMultipartUpload::days_after_initiation))?,
            })
        })
        .flatten()
}

/// Puts the rule on the bucket beside those that are there; false when it is there already.
pub(super) async fn write(store: &S3Blobs, wanted: UploadExpiry) -> Result<bool, BlobError> {
    let Rules { mut rules, transition_size } = rules(store).await?;
    if rules.iter().filter(|rule| is_ours(rule)).map(expiry).eq([Some(wanted)]) {
        return Ok(false);
    }
    rules.retain(|rule| !is_ours(rule));
    rules.push(rule(wanted)?);
    let refused = |_| BlobError::Refused("lifecycle rule".to_owned());
    let configuration = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().map_err(refused)?;
    let put = store.client.put_bucket_lifecycle_configuration().bucket(&store.bucket);
    let put = put.set_transition_default_minimum_object_size(transition_size);
    match put.lifecycle_configuration(configuration).send().await {
        Ok(_) => Ok(true),
        Err(error) if matches!(status(&error), Some(405 | 501)) => Err(BlobError::Unsupported),
        Err(error) => Err(classify(&error)),
    }
}

fn rule(wanted: UploadExpiry) -> Result<LifecycleRule, BlobError> {
    let days = |days: u32| i32::try_from(days).map_err(|_| BlobError::Refused("lifecycle rule".to_owned()));
    LifecycleRule::builder()
        .id(RULE)
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix(UPLOADS).build())
        .expiration(LifecycleExpiration::builder().days(days(wanted.days)?).build())
        .abort_incomplete_multipart_upload(
            AbortIncompleteMultipartUpload::builder().days_after_initiation(days(wanted.unfinished_days)?).build(),
        )
        .build()
        .map_err(|_| BlobError::Refused("lifecycle rule".to_owned()))
}
