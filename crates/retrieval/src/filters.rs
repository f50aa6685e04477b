//! What a search may be narrowed to, and its form inside SQL.
//!
//! Filters only narrow: tenant, visibility and access labels are applied besides, whatever a filter says. They travel
//! as bound values, never as SQL text.

use docmill_model::{Code, DocumentId, Failure};
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// Most document ids in one filter.
pub const MAX_DOCUMENT_IDS: usize = 1_000;
/// Most metadata fields in one filter.
pub const MAX_METADATA_FIELDS: usize = 20;
/// Most values in one metadata set.
pub const MAX_SET_VALUES: usize = 200;
/// Most access labels in one filter: as many as a document may carry.
pub const MAX_LABELS: usize = 32;

/// Conditions a document must meet; all of them.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Filters {
    /// Only this collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// Only these documents (at most 1,000); empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub document_ids: Vec<DocumentId>,
    /// Tests on metadata fields by name (at most 20), e.g. `{"status": "final", "region": ["eu", "us"], "year": {"min": 2020}}`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, MetadataTest>,
    /// Created at or after this instant (RFC 3339).
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub created_after: Option<OffsetDateTime>,
    /// Created before this instant (RFC 3339).
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub created_before: Option<OffsetDateTime>,
    /// Only documents that carry one of these access labels (at most 32); empty means all the caller may see.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// A test on one metadata field. A field that holds a list passes when one of its items does.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
// A list is tried before a range: a struct would read a list of two as its fields.
pub enum MetadataTest {
    /// One of these values (at most 200).
    OneOf(Vec<MetadataValue>),
    /// This value.
    Equals(MetadataValue),
    /// Between two values, both inclusive: numbers, or text in the order of the database (right for ISO dates). Types must match.
    Range(MetadataRange),
}

/// An inclusive range; at least one end.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataRange {
    /// Lowest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<MetadataValue>,
    /// Highest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<MetadataValue>,
}

/// A metadata value that can be compared.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum MetadataValue {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// Text.
    Text(String),
}

impl Filters {
    /// True when nothing is narrowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// `FIELD_INVALID` with limit and measured count.
    pub fn check(&self) -> Result<(), Failure> {
        bound("filters.document_ids", MAX_DOCUMENT_IDS, self.document_ids.len())?;
        bound("filters.metadata", MAX_METADATA_FIELDS, self.metadata.len())?;
        bound("filters.labels", MAX_LABELS, self.labels.len())?;
        for test in self.metadata.values() {
            match test {
                MetadataTest::OneOf(values) => bound("a metadata set", MAX_SET_VALUES, values.len())?,
                MetadataTest::Range(range) if range.min.is_none() && range.max.is_none() => {
                    return Err(Failure::new(Code::FieldInvalid, "filters.metadata: a range needs `min` or `max`"));
                }
                MetadataTest::Range(_) | MetadataTest::Equals(_) => {}
            }
        }
        Ok(())
    }

    /// Metadata tests as `{field: {"any": […]} | {"min": …, "max": …}}`, the one shape the SQL reads; `None` when empty.
    pub(crate) fn metadata_json(&self) -> Option<serde_json::Value> {
        if self.metadata.is_empty() {
            return None;
        }
        let tests = self.metadata.iter().map(|(field, test)| {
            let test = match test {
                MetadataTest::Equals(value) => serde_json::json!({ "any": [value] }),
                MetadataTest::OneOf(values) => serde_json::json!({ "any": values }),
                MetadataTest::Range(range) => serde_json::json!(range),
            };
            (field.clone(), test)
        });
        Some(serde_json::Value::Object(tests.collect()))
    }

    /// Document ids as bound to SQL; `None` when empty.
    pub(crate) fn document_uuids(&self) -> Option<Vec<uuid::Uuid>> {
        (!self.document_ids.is_empty()).then(|| self.document_ids.iter().map(|id| id.0).collect())
    }
}

fn bound(what: &str, limit: usize, measured: usize) -> Result<(), Failure> {
    if measured <= limit {
        return Ok(());
    }
    Err(Failure::limit(Code::FieldInvalid, format!("{what} holds too many entries"), limit as u64, measured as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_three_tests_read_from_natural_json_and_reach_sql_in_one_shape() {
        let filters: Filters = serde_json::from_str(
            r#"{"metadata": {"status": "final", "region": ["eu", "us"], "year": {"min": 2020}, "open": true}}"#,
        )
        .unwrap();
        filters.check().unwrap();
        assert_eq!(
            filters.metadata_json().unwrap(),
            serde_json::json!({"status": {"any": ["final"]}, "region": {"any": ["eu", "us"]}, "year": {"min": 2020}, "open": {"any": [true]}})
        );
    }

    #[test]
    fn unknown_keys_and_empty_ranges_are_refused() {
        assert!(serde_json::from_str::<Filters>(r#"{"tenant_id": "x"}"#).is_err());
        assert!(serde_json::from_str::<Filters>(r#"{"metadata": {"a": {"mim": 1}}}"#).is_err());
        let empty: Filters = serde_json::from_str(r#"{"metadata": {"a": {}}}"#).unwrap();
        assert_eq!(empty.check().unwrap_err().code, Code::FieldInvalid);
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past_it() {
        let mut filters = Filters { document_ids: vec![DocumentId::fresh(); MAX_DOCUMENT_IDS], ..Filters::default() };
        assert!(filters.check().is_ok());
        filters.document_ids.push(DocumentId::fresh());
        let failure = filters.check().unwrap_err();
        assert_eq!((failure.limit, failure.measured), (Some(1_000), Some(1_001)));
    }
}
