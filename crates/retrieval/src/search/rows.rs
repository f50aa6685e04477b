//! The rows a search reads, all inside the caller's transaction: what is visible, and what a hit holds.

use super::fusion::{Fused, LexicalCandidate};
use super::scope::SearchScope;
use super::wire::Hit;
use crate::dense::{DenseHit, in_space};
use crate::lexical::LexicalHit;
use docmill_model::chunk::embed_text;
use docmill_model::{ChunkId, DocumentId, VersionId};
use docmill_platform::embedder::Space;
use docmill_platform::reranker::Passage;
use pgvector::Vector;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
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

/// Those of `hits` that are visible in `scope`, in their order, with their cosine where there is a `query` vector of a space.
/// What `known` says is not looked up again: it is of the same snapshot, scope and vector.
pub(super) async fn visible_candidates(
    connection: &mut PgConnection,
    scope: &SearchScope,
    hits: &[LexicalHit],
    query: Option<(&Space, &[f32])>,
    known: &[DenseHit],
) -> Result<Vec<LexicalCandidate>, sqlx::Error> {
    let mut visible: HashMap<Uuid, LexicalCandidate> =
        known.iter().map(|hit| (hit.chunk_id.0, LexicalCandidate::from(hit))).collect();
    let ids: Vec<Uuid> = hits.iter().map(|hit| hit.chunk_id.0).filter(|id| !visible.contains_key(id)).collect();
    let rows = if ids.is_empty() { Vec::new() } else { looked_up(connection, scope, &ids, query).await? };
    for row in &rows {
        let chunk_id = row.try_get("id")?;
        let candidate = LexicalCandidate {
            chunk_id: ChunkId(chunk_id),
            embed_hash: row.try_get("embed_hash")?,
            language: row.try_get("language")?,
            score: 0.0,
            cosine: row.try_get("cosine")?,
        };
        visible.insert(chunk_id, candidate);
    }
    let candidate = |hit: &LexicalHit| Some(LexicalCandidate { score: hit.score, ..visible.remove(&hit.chunk_id.0)? });
    Ok(hits.iter().filter_map(candidate).collect())
}

async fn looked_up(
    connection: &mut PgConnection,
    scope: &SearchScope,
    ids: &[Uuid],
    query: Option<(&Space, &[f32])>,
) -> Result<Vec<PgRow>, sqlx::Error> {
    let sql = match query {
        Some((space, _)) => in_space(
            space,
            "SELECT c.id, c.embed_hash, c.language, 1 - ((v.embedding::{column}) <=> $9::{column}) AS cosine
             FROM chunks c
             JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id AND d.visible_generation = c.generation_id
             LEFT JOIN vectors v ON v.tenant_id = c.tenant_id AND v.space_id = {space} AND v.embed_hash = c.embed_hash
             WHERE c.tenant_id = current_tenant() AND c.id = ANY ($8) AND document_matches(d, $1, $2, $3, $4, $5, $6, $7)",
        ),
        None => AssertSqlSafe(
            "SELECT c.id, c.embed_hash, c.language, NULL::float8 AS cosine
             FROM chunks c
             JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id AND d.visible_generation = c.generation_id
             WHERE c.tenant_id = current_tenant() AND c.id = ANY ($8) AND document_matches(d, $1, $2, $3, $4, $5, $6, $7)"
                .to_owned(),
        ),
    };
    let rows = sqlx::query_with(sql, scope.arguments()?).bind(ids);
    let rows = match query {
        Some((_, query)) => rows.bind(Vector::from(query.to_vec())),
        None => rows,
    };
    rows.fetch_all(connection).await
}

/// What is read of candidates, in their order: text as it was embedded. They come from this very snapshot.
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
    let passage = |((heading_path, text, language), fused): ((Vec<String>, String, Option<String>), &Fused)| Passage {
        text: embed_text(&heading_path, &text),
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
