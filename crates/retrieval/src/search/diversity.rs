//! Maximal marginal relevance: hits that differ from those before them. Pure.
//!
//! Carbonell, Goldstein, "The Use of MMR, Diversity-Based Reranking", SIGIR 1998. Passages are alike as their stemmed words
//! are (cosine of counts), which holds in every language, unlike the vectors of a model made for one.

use crate::lexical::analysis::analyse;
use std::collections::HashMap;

/// A candidate: its score, text and language.
pub(super) struct Candidate<'c> {
    pub score: f64,
    pub text: &'c str,
    pub language: Option<&'c str>,
}

/// Places of `candidates`, best first, in the order in which each next one is best by `1 - diversity` of its score less
/// `diversity` times its likeness to the nearest before it. Scores count from the worst candidate's to the best one's.
pub(super) fn order(candidates: &[Candidate<'_>], diversity: f64) -> Vec<usize> {
    let scores = || candidates.iter().map(|candidate| candidate.score);
    let (low, high) = (scores().fold(f64::MAX, f64::min), scores().fold(f64::MIN, f64::max));
    let worth: Vec<f64> = scores().map(|score| if high > low { (score - low) / (high - low) } else { 1.0 }).collect();
    let bags: Vec<Bag> = candidates.iter().map(Bag::of).collect();
    let mut nearest = vec![0.0_f64; candidates.len()];
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    let mut order = Vec::with_capacity(candidates.len());
    while !left.is_empty() {
        let value = |place: usize| (1.0 - diversity) * worth[place] - diversity * nearest[place];
        // Of equal ones the better ranked: `left` stays in the order of the ranking.
        let mut best = 0;
        for at in 1..left.len() {
            if !order.is_empty() && value(left[at]) > value(left[best]) {
                best = at;
            }
        }
        let chosen = left.remove(best);
        for &place in &left {
            nearest[place] = nearest[place].max(bags[place].cosine(&bags[chosen]));
        }
        order.push(chosen);
    }
    order
}

/// How often each stem occurs.
struct Bag {
    counts: HashMap<String, f64>,
    norm: f64,
}

impl Bag {
    fn of(candidate: &Candidate<'_>) -> Self {
        let mut counts: HashMap<String, f64> = HashMap::new();
        for stem in analyse(candidate.text, candidate.language).stems {
            *counts.entry(stem).or_default() += 1.0;
        }
        let norm = counts.values().map(|count| count * count).sum::<f64>().sqrt();
        Self { counts, norm }
    }

    fn cosine(&self, other: &Self) -> f64 {
        if self.norm == 0.0 || other.norm == 0.0 {
            return 0.0;
        }
        let shared = |(stem, count): (&String, &f64)| other.counts.get(stem).map_or(0.0, |theirs| count * theirs);
        self.counts.iter().map(shared).sum::<f64>() / (self.norm * other.norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(texts: &[(&str, f64)], diversity: f64) -> Vec<usize> {
        let candidate = |&(text, score): &(&'static str, f64)| Candidate { score, text, language: Some("eng") };
        let fixed: Vec<(&'static str, f64)> =
            texts.iter().map(|&(text, score)| (&*Box::leak(text.to_owned().into_boxed_str()), score)).collect();
        order(&fixed.iter().map(candidate).collect::<Vec<_>>(), diversity)
    }

    const HITS: [(&str, f64); 4] = [
        ("The pier is closed in winter", 1.0),
        ("In winter the pier is closing", 0.9),
        ("Ferries leave from the northern quay", 0.8),
        ("Harbour dues rise in March", 0.1),
    ];

    #[test]
    fn what_says_the_same_goes_behind_what_says_something_else() {
        assert_eq!(ordered(&HITS, 0.0), [0, 1, 2, 3], "no diversity is the ranking");
        assert_eq!(ordered(&HITS, 0.5), [0, 2, 1, 3], "some keeps a weak hit behind");
        assert_eq!(ordered(&HITS, 1.0), [0, 2, 3, 1], "all looks at difference alone, after the best");
    }

    #[test]
    fn nothing_one_and_equal_scores_are_ordered_too() {
        assert_eq!(ordered(&[], 0.5), [0; 0]);
        assert_eq!(ordered(&[("", 0.0)], 1.0), [0]);
        assert_eq!(ordered(&[("a", 0.3), ("b", 0.3), ("c", 0.3)], 0.5), [0, 1, 2]);
    }
}
