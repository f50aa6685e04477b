//! SHA-256 content addresses in one spelling: 64 lower-case hex digits.

use sha2::{Digest, Sha256};

/// A SHA-256 as 64 lower-case hex digits.
#[derive(
    Clone,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Hex(String);

/// The text was not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a sha256 is 64 hex digits, got {0} characters")]
pub struct NotSha256(usize);

impl Sha256Hex {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(bytes)))
    }

    /// From a finished 32-byte digest.
    #[must_use]
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        Self(hex::encode(digest))
    }

    /// The 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 32 raw bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut out = [0u8; 32];
        // Constructed only from 64 hex digits, so decoding cannot fail; a zero hash would be caught by every comparison.
        let _ = hex::decode_to_slice(&self.0, &mut out);
        out
    }
}

impl TryFrom<String> for Sha256Hex {
    type Error = NotSha256;
    fn try_from(text: String) -> Result<Self, NotSha256> {
        let ok = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if ok { Ok(Self(text.to_ascii_lowercase())) } else { Err(NotSha256(text.chars().count())) }
    }
}

impl std::str::FromStr for Sha256Hex {
    type Err = NotSha256;
    fn from_str(text: &str) -> Result<Self, NotSha256> {
        Self::try_from(text.to_owned())
    }
}

impl From<Sha256Hex> for String {
    fn from(hash: Sha256Hex) -> Self {
        hash.0
    }
}

impl std::fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Debug for Sha256Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
