//! Where else the text of a hit stands: what collapsed into it. In the caller's snapshot and scope.

use super::scope::SearchScope;
use super::wire::{Copy, Hit};
use docmill_model::{ChunkId, DocumentId, VersionId};
use sqlx::{PgConnection, Row};
use std::collections::HashMap;
use uuid::Uuid;

/// Most copies of a hit that are told.
const MAX_COPIES: usize = 20;

/// A hit as the copy of another one.
pub(super) fn near(hit: &Hit) -> Copy {
    Copy {
        chunk_id: hit.chunk_id,
        document_id: hit.document_id,
        version_id: hit.version_id,
        document: hit.document.clone(),
        collection: hit.collection.clone(),
        page_start: hit.page_start,
        char_start: hit.char_start,
        char_end: hit.char_end,
        is_equal: false,
    }
}

/// Gives every hit its copies: equal texts that are visible in `scope`, then those `near` it by chunk.
pub(super) async fn tell(
    connection: &mut PgConnection,
    scope: &SearchScope,
    hits: &mut [Hit],
    mut near: HashMap<ChunkId, Vec<Copy>>,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = hits.iter().map(|hit| hit.chunk_id.0).collect();
    let mut equal = equal(connection, scope, &ids).await?;
    for hit in hits.iter_mut() {
        let mut copies = equal.remove(&hit.chunk_id).unwrap_or_default();
        copies.extend(near.remove(&hit.chunk_id).unwrap_or_default());
        // A near-duplicate that is a hit itself, with equals of its own, is told once: as a hit.
        copies.retain(|copy| !ids.contains(&copy.chunk_id.0));
        copies.truncate(MAX_COPIES);
        hit.copies = Some(copies);
    }
    Ok(())
}

async fn equal(
    connection: &mut PgConnection,
    scope: &SearchScope,
    ids: &[Uuid],
) -> Result<HashMap<ChunkId, Vec<Copy>>, sqlx::Error> {
    let rows = sqlx::query_with(
        "SELECT h.id AS of, e.*
         FROM chunks h
         CROSS JOIN LATERAL (
            SELECT c.id, c.document_id, g.version_id, d.name, d.collection, c.page_start, c.char_start, c.char_end
            FROM chunks c
            JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id AND d.visible_generation = c.generation_id
            JOIN generations g ON g.tenant_id = c.tenant_id AND g.id = c.generation_id
            WHERE c.tenant_id = h.tenant_id AND c.embed_hash = h.embed_hash AND c.id <> h.id
              AND document_matches(d, $1, $2, $3, $4, $5, $6, $7)
            ORDER BY c.id LIMIT $9) e
         WHERE h.tenant_id = current_tenant() AND h.id = ANY ($8)
         ORDER BY h.id, e.id",
        scope.arguments()?,
    )
    .bind(ids)
    .bind(MAX_COPIES as i64)
    .fetch_all(connection)
    .await?;
    let mut copies: HashMap<ChunkId, Vec<Copy>> = HashMap::new();
    for row in &rows {
        let number = |column: &str| row.try_get::<Option<i32>, _>(column).map(|n| n.map(|n| n.unsigned_abs()));
        let copy = Copy {
            chunk_id: ChunkId(row.try_get("id")?),
            document_id: DocumentId(row.try_get("document_id")?),
            version_id: VersionId(row.try_get("version_id")?),
            document: row.try_get("name")?,
            collection: row.try_get("collection")?,
            page_start: number("page_start")?,
            char_start: number("char_start")?.unwrap_or_default(),
            char_end: number("char_end")?.unwrap_or_default(),
            is_equal: true,
        };
        copies.entry(ChunkId(row.try_get("of")?)).or_default().push(copy);
    }
    Ok(copies)
}
