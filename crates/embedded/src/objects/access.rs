//! What the protocol core does not refuse by itself: anonymous requests, signature version 2, presigned URLs that are
//! valid for more than seven days, and `x-amz-*` headers that a presigned URL did not sign.

use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Result, s3_error};

const MAX_EXPIRES_SECS: u64 = 7 * 24 * 3600;

/// The access rule of the embedded store: one key, everything signed.
pub struct StrictAccess;

#[async_trait::async_trait]
impl S3Access for StrictAccess {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        if context.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "requests must be signed"));
        }
        let query = context.uri().query().unwrap_or_default();
        let parameter = |name: &str| {
            query.split('&').find_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        if parameter("AWSAccessKeyId").is_some() {
            return Err(s3_error!(AccessDenied, "signature version 2 is not accepted"));
        }
        let Some(signed) = parameter("X-Amz-SignedHeaders") else { return Ok(()) };
        let expires = parameter("X-Amz-Expires").and_then(|v| v.parse::<u64>().ok());
        if expires.is_none_or(|secs| secs > MAX_EXPIRES_SECS) {
            return Err(s3_error!(AccessDenied, "a presigned URL is valid for at most seven days"));
        }
        let signed = signed.to_ascii_lowercase().replace("%3b", ";");
        let signed: Vec<&str> = signed.split(';').collect();
        for name in context.headers().keys() {
            let name = name.as_str();
            let free = name == "x-amz-user-agent" || name == "x-amz-content-sha256";
            if name.starts_with("x-amz-") && !free && !signed.contains(&name) {
                return Err(s3_error!(AccessDenied, "an x-amz header is not part of the signature"));
            }
        }
        Ok(())
    }
}
