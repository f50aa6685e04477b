//! From values to the object the schema describes, with everything it refuses taken out.

use super::Outcome;
use super::schema::{ExtractSchema, FieldSpec};
use docmill_model::results::{Extraction, FieldValue};
use jsonschema::paths::LocationSegment;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Builds and validates; every pass drops the values that are refused, until only missing ones are left to complain of.
pub(super) fn outcome(name: &str, schema: &ExtractSchema, found: Vec<(FieldSpec, Vec<FieldValue>)>) -> Outcome {
    let mut fields: Vec<(FieldSpec, Vec<FieldValue>)> =
        found.into_iter().filter(|(_, values)| !values.is_empty()).collect();
    let mut dropped = 0;
    loop {
        let data = object(&fields);
        let refused = refused(schema, &data);
        if refused.is_empty() {
            let missing = schema.validator.iter_errors(&data).count();
            let values: BTreeMap<String, Vec<FieldValue>> =
                fields.into_iter().map(|(field, values)| (field.name, values)).collect();
            let extraction = Extraction { schema: name.to_owned(), engine: "rules".to_owned(), fields: values, data };
            return Outcome { extraction, dropped, missing };
        }
        let before = dropped;
        for (field, at) in refused {
            dropped += drop_value(&mut fields, &field, at);
        }
        if dropped == before {
            fields.clear();
        }
        fields.retain(|(_, values)| !values.is_empty());
    }
}

fn object(fields: &[(FieldSpec, Vec<FieldValue>)]) -> Value {
    let one = |(field, values): &(FieldSpec, Vec<FieldValue>)| {
        let mut plain = values.iter().map(|value| shaped(&value.normalized, field.value_type.as_deref()));
        let value = if field.many { Value::Array(plain.collect()) } else { plain.next().unwrap_or(Value::Null) };
        (field.name.clone(), value)
    };
    Value::Object(fields.iter().map(one).collect::<Map<String, Value>>())
}

/// The normal form in the JSON type the schema asks for, where that loses nothing.
fn shaped(normalized: &Value, wanted: Option<&str>) -> Value {
    let plain = normalized.get("amount").or(normalized.get("value")).unwrap_or(normalized);
    let number = || plain.as_str().and_then(|text| serde_json::from_str::<serde_json::Number>(text).ok());
    match wanted {
        Some("number" | "integer") => number().map_or_else(|| normalized.clone(), Value::Number),
        Some("string") => plain.clone(),
        _ => normalized.clone(),
    }
}

/// `(property, index in an array)` of every value an error points at; errors about the whole object are about what is
/// missing and drop nothing.
fn refused(schema: &ExtractSchema, data: &Value) -> Vec<(String, Option<usize>)> {
    let mut places: Vec<(String, Option<usize>)> = Vec::new();
    for error in schema.validator.iter_errors(data) {
        let mut segments = error.instance_path().into_iter();
        let Some(LocationSegment::Property(property)) = segments.next() else { continue };
        let index = match segments.next() {
            Some(LocationSegment::Index(index)) => Some(index),
            _ => None,
        };
        let place = (property.to_string(), index);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    // From the back, so that indices stay true while values go.
    places.sort_by(|a, b| b.cmp(a));
    places
}

fn drop_value(fields: &mut [(FieldSpec, Vec<FieldValue>)], name: &str, at: Option<usize>) -> usize {
    let Some((field, values)) = fields.iter_mut().find(|(field, _)| field.name == name) else { return 0 };
    match at {
        Some(at) if field.many && at < values.len() => {
            values.remove(at);
            1
        }
        _ => std::mem::take(values).len(),
    }
}
