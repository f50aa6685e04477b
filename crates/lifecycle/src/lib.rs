//! What ends, and the proof that it ended: deletion, retention, and collecting what nothing uses any more.
//!
//! There is one way to remove. Rows go in one transaction (`remove`), which also writes a receipt: a row of `deletions`
//! that holds what was counted and what is *condemned*, that is vectors, artifacts and objects the removed rows leave
//! behind. `finish` takes those away once no run begun before relies on them and nothing else uses them. A run begun later that
//! needs a condemned vector or artifact renews its `created_at`, and so takes it out of the condemnation. Every step may be
//! repeated or killed: [`sweep`] goes on with what is unfinished.
//!
//! Not here: who may ask (the API's), and the lexical index, which follows its feed (retrieval's).

pub mod collect;
pub mod delete;
mod finish;
mod idle;
pub mod receipt;
mod remove;
pub mod retention;
pub mod sweep;
pub mod tenant;
mod words;

pub use receipt::{Counts, Receipt};
pub use remove::UPLOAD_TTL;
pub use retention::{Plan, Rules};

use docmill_platform::artifacts::Artifacts;
use docmill_platform::blobs::Blobs;
use docmill_platform::database::Database;
use std::sync::Arc;

/// The stores that things are removed from. Cheap to clone.
#[derive(Clone)]
pub struct Stores {
    /// Rows.
    pub database: Database,
    /// Objects, through the artifacts that describe them.
    pub artifacts: Artifacts,
}

impl Stores {
    fn blobs(&self) -> &Arc<dyn Blobs> {
        self.artifacts.blobs()
    }
}
