//! Measures of a ranking or an answer against judgements, pure: the tests, the tuning and `docmill eval` share them.
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

/// The `share` quantile (0–1) of `values` by the nearest rank; 0 of nothing.
#[must_use]
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// The words of `text` as answers are compared: lower case, letters and digits only, scripts without spaces by character.
#[must_use]
pub fn answer_words(text: &str) -> Vec<String> {
    crate::lexical::analysis::analyse(text, None).words
}

/// True when the words of `gold` stand in `text` side by side.
#[must_use]
pub fn holds_answer(text: &str, gold: &str) -> bool {
    let (text, gold) = (answer_words(text), answer_words(gold));
    !gold.is_empty() && text.windows(gold.len()).any(|window| window == gold)
}

/// Harmonic mean of precision and recall of the words of `text` against those of `gold` (SQuAD's token F1).
#[must_use]
pub fn token_f1(text: &str, gold: &str) -> f64 {
    let (text, gold) = (answer_words(text), answer_words(gold));
    let mut left: HashMap<&str, usize> = HashMap::new();
    gold.iter().for_each(|word| *left.entry(word).or_default() += 1);
    let is_shared = |word: &&String| match left.get_mut(word.as_str()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    };
    let shared = text.iter().filter(is_shared).count() as f64;
    if shared == 0.0 { 0.0 } else { 2.0 * shared / (text.len() + gold.len()) as f64 }
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
    #[test]
    fn quantiles_are_values_that_occurred() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 0.0)), (2.0, 4.0, 1.0));
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn answers_are_compared_by_words() {
        assert!(holds_answer("It costs $3,500 a month.", "3500"));
        assert!(!holds_answer("It costs 35000 a month.", "3500"));
        assert!(holds_answer("北京是首都。", "首都"));
        assert!(!holds_answer("anything", "…"));
        assert!((token_f1("the red boat", "a red boat") - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(token_f1("blue", "red"), 0.0);
    }
}
