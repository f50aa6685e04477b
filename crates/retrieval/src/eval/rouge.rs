//! ROUGE-1, -2 and -L as F1 against the best reference (Lin 2004), and coverage: the share of a reference's meaningful
//! words that a summary holds.

use crate::lexical::analysis::{analyse, is_stop_word};
use std::collections::{HashMap, HashSet};

/// Scores of one summary, 0–1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rouge {
    /// Single words.
    pub one: f64,
    /// Pairs of words.
    pub two: f64,
    /// Longest common subsequence.
    pub longest: f64,
    /// Share of the reference's distinct meaningful stems that occur.
    pub coverage: f64,
}

/// The scores of `summary`, each against the reference that suits it best.
#[must_use]
pub fn rouge(summary: &str, references: &[String]) -> Rouge {
    let (ours, own_stems) = (words(summary), stems(summary));
    let mut best = Rouge::default();
    for reference in references {
        let theirs = words(reference);
        best.one = best.one.max(grams(&ours, &theirs, 1));
        best.two = best.two.max(grams(&ours, &theirs, 2));
        best.longest = best.longest.max(longest(&ours, &theirs));
        let wanted = stems(reference);
        let held = wanted.iter().filter(|stem| own_stems.contains(*stem)).count();
        best.coverage = best.coverage.max(held as f64 / wanted.len().max(1) as f64);
    }
    best
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn stems(text: &str) -> HashSet<String> {
    let meaningful = words(text).into_iter().filter(|word| !is_stop_word(word, Some("eng")));
    meaningful.flat_map(|word| analyse(&word, Some("eng")).stems).collect()
}

fn f1(shared: usize, ours: usize, theirs: usize) -> f64 {
    if shared == 0 { 0.0 } else { 2.0 * shared as f64 / (ours + theirs) as f64 }
}

fn grams(ours: &[String], theirs: &[String], n: usize) -> f64 {
    let count = |words: &[String]| {
        let mut counts: HashMap<Vec<String>, usize> = HashMap::new();
        words.windows(n).for_each(|gram| *counts.entry(gram.to_vec()).or_default() += 1);
        counts
    };
    let (a, b) = (count(ours), count(theirs));
    let shared = a.iter().map(|(gram, times)| (*times).min(b.get(gram).copied().unwrap_or(0))).sum();
    f1(shared, (ours.len() + 1).saturating_sub(n), (theirs.len() + 1).saturating_sub(n))
}

fn longest(ours: &[String], theirs: &[String]) -> f64 {
    let mut previous = vec![0usize; theirs.len() + 1];
    for a in ours {
        let mut current = vec![0usize; theirs.len() + 1];
        for (at, b) in theirs.iter().enumerate() {
            current[at + 1] = if a == b { previous[at] + 1 } else { current[at].max(previous[at + 1]) };
        }
        previous = current;
    }
    f1(previous[theirs.len()], ours.len(), theirs.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_agree_with_hand_computed_values() {
        let scores = rouge("the cat sat down", &["a cat sat on the mat".to_owned(), "unrelated".to_owned()]);
        // Shared: the, cat, sat of 4 and 6 words; "cat sat" of 3 and 5 pairs; subsequence "cat sat"; cat, sat of cat, sat, mat.
        assert!((scores.one - 0.6).abs() < 1e-12 && (scores.two - 0.25).abs() < 1e-12, "{scores:?}");
        assert!((scores.longest - 0.4).abs() < 1e-12 && (scores.coverage - 2.0 / 3.0).abs() < 1e-12, "{scores:?}");
        assert_eq!(rouge("", &["a b".to_owned()]), Rouge::default());
        assert_eq!(rouge("x", &[]), Rouge::default());
    }
}
