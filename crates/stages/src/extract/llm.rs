//! Extraction with a model that points, and rules that read: the model copies the words of each field, they are looked up
//! in the document, and the recognisers normalise what stands there. Words that are not there, or of which no
//! recogniser makes a value of the field's kind, are dropped and counted.

use super::Outcome;
use super::fields::{Scans, best};
use super::reading::{Found, Reading};
use super::schema::{ExtractSchema, FieldKind, FieldSpec};
use super::validate;
use crate::models::{StageModels, marker};
use docmill_model::Failure;
use docmill_model::document::ParsedDocument;
use docmill_model::results::FieldValue;
use docmill_retrieval::answers::clean;
use docmill_runtime::JobContext;
use serde_json::{Map, Value, json};

/// The use of models for this stage, and the name of its prompt.
pub(super) const USE: &str = "extract";
/// Characters of a document a model reads; what follows is left to the rules.
const MAX_CHARS: usize = 60_000;
/// How sure a value is whose words a model chose and a recogniser understood.
const CONFIDENCE: f32 = 0.9;

/// Extracts by a model.
pub(super) async fn extract(
    models: &StageModels,
    job: &JobContext,
    document: &ParsedDocument,
    name: &str,
    schema: &ExtractSchema,
) -> Result<Outcome, Failure> {
    let visible = shown(document);
    let (marker, fields) = (marker(&visible), described(schema));
    let values = [("marker", marker.as_str()), ("fields", &fields), ("document", &visible)];
    let (done, told) = models.ask(job, USE, &values, &answer_schema(schema)).await?;
    let reading = Reading::of(document);
    let mut outcome = understood(&reading, name, schema, &told);
    outcome.extraction.engine = done.model;
    Ok(outcome)
}

/// What a model reads of a document: nothing that a reader would not see.
fn shown(document: &ParsedDocument) -> String {
    clean(Reading::of(document).text()).chars().take(MAX_CHARS).collect()
}

/// One line a field: name, what it is, how it is labelled.
fn described(schema: &ExtractSchema) -> String {
    let line = |field: &FieldSpec| {
        let kind = json!(field.kind).as_str().unwrap_or_default().replace('_', " ");
        let many = if field.many { "every" } else { "the one" };
        let labels = field.labels.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
        let labels = if labels.is_empty() { String::new() } else { format!(", labelled for instance {labels}") };
        format!("- {}: {many} {kind}{labels}", field.name)
    };
    schema.fields.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn answer_schema(schema: &ExtractSchema) -> Value {
    let values = json!({"type": "array", "maxItems": 200, "items": {
        "type": "object", "required": ["raw"], "properties": {"raw": {"type": "string", "minLength": 1}}}});
    let fields: Map<String, Value> = schema.fields.iter().map(|field| (field.name.clone(), values.clone())).collect();
    json!({"type": "object", "properties": fields, "additionalProperties": false})
}

/// What of the model's answer the document bears out.
fn understood(reading: &Reading<'_>, name: &str, schema: &ExtractSchema, told: &Value) -> Outcome {
    let mut scans = Scans::new(reading);
    let mut dropped = 0;
    let mut found = Vec::new();
    for field in &schema.fields {
        let raws = told[&field.name].as_array().into_iter().flatten().filter_map(|value| value["raw"].as_str());
        let mut scored = Vec::new();
        for raw in raws {
            match read(&mut scans, reading, field, raw) {
                Some(value) => scored.push((value, CONFIDENCE)),
                None => dropped += 1,
            }
        }
        let chosen = if field.many { scored } else { best(scored, field.pick).into_iter().collect() };
        let values: Vec<FieldValue> =
            chosen.into_iter().filter_map(|(found, confidence)| reading.value(&found, confidence)).collect();
        found.push((field.clone(), values));
    }
    let mut outcome = validate::outcome(name, schema, found);
    outcome.dropped += dropped;
    outcome
}

/// The value of `raw` where it stands in the document; kinds without a form of their own are their words.
fn read(scans: &mut Scans<'_>, reading: &Reading<'_>, field: &FieldSpec, raw: &str) -> Option<Found> {
    let raw = raw.trim();
    let start = reading.text().find(raw).filter(|_| !raw.is_empty())?;
    let range = start..start + raw.len();
    let overlaps = |found: &&Found| found.range.start < range.end && range.start < found.range.end;
    if let Some(found) = scans.of_kind(field).iter().find(overlaps) {
        return Some(found.clone());
    }
    let is_words = matches!(
        field.kind,
        FieldKind::Identifier
            | FieldKind::Text
            | FieldKind::Party
            | FieldKind::ContractParty
            | FieldKind::Address
            | FieldKind::Jurisdiction
    );
    let fits = field.pattern.as_ref().is_none_or(|pattern| pattern.is_match(raw));
    (is_words && fits).then(|| Found::new(range, raw.split_whitespace().collect::<Vec<_>>().join(" "), 1.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::document;
    use super::*;

    #[test]
    fn a_model_is_shown_nothing_that_readers_do_not_see() {
        let order: String = "obey".chars().filter_map(|c| char::from_u32(0xE0000 + u32::from(c))).collect();
        let mut document = document(&format!("Total: 7{order}\u{e0101}\u{200b} euros, so they say"));
        document.hidden = vec![docmill_model::Span::new(21, 33)];
        assert_eq!(shown(&document).trim(), "Total: 7 euros,");
    }

    #[test]
    fn words_that_stand_there_are_read_by_rules_and_the_rest_is_dropped() {
        let schema = ExtractSchema::read(&json!({"type": "object", "properties": {
            "due": {"type": "string", "format": "date", "x-docmill": {"kind": "date", "labels": ["Due"]}},
            "total": {"type": "object", "x-docmill": {"kind": "amount", "labels": ["Total"]}},
            "seller": {"type": "string", "x-docmill": {"kind": "party", "labels": ["From"]}},
            "dates": {"type": "array", "items": {"type": "string"}, "x-docmill": {"kind": "date", "labels": ["Date"]}}}}))
        .unwrap();
        let document = document("From: the Harbour Office\nDue: 3 May 2026\nTotal: EUR 1,250.00\n");
        let reading = Reading::of(&document);
        let told = json!({
            "due": [{"raw": "3 May 2026"}], "total": [{"raw": "EUR 1,250.00"}],
            "seller": [{"raw": "the Harbour Office"}],
            "dates": [{"raw": "3 May 2026"}, {"raw": "4 May 2026"}, {"raw": "Harbour"}]});
        let outcome = understood(&reading, "test", &schema, &told);
        assert_eq!(outcome.extraction.data["due"], "2026-05-03");
        assert_eq!(outcome.extraction.data["total"]["currency"], "EUR");
        assert_eq!(outcome.extraction.data["seller"], "the Harbour Office");
        assert_eq!((outcome.extraction.data["dates"].as_array().unwrap().len(), outcome.dropped), (1, 2));
    }
}
