//! The rows a search reads, all inside the caller's transaction: what is visible, and what a hit holds.

use super::fusion::{Fused, LexicalCandidate};
use super::scope::SearchScope;
use super::wire::Hit;
use crate::lexical::LexicalHit;
use docmill_model::{ChunkId, DocumentId, VersionId};
use docmill_platform::embedder::Space;
use docmill_platform::reranker::Passage;
use pgvector::Vector;
use sqlx::{PgConnection, Row};
use std::collections::HashMap;
use uuid::Uuid;

/// The documents in `scope` that answer, at most `limit`.
pub(super) async fn visible_documents(
    connection: &mut PgConnection,
    scope: &SearchScope,
    limit: i64,
) -> Result<Vec<DocumentId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar_with(
        "SELECT d.id FROM documents d
         WHERE d.tenant_id = current_tenant() AND d.visible_generation IS NOT NULL
           AND document_matches(d, $1, $2, $3, $4, $5, $6, $7) LIMIT $8",
        scope.arguments()?,
    )
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(DocumentId).collect())
}

/// True when the tenant has a document that answers.
pub(super) async fn is_answering(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM documents
                        WHERE tenant_id = current_tenant() AND visible_generation IS NOT NULL AND deleted_at IS NULL)",
    )
    .fetch_one(connection)
    .await
}

/// Those of `hits` that are visible in `scope`, in their order; each, where it has a vector in `space`, with its cosine to
/// that of the question, or with that vector where the question's is not `known` yet.
pub(super) async fn visible_candidates(
    connection: &mut PgConnection,
    scope: &SearchScope,
    hits: &[LexicalHit],
    space: Option<&Space>,
    known: Option<&[f32]>,
) -> Result<Vec<(LexicalCandidate, Option<Vector>)>, sqlx::Error> {
    if hits.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = hits.iter().map(|hit| hit.chunk_id.0).collect();
    let rows = sqlx::query_with(
        "SELECT c.id, c.embed_hash, c.language, 1 - (v.embedding <=> $10::vector) AS cosine,
                CASE WHEN $10::vector IS NULL THEN v.embedding END AS embedding
         FROM chunks c
         JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id AND d.visible_generation = c.generation_id
         LEFT JOIN vectors v ON v.tenant_id = c.tenant_id AND v.space_id = $9 AND v.embed_hash = c.embed_hash
         WHERE c.tenant_id = current_tenant() AND c.id = ANY ($8) AND document_matches(d, $1, $2, $3, $4, $5, $6, $7)",
        scope.arguments()?,
    );
    let rows = rows.bind(ids).bind(space.map(|space| space.id)).bind(known.map(|known| Vector::from(known.to_vec())));
    let rows = rows.fetch_all(connection).await?;
    let mut visible = HashMap::with_capacity(rows.len());
    for row in &rows {
        let chunk_id: Uuid = row.try_get("id")?;
        let candidate = LexicalCandidate {
            chunk_id: ChunkId(chunk_id),
            embed_hash: row.try_get("embed_hash")?,
            language: row.try_get("language")?,
            score: 0.0,
            cosine: row.try_get("cosine")?,
        };
        visible.insert(chunk_id, (candidate, row.try_get("embedding")?));
    }
    let candidate = |hit: &LexicalHit| {
        let (candidate, vector) = visible.remove(&hit.chunk_id.0)?;
        Some((LexicalCandidate { score: hit.score, ..candidate }, vector))
    };
    Ok(hits.iter().filter_map(candidate).collect())
}

/// What is read of candidates, in their order. They come from this very snapshot.
pub(super) async fn passages(connection: &mut PgConnection, fused: &[Fused]) -> Result<Vec<Passage>, sqlx::Error> {
    let ids: Vec<Uuid> = fused.iter().map(|fused| fused.chunk_id.0).collect();
    let parts: Vec<(Vec<String>, String, Option<String>)> = sqlx::query_as(
        "SELECT c.heading_path, c.text, c.language
         FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (id, place)
         JOIN chunks c ON c.tenant_id = current_tenant() AND c.id = wanted.id
         ORDER BY wanted.place",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let passage = |((headings, text, language), fused): ((Vec<String>, String, Option<String>), &Fused)| Passage {
        headings,
        text,
        language,
        fused: fused.explanation.fused,
    };
    Ok(parts.into_iter().zip(fused).map(passage).collect())
}

/// Those of the chunks `ids` that are visible in `scope`.
pub(super) async fn visible_chunks(
    connection: &mut PgConnection,
    scope: &SearchScope,
    ids: &[Uuid],
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar_with(
        "SELECT c.id FROM chunks c
         JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id AND d.visible_generation = c.generation_id
         WHERE c.tenant_id = current_tenant() AND c.id = ANY ($8) AND document_matches(d, $1, $2, $3, $4, $5, $6, $7)",
        scope.arguments()?,
    )
    .bind(ids)
    .fetch_all(connection)
    .await
}

/// The chunks `ids` as hits in that order, score and explanation still empty. The ids come from this very snapshot.
pub(super) async fn hits(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Hit>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT c.id, c.document_id, g.version_id, d.name, v.title, d.collection, c.text, c.kind, c.language,
                c.heading_path, c.page_start, c.page_end, c.char_start, c.char_end
         FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (id, place)
         JOIN chunks c ON c.tenant_id = current_tenant() AND c.id = wanted.id
         JOIN generations g ON g.tenant_id = c.tenant_id AND g.id = c.generation_id
         JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id
         JOIN document_versions v ON v.tenant_id = c.tenant_id AND v.id = g.version_id
         ORDER BY wanted.place",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    rows.iter().map(hit).collect()
}

fn hit(row: &sqlx::postgres::PgRow) -> Result<Hit, sqlx::Error> {
    let number = |column: &str| row.try_get::<Option<i32>, _>(column).map(|n| n.map(|n| n.unsigned_abs()));
    Ok(Hit {
        chunk_id: ChunkId(row.try_get("id")?),
        document_id: DocumentId(row.try_get("document_id")?),
        version_id: VersionId(row.try_get("version_id")?),
        document: row.try_get("name")?,
        title: row.try_get("title")?,
        collection: row.try_get("collection")?,
        text: row.try_get("text")?,
        kind: row.try_get("kind")?,
        language: row.try_get("language")?,
        heading_path: row.try_get("heading_path")?,
        page_start: number("page_start")?,
        page_end: number("page_end")?,
        char_start: number("char_start")?.unwrap_or_default(),
        char_end: number("char_end")?.unwrap_or_default(),
        score: 0.0,
        explanation: None,
        context: None,
        copies: None,
    })
}
