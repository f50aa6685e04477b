//! The contract between the engine and a stage.
//!
//! A stage is a stored name, typed settings, a version, and three steps. [`Stage::run`] is slow, holds no transaction
//! and is safe to repeat; it returns a [`Manifest`], which may instead come from the stage cache. [`Stage::prepare`]
//! loads what the commit needs, still outside a transaction. [`Stage::commit`] is fast SQL inside the transaction that
//! also completes the job, releases its successors and writes the outbox: all of it happens once, or not at all.
//! Stages do not know each other: they ask for artifacts by kind.

use docmill_model::manifest::{ArtifactRef, Manifest};
use docmill_model::{Code, DocumentId, Failure, JobId, RunId, Sha256Hex, TenantId, VersionId};
use docmill_platform::artifacts::Artifacts;
use docmill_platform::database::{Database, DbError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How a stage ended, if not with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A typed failure; its code's kind decides whether it is tried again.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Not ready yet: try again after this long. Burns no attempt.
    #[error("not ready, try again in {0:?}")]
    Snooze(Duration),
    /// The run was cancelled or the process shuts down.
    #[error("cancelled")]
    Cancelled,
}

impl From<DbError> for StageError {
    fn from(error: DbError) -> Self {
        StageError::Failed(error.into_failure())
    }
}

impl From<sqlx::Error> for StageError {
    fn from(error: sqlx::Error) -> Self {
        DbError::from(error).into()
    }
}

/// How a stage is scheduled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Jobs of this stage one process runs at once.
    pub concurrency: usize,
    /// Longest run before `STAGE_TIMEOUT`.
    pub timeout: Duration,
    /// Typed failures before the job is dead; permanent failures are dead at once.
    pub max_failed: i32,
    /// Lost leases before the job is parked as poison.
    pub max_lost: i32,
    /// First delay after a transient failure; doubles with jitter, at most 10 minutes.
    pub backoff: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            concurrency: 2,
            timeout: Duration::from_secs(600),
            max_failed: 3,
            max_lost: 10,
            backoff: Duration::from_secs(1),
        }
    }
}

/// What a stage does in a run of a sample, of which nothing may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InSample {
    /// Computes; its commit is left out.
    Compute,
    /// All it does otherwise: what it leaves is found by its content and shown by nothing.
    Whole,
    /// Nothing, and so nothing that comes after it.
    Absent,
}

/// One claimed job as a stage sees it.
#[derive(Clone)]
pub struct JobContext {
    /// Owner.
    pub tenant_id: TenantId,
    /// The document.
    pub document_id: DocumentId,
    /// The version being processed.
    pub version_id: VersionId,
    /// The run.
    pub run_id: RunId,
    /// The job.
    pub job_id: JobId,
    /// Fencing number of this attempt.
    pub fence: i64,
    /// Version (content hash) of the pinned pipeline.
    pub pipeline_version: String,
    /// JSON Schemas of the pinned pipeline, by the name settings use.
    pub schemas: Arc<BTreeMap<String, serde_json::Value>>,
    /// Manifests of all jobs of this run that are done and come before this one, as `(stage, manifest)` in stage order.
    pub inputs: Vec<(String, Manifest)>,
    /// Transactions as this tenant.
    pub database: Database,
    /// Artifacts of this tenant.
    pub artifacts: Artifacts,
    /// Fires when the lease is lost, the run is cancelled or the process shuts down.
    pub cancel: CancellationToken,
    /// W3C trace context of the request that caused the run.
    pub traceparent: Option<String>,
    /// Armed by tests only; the place is the stage.
    pub failpoints: crate::failpoints::Failpoints,
}

impl JobContext {
    /// The artifact of `kind` among the inputs (see [`docmill_model::manifest::kind`]).
    ///
    /// # Errors
    /// `PIPELINE_INVALID` when no earlier stage of the pipeline produces it.
    pub fn input(&self, kind: &str) -> Result<&ArtifactRef, Failure> {
        self.inputs.iter().rev().find_map(|(_, manifest)| manifest.artifacts.get(kind)).ok_or_else(|| {
            Failure::new(Code::PipelineInvalid, format!("no earlier stage of the pipeline produces `{kind}`"))
        })
    }

    /// Loads and decodes the JSON artifact of `kind`.
    ///
    /// # Errors
    /// As [`Self::input`], store failures, or `INTERNAL` for an artifact of another layout.
    pub async fn load<T: DeserializeOwned>(&self, kind: &str) -> Result<T, Failure> {
        self.load_ref(self.input(kind)?).await
    }

    /// Loads and decodes one JSON artifact.
    ///
    /// # Errors
    /// Store failures, or `INTERNAL` for an artifact of another layout.
    pub async fn load_ref<T: DeserializeOwned>(&self, reference: &ArtifactRef) -> Result<T, Failure> {
        let bytes = self.artifacts.get(self.tenant_id, &reference.sha256).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new(Code::Internal, format!("artifact cannot be decoded at line {}", error.line()))
        })
    }

    /// Stores a JSON artifact.
    ///
    /// # Errors
    /// Store and database failures.
    pub async fn store<T: Serialize + Sync>(&self, value: &T) -> Result<ArtifactRef, Failure> {
        let bytes =
            serde_json::to_vec(value).map_err(|_| Failure::new(Code::Internal, "artifact cannot be encoded"))?;
        self.failpoints.hit("artifact.before", "").await;
        let stored = self.artifacts.put(self.tenant_id, bytes.into()).await;
        self.failpoints.hit("artifact.after", "").await;
        stored
    }

    /// The JSON Schema the pipeline inlines under `name`.
    ///
    /// # Errors
    /// `SCHEMA_INVALID` when the pinned pipeline has none of that name.
    pub fn schema(&self, name: &str) -> Result<&serde_json::Value, Failure> {
        let missing = || Failure::new(Code::SchemaInvalid, format!("the pinned pipeline has no schema `{name}`"));
        self.schemas.get(name).ok_or_else(missing)
    }

    /// The generation this job's chunks belong to: derived from document, version and the chunk list.
    ///
    /// # Errors
    /// As [`Self::input`] for the chunk list.
    pub fn generation_id(&self) -> Result<docmill_model::GenerationId, Failure> {
        let chunks = self.input(docmill_model::manifest::kind::CHUNKS)?;
        Ok(generation_id(self.document_id, self.version_id, &chunks.sha256))
    }
}

/// The identity of a generation: equal document, version and chunk list give the same one.
#[must_use]
pub fn generation_id(document: DocumentId, version: VersionId, chunks: &Sha256Hex) -> docmill_model::GenerationId {
    docmill_model::derived_uuid(&[
        b"generation",
        document.0.as_bytes(),
        version.0.as_bytes(),
        chunks.as_str().as_bytes(),
    ])
    .into()
}

/// One stage of a pipeline.
#[async_trait::async_trait]
pub trait Stage: Send + Sync + 'static {
    /// Stored name: lower-case, stable for ever.
    const NAME: &'static str;
    /// Raised when the same input and settings would give other output; part of the cache key.
    const VERSION: u32;
    /// Settings in the pipeline file. Unknown fields are refused (`#[serde(deny_unknown_fields, default)]`).
    type Config: DeserializeOwned + Serialize + schemars::JsonSchema + Default + Send + Sync;
    /// What the commit needs, loaded outside the transaction.
    type Prepared: Send + Sync;

    /// Scheduling.
    fn policy(&self) -> Policy {
        Policy::default()
    }

    /// Versions and hashes of the engines this stage uses (pdfium, tesseract, model, prompt); part of the cache key.
    fn fingerprint(&self) -> String {
        String::new()
    }

    /// False for stages whose work is an effect rather than an artifact (embed keeps its own cache; index, notify).
    fn cacheable(&self) -> bool {
        true
    }

    /// What it does in a run of a sample.
    fn in_sample(&self) -> InSample {
        if self.cacheable() { InSample::Compute } else { InSample::Absent }
    }

    /// The slow part. No transaction is open. May be called again after a crash.
    async fn run(&self, job: &JobContext, config: &Self::Config) -> Result<Manifest, StageError>;

    /// Loads what [`Self::commit`] needs from a manifest that may come from the cache.
    async fn prepare(
        &self,
        job: &JobContext,
        config: &Self::Config,
        manifest: &Manifest,
    ) -> Result<Self::Prepared, StageError>;

    /// Fast SQL in the transaction that completes the job, as the job's tenant.
    async fn commit(
        &self,
        connection: &mut PgConnection,
        job: &JobContext,
        manifest: &Manifest,
        prepared: Self::Prepared,
    ) -> Result<(), StageError>;
}
