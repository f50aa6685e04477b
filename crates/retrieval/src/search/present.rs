//! From the fused ranking to hits: read, near-duplicates after the others, cut to `k`, and with what stands around each
//! where that was asked for.

use super::fusion::Fused;
use super::wire::{Context, Hit, SearchRequest};
use super::{rows, similar};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Candidates read beyond `k`, for near-duplicates to give their places to.
const SPARE: usize = 20;

/// The hits of `fused`, best first, at most `k` of the request. The ranking comes from this very snapshot.
pub(super) async fn present(
    connection: &mut PgConnection,
    mut fused: Vec<Fused>,
    request: &SearchRequest,
) -> Result<Vec<Hit>, sqlx::Error> {
    let k = request.k as usize;
    fused.truncate(k + SPARE);
    let hits = hydrate(connection, fused).await?;
    let mut shown = similar::distinct_first(hits.iter().map(|hit| hit.text.as_str()), k).into_iter().peekable();
    let is_shown = |(place, hit)| shown.next_if_eq(&place).map(|_| hit);
    let mut hits: Vec<Hit> = hits.into_iter().enumerate().filter_map(is_shown).collect();
    if let Some(expand) = request.expand {
        surround(connection, &mut hits, expand.neighbours).await?;
    }
    Ok(hits)
}

async fn hydrate(connection: &mut PgConnection, fused: Vec<Fused>) -> Result<Vec<Hit>, sqlx::Error> {
    let ids: Vec<Uuid> = fused.iter().map(|fused| fused.chunk_id.0).collect();
    let mut hits = rows::hits(connection, &ids).await?;
    let explanations: HashMap<_, _> = fused.into_iter().map(|fused| (fused.chunk_id, fused.explanation)).collect();
    for hit in &mut hits {
        let explanation = explanations.get(&hit.chunk_id).cloned().unwrap_or_default();
        hit.score = explanation.fused;
        hit.explanation = Some(explanation);
    }
    Ok(hits)
}

/// Gives every hit the passages of its version before and after it.
async fn surround(connection: &mut PgConnection, hits: &mut [Hit], neighbours: u32) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = hits.iter().map(|hit| hit.chunk_id.0).collect();
    let mut around: HashMap<Uuid, Context> = HashMap::new();
    for neighbour in rows::neighbours(connection, &ids, neighbours).await? {
        let context = around.entry(neighbour.of).or_default();
        let side = if neighbour.is_before { &mut context.before } else { &mut context.after };
        side.push(neighbour.text);
    }
    for hit in hits {
        hit.context = Some(around.remove(&hit.chunk_id.0).unwrap_or_default());
    }
    Ok(())
}
