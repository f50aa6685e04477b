//! Does with a stage what the engine does, one step at a time.

use docmill_documents::{ParseOptions, Parser, ParserConfig};
use docmill_model::manifest::Manifest;
use docmill_model::{Code, DocumentId, Failure, JobId, RunId, Sha256Hex, TenantId, VersionId};
use docmill_platform::database::DbError;
use docmill_platform::embedder::Embedder;
use docmill_platform::gateway::prompts::{Prompt, Prompts};
use docmill_platform::tokens::TokenCounter;
use docmill_runtime::pipeline::{Pipeline, check};
use docmill_runtime::registry::ErasedStage;
use docmill_runtime::{JobContext, Registry, StageError};
use docmill_stages::{StageDeps, registry};
use docmill_testkit::{Accepted, World, world};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

pub struct Bench {
    pub world: World,
    pub deps: StageDeps,
    pub registry: Registry,
    pub pipeline: Pipeline,
    embedded: Arc<Mutex<Vec<String>>>,
}

/// Identities, so that two tenants can hold the same document.
#[derive(Clone, Copy, Debug)]
pub struct Document {
    pub document: DocumentId,
    pub version: VersionId,
    pub run: RunId,
}

impl Document {
    pub fn fresh() -> Self {
        Self { document: DocumentId::fresh(), version: VersionId::fresh(), run: RunId::fresh() }
    }
}

/// A document with an accepted upload and a run.
pub struct Prepared {
    pub tenant: TenantId,
    pub ids: Document,
    pub accepted_key: String,
    jobs: HashMap<String, JobId>,
}

/// Keeps the texts it is given.
struct Keeping {
    inner: Arc<dyn Embedder>,
    texts: Arc<Mutex<Vec<String>>>,
}

#[async_trait::async_trait]
impl Embedder for Keeping {
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        self.texts.lock().unwrap().extend_from_slice(texts);
        self.inner.embed(texts).await
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }
}

impl Bench {
    pub async fn new() -> Self {
        let world = world().await;
        let embedded = Arc::new(Mutex::new(Vec::new()));
        let parser = Parser::new(ParserConfig {
            child: std::env::current_exe().unwrap(),
            child_args: vec!["parse-child".to_owned()],
            pdfium: Some(world.parts.pdfium.clone()),
            tesseract: None,
            slots: 1,
            landlock_required: false,
            options: ParseOptions::default(),
        });
        let deps = StageDeps {
            parser: Arc::new(parser),
            embedders: Arc::new(Keeping { inner: world.embedder.clone(), texts: embedded.clone() }).into(),
            tokens: Arc::new(TokenCounter::words()),
            gateway: None,
            prompts: Prompts::of_files(Prompt::committed().unwrap()),
        };
        let registry = registry(deps.clone());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/default.yaml");
        let pipeline = check(&file, &registry).unwrap();
        Self { world, deps, registry, pipeline, embedded }
    }

    /// Texts embedded since the last call.
    pub fn embedded(&self) -> Vec<String> {
        std::mem::take(&mut *self.embedded.lock().unwrap())
    }

    /// Ends the job as the engine does.
    pub async fn finish(&self, document: &Prepared, stage: &str, manifest: &Manifest) {
        let (job, manifest) = (document.jobs[stage].0, serde_json::to_value(manifest).unwrap());
        let write = self.world.database.write(document.tenant, move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE jobs SET state = 'done', lease_until = NULL, manifest = $2, finished_at = now() WHERE id = $1")
                    .bind(job)
                    .bind(manifest)
                    .execute(connection)
                    .await?;
                Ok(())
            })
        });
        write.await.unwrap();
    }

    /// A tenant with one webhook endpoint.
    pub async fn tenant(&self) -> TenantId {
        let tenant = self.world.tenant().await;
        let added = self.world.database.write(tenant, |connection| {
            Box::pin(async move {
                let endpoint = docmill_model::id::derived_uuid(&[b"the endpoint of the contract test"]);
                sqlx::query(
                    "INSERT INTO webhook_endpoints (tenant_id, id, url, secrets) VALUES (current_tenant(), $1, 'https://hooks.example/', '{whsec_x}')",
                )
                .bind(endpoint)
                .execute(connection)
                .await?;
                Ok(())
            })
        });
        added.await.unwrap();
        tenant
    }

    /// A document as `complete` leaves it, with a run and its jobs.
    pub async fn document(
        &self,
        tenant: TenantId,
        ids: &Document,
        number: i32,
        name: &str,
        content_type: &str,
        bytes: &[u8],
    ) -> Prepared {
        let (sha256, key) = (Sha256Hex::of(bytes), format!("{tenant}/accepted/{}", Sha256Hex::of(bytes)));
        self.world.blobs.put(&key, bytes::Bytes::copy_from_slice(bytes), &sha256).await.unwrap();
        let (ids, name, accepted_key, pipeline) = (*ids, name.to_owned(), key.clone(), self.pipeline.clone());
        let accepted = Accepted {
            document: ids.document,
            version: ids.version,
            number,
            name: name.clone(),
            content_type: content_type.to_owned(),
            size: bytes.len() as i64,
            sha256: sha256.clone(),
            key,
            pipeline_version: pipeline.version.clone(),
        };
        let written = self.world.database.write(tenant, move |connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO pipeline_versions (version, name, definition) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING")
                    .bind(&pipeline.version)
                    .bind(&pipeline.name)
                    .bind(pipeline.definition())
                    .execute(&mut *connection)
                    .await?;
                sqlx::query(
                    "INSERT INTO documents (tenant_id, id, name, state) VALUES (current_tenant(), $1, $2, 'processing') ON CONFLICT DO NOTHING",
                )
                .bind(ids.document.0)
                .bind(&name)
                .execute(&mut *connection)
                .await?;
                accepted.insert(connection).await?;
                sqlx::query(
                    "INSERT INTO runs (tenant_id, id, document_id, version_id, pipeline_version, cause)
                     VALUES (current_tenant(), $1, $2, $3, $4, 'upload')",
                )
                .bind(ids.run.0)
                .bind(ids.document.0)
                .bind(ids.version.0)
                .bind(&pipeline.version)
                .execute(&mut *connection)
                .await?;
                let mut jobs = HashMap::new();
                for stage in &pipeline.stages {
                    let job = JobId::fresh();
                    sqlx::query(
                        "INSERT INTO jobs (tenant_id, id, run_id, document_id, stage, required, on_settled, state, lease_until, fence)
                         VALUES (current_tenant(), $1, $2, $3, $4, $5, $6, 'leased', now() + interval '1 hour', 1)",
                    )
                    .bind(job.0)
                    .bind(ids.run.0)
                    .bind(ids.document.0)
                    .bind(&stage.name)
                    .bind(stage.required)
                    .bind(stage.on_settled)
                    .execute(&mut *connection)
                    .await?;
                    jobs.insert(stage.name.clone(), job);
                }
                Ok(jobs)
            })
        });
        Prepared { tenant, ids, accepted_key, jobs: written.await.unwrap() }
    }

    pub fn context(&self, document: &Prepared, stage: &str, inputs: &[(String, Manifest)]) -> JobContext {
        let ancestors = self.pipeline.ancestors(stage);
        JobContext {
            tenant_id: document.tenant,
            document_id: document.ids.document,
            version_id: document.ids.version,
            run_id: document.ids.run,
            job_id: document.jobs[stage],
            fence: 1,
            pipeline_version: self.pipeline.version.clone(),
            schemas: self.pipeline.schemas.clone(),
            inputs: inputs.iter().filter(|(name, _)| ancestors.contains(name.as_str())).cloned().collect(),
            database: self.world.database.clone(),
            artifacts: self.world.artifacts.clone(),
            cancel: tokio_util::sync::CancellationToken::new(),
            traceparent: None,
            failpoints: docmill_runtime::failpoints::Failpoints::default(),
        }
    }

    fn stage(&self, name: &str) -> (Arc<dyn ErasedStage>, serde_json::Value) {
        (self.registry.get(name).unwrap().clone(), self.pipeline.stage(name).unwrap().settings.clone())
    }

    /// The slow part alone: what a worker has done that dies before its commit.
    pub async fn run(
        &self,
        document: &Prepared,
        stage: &str,
        inputs: &[(String, Manifest)],
    ) -> Result<Manifest, StageError> {
        self.run_with(&self.context(document, stage, inputs), stage).await
    }

    pub async fn run_with(&self, job: &JobContext, stage: &str) -> Result<Manifest, StageError> {
        let (erased, settings) = self.stage(stage);
        erased.run(job, &settings).await
    }

    /// Run, prepare, commit.
    pub async fn step(
        &self,
        document: &Prepared,
        stage: &str,
        inputs: &[(String, Manifest)],
    ) -> Result<Manifest, StageError> {
        let job = self.context(document, stage, inputs);
        let manifest = self.run_with(&job, stage).await?;
        self.commit(job, stage, manifest.clone()).await?;
        Ok(manifest)
    }

    /// Prepares and commits what a run gave.
    pub async fn commit(&self, job: JobContext, stage: &str, manifest: Manifest) -> Result<(), StageError> {
        let (erased, settings) = self.stage(stage);
        let prepared = erased.prepare(&job, &settings, &manifest).await?;
        let committed = self.world.database.write(job.tenant_id, move |connection| {
            Box::pin(async move {
                prepared.commit(connection, &job, &manifest).await.map_err(|error| match error {
                    StageError::Failed(failure) => DbError::Failed(failure),
                    other => DbError::Failed(Failure::new(Code::Internal, other.to_string())),
                })
            })
        });
        Ok(committed.await?)
    }

    /// All stages from the first to `last`.
    pub async fn until(&self, document: &Prepared, last: &str) -> Vec<(String, Manifest)> {
        let mut inputs = Vec::new();
        let wanted = self.pipeline.ancestors(last);
        for stage in
            self.pipeline.stages.iter().filter(|stage| stage.name == last || wanted.contains(stage.name.as_str()))
        {
            inputs.push((stage.name.clone(), self.step(document, &stage.name, &inputs).await.unwrap()));
        }
        inputs
    }

    pub async fn visible(&self, tenant: TenantId) -> Option<(uuid::Uuid, VersionId)> {
        let read = self.world.database.read(tenant, |connection| {
            Box::pin(async move {
                Ok(sqlx::query_as(
                    "SELECT visible_generation, visible_version FROM documents WHERE visible_generation IS NOT NULL",
                )
                .fetch_optional(connection)
                .await?)
            })
        });
        let row: Option<(uuid::Uuid, uuid::Uuid)> = read.await.unwrap();
        row.map(|(generation, version)| (generation, VersionId(version)))
    }

    /// The name of the tenant's one document.
    pub async fn name(&self, tenant: TenantId) -> String {
        let read = self.world.database.read(tenant, |connection| {
            Box::pin(async move { Ok(sqlx::query_scalar("SELECT name FROM documents").fetch_one(connection).await?) })
        });
        read.await.unwrap()
    }

    /// Every row a stage may write, without times, attempts and random ids.
    pub async fn rows(&self, tenant: TenantId) -> Vec<String> {
        let read = self.world.database.read(tenant, |connection| {
            Box::pin(async move {
                Ok(sqlx::query_scalar(
                    "SELECT row FROM (
                        SELECT concat_ws(' ', 'version', id, format, language, page_count, char_count, parsed_sha256, title) AS row FROM document_versions
                        UNION ALL SELECT concat_ws(' ', 'visible', id, visible_generation, visible_version) FROM documents
                        UNION ALL SELECT concat_ws(' ', 'generation', id, version_id, chunks_sha256, chunk_count, state) FROM generations
                        UNION ALL SELECT concat_ws(' ', 'chunk', id, generation_id, ordinal, encode(embed_hash, 'hex'), md5(text), kind, tokens, language) FROM chunks
                        UNION ALL SELECT concat_ws(' ', 'vector', encode(embed_hash, 'hex'), md5(embedding::text)) FROM vectors
                        UNION ALL SELECT concat_ws(' ', 'operation', seq, op, generation_id) FROM index_ops
                        UNION ALL SELECT concat_ws(' ', 'extraction', version_id, run_id, schema_name, md5(fields::text), data) FROM extractions
                        UNION ALL SELECT concat_ws(' ', 'summary', version_id, run_id, md5(sentences::text), engine) FROM summaries
                        UNION ALL SELECT concat_ws(' ', 'delivery', id, endpoint_id, run_id, payload -> 'data' ->> 'state', payload ->> 'type') FROM deliveries
                        UNION ALL SELECT concat_ws(' ', 'artifact', sha256, size_bytes, state) FROM artifacts
                        UNION ALL SELECT concat_ws(' ', 'ledger', feature, task, 'units=' || units, 'in=' || tokens_in, 'cached=' || tokens_cached, outcome)
                            FROM ledger
                     ) AS everything ORDER BY row",
                )
                .fetch_all(connection)
                .await?)
            })
        });
        read.await.unwrap()
    }
}
