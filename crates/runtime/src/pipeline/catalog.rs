//! The pipelines a process knows: those in the folder, and every version any run ever pinned.

use super::{Pipeline, file};
use crate::registry::Registry;
use docmill_model::{Code, Failure};
use docmill_platform::database::{Database, DbError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// Pipelines by name (current files) and by version (everything pinned).
#[derive(Default)]
pub struct Pipelines {
    current: BTreeMap<String, Arc<Pipeline>>,
    versions: RwLock<BTreeMap<String, Arc<Pipeline>>>,
}

impl Pipelines {
    /// Reads every `*.yaml` of a folder; extraction schemas stand in its folder `schemas/`.
    ///
    /// # Errors
    /// `PIPELINE_INVALID` with file, line and column, also when two files have one name or there is none.
    pub fn load(folder: &Path, registry: &Registry) -> Result<Self, Failure> {
        let unreadable = |error| Failure::new(Code::PipelineInvalid, format!("{}: {error}", folder.display()));
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                paths.push(path);
            }
        }
        paths.sort();
        let pipelines = paths.iter().map(|path| super::check(path, registry)).collect::<Result<Vec<_>, _>>()?;
        if pipelines.is_empty() {
            let message = format!("{}: there is no pipeline file (*.yaml)", folder.display());
            return Err(Failure::new(Code::PipelineInvalid, message));
        }
        Self::of(pipelines)
    }

    /// From pipelines already parsed.
    ///
    /// # Errors
    /// `PIPELINE_INVALID` when two have one name.
    pub fn of(pipelines: Vec<Pipeline>) -> Result<Self, Failure> {
        let mut catalog = Self::default();
        for pipeline in pipelines.into_iter().map(Arc::new) {
            let name = pipeline.name.clone();
            catalog.remember(pipeline.clone());
            if catalog.current.insert(name.clone(), pipeline).is_some() {
                let message = format!("two pipeline files are named `{name}`");
                return Err(Failure::new(Code::PipelineInvalid, message));
            }
        }
        Ok(catalog)
    }

    /// One pipeline from text, for tests and examples; settings may not name schemas.
    ///
    /// # Errors
    /// As [`file::parse`].
    pub fn from_text(text: &str, registry: &Registry) -> Result<Self, Failure> {
        let none = |name: &str| Err(format!("schema `{name}` is not available here"));
        Self::of(vec![file::parse("pipeline", text, registry, &none)?])
    }

    /// The current pipeline of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Pipeline>> {
        self.current.get(name).cloned()
    }

    /// The pipeline of a pinned version, if this process has met it.
    #[must_use]
    pub fn version(&self, version: &str) -> Option<Arc<Pipeline>> {
        self.versions.read().unwrap_or_else(PoisonError::into_inner).get(version).cloned()
    }

    /// The current pipelines, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Pipeline>> {
        self.current.values().cloned().collect()
    }

    /// Writes the current versions to `pipeline_versions` and learns the ones that are there.
    ///
    /// # Errors
    /// Database failures. A stored version that this build cannot read is left out and logged.
    pub async fn register(&self, database: &Database) -> Result<(), Failure> {
        for pipeline in self.current.values() {
            sqlx::query(
                "INSERT INTO pipeline_versions (version, name, definition) VALUES ($1, $2, $3) ON CONFLICT (version) DO NOTHING",
            )
            .bind(&pipeline.version)
            .bind(&pipeline.name)
            .bind(pipeline.definition())
            .execute(database.engine())
            .await
            .map_err(DbError::from)?;
        }
        let stored: Vec<(String, Value)> =
            sqlx::query_as("SELECT version, definition FROM pipeline_versions ORDER BY created_at")
                .fetch_all(database.engine())
                .await
                .map_err(DbError::from)?;
        for (version, definition) in stored {
            if self.version(&version).is_none() {
                match Pipeline::from_definition(&version, &definition) {
                    Ok(pipeline) => self.remember(Arc::new(pipeline)),
                    Err(failure) => {
                        tracing::warn!(version, code = %failure.code, "a stored pipeline version is not readable")
                    }
                }
            }
        }
        Ok(())
    }

    /// The pipeline of a pinned version, asking the database for one that another process registered.
    ///
    /// # Errors
    /// `PIPELINE_UNKNOWN` when no such version was ever registered, or database failures.
    pub async fn resolve(&self, database: &Database, version: &str) -> Result<Arc<Pipeline>, Failure> {
        if let Some(pipeline) = self.version(version) {
            return Ok(pipeline);
        }
        let stored: Option<Value> = sqlx::query_scalar("SELECT definition FROM pipeline_versions WHERE version = $1")
            .bind(version)
            .fetch_optional(database.engine())
            .await
            .map_err(DbError::from)?;
        let stored = stored
            .ok_or_else(|| Failure::new(Code::PipelineUnknown, "the pinned pipeline version is not registered"))?;
        let pipeline = Arc::new(Pipeline::from_definition(version, &stored)?);
        self.remember(pipeline.clone());
        Ok(pipeline)
    }

    fn remember(&self, pipeline: Arc<Pipeline>) {
        self.versions.write().unwrap_or_else(PoisonError::into_inner).insert(pipeline.version.clone(), pipeline);
    }
}
