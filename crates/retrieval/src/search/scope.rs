//! What one search may return, as values bound to SQL: the caller's labels and the request's filters.

use crate::{Caller, Filters};
use time::OffsetDateTime;
use uuid::Uuid;

/// The arguments of the SQL function `document_matches`.
#[derive(Clone, Debug)]
pub struct SearchScope {
    pub(crate) labels: Vec<String>,
    pub(crate) collection: Option<String>,
    pub(crate) document_ids: Option<Vec<Uuid>>,
    pub(crate) metadata: Option<serde_json::Value>,
    pub(crate) created_after: Option<OffsetDateTime>,
    pub(crate) created_before: Option<OffsetDateTime>,
    pub(crate) wanted_labels: Option<Vec<String>>,
}

impl SearchScope {
    /// What `caller` may see, narrowed by `filters`.
    #[must_use]
    pub fn new(caller: &Caller, filters: &Filters) -> Self {
        Self {
            labels: caller.labels.clone(),
            collection: filters.collection.clone(),
            document_ids: filters.document_uuids(),
            metadata: filters.metadata_json(),
            created_after: filters.created_after,
            created_before: filters.created_before,
            wanted_labels: (!filters.labels.is_empty()).then(|| filters.labels.clone()),
        }
    }

    /// True when a filter narrows beyond what the caller may see anyway.
    #[must_use]
    pub fn is_narrowed(&self) -> bool {
        self.collection.is_some()
            || self.document_ids.is_some()
            || self.metadata.is_some()
            || self.created_after.is_some()
            || self.created_before.is_some()
            || self.wanted_labels.is_some()
    }
}
