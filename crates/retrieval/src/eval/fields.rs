//! Extracted fields against labelled values: precision, recall and F1 over all values, and per document.

use super::outcome::Measure;
use std::collections::BTreeMap;

/// Counts of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldCounts {
    /// Values that are labelled.
    pub right: usize,
    /// Values that were extracted, where the set labels any.
    pub found: usize,
    /// Labelled values.
    pub expected: usize,
}

impl FieldCounts {
    /// The counts of one field of one document. A set that labels no value for a document does not say that there is
    /// none: what is found there does not count.
    #[must_use]
    pub fn of(found: &[String], expected: &[String]) -> Self {
        let right = found.iter().filter(|value| expected.contains(value)).count();
        Self { right, found: if expected.is_empty() { 0 } else { found.len() }, expected: expected.len() }
    }

    /// Share of the found values that are right; 0 of none.
    #[must_use]
    pub fn precision(self) -> f64 {
        self.right as f64 / self.found.max(1) as f64
    }

    /// Share of the labelled values that were found; 0 of none.
    #[must_use]
    pub fn recall(self) -> f64 {
        self.right as f64 / self.expected.max(1) as f64
    }

    /// Harmonic mean of both; 0 of none.
    #[must_use]
    pub fn f1(self) -> f64 {
        2.0 * self.right as f64 / (self.found + self.expected).max(1) as f64
    }

    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.found += other.found;
        self.expected += other.expected;
    }
}

/// Counts of a whole set, by field and by document.
#[derive(Clone, Debug, Default)]
pub struct FieldScores {
    fields: BTreeMap<String, (FieldCounts, BTreeMap<String, FieldCounts>)>,
}

impl FieldScores {
    /// Counts one field of one document.
    pub fn count(&mut self, document: &str, field: &str, counts: FieldCounts) {
        let entry = self.fields.entry(field.to_owned()).or_default();
        entry.0.add(counts);
        entry.1.entry(document.to_owned()).or_default().add(counts);
    }

    /// Counts by field, in the order of their names.
    pub fn by_field(&self) -> impl Iterator<Item = (&str, FieldCounts)> {
        self.fields.iter().map(|(field, (counts, _))| (field.as_str(), *counts))
    }

    /// Counts over all fields.
    #[must_use]
    pub fn all(&self) -> FieldCounts {
        let mut all = FieldCounts::default();
        self.fields.values().for_each(|(counts, _)| all.add(*counts));
        all
    }

    /// `f1`, `precision` and `recall` over all values, and `FIELD.f1`; cases are documents with labelled values.
    #[must_use]
    pub fn measures(&self) -> Vec<Measure> {
        let mut documents: BTreeMap<String, FieldCounts> = BTreeMap::new();
        for (_, by_document) in self.fields.values() {
            by_document.iter().for_each(|(name, counts)| documents.entry(name.clone()).or_default().add(*counts));
        }
        let all = self.all();
        let mut measures = vec![
            Measure { name: "f1".to_owned(), value: all.f1(), cases: cases(&documents) },
            Measure::plain("precision", all.precision()),
            Measure::plain("recall", all.recall()),
        ];
        measures.extend(self.fields.iter().map(|(field, (counts, by_document))| Measure {
            name: format!("{field}.f1"),
            value: counts.f1(),
            cases: cases(by_document),
        }));
        measures
    }
}

fn cases(documents: &BTreeMap<String, FieldCounts>) -> BTreeMap<String, f64> {
    let labelled = documents.iter().filter(|(_, counts)| counts.expected > 0);
    labelled.map(|(name, counts)| (name.clone(), counts.f1())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn unlabelled_values_do_not_count_and_f1_is_over_all_values() {
        let mut scores = FieldScores::default();
        scores.count("a", "date", FieldCounts::of(&values(&["x"]), &values(&["x"])));
        scores.count("a", "party", FieldCounts::of(&values(&["p", "q"]), &values(&["p"])));
        scores.count("b", "date", FieldCounts::of(&values(&["y"]), &[]));
        scores.count("b", "party", FieldCounts::of(&[], &values(&["r"])));
        let all = scores.all();
        assert_eq!(all, FieldCounts { right: 2, found: 3, expected: 3 });
        let measures = scores.measures();
        assert_eq!(measures[0].cases, BTreeMap::from([("a".to_owned(), 0.8), ("b".to_owned(), 0.0)]));
        assert!((measures[0].value - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(
            measures.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(),
            ["f1", "precision", "recall", "date.f1", "party.f1"]
        );
    }
}
