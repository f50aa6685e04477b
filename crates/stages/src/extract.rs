//! extract: typed values from a document by the pipeline's JSON Schema, each with the place it stands at.
//!
//! Without a provider extraction is by rules: dates, amounts, parties, identifiers, contacts, key–value lines and more
//! are recognised everywhere, and the schema's `x-docmill` keywords say which of them belong to which field. A value's
//! raw words are the words of its span. The object built from the normalized values is validated against the schema; a
//! value that does not fit is dropped and counted, never altered to fit, and nothing is ever made up. With `provider: llm`
//! a model chooses the words, and the same rules read them. Reads `parsed`, writes `extraction`.

mod fields;
mod labels;
mod llm;
mod reading;
mod scan;
mod schema;
mod validate;

#[cfg(test)]
mod tests;

pub use schema::{ExtractSchema, FieldKind, FieldSpec, Pick};

use crate::models::{Provider, StageModels, WhenDown, without_model};
use docmill_model::document::ParsedDocument;
use docmill_model::manifest::{FALLBACK, Manifest, kind};
use docmill_model::results::Extraction;
use docmill_model::{Code, Failure};
use docmill_runtime::{JobContext, Stage, StageError};
use serde_json::Value;
use sqlx::PgConnection;

/// Settings of the extract stage.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExtractConfig {
    /// Name of a JSON Schema: the file `schemas/NAME.json` beside the pipeline file. Its content is part of the pinned
    /// pipeline version.
    pub schema: String,
    /// `builtin`: by rules. `llm`: a model of `llm.uses.extract` chooses the words, rules read them.
    pub provider: Provider,
    /// With `llm`, when no model answers: `builtin` extracts by rules, `wait` waits.
    pub when_down: WhenDown,
}

impl Default for ExtractConfig {
    fn default() -> Self {
        Self { schema: "general".to_owned(), provider: Provider::default(), when_down: WhenDown::default() }
    }
}

/// What rules found, and what they found but may not keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The values that fit.
    pub extraction: Extraction,
    /// Values dropped because the schema refuses them.
    pub dropped: usize,
    /// Required properties that were not found.
    pub missing: usize,
}

/// Extracts by rules. Pure: equal input gives equal output.
#[must_use]
pub fn extract_document(document: &ParsedDocument, name: &str, schema: &ExtractSchema) -> Outcome {
    let reading = reading::Reading::of(document);
    let found = fields::resolve(&reading, schema);
    validate::outcome(name, schema, found)
}

/// The extract stage.
pub struct Extract {
    models: StageModels,
}

impl Extract {
    /// Asking `models` where the pipeline says so.
    pub(crate) fn new(models: StageModels) -> Self {
        Self { models }
    }

    /// The outcome, and why it is not a model's although one was wanted.
    async fn outcome(
        &self,
        job: &JobContext,
        config: &ExtractConfig,
        document: ParsedDocument,
        schema: ExtractSchema,
    ) -> Result<(Outcome, Option<Code>), StageError> {
        let mut instead_of = None;
        if config.provider == Provider::Llm {
            match llm::extract(&self.models, job, &document, &config.schema, &schema).await {
                Ok(outcome) => return Ok((outcome, None)),
                Err(failure) => instead_of = Some(without_model(failure, config.when_down)?),
            }
        }
        let name = config.schema.clone();
        let outcome = tokio::task::spawn_blocking(move || extract_document(&document, &name, &schema))
            .await
            .map_err(|_| Failure::new(Code::Internal, "extraction failed"))?;
        Ok((outcome, instead_of))
    }
}

#[async_trait::async_trait]
impl Stage for Extract {
    const NAME: &'static str = "extract";
    const VERSION: u32 = 1;
    type Config = ExtractConfig;
    type Prepared = Extraction;

    fn fingerprint(&self) -> String {
        self.models.fingerprint(llm::USE)
    }

    async fn run(&self, job: &JobContext, config: &ExtractConfig) -> Result<Manifest, StageError> {
        let schema = ExtractSchema::read(job.schema(&config.schema)?)?;
        let document: ParsedDocument = job.load(kind::PARSED).await?;
        let (outcome, instead_of) = self.outcome(job, config, document, schema).await?;
        let values: usize = outcome.extraction.fields.values().map(Vec::len).sum();
        let mut manifest = Manifest::default();
        let mut fact = |name: &str, value: Value| manifest.facts.insert(name.to_owned(), value);
        fact("engine", outcome.extraction.engine.clone().into());
        fact("fields", outcome.extraction.fields.len().into());
        fact("values", values.into());
        fact("dropped", outcome.dropped.into());
        fact("missing", outcome.missing.into());
        if let Some(code) = instead_of {
            fact(FALLBACK, code.as_str().into());
        }
        manifest.artifacts.insert(kind::EXTRACTION.to_owned(), job.store(&outcome.extraction).await?);
        Ok(manifest)
    }

    async fn prepare(
        &self,
        job: &JobContext,
        _: &ExtractConfig,
        manifest: &Manifest,
    ) -> Result<Extraction, StageError> {
        let missing = || Failure::new(Code::Internal, "the manifest of extract names no extraction");
        let reference = manifest.artifacts.get(kind::EXTRACTION).ok_or_else(missing)?;
        Ok(job.load_ref(reference).await?)
    }

    async fn commit(
        &self,
        connection: &mut PgConnection,
        job: &JobContext,
        _: &Manifest,
        found: Extraction,
    ) -> Result<(), StageError> {
        sqlx::query(
            "INSERT INTO extractions (tenant_id, version_id, document_id, run_id, schema_name, fields, data, engine)
             VALUES (current_tenant(), $1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (tenant_id, version_id) DO UPDATE
             SET run_id = excluded.run_id, schema_name = excluded.schema_name, fields = excluded.fields, data = excluded.data,
                 engine = excluded.engine, created_at = now()",
        )
        .bind(job.version_id.0)
        .bind(job.document_id.0)
        .bind(job.run_id.0)
        .bind(&found.schema)
        .bind(serde_json::to_value(&found.fields).unwrap_or_default())
        .bind(&found.data)
        .bind(&found.engine)
        .execute(connection)
        .await?;
        Ok(())
    }
}
