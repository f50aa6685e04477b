//! What a stage hands on: references to content-addressed artifacts plus small facts.
//!
//! A manifest holds no random id and no time, so equal work gives an equal manifest; its hash is part of
//! the cache key of every stage that comes after.

use crate::Sha256Hex;
use std::collections::BTreeMap;

/// A content-addressed object of one tenant.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ArtifactRef {
    /// Hash of the bytes; the object key derives from it.
    pub sha256: Sha256Hex,
    /// Length in bytes.
    pub size_bytes: u64,
}

/// The output of one stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// Artifacts by kind (see [`kind`]).
    #[serde(default)]
    pub artifacts: BTreeMap<String, ArtifactRef>,
    /// Small deterministic facts: counts, languages, engine. Never document text.
    #[serde(default)]
    pub facts: BTreeMap<String, serde_json::Value>,
}

impl Manifest {
    /// Hash over the canonical JSON of the manifest.
    #[must_use]
    pub fn hash(&self) -> Sha256Hex {
        Sha256Hex::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// True when a stage made do without what its settings ask for (see [`FALLBACK`]): such a result is not remembered.
    #[must_use]
    pub fn is_fallback(&self) -> bool {
        self.facts.contains_key(FALLBACK)
    }
}

/// The fact that lists what could not be read, pages as `{"page", "code"}`, parts of files without pages as `{"part", "code"}`:
/// what was made of the rest is partial.
pub const FAILED_PAGES: &str = "failed_pages";

/// The fact that names the code of the failure for which a stage made do.
pub const FALLBACK: &str = "fallback";

/// The names of the artifact kinds stages exchange. A stage asks for a kind, never for another stage.
pub mod kind {
    /// The [`crate::document::ParsedDocument`] as JSON.
    pub const PARSED: &str = "parsed";
    /// The chunk list as JSON.
    pub const CHUNKS: &str = "chunks";
    /// The extraction as JSON.
    pub const EXTRACTION: &str = "extraction";
    /// The summary as JSON.
    pub const SUMMARY: &str = "summary";
}
