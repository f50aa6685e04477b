//! A batch of texts becomes rows of a space.

use super::gaps::Gap;
use docmill_model::{Code, Failure};
use docmill_platform::database::DbError;
use docmill_platform::embedder::{Embedder, Space, usable};
use docmill_platform::feed;
use pgvector::Vector;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// What could be embedded of a batch.
pub(super) struct Embedded {
    pub gaps: Vec<Gap>,
    pub vectors: Vec<Vector>,
    /// Hashes of the texts the model refuses.
    pub refused: Vec<Vec<u8>>,
}

/// What became of a batch in the database.
#[derive(Default)]
pub(super) struct Stored {
    /// Vectors that were not there before.
    pub new: i64,
    /// Texts whose chunks a deletion held at that moment, or that are gone.
    pub held: i64,
}

/// A vector for each of `texts`, in their order; when the model refuses them together, for each that it does not refuse alone.
///
/// # Errors
/// What the model fails with, when that is not about a text.
pub async fn embed_each(model: &dyn Embedder, texts: &[String]) -> Result<Vec<Option<Vec<f32>>>, Failure> {
    let embed = async |texts: &[String]| usable(model.embed(texts).await?, texts.len(), model.dimensions());
    match embed(texts).await {
        Ok(vectors) => return Ok(vectors.into_iter().map(Some).collect()),
        Err(failure) if failure.code == Code::EmbeddingInvalid => {}
        Err(failure) => return Err(failure),
    }
    let mut vectors = Vec::with_capacity(texts.len());
    for text in texts {
        match embed(std::slice::from_ref(text)).await {
            Ok(mut one) => vectors.push(one.pop()),
            Err(failure) if failure.code == Code::EmbeddingInvalid => vectors.push(None),
            Err(failure) => return Err(failure),
        }
    }
    Ok(vectors)
}

/// What the model of a space makes of a batch.
///
/// # Errors
/// Those of [`embed_each`].
pub(super) async fn embed(model: &dyn Embedder, batch: Vec<Gap>) -> Result<Embedded, Failure> {
    let texts: Vec<String> = batch.iter().map(|gap| gap.text.clone()).collect();
    let mut embedded = Embedded { gaps: Vec::new(), vectors: Vec::new(), refused: Vec::new() };
    for (gap, vector) in batch.into_iter().zip(embed_each(model, &texts).await?) {
        match vector {
            Some(vector) => {
                embedded.vectors.push(vector.into());
                embedded.gaps.push(gap);
            }
            None => embedded.refused.push(gap.hash),
        }
    }
    Ok(embedded)
}

/// Inserts vectors of chunks that still stand, their ledger row, and what was refused.
pub(super) async fn insert(
    connection: &mut PgConnection,
    space: Space,
    fingerprint: String,
    embedded: Embedded,
) -> Result<Stored, DbError> {
    let Embedded { gaps, vectors, refused } = embedded;
    if !refused.is_empty() {
        enter_refused(connection, space.id, &fingerprint, &refused).await?;
    }
    let hashes: Vec<&[u8]> = gaps.iter().map(|gap| gap.hash.as_slice()).collect();
    // A chunk that a deletion holds is left out: it is gone, or looked at again in a later round.
    let (inserted, standing, is_active): (Vec<Vec<u8>>, i64, bool) = sqlx::query_as(
        "WITH space AS (
            SELECT id FROM embedding_spaces
            WHERE id = $1 AND state <> 'dropping' AND (fingerprint IS NULL OR fingerprint = $4) FOR KEY SHARE),
         standing AS (
            SELECT embed_hash FROM chunks WHERE tenant_id = current_tenant() AND embed_hash = ANY ($2) FOR KEY SHARE SKIP LOCKED),
         inserted AS (
            INSERT INTO vectors (tenant_id, space_id, embed_hash, embedding)
            SELECT current_tenant(), space.id, row.embed_hash, row.embedding
            FROM space, unnest($2::bytea[], $3::vector[]) AS row (embed_hash, embedding)
            WHERE row.embed_hash IN (SELECT embed_hash FROM standing)
            ON CONFLICT DO NOTHING RETURNING embed_hash)
         SELECT (SELECT coalesce(array_agg(embed_hash), '{}') FROM inserted), (SELECT count(DISTINCT embed_hash) FROM standing),
                EXISTS (SELECT 1 FROM active_spaces WHERE space_id = $1)",
    )
    .bind(space.id)
    .bind(&hashes)
    .bind(&vectors)
    .bind(fingerprint)
    .fetch_one(&mut *connection)
    .await?;
    let stored = Stored { new: inserted.len() as i64, held: gaps.len() as i64 - standing };
    if inserted.is_empty() {
        return Ok(stored);
    }
    let tokens = |hash: &Vec<u8>| gaps.iter().find(|gap| gap.hash == *hash).map_or(0, |gap| i64::from(gap.tokens));
    sqlx::query(
        "INSERT INTO ledger (tenant_id, feature, task, provider, model, units, tokens_in, outcome)
         VALUES (current_tenant(), 'embed', 'space', 'local', $1, $2, $3, 'committed')",
    )
    .bind(&space.name)
    .bind(inserted.len() as i64)
    .bind(inserted.iter().map(tokens).sum::<i64>())
    .execute(&mut *connection)
    .await?;
    if is_active {
        feed::corpus_changed(connection).await?;
    }
    Ok(stored)
}

/// Enters texts that the model of a space refuses, by the hashes of what is embedded: those of chunks that stand.
///
/// # Errors
/// The driver's.
pub async fn enter_refused(
    connection: &mut PgConnection,
    space: i32,
    fingerprint: &str,
    refused: &[Vec<u8>],
) -> Result<(), DbError> {
    // In one order, so that two that enter the same texts do not wait for each other.
    sqlx::query(
        "WITH space AS (
            SELECT id FROM embedding_spaces
            WHERE id = $1 AND state <> 'dropping' AND (fingerprint IS NULL OR fingerprint = $3) FOR KEY SHARE),
         standing AS (
            SELECT embed_hash FROM chunks WHERE tenant_id = current_tenant() AND embed_hash = ANY ($2) FOR KEY SHARE SKIP LOCKED)
         INSERT INTO refused_texts (tenant_id, space_id, embed_hash)
         SELECT DISTINCT current_tenant(), space.id, standing.embed_hash FROM space, standing ORDER BY standing.embed_hash
         ON CONFLICT (tenant_id, space_id, embed_hash) DO UPDATE SET refused_at = clock_timestamp()",
    )
    .bind(space)
    .bind(refused)
    .bind(fingerprint)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes out what the model of a space refused before a moment: texts that it takes now, or that are gone.
pub(super) async fn forget_refused(
    connection: &mut PgConnection,
    space: i32,
    before: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query("DELETE FROM refused_texts WHERE tenant_id = current_tenant() AND space_id = $1 AND refused_at < $2")
        .bind(space)
        .bind(before)
        .execute(connection)
        .await?;
    Ok(())
}
