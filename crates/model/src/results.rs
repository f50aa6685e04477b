//! What extract and summarize store, with the place every value comes from.

use crate::Span;
use std::collections::BTreeMap;

/// A place in the document.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
pub struct Place {
    /// Where in the canonical text.
    pub span: Span,
    /// Page from 1, for paged formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
}

/// One extracted value.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
pub struct FieldValue {
    /// The words as they stand in the document: `raw == canonical[place.span]`.
    pub raw: String,
    /// ISO 8601 date, `{amount, currency}` as decimal string and ISO 4217, E.164, ISO 3166 country, or the cleaned text.
    pub normalized: serde_json::Value,
    /// Where it stands.
    pub place: Place,
    /// 0–1.
    pub confidence: f32,
}

/// The output of the extract stage.
#[derive(
    Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
pub struct Extraction {
    /// Name of the schema in the pipeline file.
    pub schema: String,
    /// Which extractor: `rules` or `provider/model`.
    pub engine: String,
    /// Values by field.
    pub fields: BTreeMap<String, Vec<FieldValue>>,
    /// The object that validates against the schema, built from the normalized values.
    pub data: serde_json::Value,
}

/// One sentence of a summary and the places it rests on.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
pub struct SummarySentence {
    /// The sentence.
    pub text: String,
    /// At least one place.
    pub citations: Vec<Place>,
}

/// The output of the summarize stage.
#[derive(
    Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
pub struct Summary {
    /// `extractive` or `provider/model`.
    pub engine: String,
    /// Sentences in the order to read.
    pub sentences: Vec<SummarySentence>,
}
