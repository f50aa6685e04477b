//! Pipelines: which stages run, after which others, with which settings.
//!
//! A pipeline is a YAML file an operator writes. It is checked whole before anything runs (unknown keys, unknown
//! stages, cycles, settings against the stage's own type), its extraction schemas are drawn in, and the hash of the
//! result is its version: a run pins that version for ever, so an edited file never changes work under way.

mod catalog;
mod draw;
mod file;
mod graph;

pub use catalog::Pipelines;
pub use file::parse;

use crate::registry::Registry;
use crate::schedule::Schedule;
use crate::stage::InSample;
use docmill_model::retention::Rules;
use docmill_model::{Code, Failure, Sha256Hex};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One stage of a pipeline.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineStage {
    /// Name of the stage.
    pub name: String,
    /// Stages that must be done before this one starts.
    pub after: Vec<String>,
    /// A failed required stage fails the run; a failed optional one makes it partial.
    pub required: bool,
    /// Starts when the run has settled, whatever the outcome, and keeps no run open.
    pub on_settled: bool,
    /// Settings with every default filled in.
    pub settings: Value,
}

/// A checked pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline {
    /// How uploads name it.
    pub name: String,
    /// For people.
    pub description: String,
    /// SHA-256 over the canonical JSON of everything below.
    pub version: String,
    /// The stages, each after all it depends on.
    pub stages: Vec<PipelineStage>,
    /// JSON Schemas the settings name, by name.
    pub schemas: Arc<BTreeMap<String, Value>>,
    /// How long what went through it is kept. Policy, so not part of the version.
    pub retention: Rules,
    /// When documents that went through it are processed again, by name. Policy as well.
    pub schedules: Arc<BTreeMap<String, Schedule>>,
}

/// What is stored in `pipeline_versions.definition`.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    name: String,
    #[serde(default)]
    description: String,
    stages: Vec<PipelineStage>,
    #[serde(default)]
    schemas: BTreeMap<String, Value>,
}

impl Pipeline {
    fn assemble(
        name: String,
        description: String,
        stages: Vec<PipelineStage>,
        schemas: BTreeMap<String, Value>,
    ) -> Self {
        let (version, schemas) = (String::new(), Arc::new(schemas));
        let (retention, schedules) = (Rules::default(), Arc::default());
        let mut pipeline = Self { name, description, version, stages, schemas, retention, schedules };
        pipeline.version = hash(&pipeline.definition());
        pipeline
    }

    /// The canonical JSON that is stored and hashed.
    #[must_use]
    pub fn definition(&self) -> Value {
        let definition = Definition {
            name: self.name.clone(),
            description: self.description.clone(),
            stages: self.stages.clone(),
            schemas: (*self.schemas).clone(),
        };
        canonical_json(&serde_json::to_value(&definition).unwrap_or_default())
    }

    /// A stored definition, which may be older than the files and name settings this build no longer has; those are
    /// found when the stage runs. `version` is kept as stored.
    ///
    /// # Errors
    /// `PIPELINE_INVALID` when the JSON has another shape or its graph is broken.
    pub fn from_definition(version: &str, definition: &Value) -> Result<Self, Failure> {
        let parsed: Definition = serde_json::from_value(definition.clone())
            .map_err(|error| Failure::new(Code::PipelineInvalid, format!("stored pipeline version: {error}")))?;
        let stages =
            graph::order(parsed.stages).map_err(|problem| Failure::new(Code::PipelineInvalid, problem.message))?;
        Ok(Self {
            name: parsed.name,
            description: parsed.description,
            version: version.to_owned(),
            stages,
            schemas: Arc::new(parsed.schemas),
            retention: Rules::default(),
            schedules: Arc::default(),
        })
    }

    /// The stage of that name.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<&PipelineStage> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// Everything that comes before a stage, directly or not. For a stage that waits for settlement: all others.
    #[must_use]
    pub fn ancestors(&self, name: &str) -> BTreeSet<&str> {
        graph::ancestors(&self.stages, name)
    }

    /// Everything that comes after a stage, directly or not, without those that wait for settlement.
    #[must_use]
    pub fn descendants(&self, name: &str) -> BTreeSet<&str> {
        self.stages
            .iter()
            .filter(|stage| !stage.on_settled && self.ancestors(&stage.name).contains(name))
            .map(|stage| stage.name.as_str())
            .collect()
    }

    /// What a run of a sample does of it: the stages that have a part in one, each after those it depends on.
    #[must_use]
    pub fn in_sample(&self, registry: &Registry) -> Self {
        let has_part = |name: &str| registry.get(name).is_some_and(|stage| stage.in_sample() != InSample::Absent);
        let stages = self.stages.iter().filter(|stage| {
            !stage.on_settled && has_part(&stage.name) && self.ancestors(&stage.name).into_iter().all(has_part)
        });
        Self { stages: stages.cloned().collect(), ..self.clone() }
    }

    /// Hash over a stage's settings and the schemas they name: part of its cache key.
    #[must_use]
    pub fn settings_hash(&self, stage: &PipelineStage) -> String {
        let schema = stage.settings.get("schema").and_then(Value::as_str).and_then(|name| self.schemas.get(name));
        hash(&serde_json::json!({"settings": stage.settings, "schema": schema}))
    }

    /// A Mermaid flowchart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        draw::mermaid(self)
    }

    /// The graph as indented text for a terminal.
    #[must_use]
    pub fn ascii(&self) -> String {
        draw::ascii(self)
    }
}

/// JSON with sorted keys at every level, independent of how maps are built in.
#[must_use]
pub fn canonical_json(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, Value> =
                map.iter().map(|(key, value)| (key, canonical_json(value))).collect();
            Value::Object(sorted.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical_json).collect()),
        plain => plain.clone(),
    }
}

fn hash(value: &Value) -> String {
    Sha256Hex::of(canonical_json(value).to_string().as_bytes()).to_string()
}

/// Checks a pipeline file against a registry without keeping it: what `docmill pipelines check` does.
///
/// # Errors
/// `PIPELINE_INVALID` with file, line and column.
pub fn check(path: &std::path::Path, registry: &Registry) -> Result<Pipeline, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(Code::PipelineInvalid, format!("{}: {error}", path.display())))?;
    let schemas = path.parent().unwrap_or(std::path::Path::new(".")).join("schemas");
    parse(&path.display().to_string(), &text, registry, &|name| file::read_schema(&schemas, name))
}

#[cfg(test)]
mod tests;
