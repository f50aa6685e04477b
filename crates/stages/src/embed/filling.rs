//! One embedding space is filled with the passages of one job.

use super::Passage;
use super::charge::charge;
use docmill_platform::embedder::{Embedder, Space, usable};
use docmill_retrieval::spaces::{embed_each, enter_refused};
use docmill_runtime::{JobContext, StageError};
use pgvector::Vector;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Hashes looked up at once.
const LOOKUP: usize = 4_096;

/// One space that is filled with the passages of one job.
pub(super) struct Filling<'j> {
    pub job: &'j JobContext,
    /// Of the ledger row.
    pub task: String,
    pub space: Space,
    pub model: Arc<dyn Embedder>,
    /// Texts that the model refuses are entered as such; otherwise one fails the job.
    pub takes_refusals: bool,
}

impl Filling<'_> {
    /// Embeds, `size` at once, those of `passages` that have no vector; how many those were.
    pub async fn fill(&self, size: usize, passages: &[Passage]) -> Result<usize, StageError> {
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

    async fn embed(&self, batch: &[Passage]) -> Result<Vec<Option<Vec<f32>>>, StageError> {
        let texts: Vec<String> = batch.iter().map(|passage| passage.text.clone()).collect();
        if !self.takes_refusals {
            let vectors = usable(self.model.embed(&texts).await?, texts.len(), self.model.dimensions())?;
            return Ok(vectors.into_iter().map(Some).collect());
        }
        tokio::select! {
            () = self.job.cancel.cancelled() => Err(StageError::Cancelled),
            vectors = embed_each(&*self.model, &texts) => Ok(vectors?),
        }
    }

    /// Enters refused texts of chunks that stand.
    async fn enter(&self, refused: Vec<Vec<u8>>) -> Result<(), StageError> {
        if refused.is_empty() {
            return Ok(());
        }
        tracing::warn!(space = self.space.name, texts = refused.len(), "the model of an embedding space refuses texts");
        let (space, fingerprint) = (self.space.id, self.model.fingerprint());
        let entered = self.job.database.write(self.job.tenant_id, move |connection| {
            Box::pin(async move { enter_refused(connection, space, &fingerprint, &refused).await })
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
