//! Measures of a ranking against judgements, pure: the tests, the tuning and `docmill eval` share them.
//!
//! Definitions as in trec_eval: gain = relevance, discount = log2(rank + 1).

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Normalised discounted cumulative gain of the first `k` of `ranking`; 0 when nothing is relevant.
#[must_use]
pub fn ndcg<Id: Eq + Hash>(ranking: &[Id], relevance: &HashMap<Id, u32>, k: usize) -> f64 {
    let discount = |rank: usize| ((rank + 2) as f64).log2();
    let gained: f64 = (ranking.iter().take(k).enumerate())
        .map(|(rank, id)| f64::from(relevance.get(id).copied().unwrap_or(0)) / discount(rank))
        .sum();
    let mut ideal: Vec<u32> = relevance.values().copied().filter(|&grade| grade > 0).collect();
    ideal.sort_unstable_by(|a, b| b.cmp(a));
    let best: f64 = ideal.iter().take(k).enumerate().map(|(rank, &grade)| f64::from(grade) / discount(rank)).sum();
    if best > 0.0 { gained / best } else { 0.0 }
}

/// Share of the relevant ids within the first `k`; 0 when nothing is relevant.
#[must_use]
pub fn recall<Id: Eq + Hash>(ranking: &[Id], relevant: &HashSet<Id>, k: usize) -> f64 {
    if relevant.is_empty() {
        return 0.0;
    }
    let found = ranking.iter().take(k).filter(|id| relevant.contains(id)).collect::<HashSet<_>>().len();
    found as f64 / relevant.len() as f64
}

/// One over the rank of the first relevant id within the first `k`; 0 when there is none.
#[must_use]
pub fn reciprocal_rank<Id: Eq + Hash>(ranking: &[Id], relevant: &HashSet<Id>, k: usize) -> f64 {
    ranking.iter().take(k).position(|id| relevant.contains(id)).map_or(0.0, |rank| 1.0 / (rank + 1) as f64)
}

/// The mean; 0 of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_agree_with_hand_computed_values() {
        let relevance = HashMap::from([("a", 1), ("b", 1), ("c", 0)]);
        let relevant = HashSet::from(["a", "b"]);
        // Gains at ranks 1 and 3 over ideal ranks 1 and 2: (1 + 1/2) / (1 + 1/log2 3).
        let expected = 1.5 / (1.0 + 1.0 / 3f64.log2());
        assert!((ndcg(&["a", "c", "b"], &relevance, 10) - expected).abs() < 1e-12);
        assert!((ndcg(&["a", "b"], &relevance, 10) - 1.0).abs() < 1e-12);
        assert_eq!(ndcg(&["c"], &relevance, 10), 0.0);
        assert_eq!(recall(&["a", "c", "b"], &relevant, 2), 0.5);
        assert_eq!(recall(&["a", "a"], &relevant, 2), 0.5);
        assert_eq!(reciprocal_rank(&["c", "b"], &relevant, 10), 0.5);
        assert_eq!(reciprocal_rank(&["c", "b"], &relevant, 1), 0.0);
        assert_eq!(mean(&[1.0, 0.0]), 0.5);
        assert_eq!(mean(&[]), 0.0);
    }
}
