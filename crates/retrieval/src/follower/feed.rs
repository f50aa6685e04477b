//! Reading the feed: how far each tenant's has come (ids and numbers, as the engine), and what an operation adds (text,
//! as the tenant).

use crate::lexical::LexicalChunk;
use docmill_model::{ChunkId, DocumentId, Failure, GenerationId, TenantId};
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
pub(super) async fn operations(
    database: &Database,
    tenant: TenantId,
    after: i64,
    limit: i64,
) -> Result<Vec<FeedOp>, DbError> {
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

/// The last number of one tenant's feed; 0 before the first.
pub(super) async fn head(database: &Database, tenant: TenantId) -> Result<i64, DbError> {
    let read = database.read(tenant, |connection| {
        Box::pin(async move {
            let seq = sqlx::query_scalar("SELECT seq FROM index_heads WHERE tenant_id = current_tenant()");
            Ok(seq.fetch_optional(connection).await?.unwrap_or(0))
        })
    });
    read.await
}

/// Chunks in the order of generation and ordinal: after a place, up to the end of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    after_generation: Uuid,
    after_ordinal: i32,
    last_generation: Uuid,
}

impl Stretch {
    /// One generation.
    pub fn of(generation: GenerationId) -> Self {
        Self { after_generation: generation.0, after_ordinal: -1, last_generation: generation.0 }
    }

    /// Every generation.
    pub fn everything() -> Self {
        Self { after_generation: Uuid::nil(), after_ordinal: -1, last_generation: Uuid::max() }
    }
}

/// The first chunks of a stretch that are visible or may become so, and what is left of it; `None` when nothing is.
/// Chunks never change, so that pages need no common snapshot.
pub(super) async fn chunks(
    database: &Database,
    tenant: TenantId,
    stretch: Stretch,
) -> Result<(Vec<LexicalChunk>, Option<Stretch>), DbError> {
    let read = database.read(tenant, move |connection| Box::pin(chunk_page(connection, stretch)));
    read.await
}

async fn chunk_page(
    connection: &mut PgConnection,
    stretch: Stretch,
) -> Result<(Vec<LexicalChunk>, Option<Stretch>), DbError> {
    let rows = sqlx::query(
        "SELECT c.generation_id, c.document_id, c.id, c.ordinal, c.text, c.heading_path, c.language, d.collection,
                coalesce(v.name, d.name) AS name, v.title
         FROM chunks c
         JOIN generations g ON g.tenant_id = c.tenant_id AND g.id = c.generation_id AND g.state <> 'retired'
         JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id
         JOIN document_versions v ON v.tenant_id = c.tenant_id AND v.id = g.version_id
         WHERE c.tenant_id = current_tenant() AND (c.generation_id, c.ordinal) > ($1, $2) AND c.generation_id <= $3
         ORDER BY c.generation_id, c.ordinal LIMIT $4",
    )
    .bind(stretch.after_generation)
    .bind(stretch.after_ordinal)
    .bind(stretch.last_generation)
    .bind(PAGE_CHUNKS)
    .fetch_all(connection)
    .await?;
    let left = match rows.last() {
        Some(last) if rows.len() as i64 == PAGE_CHUNKS => Some(Stretch {
            after_generation: last.try_get("generation_id")?,
            after_ordinal: last.try_get("ordinal")?,
            ..stretch
        }),
        _ => None,
    };
    Ok((rows.iter().map(chunk).collect::<Result<_, _>>()?, left))
}

fn chunk(row: &sqlx::postgres::PgRow) -> Result<LexicalChunk, sqlx::Error> {
    let mut headings: Vec<String> = row.try_get("heading_path")?;
    headings.extend(row.try_get::<Option<String>, _>("title")?);
    headings.push(row.try_get("name")?);
    headings.dedup();
    Ok(LexicalChunk {
        chunk_id: ChunkId(row.try_get("id")?),
        document_id: DocumentId(row.try_get("document_id")?),
        collection: row.try_get("collection")?,
        generation_id: GenerationId(row.try_get("generation_id")?),
        text: row.try_get("text")?,
        headings,
        language: row.try_get("language")?,
    })
}
