//! What is known about one object, and how it is kept on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use time::OffsetDateTime;

/// What is known about one object.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct ObjectMeta {
    /// The key.
    pub key: String,
    /// Name of the data file.
    pub data: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Entity tag without quotes.
    pub etag: String,
    /// SHA-256 in base64, as S3 puts it on the wire.
    pub sha256: String,
    /// Media type.
    pub content_type: Option<String>,
    /// User metadata.
    pub metadata: BTreeMap<String, String>,
    /// Time of the commit.
    #[serde(with = "time::serde::rfc3339")]
    pub modified: OffsetDateTime,
}

impl ObjectMeta {
    /// The media type as S3 reports it.
    #[must_use]
    pub fn media_type(&self) -> String {
        self.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned())
    }
}

/// Reads a meta file; `None` when there is none.
pub(super) fn read_meta(path: &Path) -> Option<ObjectMeta> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
