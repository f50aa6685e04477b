//! ingest: accepted bytes → canonical text, pages, words with boxes, tables.
//!
//! Reads the object under the accepted, content-addressed key (never the upload key), hashes it again and compares with
//! what the client declared before anything is made of it. Parsing happens in the sandboxed child of
//! [`docmill_documents::Parser`]; whatever goes wrong there is a typed failure of this document. A page that fails does
//! not fail the document: the outcome of every page is kept, and counted in the manifest. Writes `parsed`.

use docmill_documents::{OcrMode, ParseOptions, ParseRequest, Parsed, Parser, PdfEngine};
use docmill_model::document::{PageOutcome, ParsedDocument};
use docmill_model::manifest::{ArtifactRef, FAILED_PAGES, Manifest, kind};
use docmill_model::{Code, Failure, Sha256Hex};
use docmill_platform::blobs::BlobError;
use docmill_runtime::{JobContext, Policy, Stage, StageError};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Duration;

/// Failed pages named in the manifest; all of them are in the artifact.
const NAMED_PAGES: usize = 100;

/// Settings of the ingest stage.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Which engine reads PDF.
    pub pdf_engine: PdfEngine,
    /// When text recognition is used.
    pub ocr: OcrMode,
    /// Tesseract language packs, the likeliest first; packs that are not installed are left out.
    pub ocr_languages: Vec<String>,
    /// Resolution at which PDF pages are rendered for text recognition, in dots per inch.
    pub ocr_dpi: u32,
    /// What one file may cost.
    pub limits: docmill_documents::Limits,
}

impl Default for IngestConfig {
    fn default() -> Self {
        let ParseOptions { pdf_engine, ocr, ocr_languages, ocr_dpi, limits, .. } = ParseOptions::default();
        Self { pdf_engine, ocr, ocr_languages, ocr_dpi, limits }
    }
}

/// The ingest stage.
pub struct Ingest {
    parser: Arc<Parser>,
}

impl Ingest {
    /// Parsing with `parser`.
    #[must_use]
    pub fn new(parser: Arc<Parser>) -> Self {
        Self { parser }
    }
}

/// What the commit writes beside the manifest.
pub struct Outline {
    reference: ArtifactRef,
    format: &'static str,
    language: Option<String>,
    page_count: Option<i32>,
    char_count: i32,
    title: Option<String>,
}

#[async_trait::async_trait]
impl Stage for Ingest {
    const NAME: &'static str = "ingest";
    const VERSION: u32 = 1;
    type Config = IngestConfig;
    type Prepared = Outline;

    fn policy(&self) -> Policy {
        Policy { timeout: Duration::from_secs(1_200), ..Policy::default() }
    }

    fn fingerprint(&self) -> String {
        self.parser.fingerprint()
    }

    async fn run(&self, job: &JobContext, config: &IngestConfig) -> Result<Manifest, StageError> {
        let upload = Upload::find(job).await?;
        let bytes =
            job.artifacts.blobs().get_verified(&upload.key, &upload.sha256).await.map_err(|error| match error {
                BlobError::HashMismatch => {
                    Failure::new(Code::HashMismatch, "the stored bytes differ from the declared sha256")
                }
                other => other.into(),
            })?;
        let options = ParseOptions {
            pdf_engine: config.pdf_engine,
            ocr: config.ocr,
            ocr_languages: config.ocr_languages.clone(),
            ocr_dpi: config.ocr_dpi,
            limits: config.limits.clone(),
            ..ParseOptions::default()
        };
        let request = ParseRequest { bytes, declared: Some(upload.content_type), name: Some(upload.name), options };
        let parsed = tokio::select! {
            parsed = self.parser.parse(request) => parsed?,
            () = job.cancel.cancelled() => return Err(StageError::Cancelled),
        };
        observe(&parsed);
        if parsed.document.text.chars().all(char::is_whitespace) {
            return Err(Failure::new(Code::EmptyText, "the file holds no text").into());
        }
        let reference = job.store(&parsed.document).await?;
        Ok(manifest(&parsed.document, reference))
    }

    async fn prepare(&self, job: &JobContext, _: &IngestConfig, manifest: &Manifest) -> Result<Outline, StageError> {
        let missing = || Failure::new(Code::Internal, "the manifest of ingest names no parsed document");
        let reference = manifest.artifacts.get(kind::PARSED).cloned().ok_or_else(missing)?;
        let document: ParsedDocument = job.load_ref(&reference).await?;
        Ok(Outline {
            reference,
            format: document.format.as_str(),
            title: document.title().map(|title| title.chars().take(300).collect()),
            page_count: (!document.pages.is_empty()).then_some(document.pages.len() as i32),
            char_count: document.text.chars().count() as i32,
            language: document.language,
        })
    }

    async fn commit(
        &self,
        connection: &mut PgConnection,
        job: &JobContext,
        manifest: &Manifest,
        outline: Outline,
    ) -> Result<(), StageError> {
        let failed_pages = manifest.facts.get(FAILED_PAGES).cloned().unwrap_or_else(|| json!([]));
        sqlx::query(
            "UPDATE document_versions SET format = $2, language = $3, page_count = $4, char_count = $5, parsed_sha256 = $6, title = $7,
                    failed_pages = $8
             WHERE tenant_id = current_tenant() AND id = $1",
        )
        .bind(job.version_id.0)
        .bind(outline.format)
        .bind(outline.language)
        .bind(outline.page_count)
        .bind(outline.char_count)
        .bind(outline.reference.sha256.as_str())
        .bind(outline.title)
        .bind(failed_pages)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// What was accepted for the version.
struct Upload {
    key: String,
    sha256: Sha256Hex,
    content_type: String,
    name: String,
}

impl Upload {
    async fn find(job: &JobContext) -> Result<Self, StageError> {
        let version = job.version_id.0;
        let row: Option<(Option<String>, String, String, String, bool)> = job
            .database
            .read(job.tenant_id, move |connection| {
                Box::pin(async move {
                    Ok(sqlx::query_as(
                        "SELECT v.accepted_key, v.sha256, v.content_type, coalesce(v.name, d.name), v.raw_removed_at IS NOT NULL
                         FROM document_versions v JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id
                         WHERE v.tenant_id = current_tenant() AND v.id = $1",
                    )
                    .bind(version)
                    .fetch_optional(connection)
                    .await?)
                })
            })
            .await?;
        let (key, sha256, content_type, name, is_removed) = row.ok_or(StageError::Cancelled)?;
        if is_removed {
            return Err(Failure::new(Code::FileRemoved, "the uploaded bytes are kept no longer").into());
        }
        let key =
            key.ok_or_else(|| Failure::new(Code::ObjectMissing, "the upload of this version was never accepted"))?;
        let sha256 = sha256.parse().map_err(|_| Failure::new(Code::Internal, "the declared sha256 cannot be read"))?;
        Ok(Self { key, sha256, content_type, name })
    }
}

/// Counts and codes, never words.
fn manifest(document: &ParsedDocument, reference: ArtifactRef) -> Manifest {
    let recognised = document.pages.iter().filter(|page| matches!(page.outcome, PageOutcome::Ocr { .. })).count();
    let failed: Vec<Value> = (document.pages.iter())
        .filter_map(|page| match &page.outcome {
            PageOutcome::Failed { failure } => Some(json!({ "page": page.number, "code": failure.code })),
            _ => None,
        })
        .chain(document.failed_parts.iter().map(|part| json!({ "part": part.path, "code": part.failure.code })))
        .collect();
    let mut manifest = Manifest::default();
    manifest.artifacts.insert(kind::PARSED.to_owned(), reference);
    let mut fact = |name: &str, value: Value| manifest.facts.insert(name.to_owned(), value);
    fact("format", document.format.as_str().into());
    fact("engine", document.engine.clone().into());
    fact("characters", document.text.chars().count().into());
    if let Some(language) = &document.language {
        fact("language", language.clone().into());
    }
    if !document.pages.is_empty() {
        fact("pages", document.pages.len().into());
        fact("pages_ocr", recognised.into());
        fact("pages_blank", document.pages.iter().filter(|page| page.outcome == PageOutcome::Blank).count().into());
        fact("pages_failed", failed.len().into());
    }
    if !failed.is_empty() {
        fact(FAILED_PAGES, failed.into_iter().take(NAMED_PAGES).collect());
    }
    manifest
}

fn observe(parsed: &Parsed) {
    let format = parsed.document.format.as_str();
    metrics::histogram!("docmill_parse_seconds", "format" => format).record(parsed.millis as f64 / 1_000.0);
    metrics::histogram!("docmill_parse_peak_rss_bytes", "format" => format).record(parsed.peak_rss_bytes as f64);
}
