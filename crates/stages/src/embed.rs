//! embed: every distinct passage gets a vector once per tenant and embedding space.
//!
//! Reads `chunks`; writes rows of `vectors`, which are immutable and addressed by the hash of the embedded text, in a
//! transaction for each batch of the model. A text that already has a vector is not embedded again, whoever embedded it.
//! Each transaction adds the rows it really inserted to the job's ledger row, so units are exact under any crash. The
//! space that answers must be filled; others that stand beside it are filled as far as their models go, and the rest is
//! their builder's. A paused space has none: the run that was started for it does what its model takes, and enters what it
//! refuses. Visibility is the index stage's.

mod charge;
mod filling;

use crate::settings::within;
use charge::charge;
use docmill_model::Code;
use docmill_model::chunk::{Chunk, ChunkList};
use docmill_model::manifest::{Manifest, kind};
use docmill_platform::embedder::{Embedders, Space};
use docmill_runtime::{InSample, JobContext, Policy, Stage, StageError, replay};
use filling::Filling;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::time::Duration;

/// Until a process with the model that is wanted may have been started.
const WITHOUT_MODEL: Duration = Duration::from_secs(10);
/// A firing waits so many seconds for a worker with the model of its paused space; its runs then go on without, and the next
/// firing tries again.
const PAUSED_PATIENCE_SECS: f64 = 3_600.0;
/// Task of the ledger row of the space that answers.
const CHUNKS: &str = "chunks";

/// Settings of the embed stage.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbedConfig {
    /// Passages handed to the model at once, 1 to 256; between two calls a cancelled job stops.
    #[serde(deserialize_with = "within::<_, 1, 256>")]
    #[schemars(range(min = 1, max = 256))]
    pub batch: u32,
}

impl Default for EmbedConfig {
    fn default() -> Self {
        Self { batch: 64 }
    }
}

/// The embed stage.
pub struct Embed {
    embedders: Embedders,
}

impl Embed {
    /// Embedding with `embedders`.
    #[must_use]
    pub fn new(embedders: Embedders) -> Self {
        Self { embedders }
    }
}

/// The identity of a chunk's vector: SHA-256 of the text that is embedded.
#[must_use]
pub fn embed_hash(chunk: &Chunk) -> [u8; 32] {
    Sha256::digest(chunk.embed_text().as_bytes()).into()
}

/// A text with its hash and size.
#[derive(Clone)]
struct Passage {
    hash: [u8; 32],
    text: String,
    tokens: u32,
}

#[async_trait::async_trait]
impl Stage for Embed {
    const NAME: &'static str = "embed";
    const VERSION: u32 = 1;
    type Config = EmbedConfig;
    /// Tokens of all distinct passages.
    type Prepared = i64;

    fn policy(&self) -> Policy {
        Policy { timeout: Duration::from_secs(1_800), ..Policy::default() }
    }

    fn fingerprint(&self) -> String {
        self.embedders.first().fingerprint()
    }

    fn cacheable(&self) -> bool {
        false
    }

    /// Vectors are those of a text, whoever shows it, and the questions that a sample is compared by need them.
    fn in_sample(&self) -> InSample {
        InSample::Whole
    }

    async fn run(&self, job: &JobContext, config: &EmbedConfig) -> Result<Manifest, StageError> {
        let list: ChunkList = job.load(kind::CHUNKS).await?;
        let passages = distinct(&list.chunks);
        let mut active = self.fill_active(job, config, &passages, None).await?;
        for Beside { space, age_secs } in beside(job).await? {
            let Some(model) = self.embedders.of(&space) else {
                if space.is_paused && age_secs < PAUSED_PATIENCE_SECS {
                    return Err(without_model(&space));
                }
                continue;
            };
            let (name, is_paused) = (space.name.clone(), space.is_paused);
            let filling = Filling { job, task: format!("{CHUNKS}: {name}"), space, model, takes_refusals: is_paused };
            match filling.fill(config.batch as usize, &passages).await {
                Ok(_) => {}
                Err(StageError::Failed(failure)) if failure.code == Code::EmbeddingInvalid => {
                    tracing::warn!(space = name, code = %failure.code, "left to the builder of the embedding space");
                }
                Err(error) => return Err(error),
            }
        }
        // Another may answer by now, and the one before may be dropped, which takes no vectors.
        active = self.fill_active(job, config, &passages, Some(active)).await?;
        let looked_up = |result| metrics::counter!("docmill_vector_cache_total", "result" => result);
        looked_up("hit").increment(list.chunks.len().saturating_sub(active.missing) as u64);
        looked_up("miss").increment(active.missing as u64);
        let mut manifest = Manifest::default();
        manifest.facts.insert("space".to_owned(), active.space.id.into());
        manifest.facts.insert("texts".to_owned(), passages.len().into());
        Ok(manifest)
    }

    async fn prepare(&self, job: &JobContext, _: &EmbedConfig, _: &Manifest) -> Result<i64, StageError> {
        let list: ChunkList = job.load(kind::CHUNKS).await?;
        Ok(distinct(&list.chunks).iter().map(|passage| i64::from(passage.tokens)).sum())
    }

    /// Completes the ledger row: what this job did not have to embed.
    async fn commit(
        &self,
        connection: &mut PgConnection,
        job: &JobContext,
        manifest: &Manifest,
        tokens: i64,
    ) -> Result<(), StageError> {
        let space = manifest.facts.get("space").and_then(serde_json::Value::as_i64).unwrap_or_default() as i32;
        charge(connection, job, CHUNKS, space, 0, 0).await?;
        sqlx::query(
            "UPDATE ledger SET tokens_cached = greatest($2 - tokens_in, 0)
             WHERE tenant_id = current_tenant() AND job_id = $1 AND feature = 'embed' AND task = 'chunks' AND outcome = 'committed'",
        )
        .bind(job.job_id.0)
        .bind(tokens)
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The space that answered when it was filled.
struct FilledActive {
    space: Space,
    /// Passages that had no vector there.
    missing: usize,
}

impl Embed {
    /// Fills the space that answers, again when another answers at the end; what was `filled` before counts.
    async fn fill_active(
        &self,
        job: &JobContext,
        config: &EmbedConfig,
        passages: &[Passage],
        mut filled: Option<FilledActive>,
    ) -> Result<FilledActive, StageError> {
        loop {
            let read = job
                .database
                .read(job.tenant_id, |connection| Box::pin(async move { Ok(Space::active(connection).await?) }));
            let space = read.await?;
            match filled {
                Some(filled) if filled.space.is_same(&space) => return Ok(filled),
                _ => {}
            }
            let Some(model) = self.embedders.of(&space) else { return Err(without_model(&space)) };
            let filling = Filling { job, task: CHUNKS.to_owned(), space: space.clone(), model, takes_refusals: false };
            let missing = filling.fill(config.batch as usize, passages).await?;
            filled = Some(FilledActive { space, missing });
        }
    }
}

/// Left to a worker that has the model.
fn without_model(space: &Space) -> StageError {
    tracing::warn!(space = space.name, "this worker has no model of an embedding space that must be filled");
    StageError::Snooze(WITHOUT_MODEL)
}

/// A space beside the one that answers, and the age of the replay it is filled by, if it is.
struct Beside {
    space: Space,
    age_secs: f64,
}

/// The spaces beside the one that answers that vectors are written into: of those that are paused the one that the run was
/// started for.
async fn beside(job: &JobContext) -> Result<Vec<Beside>, StageError> {
    let read =
        job.database.read(job.tenant_id, |connection| Box::pin(async move { Ok(Space::all(connection).await?) }));
    let mut spaces = read.await?;
    spaces.retain(|space| !space.is_active && space.is_standing());
    let mut age_secs = 0.0;
    if spaces.iter().any(|space| space.is_paused) {
        let wanted = replay::embed_into(&job.database, job.tenant_id, job.run_id).await?;
        age_secs = wanted.as_ref().map_or(0.0, |(_, age_secs)| *age_secs);
        spaces.retain(|space| !space.is_paused || wanted.as_ref().is_some_and(|(name, _)| *name == space.name));
    }
    Ok(spaces.into_iter().map(|space| Beside { space, age_secs }).collect())
}

fn distinct(chunks: &[Chunk]) -> Vec<Passage> {
    let passage = |chunk: &Chunk| Passage { hash: embed_hash(chunk), text: chunk.embed_text(), tokens: chunk.tokens };
    let by_hash: BTreeMap<[u8; 32], Passage> =
        chunks.iter().map(passage).map(|passage| (passage.hash, passage)).collect();
    by_hash.into_values().collect()
}
