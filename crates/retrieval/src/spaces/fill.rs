//! A batch of texts becomes rows of a space.

use super::gaps::Gap;
use docmill_model::{Code, Failure};
use docmill_platform::database::DbError;
use docmill_platform::embedder::{Embedder, Space};
use pgvector::Vector;
use sqlx::PgConnection;

/// What could be embedded of a batch.
pub(super) struct Embedded {
    pub gaps: Vec<Gap>,
    pub vectors: Vec<Vector>,
    /// Texts the model refuses.
    pub refused: i64,
}

/// The vectors of a batch; when the model refuses it, of each text that it does not refuse.
///
/// # Errors
/// What the model fails with, when that is not about a text.
pub(super) async fn embed(model: &dyn Embedder, batch: Vec<Gap>) -> Result<Embedded, Failure> {
    let texts: Vec<String> = batch.iter().map(|gap| gap.text.clone()).collect();
    match model.embed(&texts).await {
        Ok(vectors) => {
            let vectors = vectors.into_iter().map(Vector::from).collect();
            return Ok(Embedded { gaps: batch, vectors, refused: 0 });
        }
        Err(failure) if failure.code == Code::EmbeddingInvalid => {}
        Err(failure) => return Err(failure),
    }
    let mut embedded = Embedded { gaps: Vec::new(), vectors: Vec::new(), refused: 0 };
    for gap in batch {
        match model.embed(std::slice::from_ref(&gap.text)).await {
            Ok(one) => {
                embedded.vectors.extend(one.into_iter().map(Vector::from));
                embedded.gaps.push(gap);
            }
            Err(failure) if failure.code == Code::EmbeddingInvalid => embedded.refused += 1,
            Err(failure) => return Err(failure),
        }
    }
    Ok(embedded)
}

/// Inserts vectors of chunks that still stand, and their ledger row; how many were new.
pub(super) async fn insert(
    connection: &mut PgConnection,
    space: Space,
    fingerprint: String,
    embedded: Embedded,
) -> Result<i64, DbError> {
    let Embedded { gaps, vectors, .. } = embedded;
    let hashes: Vec<&[u8]> = gaps.iter().map(|gap| gap.hash.as_slice()).collect();
    // A chunk that a deletion holds is left out: it is gone, or looked at again in a later round.
    let inserted: Vec<Vec<u8>> = sqlx::query_scalar(
        "WITH space AS (
            SELECT id FROM embedding_spaces
            WHERE id = $1 AND state <> 'dropping' AND (fingerprint IS NULL OR fingerprint = $4) FOR KEY SHARE),
         standing AS (
            SELECT embed_hash FROM chunks WHERE tenant_id = current_tenant() AND embed_hash = ANY ($2) FOR KEY SHARE SKIP LOCKED)
         INSERT INTO vectors (tenant_id, space_id, embed_hash, embedding)
         SELECT current_tenant(), space.id, row.embed_hash, row.embedding
         FROM space, unnest($2::bytea[], $3::vector[]) AS row (embed_hash, embedding)
         WHERE row.embed_hash IN (SELECT embed_hash FROM standing)
         ON CONFLICT DO NOTHING RETURNING embed_hash",
    )
    .bind(space.id)
    .bind(&hashes)
    .bind(&vectors)
    .bind(fingerprint)
    .fetch_all(&mut *connection)
    .await?;
    if inserted.is_empty() {
        return Ok(0);
    }
    let tokens = |hash: &Vec<u8>| gaps.iter().find(|gap| gap.hash == *hash).map_or(0, |gap| i64::from(gap.tokens));
    sqlx::query(
        "INSERT INTO ledger (tenant_id, feature, task, provider, model, units, tokens_in, outcome)
         VALUES (current_tenant(), 'embed', 'space', 'local', $1, $2, $3, 'committed')",
    )
    .bind(&space.name)
    .bind(inserted.len() as i64)
    .bind(inserted.iter().map(tokens).sum::<i64>())
    .execute(connection)
    .await?;
    Ok(inserted.len() as i64)
}
