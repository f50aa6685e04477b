//! The extraction schema: plain JSON Schema whose properties carry an `x-docmill` keyword.
//!
//! ```json
//! "due_date": {"type": "string", "format": "date", "x-docmill": {"kind": "date", "labels": ["Due date", "Fällig am"]}}
//! ```
//! Properties without the keyword are left to other extractors. An array property takes all values, others the best one.

use docmill_model::{Code, Failure};
use jsonschema::Validator;
use regex::Regex;
use serde_json::Value;

/// What a field's values look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// ISO 8601 calendar date.
    Date,
    /// `{amount, currency}`: decimal string and ISO 4217 code.
    Amount,
    /// An organisation or person.
    Party,
    /// A side of the agreement the document is.
    ContractParty,
    /// A number or code beside a label.
    Identifier,
    /// An email address.
    Email,
    /// A telephone number in E.164.
    Phone,
    /// A web address.
    Url,
    /// An international bank account number whose checksum holds.
    Iban,
    /// A postal address.
    Address,
    /// A `label: value` line as `{key, value}`.
    KeyValue,
    /// A percentage as decimal string.
    Percentage,
    /// A length of time as ISO 8601 duration.
    Duration,
    /// The place whose law governs.
    Jurisdiction,
    /// The words after a label.
    Text,
}

/// Which value to take when several are equally near a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pick {
    /// The first in the document.
    #[default]
    First,
    /// The last in the document.
    Last,
    /// The largest amount, percentage or duration, the latest date.
    Largest,
}

/// The `x-docmill` keyword.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Keyword {
    kind: FieldKind,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    pick: Pick,
    /// Takes a value of the kind anywhere when no label has one beside it.
    #[serde(default)]
    anywhere: bool,
    /// Regular expression an identifier must match as a whole.
    #[serde(default)]
    pattern: Option<String>,
    /// Calling code for telephone numbers written without one.
    #[serde(default)]
    calling_code: Option<String>,
}

/// One property to fill.
#[derive(Clone, Debug)]
pub struct FieldSpec {
    /// Name of the property.
    pub name: String,
    /// What its values look like.
    pub kind: FieldKind,
    /// Words that stand before a value, best first; without any, every value of the kind belongs to the field.
    pub labels: Vec<String>,
    /// Which of several.
    pub pick: Pick,
    /// Falls back to values without a label.
    pub anywhere: bool,
    /// Identifiers must match this.
    pub pattern: Option<Regex>,
    /// Calling code for national numbers.
    pub calling_code: Option<String>,
    /// True for an array property.
    pub many: bool,
    /// JSON type of one value: `string`, `number`, `object`, …
    pub value_type: Option<String>,
}

/// A schema ready for use.
#[derive(Debug)]
pub struct ExtractSchema {
    /// Properties with an `x-docmill` keyword.
    pub fields: Vec<FieldSpec>,
    pub(super) validator: Validator,
}

impl ExtractSchema {
    /// Reads a schema.
    ///
    /// # Errors
    /// `SCHEMA_INVALID` when it is no JSON Schema, has no properties, or a keyword cannot be understood.
    pub fn read(schema: &Value) -> Result<Self, Failure> {
        let invalid = |message: String| Failure::new(Code::SchemaInvalid, message);
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(schema)
            .map_err(|error| invalid(format!("the extraction schema is not a JSON Schema: {error}")))?;
        let properties = schema.get("properties").and_then(Value::as_object);
        let properties = properties.ok_or_else(|| invalid("the extraction schema has no `properties`".to_owned()))?;
        let mut fields = Vec::new();
        for (name, property) in properties {
            let Some(keyword) = property.get("x-docmill") else { continue };
            let keyword: Keyword = serde_json::from_value(keyword.clone())
                .map_err(|error| invalid(format!("`x-docmill` of property `{name}`: {error}")))?;
            fields.push(
                FieldSpec::of(name, property, keyword)
                    .map_err(|error| invalid(format!("property `{name}`: {error}")))?,
            );
        }
        Ok(Self { fields, validator })
    }
}

impl FieldSpec {
    fn of(name: &str, property: &Value, keyword: Keyword) -> Result<Self, String> {
        let needs_label = matches!(keyword.kind, FieldKind::Identifier | FieldKind::Text);
        if needs_label && keyword.labels.is_empty() && keyword.pattern.is_none() {
            return Err("this kind needs `labels` or a `pattern`".to_owned());
        }
        let pattern = keyword.pattern.map(|pattern| Regex::new(&format!("^(?:{pattern})$"))).transpose();
        let many = property.get("type").and_then(Value::as_str) == Some("array");
        let one = if many { property.get("items").unwrap_or(&Value::Null) } else { property };
        Ok(Self {
            name: name.to_owned(),
            kind: keyword.kind,
            labels: keyword.labels,
            pick: keyword.pick,
            anywhere: keyword.anywhere,
            pattern: pattern.map_err(|_| "`pattern` is not a regular expression".to_owned())?,
            calling_code: keyword.calling_code,
            many,
            value_type: one.get("type").and_then(Value::as_str).map(str::to_owned),
        })
    }
}
