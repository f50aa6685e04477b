//! The stages of this build, behind one object type.
//!
//! A [`Stage`] has its own settings and its own prepared data; the engine wants to hold all of them in one list. The
//! registry erases both types and keeps what the rest of the system asks about a stage: its name, policy, settings
//! schema, cache identity. Adding a stage is one `.with(…)` line where the list is built.

use crate::pipeline::canonical_json;
use crate::schedule::Wanted;
use crate::stage::{InSample, JobContext, Policy, Stage, StageError};
use async_trait::async_trait;
use docmill_model::manifest::Manifest;
use docmill_model::retention::Rules;
use docmill_model::{Code, Failure};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::sync::Arc;

/// A stage whose settings and prepared data are erased.
#[async_trait]
pub trait ErasedStage: Send + Sync {
    /// [`Stage::NAME`].
    fn name(&self) -> &'static str;
    /// [`Stage::VERSION`].
    fn version(&self) -> u32;
    /// [`Stage::policy`].
    fn policy(&self) -> Policy;
    /// [`Stage::fingerprint`].
    fn fingerprint(&self) -> String;
    /// [`Stage::cacheable`].
    fn cacheable(&self) -> bool;
    /// [`Stage::in_sample`].
    fn in_sample(&self) -> InSample;
    /// JSON Schema of the settings.
    fn settings_schema(&self) -> Value;
    /// The settings with every default filled in, or one sentence on what is wrong.
    ///
    /// # Errors
    /// The reason: an unknown field, a wrong type, a value out of range.
    fn check_settings(&self, settings: &Value) -> Result<Value, String>;
    /// [`Stage::run`].
    ///
    /// # Errors
    /// As the stage decides.
    async fn run(&self, job: &JobContext, settings: &Value) -> Result<Manifest, StageError>;
    /// [`Stage::prepare`]; what comes back knows how to commit.
    ///
    /// # Errors
    /// As the stage decides.
    async fn prepare(
        self: Arc<Self>,
        job: &JobContext,
        settings: &Value,
        manifest: &Manifest,
    ) -> Result<Box<dyn PreparedCommit>, StageError>;
}

/// A commit that has everything it needs.
#[async_trait]
pub trait PreparedCommit: Send {
    /// [`Stage::commit`].
    ///
    /// # Errors
    /// As the stage decides; the transaction is then rolled back.
    async fn commit(
        self: Box<Self>,
        connection: &mut PgConnection,
        job: &JobContext,
        manifest: &Manifest,
    ) -> Result<(), StageError>;
}

struct Erased<S>(S);

struct Prepared<S: Stage> {
    stage: Arc<Erased<S>>,
    prepared: S::Prepared,
}

fn typed<S: Stage>(settings: &Value) -> Result<S::Config, Failure> {
    serde_json::from_value(settings.clone())
        .map_err(|error| Failure::new(Code::PipelineInvalid, format!("settings of stage `{}`: {error}", S::NAME)))
}

#[async_trait]
impl<S: Stage> ErasedStage for Erased<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn version(&self) -> u32 {
        S::VERSION
    }

    fn policy(&self) -> Policy {
        self.0.policy()
    }

    fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }

    fn cacheable(&self) -> bool {
        self.0.cacheable()
    }

    fn in_sample(&self) -> InSample {
        self.0.in_sample()
    }

    fn settings_schema(&self) -> Value {
        schemars::schema_for!(S::Config).to_value()
    }

    fn check_settings(&self, settings: &Value) -> Result<Value, String> {
        let config: S::Config = serde_json::from_value(settings.clone()).map_err(|error| error.to_string())?;
        let full = serde_json::to_value(&config).map_err(|error| error.to_string())?;
        // A stage without settings has the unit type, which is written as null.
        Ok(if full.is_null() { json!({}) } else { full })
    }

    async fn run(&self, job: &JobContext, settings: &Value) -> Result<Manifest, StageError> {
        self.0.run(job, &typed::<S>(settings)?).await
    }

    async fn prepare(
        self: Arc<Self>,
        job: &JobContext,
        settings: &Value,
        manifest: &Manifest,
    ) -> Result<Box<dyn PreparedCommit>, StageError> {
        let prepared = self.0.prepare(job, &typed::<S>(settings)?, manifest).await?;
        Ok(Box::new(Prepared { stage: self, prepared }))
    }
}

#[async_trait]
impl<S: Stage> PreparedCommit for Prepared<S> {
    async fn commit(
        self: Box<Self>,
        connection: &mut PgConnection,
        job: &JobContext,
        manifest: &Manifest,
    ) -> Result<(), StageError> {
        self.stage.0.commit(connection, job, manifest, self.prepared).await
    }
}

/// Every stage this build knows, in the order of the list.
#[derive(Default)]
pub struct Registry {
    stages: Vec<Arc<dyn ErasedStage>>,
}

/// Collects stages.
#[derive(Default)]
pub struct RegistryBuilder {
    registry: Registry,
}

impl RegistryBuilder {
    /// Adds a stage.
    ///
    /// # Panics
    /// When two stages have one name, or a name is not `[a-z][a-z0-9_]*`: a mistake in the list, found by every test.
    #[must_use]
    pub fn with<S: Stage>(mut self, stage: S) -> Self {
        let plain = S::NAME.starts_with(|c: char| c.is_ascii_lowercase())
            && S::NAME.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        assert!(plain, "stage name `{}` must match [a-z][a-z0-9_]*", S::NAME);
        assert!(self.registry.get(S::NAME).is_none(), "stage `{}` is listed twice", S::NAME);
        self.registry.stages.push(Arc::new(Erased(stage)));
        self
    }

    /// The finished list.
    #[must_use]
    pub fn build(self) -> Registry {
        self.registry
    }
}

impl Registry {
    /// An empty list to add to.
    #[must_use]
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::default()
    }

    /// The stage of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn ErasedStage>> {
        self.stages.iter().find(|stage| stage.name() == name)
    }

    /// Whether the cache keeps what the stage of that name gives.
    #[must_use]
    pub fn remembers(&self, name: &str) -> bool {
        self.get(name).is_some_and(|stage| stage.cacheable())
    }

    /// All names, in the order of the list.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.stages.iter().map(|stage| stage.name()).collect()
    }

    /// All stages, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn ErasedStage>> {
        self.stages.iter()
    }

    /// The policy of a stage; the default for a stage another build knows.
    #[must_use]
    pub fn policy(&self, name: &str) -> Policy {
        self.get(name).map(|stage| stage.policy()).unwrap_or_default()
    }

    /// The JSON Schema of a pipeline file: what an editor checks while it is written.
    #[must_use]
    pub fn schema(&self) -> Value {
        let mut stages = serde_json::Map::new();
        for stage in &self.stages {
            stages.insert(stage.name().to_owned(), stage_schema(stage.settings_schema(), &self.names()));
        }
        canonical_json(&json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Docmill pipeline file",
            "type": "object",
            "required": ["name", "stages"],
            "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,62}$", "description": "How uploads name the pipeline."},
                "description": {"type": "string", "description": "For people."},
                "retention": nested(schemars::schema_for!(Rules).to_value()),
                "schedules": {
                    "type": "object", "propertyNames": {"pattern": "^[a-z][a-z0-9_-]{0,62}$"},
                    "description": "When documents that went through it are processed again, by name.",
                    "additionalProperties": nested(schemars::schema_for!(Wanted).to_value())
                },
                "stages": {
                    "type": "object", "minProperties": 1, "additionalProperties": false,
                    "description": "Which stages run, and after which others.",
                    "properties": stages
                }
            }
        }))
    }
}

/// A derived schema, to stand inside another.
fn nested(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
    }
    schema
}

fn stage_schema(settings: Value, names: &[&str]) -> Value {
    json!({
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": {
            "after": {"type": "array", "items": {"enum": names}, "uniqueItems": true,
                      "description": "Stages that must be done before this one starts."},
            "required": {"type": "boolean", "default": true,
                         "description": "false: its failure makes the run partial instead of failed."},
            "when": {"enum": ["settled"], "description": "settled: starts when everything else has ended, however it ended."},
            "settings": nested(settings)
        }
    })
}
