//! From the fused ranking to hits: read, near-duplicates after the others, spread where that was asked for, cut to `k`, and
//! with copies and surroundings where those were asked for.

use super::fusion::Fused;
use super::scope::SearchScope;
use super::wire::{Copy, Hit, SearchRequest};
use super::{around, copies, diversity, rows, similar};
use docmill_model::ChunkId;
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Candidates looked at beyond `k`, for near-duplicates to give their places to; and those read at once, as there are few.
const SPARE: usize = 20;
const READ_SPARE: usize = 2;
/// Candidates read for each hit that are spread, and at least.
const SPREAD: (usize, usize) = (3, 50);

/// The hits of `fused`, best first, at most `k` of the request. The ranking comes from this very snapshot, and from `scope`.
pub(super) async fn present(
    connection: &mut PgConnection,
    mut fused: Vec<Fused>,
    request: &SearchRequest,
    scope: &SearchScope,
) -> Result<Vec<Hit>, sqlx::Error> {
    let k = request.k as usize;
    fused.truncate(width(request));
    let at_once = if is_spread(request) { fused.len() } else { fused.len().min(k + READ_SPARE) };
    let spare = fused.split_off(at_once);
    let mut candidates = hydrate(connection, fused).await?;
    if is_spread(request) {
        candidates = spread(candidates, request.diversity);
    }
    let chosen = |candidates: &[Hit]| similar::distinct_first(candidates.iter().map(|hit| hit.text.as_str()), k);
    let mut choice = chosen(&candidates);
    if choice.distinct < k && !spare.is_empty() {
        candidates.extend(hydrate(connection, spare).await?);
        choice = chosen(&candidates);
    }
    let near = if request.copies { near(&candidates, &choice.left_out) } else { HashMap::new() };
    let mut shown = choice.shown.into_iter().peekable();
    let is_shown = |(place, hit)| shown.next_if_eq(&place).map(|_| hit);
    let mut hits: Vec<Hit> = candidates.into_iter().enumerate().filter_map(is_shown).collect();
    if request.copies {
        copies::tell(connection, scope, &mut hits, near).await?;
    }
    if let Some(expand) = request.expand {
        around::surround(connection, &mut hits, expand).await?;
    }
    Ok(hits)
}

/// How many of a ranking are looked at for the hits of `request`.
pub(super) fn width(request: &SearchRequest) -> usize {
    let k = request.k as usize;
    if is_spread(request) { (k * SPREAD.0).max(SPREAD.1) } else { k + SPARE }
}

fn is_spread(request: &SearchRequest) -> bool {
    request.diversity > 0.0
}

async fn hydrate(connection: &mut PgConnection, fused: Vec<Fused>) -> Result<Vec<Hit>, sqlx::Error> {
    let ids: Vec<Uuid> = fused.iter().map(|fused| fused.chunk_id.0).collect();
    let mut hits = rows::hits(connection, &ids).await?;
    let mut scored: HashMap<_, _> = fused.into_iter().map(|fused| (fused.chunk_id, fused)).collect();
    for hit in &mut hits {
        if let Some(fused) = scored.remove(&hit.chunk_id) {
            hit.score = fused.score;
            hit.explanation = Some(fused.explanation);
        }
    }
    Ok(hits)
}

/// `hits` in the order of their marginal relevance.
fn spread(hits: Vec<Hit>, diversity: f64) -> Vec<Hit> {
    let mut candidates = Vec::with_capacity(hits.len());
    for Hit { score, text, language, .. } in &hits {
        candidates.push(diversity::Candidate { score: *score, text, language: language.as_deref() });
    }
    let order = diversity::order(&candidates, diversity);
    let mut hits: Vec<Option<Hit>> = hits.into_iter().map(Some).collect();
    order.into_iter().filter_map(|place| hits[place].take()).collect()
}

/// The near-duplicates that are left out, by the chunk they repeat.
fn near(candidates: &[Hit], left_out: &[(usize, usize)]) -> HashMap<ChunkId, Vec<Copy>> {
    let mut near: HashMap<ChunkId, Vec<Copy>> = HashMap::new();
    for &(copy, original) in left_out {
        near.entry(candidates[original].chunk_id).or_default().push(copies::near(&candidates[copy]));
    }
    near
}
