//! The feed of the lexical index, and the count of what changed for searches: the one place that takes their numbers.
//!
//! They come from a counter row of the tenant, held until the commit, so that the feed is gapless and in the order of
//! commits: a follower never skips an entry that commits late. Whoever appends does it last in the transaction.

use crate::database::DbError;
use sqlx::PgConnection;
use uuid::Uuid;

/// What happened to a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Its chunks are to be found, as they stand now; also when they are found already under another name.
    Add,
    /// They are not.
    Remove,
}

/// Appends an entry for each generation in the caller's transaction, in their order; returns the number of the last, or
/// `None` without generations.
///
/// # Errors
/// The driver's error.
pub async fn append(connection: &mut PgConnection, op: Op, generations: &[Uuid]) -> Result<Option<i64>, DbError> {
    if generations.is_empty() {
        return Ok(None);
    }
    let count = generations.len() as i64;
    let head: i64 = sqlx::query_scalar(
        "INSERT INTO index_heads (tenant_id, seq, corpus) VALUES (current_tenant(), $1, 1)
         ON CONFLICT (tenant_id) DO UPDATE SET seq = index_heads.seq + $1, corpus = index_heads.corpus + 1 RETURNING seq",
    )
    .bind(count)
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO index_ops (tenant_id, seq, op, generation_id)
         SELECT current_tenant(), $1 + g.position, $3, g.id FROM unnest($2::uuid[]) WITH ORDINALITY AS g (id, position)",
    )
    .bind(head - count)
    .bind(generations)
    .bind(match op {
        Op::Add => "add",
        Op::Remove => "remove",
    })
    .execute(connection)
    .await?;
    Ok(Some(head))
}

/// Counts a change of what is visible that adds nothing to the feed: what was found before may not be what is found now.
/// Last in the transaction, as [`append`], which counts by itself.
///
/// # Errors
/// The driver's error.
pub async fn corpus_changed(connection: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO index_heads (tenant_id, corpus) VALUES (current_tenant(), 1)
         ON CONFLICT (tenant_id) DO UPDATE SET corpus = index_heads.corpus + 1",
    )
    .execute(connection)
    .await?;
    Ok(())
}
