//! Answers that must be JSON of a given schema.

use docmill_model::{Code, Failure};
use jsonschema::Validator;
use serde_json::Value;
use std::sync::Arc;

/// Most problems a model is told about.
const MAX_PROBLEMS: usize = 10;

/// A compiled JSON Schema.
#[derive(Clone)]
pub(super) struct Schema(Arc<Validator>);

impl Schema {
    pub(super) fn compile(schema: &Value) -> Result<Self, Failure> {
        let validator = jsonschema::validator_for(schema);
        validator.map(|validator| Self(Arc::new(validator))).map_err(|error| {
            Failure::new(
                Code::SchemaInvalid,
                format!("the answer's schema is not a JSON Schema, at `{}`", error.instance_path()),
            )
        })
    }

    /// The JSON in `text`, with or without words and a fence around it.
    ///
    /// # Errors
    /// What is wrong with it, for the model that wrote it.
    pub(super) fn read(&self, text: &str) -> Result<Value, Vec<String>> {
        let value = find(text).ok_or_else(|| vec!["it is not JSON".to_owned()])?;
        let problems: Vec<String> = self
            .0
            .iter_errors(&value)
            .take(MAX_PROBLEMS)
            .map(|error| format!("at `{}`: {error}", error.instance_path()))
            .collect();
        if problems.is_empty() { Ok(value) } else { Err(problems) }
    }
}

fn find(text: &str) -> Option<Value> {
    let whole = serde_json::from_str(text.trim());
    whole.ok().or_else(|| {
        let start = text.find(['{', '['])?;
        let end = text.rfind(['}', ']'])?;
        serde_json::from_str(text.get(start..=end)?).ok()
    })
}

/// The message that asks for a repaired answer.
pub(super) fn repair(problems: &[String]) -> String {
    format!(
        "That does not fit the schema:\n- {}\nAnswer again with the corrected JSON and nothing else.",
        problems.join("\n- ")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_found_and_held_to_the_schema() {
        let schema = json!({"type": "object", "required": ["total"], "properties": {"total": {"type": "number"}}});
        let schema = Schema::compile(&schema).unwrap();
        for text in [r#"{"total": 1}"#, "```json\n{\"total\": 1}\n```", "Here it is: {\"total\": 1} - done"] {
            assert_eq!(schema.read(text).unwrap(), json!({"total": 1}), "{text}");
        }
        for (text, problem) in [
            ("no", "not JSON"),
            ("{}", "total"),
            (r#"{"total": "1"}"#, "/total"),
            ("} {", "not JSON"),
            ("[1]", "object"),
        ] {
            let problems = schema.read(text).unwrap_err();
            assert!(repair(&problems).contains(problem), "{text}: {problems:?}");
        }
        assert_eq!(Schema::compile(&json!({"type": 7})).err().unwrap().code, Code::SchemaInvalid);
    }
}
