//! What one search may return, as values bound to SQL: the caller's labels and the request's filters.

use crate::{Caller, Filters};
use sqlx::Arguments;
use sqlx::postgres::PgArguments;
use time::OffsetDateTime;
use uuid::Uuid;

/// The arguments of the SQL function `document_matches`.
#[derive(Clone, Debug)]
pub struct SearchScope {
    labels: Vec<String>,
    collection: Option<String>,
    document_ids: Option<Vec<Uuid>>,
    metadata: Option<serde_json::Value>,
    created_after: Option<OffsetDateTime>,
    created_before: Option<OffsetDateTime>,
    wanted_labels: Option<Vec<String>>,
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

    /// The arguments $1 to $7 of a query that says `document_matches(d, $1, $2, $3, $4, $5, $6, $7)`; its own begin at $8.
    ///
    /// # Errors
    /// `Encode` for what Postgres cannot hold.
    pub(crate) fn arguments(&self) -> Result<PgArguments, sqlx::Error> {
        let mut arguments = PgArguments::default();
        arguments
            .add(&self.labels)
            .and_then(|()| arguments.add(&self.collection))
            .and_then(|()| arguments.add(&self.document_ids))
            .and_then(|()| arguments.add(&self.metadata))
            .and_then(|()| arguments.add(self.created_after))
            .and_then(|()| arguments.add(self.created_before))
            .and_then(|()| arguments.add(&self.wanted_labels))
            .map_err(sqlx::Error::Encode)?;
        Ok(arguments)
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
