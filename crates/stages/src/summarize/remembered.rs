//! Vectors of the sentences of earlier summaries of the same document: a sentence that did not change, or settings that
//! only choose otherwise, embed nothing again. They are an artifact of the job, so they go when the job's results go.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use docmill_model::Sha256Hex;
use docmill_model::manifest::Manifest;
use docmill_runtime::JobContext;
use half::f16;
use std::collections::BTreeMap;

/// Kind of the artifact.
pub(super) const KIND: &str = "sentence_vectors";

/// Vectors by the hash of their sentence, in half precision: what is compared was rounded, remembered or not, so that
/// both give the same summary.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Remembered {
    /// The model that made them.
    model: String,
    /// Little-endian half floats in base64.
    vectors: BTreeMap<Sha256Hex, String>,
}

impl Remembered {
    /// Nothing, of `model`.
    pub fn of(model: String) -> Self {
        Self { model, vectors: BTreeMap::new() }
    }

    /// What the last summary of the document remembered; nothing when it is gone or another model made it.
    pub async fn last(job: &JobContext, model: String) -> Self {
        let (document, own) = (job.document_id.0, job.job_id.0);
        let read = job.database.read(job.tenant_id, move |connection| {
            Box::pin(async move {
                let manifest: Option<serde_json::Value> = sqlx::query_scalar(
                    "SELECT manifest FROM jobs
                     WHERE tenant_id = current_tenant() AND document_id = $1 AND id <> $2 AND state = 'done'
                       AND manifest -> 'artifacts' ? $3
                     ORDER BY finished_at DESC LIMIT 1",
                )
                .bind(document)
                .bind(own)
                .bind(KIND)
                .fetch_optional(connection)
                .await?;
                Ok(manifest)
            })
        });
        let manifest = read.await.ok().flatten().and_then(|stored| serde_json::from_value::<Manifest>(stored).ok());
        let Some(reference) = manifest.and_then(|manifest| manifest.artifacts.get(KIND).cloned()) else {
            return Self::of(model);
        };
        match job.load_ref::<Self>(&reference).await {
            Ok(found) if found.model == model => found,
            _ => Self::of(model),
        }
    }

    /// The vector of a sentence.
    pub fn get(&self, sentence: &str) -> Option<Vec<f32>> {
        let bytes = STANDARD_NO_PAD.decode(self.vectors.get(&Sha256Hex::of(sentence.as_bytes()))?).ok()?;
        Some(bytes.as_chunks::<2>().0.iter().map(|pair| f16::from_le_bytes(*pair).to_f32()).collect())
    }

    /// Remembers the vector of a sentence.
    pub fn insert(&mut self, sentence: &str, vector: &[f32]) {
        let bytes: Vec<u8> = vector.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        self.vectors.insert(Sha256Hex::of(sentence.as_bytes()), STANDARD_NO_PAD.encode(bytes));
    }
}
