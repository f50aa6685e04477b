//! The YAML file: strict keys, positions in every message, settings checked by the stage that owns them.

use super::{Pipeline, PipelineStage, graph};
use crate::registry::Registry;
use crate::schedule::{Schedule, Wanted};
use docmill_model::retention::Rules;
use docmill_model::{Code, Failure};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Longest pipeline file.
const FILE_LIMIT_BYTES: usize = 256 * 1024;
/// Longest extraction schema.
const SCHEMA_LIMIT_BYTES: u64 = 256 * 1024;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PipelineFile {
    name: Spanned<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    retention: Rules,
    #[serde(default)]
    schedules: BTreeMap<String, Spanned<Wanted>>,
    stages: Entries,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StageEntry {
    after: Vec<String>,
    required: Option<bool>,
    when: Option<When>,
    settings: Option<Spanned<Value>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum When {
    Settled,
}

/// The stages in the order of the file.
struct Entries(Vec<(Spanned<String>, StageEntry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("stage names with their entries")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries: Vec<(Spanned<String>, StageEntry)> = Vec::new();
                while let Some(name) = map.next_key::<Spanned<String>>()? {
                    if entries.iter().any(|(other, _)| other.value == name.value) {
                        return Err(A::Error::custom(format!("stage `{}` is listed twice", name.value)));
                    }
                    let entry: Option<StageEntry> = map.next_value()?;
                    entries.push((name, entry.unwrap_or_default()));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Reads one JSON Schema by name; the error is one sentence.
pub(super) type SchemaSource<'a> = &'a dyn Fn(&str) -> Result<Value, String>;

/// A pipeline from the text of its file. `schema` yields the JSON Schema that settings name.
///
/// # Errors
/// `PIPELINE_INVALID`, its message starting with `file:line:column`.
pub fn parse(file: &str, text: &str, registry: &Registry, schema: SchemaSource<'_>) -> Result<Pipeline, Failure> {
    if text.len() > FILE_LIMIT_BYTES {
        let message = format!("{file}: a pipeline file has at most {FILE_LIMIT_BYTES} bytes");
        return Err(Failure::limit(Code::PipelineInvalid, message, FILE_LIMIT_BYTES as u64, text.len() as u64));
    }
    let parsed: PipelineFile = serde_saphyr::from_str(text).map_err(|error| yaml_failure(file, &error))?;
    let place = |at: (u64, u64), message: String| {
        Failure::new(Code::PipelineInvalid, format!("{file}:{}:{}: {message}", at.0, at.1))
    };
    if !is_name(&parsed.name.value) {
        let message = "`name` is a lower-case letter and up to 62 letters, digits, `-` or `_`".to_owned();
        return Err(place(position(&parsed.name), message));
    }
    let mut schemas = BTreeMap::new();
    let mut places = BTreeMap::new();
    let mut stages = Vec::new();
    for (name, entry) in parsed.stages.0 {
        let at = position(&name);
        places.insert(name.value.clone(), at);
        let Some(stage) = registry.get(&name.value) else {
            let known = registry.names().join(", ");
            return Err(place(at, format!("unknown stage `{}`; this build has {known}", name.value)));
        };
        let (given, settings_at) = match &entry.settings {
            Some(settings) => (settings.value.clone(), position(settings)),
            None => (Value::Object(serde_json::Map::new()), at),
        };
        let settings = stage.check_settings(&given).map_err(|problem| {
            place(locate(text, settings_at, &problem), format!("settings of `{}`: {problem}", name.value))
        })?;
        if let Some(wanted) = settings.get("schema").and_then(Value::as_str) {
            let content = schema(wanted).map_err(|problem| place(settings_at, problem))?;
            schemas.insert(wanted.to_owned(), content);
        }
        stages.push(PipelineStage {
            name: name.value,
            after: entry.after,
            required: entry.required.unwrap_or(entry.when.is_none()),
            on_settled: entry.when.is_some(),
            settings,
        });
    }
    let stages = graph::order(stages)
        .map_err(|problem| place(places.get(&problem.stage).copied().unwrap_or((1, 1)), problem.message))?;
    let mut schedules = BTreeMap::new();
    for (name, wanted) in parsed.schedules {
        let at = position(&wanted);
        if !is_name(&name) {
            let message = format!("schedule `{name}` is a lower-case letter and up to 62 letters, digits, `-` or `_`");
            return Err(place(at, message));
        }
        let schedule = Schedule::check(wanted.value, &stages, |stage| registry.remembers(stage))
            .map_err(|problem| place(locate(text, at, &problem), format!("schedule `{name}`: {problem}")))?;
        schedules.insert(name, schedule);
    }
    let pipeline = Pipeline::assemble(parsed.name.value, parsed.description, stages, schemas);
    Ok(Pipeline { retention: parsed.retention, schedules: Arc::new(schedules), ..pipeline })
}

fn position<T>(spanned: &Spanned<T>) -> (u64, u64) {
    (spanned.referenced.line(), spanned.referenced.column())
}

fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
}

/// The key a settings error quotes, where it stands in the file; else the start of the settings.
fn locate(text: &str, start: (u64, u64), problem: &str) -> (u64, u64) {
    let Some(key) = problem.split('`').nth(1) else { return start };
    for (index, line) in text.lines().enumerate().skip(start.0.saturating_sub(1) as usize) {
        for (at, _) in line.match_indices(key) {
            let begins = line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
            if begins && line[at + key.len()..].trim_start_matches(['"', '\'']).trim_start().starts_with(':') {
                return (index as u64 + 1, line[..at].chars().count() as u64 + 1);
            }
        }
    }
    start
}

fn yaml_failure(file: &str, error: &serde_saphyr::Error) -> Failure {
    let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
    let shown = error.without_snippet().to_string();
    let message = shown.lines().next().unwrap_or("not readable as YAML").to_owned();
    Failure::new(Code::PipelineInvalid, format!("{file}:{line}:{column}: {message}"))
}

/// Reads and compiles `NAME.json` in a folder.
pub(super) fn read_schema(folder: &Path, name: &str) -> Result<Value, String> {
    if !is_name(name) {
        return Err(format!("schema name `{name}` is a lower-case letter and up to 62 letters, digits, `-` or `_`"));
    }
    let path = folder.join(format!("{name}.json"));
    let size =
        std::fs::metadata(&path).map_err(|error| format!("schema `{name}` at {}: {error}", path.display()))?.len();
    if size > SCHEMA_LIMIT_BYTES {
        return Err(format!("schema `{name}` has {size} bytes; the limit is {SCHEMA_LIMIT_BYTES}"));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| format!("schema `{name}`: {error}"))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| format!("schema `{name}`: {error}"))?;
    jsonschema::validator_for(&value).map_err(|error| format!("schema `{name}` is not a JSON Schema: {error}"))?;
    Ok(value)
}
