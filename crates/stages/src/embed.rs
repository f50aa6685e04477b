//! embed: every distinct passage gets a vector once per tenant and embedding space.
//!
//! Reads `chunks`; writes rows of `vectors`, which are immutable and addressed by the hash of the embedded text, in a
//! transaction for each batch of the model. A text that already has a vector is not embedded again, whoever embedded it.
//! Each transaction adds the rows it really inserted to the job's ledger row, so units are exact under any crash. The
//! space that answers must be filled; others that stand beside it are filled as far as their models go, and the rest is
//! their builder's. Visibility is the index stage's.

mod charge;

use crate::settings::within;
use charge::charge;
use docmill_model::Failure;
use docmill_model::chunk::{Chunk, ChunkList};
use docmill_model::manifest::{Manifest, kind};
use docmill_platform::embedder::{Embedder, Embedders, Space};
use docmill_retrieval::spaces::{embed_each, enter_refused};
use docmill_runtime::{JobContext, Policy, Stage, StageError, replay};
use pgvector::Vector;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Hashes looked up at once.
const LOOKUP: usize = 4_096;
/// Until a process with the model of the space that answers may have been started.
const WITHOUT_MODEL: Duration = Duration::from_secs(10);
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

    async fn run(&self, job: &JobContext, config: &EmbedConfig) -> Result<Manifest, StageError> {
        let list: ChunkList = job.load(kind::CHUNKS).await?;
        let passages = distinct(&list.chunks);
        let mut active = self.fill_active(job, config, &passages, None).await?;
        for space in beside(job).await? {
            let Some(model) = self.embedders.of(&space) else {
                // A paused space has no builder that would do it later.
                if space.is_paused {
                    return Err(without_model(&space));
                }
                continue;
            };
            let task = format!("{CHUNKS}: {}", space.name);
            Filling { job, task, space, model, takes_refusals: true }.fill(config.batch as usize, &passages).await?;
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

/// The spaces beside the one that answers that vectors are written into: of those that are paused the one that the run was
/// started for.
async fn beside(job: &JobContext) -> Result<Vec<Space>, StageError> {
    let read =
        job.database.read(job.tenant_id, |connection| Box::pin(async move { Ok(Space::all(connection).await?) }));
    let mut spaces = read.await?;
    spaces.retain(|space| !space.is_active && space.is_standing());
    if spaces.iter().any(|space| space.is_paused) {
        let wanted = replay::embed_into(&job.database, job.tenant_id, job.run_id).await?;
        spaces.retain(|space| !space.is_paused || wanted.as_ref() == Some(&space.name));
    }
    Ok(spaces)
}

/// One space that is filled with the passages of one job.
struct Filling<'j> {
    job: &'j JobContext,
    /// Of the ledger row.
    task: String,
    space: Space,
    model: Arc<dyn Embedder>,
    /// Texts that the model refuses are entered as such; otherwise one fails the job.
    takes_refusals: bool,
}

impl Filling<'_> {
    /// Embeds, `size` at once, those of `passages` that have no vector; how many those were.
    async fn fill(&self, size: usize, passages: &[Passage]) -> Result<usize, StageError> {
        let mut missing = self.without_vector(passages).await?;
        // Texts of similar length share a batch, so that little of it is padding.
        missing.sort_by_key(|passage| passage.tokens);
        for batch in missing.chunks(size) {
            if self.job.cancel.is_cancelled() {
                return Err(StageError::Cancelled);
            }
            let vectors = self.embed(batch).await?;
            let (mut rows, mut refused) = (Vec::with_capacity(batch.len()), Vec::new());
            for (passage, vector) in batch.iter().zip(vectors) {
                match vector {
                    Some(vector) => rows.push((passage.clone(), vector)),
                    None => refused.push(passage.hash.to_vec()),
                }
            }
            // At once, and not when a transaction is full: what a killed worker did in vain is one batch.
            self.store(rows).await?;
            self.enter(refused).await?;
        }
        Ok(missing.len())
    }

    async fn embed(&self, batch: &[Passage]) -> Result<Vec<Option<Vec<f32>>>, Failure> {
        let texts: Vec<String> = batch.iter().map(|passage| passage.text.clone()).collect();
        match self.takes_refusals {
            true => embed_each(&*self.model, &texts).await,
            false => Ok(self.model.embed(&texts).await?.into_iter().map(Some).collect()),
        }
    }

    /// Enters refused texts of chunks that stand; those of a document that is not there yet are met again by the builder.
    async fn enter(&self, refused: Vec<Vec<u8>>) -> Result<(), StageError> {
        if refused.is_empty() {
            return Ok(());
        }
        tracing::warn!(space = self.space.name, texts = refused.len(), "the model of an embedding space refuses texts");
        let space = self.space.id;
        let entered = self.job.database.write(self.job.tenant_id, move |connection| {
            Box::pin(async move { enter_refused(connection, space, &refused).await })
        });
        Ok(entered.await?)
    }

    /// The passages to embed: those without a vector. One that a deletion condemns is renewed, so that it stays.
    async fn without_vector(&self, passages: &[Passage]) -> Result<Vec<Passage>, StageError> {
        let (job, space) = (self.job, self.space.id);
        let mut known: HashSet<Vec<u8>> = HashSet::new();
        for part in passages.chunks(LOOKUP) {
            let hashes: Vec<Vec<u8>> = part.iter().map(|passage| passage.hash.to_vec()).collect();
            let found: Vec<(Vec<u8>, bool)> = job
                .database
                .read(job.tenant_id, move |connection| {
                    Box::pin(async move {
                        Ok(sqlx::query_as(
                            "SELECT v.embed_hash, EXISTS (SELECT 1 FROM condemned c WHERE c.tenant_id = v.tenant_id AND c.kind = 'vector'
                                                          AND c.name = encode(v.embed_hash, 'hex')) FROM vectors v
                             WHERE v.tenant_id = current_tenant() AND v.space_id = $1 AND v.embed_hash = ANY ($2)",
                        )
                        .bind(space)
                        .bind(hashes)
                        .fetch_all(connection)
                        .await?)
                    })
                })
                .await?;
            let (condemned, kept): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, is_condemned)| *is_condemned);
            known.extend(kept.into_iter().map(|(hash, _)| hash));
            if !condemned.is_empty() {
                known.extend(renew(job, space, condemned.into_iter().map(|(hash, _)| hash).collect()).await?);
            }
        }
        Ok(passages.iter().filter(|passage| !known.contains(passage.hash.as_slice())).cloned().collect())
    }

    /// Inserts vectors and charges the rows that were new, in one transaction. A space that is dropped takes none.
    async fn store(&self, rows: Vec<(Passage, Vec<f32>)>) -> Result<(), StageError> {
        if rows.is_empty() {
            return Ok(());
        }
        let (context, task, space, fingerprint) =
            (self.job.clone(), self.task.clone(), self.space.id, self.model.fingerprint());
        let stored = self.job.database.write(self.job.tenant_id, move |connection| {
            Box::pin(async move {
                let hashes: Vec<Vec<u8>> = rows.iter().map(|(passage, _)| passage.hash.to_vec()).collect();
                let tokens: BTreeMap<Vec<u8>, u32> =
                    rows.iter().map(|(passage, _)| (passage.hash.to_vec(), passage.tokens)).collect();
                let vectors: Vec<Vector> = rows.into_iter().map(|(_, vector)| Vector::from(vector)).collect();
                let inserted: Vec<Vec<u8>> = sqlx::query_scalar(
                    "WITH space AS (
                        SELECT id FROM embedding_spaces
                        WHERE id = $1 AND state <> 'dropping' AND (fingerprint IS NULL OR fingerprint = $4) FOR KEY SHARE)
                     INSERT INTO vectors (tenant_id, space_id, embed_hash, embedding)
                     SELECT current_tenant(), space.id, row.embed_hash, row.embedding
                     FROM space, unnest($2::bytea[], $3::vector[]) AS row (embed_hash, embedding)
                     ON CONFLICT DO NOTHING RETURNING embed_hash",
                )
                .bind(space)
                .bind(hashes)
                .bind(vectors)
                .bind(fingerprint)
                .fetch_all(&mut *connection)
                .await?;
                let spent = inserted.iter().filter_map(|hash| tokens.get(hash)).map(|&tokens| i64::from(tokens)).sum();
                charge(connection, &context, &task, space, inserted.len() as i64, spent).await
            })
        });
        Ok(stored.await?)
    }
}

fn distinct(chunks: &[Chunk]) -> Vec<Passage> {
    let passage = |chunk: &Chunk| Passage { hash: embed_hash(chunk), text: chunk.embed_text(), tokens: chunk.tokens };
    let by_hash: BTreeMap<[u8; 32], Passage> =
        chunks.iter().map(passage).map(|passage| (passage.hash, passage)).collect();
    by_hash.into_values().collect()
}

/// Takes vectors out of a condemnation; those that were faster gone are missing in the result.
async fn renew(job: &JobContext, space: i32, hashes: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, StageError> {
    let renewed = job.database.write(job.tenant_id, move |connection| {
        Box::pin(async move {
            let renewed: Vec<Vec<u8>> = sqlx::query_scalar(
                "UPDATE vectors SET created_at = clock_timestamp()
                 WHERE tenant_id = current_tenant() AND space_id = $1 AND embed_hash = ANY ($2) RETURNING embed_hash",
            )
            .bind(space)
            .bind(hashes)
            .fetch_all(connection)
            .await?;
            Ok(renewed)
        })
    });
    Ok(renewed.await?)
}
