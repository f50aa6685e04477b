//! What a search may ask for besides its ranking: surroundings and freshness. Off unless asked for.

use docmill_model::{Code, Failure};

/// Most passages given before and after a hit.
pub const MAX_NEIGHBOURS: u32 = 3;
/// Fewest and most tokens of a section that is given around a hit.
pub const PARENT_TOKENS: std::ops::RangeInclusive<u32> = 50..=4_000;
/// Most of a score that age may take.
pub const MAX_FRESHNESS: f64 = 0.5;
/// Longest half-life, days.
const MAX_HALF_LIFE_DAYS: f64 = 36_500.0;
/// Longest name of a metadata field, bytes.
const MAX_FIELD_BYTES: usize = 200;

/// What is given of a hit's surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Expand {
    /// So many passages before and after it, 1–3 each.
    Neighbours(u32),
    /// The section it stands in: passages before and after it under the same heading, or under a heading below that one,
    /// nearest first until they hold this many tokens, 50–4,000, the hit's own not counted.
    Parent(u32),
}

impl Expand {
    pub(super) fn check(&self) -> Result<(), Failure> {
        let (name, measured, bounds) = match *self {
            Expand::Neighbours(count) => ("neighbours", count, 1..=MAX_NEIGHBOURS),
            Expand::Parent(tokens) => ("parent", tokens, PARENT_TOKENS),
        };
        if bounds.contains(&measured) {
            return Ok(());
        }
        let message = format!("expand.{name} must be between {} and {}", bounds.start(), bounds.end());
        Err(Failure::limit(Code::FieldInvalid, message, u64::from(*bounds.end()), u64::from(measured)))
    }
}

/// How age lowers a score: by at most `weight` of it, half of that after `half_life_days`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Freshness {
    /// Days after which half of `weight` is lost, above 0 to 36,500.
    pub half_life_days: f64,
    /// Share of the score that age can take in the end, above 0 to 0.5.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Metadata field with the document's date (`2026-03-01`, or RFC 3339). The time of its creation here counts when
    /// absent, and for documents without a date in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

fn default_weight() -> f64 {
    0.2
}

impl Freshness {
    pub(super) fn check(&self) -> Result<(), Failure> {
        let is_within = |number: f64, most: f64| number > 0.0 && number <= most;
        let is_named = self
            .field
            .as_ref()
            .is_none_or(|field| (1..=MAX_FIELD_BYTES).contains(&field.len()) && !field.contains('\0'));
        let wrong = if !is_within(self.half_life_days, MAX_HALF_LIFE_DAYS) {
            "freshness.half_life_days must be above 0 and at most 36500"
        } else if !is_within(self.weight, MAX_FRESHNESS) {
            "freshness.weight must be above 0 and at most 0.5"
        } else if !is_named {
            "freshness.field must name a metadata field in at most 200 bytes"
        } else {
            return Ok(());
        };
        Err(Failure::new(Code::FieldInvalid, wrong))
    }

    /// What a document of this age keeps of its score: 1 for a new one, `1 - weight` for one infinitely old.
    #[must_use]
    pub fn kept(&self, age_days: f64) -> f64 {
        let left = (-age_days.max(0.0) / self.half_life_days).exp2();
        1.0 - self.weight * (1.0 - left)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::wire::SearchRequest;
    use super::*;

    fn is_accepted(json: &str) -> bool {
        serde_json::from_str::<SearchRequest>(json).is_ok_and(|request| request.check().is_ok())
    }

    #[test]
    fn options_are_bounded_at_the_limit_and_one_past_it() {
        for (option, ok) in [
            (r#""expand": {"neighbours": 0}"#, false),
            (r#""expand": {"neighbours": 1}"#, true),
            (r#""expand": {"neighbours": 3}"#, true),
            (r#""expand": {"neighbours": 4}"#, false),
            (r#""expand": {"parent": 49}"#, false),
            (r#""expand": {"parent": 50}"#, true),
            (r#""expand": {"parent": 4000}"#, true),
            (r#""expand": {"parent": 4001}"#, false),
            (r#""expand": {"parent": 100, "neighbours": 1}"#, false),
            (r#""diversity": 0"#, true),
            (r#""diversity": 1"#, true),
            (r#""diversity": 1.01"#, false),
            (r#""diversity": -0.01"#, false),
            (r#""freshness": {"half_life_days": 30}"#, true),
            (r#""freshness": {"half_life_days": 0}"#, false),
            (r#""freshness": {"half_life_days": 36501}"#, false),
            (r#""freshness": {"half_life_days": 30, "weight": 0.5, "field": "date"}"#, true),
            (r#""freshness": {"half_life_days": 30, "weight": 0.51}"#, false),
            (r#""freshness": {"half_life_days": 30, "weight": 0}"#, false),
            (r#""freshness": {"half_life_days": 30, "field": ""}"#, false),
        ] {
            assert_eq!(is_accepted(&format!(r#"{{"query": "a", {option}}}"#)), ok, "{option}");
        }
    }

    #[test]
    fn age_takes_half_of_the_weight_in_a_half_life_and_never_more_than_the_weight() {
        let freshness = Freshness { half_life_days: 30.0, weight: 0.2, field: None };
        assert!((freshness.kept(30.0) - 0.9).abs() < 1e-12);
        assert_eq!((freshness.kept(0.0), freshness.kept(-5.0)), (1.0, 1.0), "a date in the future is new");
        assert!((freshness.kept(1e9) - 0.8).abs() < 1e-12);
    }
}
