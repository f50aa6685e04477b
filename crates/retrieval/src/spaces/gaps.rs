//! What a space lacks. Whatever goes over all texts of a tenant does so in pages, so that no statement grows with them.

use docmill_model::chunk::embed_text;
use docmill_model::{Failure, TenantId};
use docmill_platform::database::Database;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Texts that one statement looks at.
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

/// Some texts of a tenant, in the order of their hashes.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Those of them without a vector.
    pub gaps: Vec<Gap>,
    /// The last hash that was looked at; `None` at the end.
    pub last: Option<Vec<u8>>,
}

/// Up to `limit` gaps of `space` among the next texts after hash `after`; only of `generations` where they are given.
pub(super) async fn next(
    connection: &mut PgConnection,
    space: i32,
    others: &[i32],
    generations: Option<&[Uuid]>,
    after: &[u8],
    limit: i64,
) -> Result<Looked, sqlx::Error> {
    let page: Vec<(Vec<u8>, Uuid, bool)> = sqlx::query_as(
        "WITH page AS MATERIALIZED (
            SELECT DISTINCT ON (c.embed_hash) c.embed_hash, c.id FROM chunks c
            JOIN generations g ON g.tenant_id = c.tenant_id AND g.id = c.generation_id AND g.state <> 'retired'
            WHERE c.tenant_id = current_tenant() AND c.embed_hash > $4 AND ($3::uuid[] IS NULL OR c.generation_id = ANY ($3))
            ORDER BY c.embed_hash LIMIT $5)
         SELECT embed_hash, id,
                NOT EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = current_tenant() AND v.space_id = $1
                            AND v.embed_hash = page.embed_hash)
                AND EXISTS (SELECT 1 FROM vectors v WHERE v.tenant_id = current_tenant() AND v.space_id = ANY ($2)
                            AND v.embed_hash = page.embed_hash)
         FROM page ORDER BY embed_hash",
    )
    .bind(space)
    .bind(others)
    .bind(generations)
    .bind(after)
    .bind(PAGE)
    .fetch_all(&mut *connection)
    .await?;
    let missing: Vec<&(Vec<u8>, Uuid, bool)> =
        page.iter().filter(|(_, _, lacks)| *lacks).take(limit as usize).collect();
    let is_cut = missing.len() as i64 == limit;
    let last = if is_cut { missing.last().copied() } else { page.last() };
    let ids: Vec<Uuid> = missing.iter().map(|(_, id, _)| *id).collect();
    let gaps = if ids.is_empty() { Vec::new() } else { texts(connection, &ids).await? };
    Ok(Looked { gaps, last: last.map(|(hash, ..)| hash.clone()) })
}

/// Up to `limit` of the first gaps of a tenant in `space`; only of `generations` where they are given. None when nothing is
/// missing.
pub(super) async fn first(
    database: &Database,
    tenant: TenantId,
    space: i32,
    others: &[i32],
    generations: Option<&[Uuid]>,
    limit: i64,
) -> Result<Vec<Gap>, Failure> {
    let mut after = Some(Vec::new());
    while let Some(from) = after {
        let (others, generations) = (others.to_vec(), generations.map(<[Uuid]>::to_vec));
        let read = database.read(tenant, move |connection| {
            Box::pin(async move { Ok(next(connection, space, &others, generations.as_deref(), &from, limit).await?) })
        });
        let looked = read.await?;
        if !looked.gaps.is_empty() {
            return Ok(looked.gaps);
        }
        after = looked.last;
    }
    Ok(Vec::new())
}

/// The texts of chunks.
async fn texts(connection: &mut PgConnection, chunks: &[Uuid]) -> Result<Vec<Gap>, sqlx::Error> {
    let rows: Vec<(Vec<u8>, String, Vec<String>, i32)> = sqlx::query_as(
        "SELECT embed_hash, text, heading_path, tokens FROM chunks
         WHERE tenant_id = current_tenant() AND id = ANY ($1) ORDER BY embed_hash",
    )
    .bind(chunks)
    .fetch_all(connection)
    .await?;
    let gap = |(hash, text, heading_path, tokens): (_, String, Vec<String>, _)| {
        let text = embed_text(&heading_path, &text);
        Gap { hash, text, tokens }
    };
    Ok(rows.into_iter().map(gap).collect())
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
