//! What a suite says: measures with a score for every case, so that two runs can be compared case by case.
//!
//! Ids and numbers only: no question, no text of a document.

use super::measures::mean;
use super::significance::{Comparison, paired_bootstrap};
use std::collections::BTreeMap;

/// Resamples of one comparison.
const DRAWS: u32 = 10_000;

/// One measure of one suite. Higher is better, but for what ends in `_ms`.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Measure {
    /// Its name within the suite, e.g. `hybrid.ndcg@10`.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// The score of every case by its id; empty where the figure is not made of cases (latency).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cases: BTreeMap<String, f64>,
}

impl Measure {
    /// The mean of the cases' scores.
    #[must_use]
    pub fn mean_of(name: impl Into<String>, cases: BTreeMap<String, f64>) -> Self {
        let value = mean(&cases.values().copied().collect::<Vec<_>>());
        Self { name: name.into(), value, cases }
    }

    /// A figure that is not made of cases.
    #[must_use]
    pub fn plain(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, cases: BTreeMap::new() }
    }
}

/// What one suite says.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// Name of the suite.
    pub suite: String,
    /// What it judges: `retrieval`, `answers`, `extraction`, `summaries` or `injection`.
    pub kind: String,
    /// What it was run on: counts, model, engine.
    #[serde(default)]
    pub facts: BTreeMap<String, serde_json::Value>,
    /// The measures.
    pub measures: Vec<Measure>,
}

impl Outcome {
    /// The measure of that name.
    #[must_use]
    pub fn measure(&self, name: &str) -> Option<&Measure> {
        self.measures.iter().find(|measure| measure.name == name)
    }
}

/// A measure beside the same one of an earlier run.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Change {
    /// `suite.measure`.
    pub name: String,
    /// The figure before.
    pub before: f64,
    /// The figure now.
    pub after: f64,
    /// Over the cases both runs have; `None` when there are none.
    pub paired: Option<Comparison>,
}

impl Change {
    /// True when the measure fell and that is unlikely to be luck (one-sided p below 0.05).
    #[must_use]
    pub fn is_loss(&self) -> bool {
        self.paired.is_some_and(|paired| paired.difference < 0.0 && paired.p_value < 0.05)
    }
}

/// Every measure that both runs have.
#[must_use]
pub fn compare(before: &[Outcome], after: &[Outcome]) -> Vec<Change> {
    let mut changes = Vec::new();
    for outcome in after {
        let Some(earlier) = before.iter().find(|earlier| earlier.suite == outcome.suite) else { continue };
        for measure in &outcome.measures {
            let Some(old) = earlier.measure(&measure.name) else { continue };
            let shared: Vec<(f64, f64)> =
                measure.cases.iter().filter_map(|(id, now)| Some((*old.cases.get(id)?, *now))).collect();
            let (first, second): (Vec<f64>, Vec<f64>) = shared.into_iter().unzip();
            changes.push(Change {
                name: format!("{}.{}", outcome.suite, measure.name),
                before: old.value,
                after: measure.value,
                paired: paired_bootstrap(&first, &second, DRAWS),
            });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn outcome(shift: f64) -> Outcome {
        let cases = (0..100).map(|n| (n.to_string(), f64::from(n % 5) / 10.0 + shift)).collect();
        let measures = vec![Measure::mean_of("ndcg", cases), Measure::plain("p50_ms", 4.0)];
        Outcome { suite: "s".to_owned(), kind: "retrieval".to_owned(), measures, ..Outcome::default() }
    }

    #[test]
    fn changes_pair_cases_and_tell_a_loss_from_a_gain() {
        let (before, worse) = ([outcome(0.0)], [outcome(-0.02)]);
        let changes = compare(&before, &worse);
        assert_eq!(changes.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["s.ndcg", "s.p50_ms"]);
        assert!(changes[0].is_loss() && (changes[0].after - changes[0].before + 0.02).abs() < 1e-9);
        assert!(changes[1].paired.is_none() && !changes[1].is_loss());
        assert!(!compare(&worse, &before)[0].is_loss());
        assert!(compare(&before, &before)[0].paired.unwrap().difference.abs() < 1e-12);
        let other = Outcome { suite: "t".to_owned(), ..outcome(0.0) };
        assert!(compare(&before, &[other]).is_empty());
    }
}
