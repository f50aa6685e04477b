//! What a document of a sample shows, and what its run made.

use crate::state::ApiState;
use docmill_model::chunk::{Chunk, ChunkList};
use docmill_model::document::ParsedDocument;
use docmill_model::manifest::{ArtifactRef, Manifest, kind};
use docmill_model::results::{Extraction, Summary, SummarySentence};
use docmill_model::{Code, DocumentId, Failure, Sha256Hex, TenantId};
use docmill_retrieval::among::Passage;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A document of a sample with its run.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct SampleDocument {
    pub document_id: Uuid,
    pub name: String,
    pub run_id: Uuid,
    pub state: String,
    pub code: Option<String>,
    /// It was processed otherwise since.
    pub superseded: bool,
    title: Option<String>,
    /// The version whose results are shown; that of the run where nothing is.
    version_id: Uuid,
    generation_id: Option<Uuid>,
    parsed_sha256: Option<String>,
}

/// What is there of a document; a part is absent where it was not made.
#[derive(Default)]
pub(super) struct Made {
    pub text: Option<String>,
    pub chunks: Option<Vec<Passage>>,
    pub fields: Option<Value>,
    pub summary: Option<Vec<String>>,
}

/// The state of a sample, and its documents that a caller with `labels` may see.
///
/// # Errors
/// `NOT_FOUND`, `CONFLICT` for a replay that is no sample, or database failures.
pub(super) async fn sample(
    state: &ApiState,
    tenant: TenantId,
    id: Uuid,
    labels: &[String],
) -> Result<(String, Vec<SampleDocument>), Failure> {
    let labels = labels.to_vec();
    let read = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let found: Option<(String, bool)> = sqlx::query_as(
                "SELECT state, filter ? 'sample' FROM replays WHERE tenant_id = current_tenant() AND id = $1",
            )
            .bind(id)
            .fetch_optional(&mut *connection)
            .await?;
            let (state, is_sample) = found.ok_or_else(|| Failure::new(Code::NotFound, "there is no such replay"))?;
            if !is_sample {
                let message = "this replay is no sample: what it made is what is shown";
                return Err(Failure::new(Code::Conflict, message).into());
            }
            Ok((state, documents(connection, id, &labels).await?))
        })
    });
    Ok(read.await?)
}

async fn documents(
    connection: &mut PgConnection,
    replay: Uuid,
    labels: &[String],
) -> Result<Vec<SampleDocument>, sqlx::Error> {
    sqlx::query_as(
        "SELECT d.id AS document_id, coalesce(v.name, d.name) AS name, r.id AS run_id, r.state, r.code, v.title,
                EXISTS (SELECT 1 FROM runs n WHERE n.tenant_id = r.tenant_id AND n.document_id = r.document_id
                        AND n.cause <> 'sample' AND n.created_at > r.created_at) AS superseded,
                v.id AS version_id, d.visible_generation AS generation_id,
                coalesce(g.parsed_sha256, v.parsed_sha256) AS parsed_sha256
         FROM runs r
         JOIN documents d ON d.tenant_id = r.tenant_id AND d.id = r.document_id AND d.deleted_at IS NULL
         LEFT JOIN generations g ON g.tenant_id = d.tenant_id AND g.id = d.visible_generation
         JOIN document_versions v ON v.tenant_id = d.tenant_id AND v.id = coalesce(g.version_id, r.version_id)
         WHERE r.tenant_id = current_tenant() AND r.replay_id = $1 AND (d.labels = '{}' OR d.labels && $2)
         ORDER BY name, d.id",
    )
    .bind(replay)
    .bind(labels)
    .fetch_all(connection)
    .await
}

/// What the document shows.
pub(super) async fn shown(state: &ApiState, tenant: TenantId, document: &SampleDocument) -> Result<Made, Failure> {
    type Chunk = (Vec<String>, String, Option<String>);
    type Rows = (Vec<Chunk>, Option<Value>, Option<sqlx::types::Json<Vec<SummarySentence>>>);
    let (version, generation) = (document.version_id, document.generation_id);
    let read = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let chunks = sqlx::query_as(
                "SELECT heading_path, text, language FROM chunks
                 WHERE tenant_id = current_tenant() AND generation_id = $1 ORDER BY ordinal",
            );
            let chunks = chunks.bind(generation).fetch_all(&mut *connection).await?;
            let fields = sqlx::query_scalar(
                "SELECT data FROM extractions WHERE tenant_id = current_tenant() AND version_id = $1",
            );
            let fields = fields.bind(version).fetch_optional(&mut *connection).await?;
            let summary = sqlx::query_scalar(
                "SELECT sentences FROM summaries WHERE tenant_id = current_tenant() AND version_id = $1",
            );
            Ok((chunks, fields, summary.bind(version).fetch_optional(connection).await?))
        })
    });
    let (chunks, fields, summary): Rows = read.await?;
    let text = match &document.parsed_sha256 {
        Some(sha256) => {
            let unreadable = |_| Failure::new(Code::Internal, "a stored hash cannot be read");
            text(state, tenant, &sha256.parse().map_err(unreadable)?).await?
        }
        None => None,
    };
    let passage = |(heading_path, text, language)| document.passage(heading_path, text, language);
    Ok(Made {
        text,
        chunks: generation.map(|_| chunks.into_iter().map(passage).collect()),
        fields,
        summary: summary.map(|sentences| sentences.0.into_iter().map(|sentence| sentence.text).collect()),
    })
}

/// What the run of the sample made, as far as it has come.
pub(super) async fn made(state: &ApiState, tenant: TenantId, document: &SampleDocument) -> Result<Made, Failure> {
    let run = document.run_id;
    let read = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let manifests: Vec<sqlx::types::Json<Manifest>> = sqlx::query_scalar(
                "SELECT manifest FROM jobs
                 WHERE tenant_id = current_tenant() AND run_id = $1 AND state = 'done' AND manifest IS NOT NULL",
            )
            .bind(run)
            .fetch_all(connection)
            .await?;
            Ok(manifests)
        })
    });
    let artifacts: BTreeMap<String, ArtifactRef> =
        read.await?.into_iter().flat_map(|manifest| manifest.0.artifacts).collect();
    let mut made = Made::default();
    if let Some(parsed) = artifacts.get(kind::PARSED) {
        made.text = text(state, tenant, &parsed.sha256).await?;
    }
    if let Some(chunks) = artifacts.get(kind::CHUNKS) {
        let list: Option<ChunkList> = load(state, tenant, &chunks.sha256).await?;
        let passage = |chunk: Chunk| document.passage(chunk.heading_path, chunk.text, chunk.language);
        made.chunks = list.map(|list| list.chunks.into_iter().map(passage).collect());
    }
    if let Some(extraction) = artifacts.get(kind::EXTRACTION) {
        made.fields = load::<Extraction>(state, tenant, &extraction.sha256).await?.map(|extraction| extraction.data);
    }
    if let Some(summary) = artifacts.get(kind::SUMMARY) {
        let summary: Option<Summary> = load(state, tenant, &summary.sha256).await?;
        made.summary = summary.map(|summary| summary.sentences.into_iter().map(|sentence| sentence.text).collect());
    }
    Ok(made)
}

impl SampleDocument {
    fn passage(&self, heading_path: Vec<String>, text: String, language: Option<String>) -> Passage {
        let titles = self.title.iter().cloned().chain([self.name.clone()]).collect();
        Passage { document_id: DocumentId(self.document_id), titles, heading_path, text, language }
    }
}

/// The canonical text without what a reader would not see.
async fn text(state: &ApiState, tenant: TenantId, sha256: &Sha256Hex) -> Result<Option<String>, Failure> {
    let parsed: Option<ParsedDocument> = load(state, tenant, sha256).await?;
    let visible = |parsed: ParsedDocument| {
        let is_hidden = |at: u32| parsed.hidden.iter().any(|span| span.start <= at && at < span.end);
        let seen = parsed.text.chars().zip(0..).filter(|(_, at)| !is_hidden(*at));
        if parsed.hidden.is_empty() { parsed.text } else { seen.map(|(char, _)| char).collect() }
    };
    Ok(parsed.map(visible))
}

/// What an artifact holds; nothing where a deletion or retention was faster.
async fn load<T: DeserializeOwned + Send + 'static>(
    state: &ApiState,
    tenant: TenantId,
    sha256: &Sha256Hex,
) -> Result<Option<T>, Failure> {
    let bytes = match state.artifacts.get(tenant, sha256).await {
        Err(failure) if failure.code == Code::ObjectMissing => return Ok(None),
        got => got?,
    };
    let decoded = tokio::task::spawn_blocking(move || serde_json::from_slice(&bytes).map(Some));
    let decoded = decoded.await.map_err(|_| Failure::new(Code::Internal, "reading an artifact panicked"))?;
    decoded
        .map_err(|error| Failure::new(Code::Internal, format!("artifact cannot be decoded at line {}", error.line())))
}
