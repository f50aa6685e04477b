//! Reading the feed: how far each tenant's has come (ids and numbers, as the engine), and what an operation adds (text,
//! as the tenant).

use crate::lexical::LexicalChunk;
use docmill_model::{ChunkId, Failure, GenerationId, TenantId};
use docmill_platform::database::{Database, DbError};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

/// Chunks read at once.
const PAGE_CHUNKS: i64 = 1_000;

/// The last number of every tenant's feed.
pub(super) async fn heads(database: &Database) -> Result<Vec<(TenantId, i64)>, Failure> {
    let rows = sqlx::query("SELECT tenant_id, seq FROM index_heads WHERE seq > 0 ORDER BY tenant_id")
        .fetch_all(database.engine())
        .await
        .map_err(DbError::from)?;
    let head = |row: &sqlx::postgres::PgRow| Ok((TenantId(row.try_get("tenant_id")?), row.try_get("seq")?));
    Ok(rows.iter().map(head).collect::<Result<_, sqlx::Error>>().map_err(DbError::from)?)
}

/// One entry of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FeedOp {
    pub seq: i64,
    pub is_add: bool,
    pub generation: GenerationId,
}

/// The entries after `after`, in order, at most `limit`.
pub(super) async fn operations(database: &Database, tenant: TenantId, after: i64, limit: i64) -> Result<Vec<FeedOp>, DbError> {
    let read = database.read(tenant, move |connection| {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT seq, op = 'add' AS is_add, generation_id FROM index_ops
                 WHERE tenant_id = current_tenant() AND seq > $1 ORDER BY seq LIMIT $2",
            )
            .bind(after)
            .bind(limit)
            .fetch_all(connection)
            .await?;
            Ok(rows.iter().map(operation).collect::<Result<Vec<_>, _>>()?)
        })
    });
    read.await
}

fn operation(row: &sqlx::postgres::PgRow) -> Result<FeedOp, sqlx::Error> {
    Ok(FeedOp {
        seq: row.try_get("seq")?,
        is_add: row.try_get("is_add")?,
        generation: GenerationId(row.try_get("generation_id")?),
    })
}

/// The head of a tenant's feed and every generation that is visible or may become so, in one snapshot.
pub(super) async fn standing(database: &Database, tenant: TenantId) -> Result<(i64, Vec<GenerationId>), DbError> {
    let read = database.read(tenant, |connection| {
        Box::pin(async move {
            let head: Option<i64> = sqlx::query_scalar("SELECT seq FROM index_heads WHERE tenant_id = current_tenant()")
                .fetch_optional(&mut *connection)
                .await?;
            let generations: Vec<Uuid> = sqlx::query_scalar(
                "SELECT id FROM generations WHERE tenant_id = current_tenant() AND state <> 'retired' ORDER BY id",
            )
            .fetch_all(connection)
            .await?;
            Ok((head.unwrap_or(0), generations.into_iter().map(GenerationId).collect()))
        })
    });
    read.await
}

/// Up to 1,000 chunks of a generation with an ordinal above `after`, and the last ordinal; `None` at the end. Chunks
/// never change, so pages need no common snapshot.
pub(super) async fn chunks(
    database: &Database,
    tenant: TenantId,
    generation: GenerationId,
    after: i32,
) -> Result<Option<(Vec<LexicalChunk>, i32)>, DbError> {
    let read = database.read(tenant, move |connection| Box::pin(chunk_page(connection, generation, after)));
    read.await
}

async fn chunk_page(
    connection: &mut PgConnection,
    generation: GenerationId,
    after: i32,
) -> Result<Option<(Vec<LexicalChunk>, i32)>, DbError> {
    let rows = sqlx::query(
        "SELECT c.id, c.ordinal, c.text, c.heading_path, c.language, d.name, v.title
         FROM chunks c
         JOIN generations g ON g.tenant_id = c.tenant_id AND g.id = c.generation_id
         JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id
         JOIN document_versions v ON v.tenant_id = c.tenant_id AND v.id = g.version_id
         WHERE c.tenant_id = current_tenant() AND c.generation_id = $1 AND c.ordinal > $2 ORDER BY c.ordinal LIMIT $3",
    )
    .bind(generation.0)
    .bind(after)
    .bind(PAGE_CHUNKS)
    .fetch_all(connection)
    .await?;
    let Some(last) = rows.last() else { return Ok(None) };
    let ordinal = last.try_get("ordinal")?;
    let chunks = rows.iter().map(|row| chunk(row, generation)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some((chunks, ordinal)))
}

fn chunk(row: &sqlx::postgres::PgRow, generation_id: GenerationId) -> Result<LexicalChunk, sqlx::Error> {
    let mut headings: Vec<String> = row.try_get("heading_path")?;
    headings.extend(row.try_get::<Option<String>, _>("title")?);
    headings.push(row.try_get("name")?);
    headings.dedup();
    Ok(LexicalChunk {
        chunk_id: ChunkId(row.try_get("id")?),
        generation_id,
        text: row.try_get("text")?,
        headings,
        language: row.try_get("language")?,
    })
}
