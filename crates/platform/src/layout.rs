//! Where the objects of a tenant are. No part of a key comes from a user; tenants never share one.
//!
//! Uploads stand under one prefix for all tenants, apart from what is kept. What is no longer wanted there is removed by
//! the collection (`lifecycle/src/collect.rs`) when it is an hour old; a lifecycle rule of the bucket, which reaches below
//! this prefix only, lets go of what is left when nothing collects.

use docmill_model::{Sha256Hex, TenantId, VersionId};

/// Begins the key of everything that was signed for upload and not yet accepted.
pub const UPLOADS: &str = "uploads/";

/// The uploads of a tenant.
#[must_use]
pub fn upload_prefix(tenant: TenantId) -> String {
    format!("{UPLOADS}{tenant}/")
}

/// The key a version's bytes are uploaded to.
#[must_use]
pub fn upload_key(tenant: TenantId, version: VersionId) -> String {
    format!("{}{version}", upload_prefix(tenant))
}

/// The accepted files of a tenant.
#[must_use]
pub fn accepted_prefix(tenant: TenantId) -> String {
    format!("{tenant}/accepted/")
}

/// The content-addressed key that everything later reads.
#[must_use]
pub fn accepted_key(tenant: TenantId, sha256: &str) -> String {
    format!("{}{sha256}", accepted_prefix(tenant))
}

/// The artifacts of a tenant.
#[must_use]
pub fn artifact_prefix(tenant: TenantId) -> String {
    format!("{tenant}/artifacts/")
}

/// The key of an artifact.
#[must_use]
pub fn artifact_key(tenant: TenantId, sha256: &Sha256Hex) -> String {
    format!("{}{}/{sha256}", artifact_prefix(tenant), &sha256.as_str()[..2])
}

/// Every prefix under which objects of a tenant stand.
#[must_use]
pub fn tenant_prefixes(tenant: TenantId) -> [String; 2] {
    [format!("{tenant}/"), upload_prefix(tenant)]
}
