//! What a space lacks. Whatever goes over all texts of a tenant does so in pages, so that no statement grows with them.

use docmill_model::chunk::embed_text;
use docmill_model::{Failure, TenantId};
use docmill_platform::database::Database;
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

/// Texts that one statement counts.
const PAGE: i64 = 5_000;

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

/// Of a tenant: what belongs into `space`, and what of it is missing.
pub(super) async fn count(
    database: &Database,
    tenant: TenantId,
    space: i32,
    others: &[i32],
) -> Result<Counted, Failure> {
    let mut counted = Counted::default();
    let mut after = Some(Vec::new());
    while let Some(from) = after {
        let others = others.to_vec();
        let read = database.read(tenant, move |connection| {
            Box::pin(async move { Ok(count_page(connection, space, &others, &from).await?) })
        });
        let (page, last) = read.await?;
        counted.texts += page.texts;
        counted.missing += page.missing;
        counted.tokens += page.tokens;
        after = last;
    }
    Ok(counted)
}

/// One page of [`count`], of texts after hash `after`; with its last hash, `None` at the end.
async fn count_page(
    connection: &mut PgConnection,
    space: i32,
    others: &[i32],
    after: &[u8],
) -> Result<(Counted, Option<Vec<u8>>), sqlx::Error> {
    let (texts, missing, tokens, last) = sqlx::query_as(
        "WITH page AS MATERIALIZED (
            SELECT DISTINCT ON (c.embed_hash) c.embed_hash, c.tokens FROM chunks c
            JOIN generations g ON g.tenant_id = c.tenant_id AND g.id = c.generation_id AND g.state <> 'retired'
            WHERE c.tenant_id = current_tenant() AND c.embed_hash > $3 ORDER BY c.embed_hash LIMIT $4),
         looked AS (
            SELECT tokens,
                   EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = current_tenant() AND v.space_id = $1
                           AND v.embed_hash = page.embed_hash) AS is_there,
                   EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = current_tenant() AND v.space_id = ANY ($2)
                           AND v.embed_hash = page.embed_hash) AS is_elsewhere
            FROM page)
         SELECT count(*) FILTER (WHERE is_there OR is_elsewhere), count(*) FILTER (WHERE is_elsewhere AND NOT is_there),
                coalesce(sum(tokens) FILTER (WHERE is_elsewhere AND NOT is_there), 0)::bigint,
                (SELECT embed_hash FROM page ORDER BY embed_hash DESC LIMIT 1)
         FROM looked",
    )
    .bind(space)
    .bind(others)
    .bind(after)
    .bind(PAGE)
    .fetch_one(connection)
    .await?;
    Ok((Counted { texts, missing, tokens }, last))
}

/// Visible texts of a tenant that have a vector in another space and none in this one.
pub(super) async fn visible(database: &Database, tenant: TenantId, space: i32, others: &[i32]) -> Result<i64, Failure> {
    let mut missing = 0;
    let mut after = Some(Vec::new());
    while let Some(from) = after {
        let others = others.to_vec();
        let read = database.read(tenant, move |connection| {
            Box::pin(async move { Ok(visible_page(connection, space, &others, &from).await?) })
        });
        let (more, last) = read.await?;
        missing += more;
        after = last;
    }
    Ok(missing)
}

/// One page of [`visible`], of texts after hash `after`; with its last hash, `None` at the end.
async fn visible_page(
    connection: &mut PgConnection,
    space: i32,
    others: &[i32],
    after: &[u8],
) -> Result<(i64, Option<Vec<u8>>), sqlx::Error> {
    sqlx::query_as(
        "WITH page AS MATERIALIZED (
            SELECT DISTINCT c.embed_hash FROM chunks c
            JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id AND d.visible_generation = c.generation_id
              AND d.deleted_at IS NULL
            WHERE c.tenant_id = current_tenant() AND c.embed_hash > $3 ORDER BY c.embed_hash LIMIT $4)
         SELECT count(*) FILTER (WHERE
                    NOT EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = current_tenant() AND v.space_id = $1
                                AND v.embed_hash = page.embed_hash)
                    AND EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = current_tenant() AND v.space_id = ANY ($2)
                                AND v.embed_hash = page.embed_hash)),
                (SELECT embed_hash FROM page ORDER BY embed_hash DESC LIMIT 1)
         FROM page",
    )
    .bind(space)
    .bind(others)
    .bind(after)
    .bind(PAGE)
    .fetch_one(connection)
    .await
}

/// Texts of the transaction's tenant in documents that changed since a moment, visible and with a vector in another space
/// and none in this one.
pub(super) async fn visible_since(
    connection: &mut PgConnection,
    space: i32,
    others: &[i32],
    since: OffsetDateTime,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(DISTINCT c.embed_hash)
         FROM documents d
         JOIN chunks c ON c.tenant_id = d.tenant_id AND c.generation_id = d.visible_generation
         WHERE d.tenant_id = current_tenant() AND d.deleted_at IS NULL AND d.updated_at >= $3
           AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = c.tenant_id AND v.space_id = $1 AND v.embed_hash = c.embed_hash)
           AND EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = c.tenant_id AND v.space_id = ANY ($2) AND v.embed_hash = c.embed_hash)",
    )
    .bind(space)
    .bind(others)
    .bind(since)
    .fetch_one(connection)
    .await
}
