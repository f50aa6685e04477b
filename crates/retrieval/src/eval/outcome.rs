//! What a suite says: measures with a score for every case, so that two runs can be compared case by case.
//!
//! Ids and numbers only: no question, no text of a document.

use super::measures::{mean, quantile};
use super::significance::{Comparison, paired_bootstrap};
use docmill_model::{Code, Failure, Sha256Hex};
use std::collections::BTreeMap;

/// Resamples of one comparison.
const DRAWS: u32 = 10_000;
/// Facts that tell the data a suite ran on; all others (model, engine) may change between two runs.
const DATA_FACTS: [&str; 10] = [
    "data",
    "split",
    "entries",
    "questions",
    "foreign_questions",
    "documents",
    "cases",
    "texts",
    "sentences",
    "schema",
];
/// A time counts as worse from this share on: machines differ more than that from hour to hour.
const SLOWER: f64 = 1.1;

/// One measure of one suite. Higher is better, but for what ends in `_ms`.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Measure {
    /// Its name within the suite, e.g. `hybrid.ndcg@10`.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// The score of every case by its id; empty where the figure is not made of cases (a high quantile).
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

    /// The `share` quantile of the cases' times; compared by their mean, as every measure is.
    #[must_use]
    pub fn quantile_of(name: impl Into<String>, share: f64, cases: BTreeMap<String, f64>) -> Self {
        let value = quantile(&cases.values().copied().collect::<Vec<_>>(), share);
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
    /// True when the measure fell, or a time rose by a tenth, and that is unlikely to be luck (one-sided p below 0.05).
    #[must_use]
    pub fn is_loss(&self) -> bool {
        let is_time = self.name.ends_with("_ms");
        let is_slower = self.after >= self.before * SLOWER;
        let is_worse = |difference: f64| if is_time { difference > 0.0 && is_slower } else { difference < 0.0 };
        self.paired.is_some_and(|paired| is_worse(paired.difference) && paired.p_value < 0.05)
    }
}

/// Identity of the data that a suite is run on: the fact `data`.
#[must_use]
pub fn fingerprint<'p>(parts: impl IntoIterator<Item = &'p str>) -> String {
    let join = |so_far: String, part: &str| {
        Sha256Hex::of(format!("{so_far}{}", Sha256Hex::of(part.as_bytes())).as_bytes()).to_string()
    };
    parts.into_iter().fold(String::new(), join)
}

/// Every measure of `after` that `before` has too.
///
/// # Errors
/// `CONFIG_INVALID` when `before` lacks a suite of `after`, was run on other data, or has a measure that is gone: a
/// comparison that leaves something out would pass for want of anything to look at.
pub fn compare(before: &[Outcome], after: &[Outcome]) -> Result<Vec<Change>, Failure> {
    let refused = |suite: &str, why: String| Failure::new(Code::ConfigInvalid, format!("suite {suite}: {why}"));
    let mut changes = Vec::new();
    for outcome in after {
        let earlier = before.iter().find(|earlier| earlier.suite == outcome.suite);
        let earlier = earlier.ok_or_else(|| refused(&outcome.suite, "the baseline does not have it".to_owned()))?;
        if let Some(fact) = DATA_FACTS.iter().find(|fact| differs(earlier, outcome, fact)) {
            return Err(refused(&outcome.suite, format!("the baseline was run on other data (`{fact}` differs)")));
        }
        if let Some(gone) = earlier.measures.iter().find(|measure| outcome.measure(&measure.name).is_none()) {
            return Err(refused(&outcome.suite, format!("{} of the baseline was not measured", gone.name)));
        }
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
    Ok(changes)
}

/// True when both runs state `fact`, and differently.
fn differs(before: &Outcome, after: &Outcome, fact: &str) -> bool {
    before.facts.get(fact).zip(after.facts.get(fact)).is_some_and(|(before, after)| before != after)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn outcome(shift: f64) -> Outcome {
        let cases = (0..100).map(|n| (n.to_string(), f64::from(n % 5) / 10.0 + shift)).collect();
        let times = (0..100).map(|n| (n.to_string(), 4.0 + f64::from(n % 3) - 100.0 * shift)).collect();
        let measures = vec![
            Measure::mean_of("ndcg", cases),
            Measure::quantile_of("p50_ms", 0.5, times),
            Measure::plain("p99_ms", 6.0),
        ];
        Outcome { suite: "s".to_owned(), kind: "retrieval".to_owned(), measures, ..Outcome::default() }
    }

    #[test]
    fn changes_pair_cases_and_tell_a_loss_from_a_gain() {
        let (before, worse) = ([outcome(0.0)], [outcome(-0.02)]);
        let changes = compare(&before, &worse).unwrap();
        assert_eq!(changes.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["s.ndcg", "s.p50_ms", "s.p99_ms"]);
        assert!(changes[0].is_loss() && (changes[0].after - changes[0].before + 0.02).abs() < 1e-9);
        assert!(changes[1].is_loss(), "a time that rose is a loss");
        assert!(changes[2].paired.is_none() && !changes[2].is_loss());
        assert!(compare(&worse, &before).unwrap().iter().all(|change| !change.is_loss()));
        assert!(compare(&before, &before).unwrap()[0].paired.unwrap().difference.abs() < 1e-12);
        let little = compare(&before, &[outcome(-0.001)]).unwrap();
        assert!(!little[1].is_loss(), "a time within a tenth is no loss");
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let with = |fact: &str, value: u32| {
            let facts = BTreeMap::from([(fact.to_owned(), value.into())]);
            [Outcome { facts, ..outcome(0.0) }]
        };
        let message = |before: &[Outcome], after: &[Outcome]| compare(before, after).unwrap_err().message;
        let other = Outcome { suite: "t".to_owned(), ..outcome(0.0) };
        assert!(message(&[outcome(0.0)], &[other]).contains("suite t"));
        assert!(message(&with("questions", 809), &with("questions", 200)).contains("questions"));
        assert!(compare(&with("embedder", 1), &with("embedder", 2)).is_ok(), "what is judged may change");
        let fewer = Outcome { measures: vec![Measure::plain("p99_ms", 6.0)], ..outcome(0.0) };
        assert!(message(&[outcome(0.0)], &[fewer]).contains("ndcg"));
        assert_ne!(fingerprint(["ab", "c"]), fingerprint(["a", "bc"]));
    }
}
