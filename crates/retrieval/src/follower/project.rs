//! One tenant's index brought up to its feed: replay after the number the last commit carries, or build anew.

use super::feed::{self, FeedOp, Stretch};
use crate::lexical::{LexicalChange, LexicalError, LexicalIndexes, LexicalWriter};
use docmill_model::{Failure, GenerationId, TenantId};
use docmill_platform::database::{Database, DbError};
use std::sync::Arc;

/// Operations of one commit, at most.
const BATCH_OPS: i64 = 500;

/// Why a tenant could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProjectError {
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] DbError),
    /// The index failed, also when built anew.
    #[error("the index failed")]
    Lexical(#[from] LexicalError),
}

impl From<ProjectError> for Failure {
    fn from(error: ProjectError) -> Self {
        match error {
            ProjectError::Database(error) => error.into(),
            ProjectError::Lexical(error) => error.into(),
        }
    }
}

/// Brings the tenant's index to the end of its feed, at least to `head`, and returns the number it has durably reached.
pub(super) async fn catch_up(
    database: &Database,
    lexical: &Arc<LexicalIndexes>,
    tenant: TenantId,
    head: i64,
) -> Result<i64, ProjectError> {
    match replay(database, lexical, tenant, head).await {
        Ok(Some(reached)) => Ok(reached),
        Ok(None) => rebuild(database, lexical, tenant).await,
        Err(ProjectError::Lexical(error)) => {
            tracing::warn!(%tenant, error = ?error, "a lexical index is unusable; building it again from the database");
            rebuild(database, lexical, tenant).await
        }
        Err(error) => Err(error),
    }
}

/// Replays the feed after the last commit; `None` when only building anew helps: there is no index, it was never
/// committed, the feed no longer holds what comes next, or the index is ahead of a database that was set back.
async fn replay(
    database: &Database,
    lexical: &Arc<LexicalIndexes>,
    tenant: TenantId,
    head: i64,
) -> Result<Option<i64>, ProjectError> {
    let Some(writer) = lexical.writer(tenant).await? else { return Ok(None) };
    let Some(mut reached) = writer.seq().await?.filter(|&reached| reached <= head) else { return Ok(None) };
    loop {
        let operations = feed::operations(database, tenant, reached, BATCH_OPS).await?;
        let Some(last) = operations.last() else { return Ok(Some(reached)) };
        if operations[0].seq != reached + 1 {
            return Ok(None);
        }
        for (generation, is_add) in final_operations(&operations) {
            apply(database, &writer, tenant, generation, is_add).await?;
        }
        reached = last.seq;
        database.failpoints().hit("index.before", "replay").await;
        writer.commit(reached).await?;
        database.failpoints().hit("index.after", "replay").await;
    }
}

/// What a batch leaves of each generation: its last operation, in the order of those.
fn final_operations(operations: &[FeedOp]) -> Vec<(GenerationId, bool)> {
    let mut seen = std::collections::HashSet::new();
    let mut out: Vec<(GenerationId, bool)> =
        operations.iter().rev().filter(|op| seen.insert(op.generation)).map(|op| (op.generation, op.is_add)).collect();
    out.reverse();
    out
}

/// A new index with every generation that is visible or may become so. What changes after the feed number was read is
/// replayed from there; repeating it does no harm.
pub(super) async fn rebuild(
    database: &Database,
    lexical: &Arc<LexicalIndexes>,
    tenant: TenantId,
) -> Result<i64, ProjectError> {
    let head = feed::head(database, tenant).await?;
    let writer = lexical.recreate(tenant).await?;
    add(database, &writer, tenant, Stretch::everything()).await?;
    database.failpoints().hit("index.before", "rebuild").await;
    writer.commit(head).await?;
    database.failpoints().hit("index.after", "rebuild").await;
    metrics::counter!("docmill_lexical_rebuilds_total").increment(1);
    tracing::info!(%tenant, seq = head, "lexical index built from the database");
    Ok(head)
}

/// Removes a generation, and adds its chunks as they stand in the database when it is an addition: safe to repeat.
async fn apply(
    database: &Database,
    writer: &LexicalWriter,
    tenant: TenantId,
    generation: GenerationId,
    is_add: bool,
) -> Result<(), ProjectError> {
    writer.apply(LexicalChange::Remove(generation)).await?;
    if is_add { add(database, writer, tenant, Stretch::of(generation)).await } else { Ok(()) }
}

async fn add(
    database: &Database,
    writer: &LexicalWriter,
    tenant: TenantId,
    stretch: Stretch,
) -> Result<(), ProjectError> {
    let mut rest = Some(stretch);
    while let Some(stretch) = rest {
        let (chunks, left) = feed::chunks(database, tenant, stretch).await?;
        writer.apply(LexicalChange::Add(chunks)).await?;
        rest = left;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_keeps_the_last_operation_of_each_generation_in_order() {
        let (a, b) = (GenerationId::fresh(), GenerationId::fresh());
        let op = |seq, is_add, generation| FeedOp { seq, is_add, generation };
        let batch = [op(1, true, a), op(2, true, b), op(3, false, a)];
        assert_eq!(final_operations(&batch), [(b, true), (a, false)]);
    }
}
