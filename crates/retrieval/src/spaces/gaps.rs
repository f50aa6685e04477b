//! What a space lacks, as the transaction's tenant sees it.

use docmill_model::chunk::embed_text;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

/// A text without a vector.
#[derive(Clone, Debug)]
pub(super) struct Gap {
    pub hash: Vec<u8>,
    pub text: String,
    pub tokens: i32,
}

/// Texts of a tenant, each once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// That belong into the space.
    pub texts: i64,
    /// Of them without a vector.
    pub missing: i64,
    /// Tokens of those.
    pub tokens: i64,
}

/// The next gaps of `space` after hash `after`, in the order of their hashes; only of `generations` where they are given.
pub(super) async fn next(
    connection: &mut PgConnection,
    space: i32,
    others: &[i32],
    generations: Option<&[Uuid]>,
    after: &[u8],
    limit: i64,
) -> Result<Vec<Gap>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT DISTINCT ON (c.embed_hash) c.embed_hash, c.text, c.heading_path, c.tokens
         FROM chunks c
         JOIN generations g ON g.tenant_id = c.tenant_id AND g.id = c.generation_id AND g.state <> 'retired'
         WHERE c.tenant_id = current_tenant() AND c.embed_hash > $4 AND ($3::uuid[] IS NULL OR c.generation_id = ANY ($3))
           AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = c.tenant_id AND v.space_id = $1 AND v.embed_hash = c.embed_hash)
           AND EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = c.tenant_id AND v.space_id = ANY ($2) AND v.embed_hash = c.embed_hash)
         ORDER BY c.embed_hash LIMIT $5",
    )
    .bind(space)
    .bind(others)
    .bind(generations)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let gap = |row: &sqlx::postgres::PgRow| {
        let (text, heading_path): (String, Vec<String>) = (row.try_get("text")?, row.try_get("heading_path")?);
        let text = embed_text(&heading_path, &text);
        Ok(Gap { hash: row.try_get("embed_hash")?, text, tokens: row.try_get("tokens")? })
    };
    rows.iter().map(gap).collect()
}

/// What belongs into `space`, and what of it is missing.
pub(super) async fn count(connection: &mut PgConnection, space: i32, others: &[i32]) -> Result<Counted, sqlx::Error> {
    let (texts, missing, tokens) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE NOT is_there), coalesce(sum(tokens) FILTER (WHERE NOT is_there), 0)::bigint
         FROM (SELECT DISTINCT ON (c.embed_hash) c.tokens,
                      EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = c.tenant_id AND v.space_id = $1
                              AND v.embed_hash = c.embed_hash) AS is_there,
                      EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = c.tenant_id AND v.space_id = ANY ($2)
                              AND v.embed_hash = c.embed_hash) AS is_elsewhere
               FROM chunks c
               JOIN generations g ON g.tenant_id = c.tenant_id AND g.id = c.generation_id AND g.state <> 'retired'
               WHERE c.tenant_id = current_tenant()) AS texts
         WHERE is_there OR is_elsewhere",
    )
    .bind(space)
    .bind(others)
    .fetch_one(connection)
    .await?;
    Ok(Counted { texts, missing, tokens })
}

/// Visible texts that have a vector in another space and none in this one.
pub(super) async fn visible(connection: &mut PgConnection, space: i32, others: &[i32]) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(DISTINCT c.embed_hash)
         FROM documents d
         JOIN chunks c ON c.tenant_id = d.tenant_id AND c.generation_id = d.visible_generation
         WHERE d.tenant_id = current_tenant() AND d.deleted_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = c.tenant_id AND v.space_id = $1 AND v.embed_hash = c.embed_hash)
           AND EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = c.tenant_id AND v.space_id = ANY ($2) AND v.embed_hash = c.embed_hash)",
    )
    .bind(space)
    .bind(others)
    .fetch_one(connection)
    .await
}
