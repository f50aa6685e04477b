//! How long things are kept.

/// Retention in days; what is absent is kept until somebody deletes it. `document_days` counts from
/// the moment the newest version was accepted, `raw_days` from that of each version, `artifacts_days` from the end of the run.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// The uploaded bytes. Afterwards text, search and answers stay; reading the file again, and drawing its pages, does not.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "days")]
    #[schemars(range(min = 1, max = 36500))]
    #[schema(minimum = 1, maximum = 36500)]
    pub raw_days: Option<u32>,
    /// What stages handed each other and remembered, and the text of versions that no longer answer. A replay then starts
    /// from the file.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "days")]
    #[schemars(range(min = 1, max = 36500))]
    #[schema(minimum = 1, maximum = 36500)]
    pub artifacts_days: Option<u32>,
    /// The document with everything that came from it.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "days")]
    #[schemars(range(min = 1, max = 36500))]
    #[schema(minimum = 1, maximum = 36500)]
    pub document_days: Option<u32>,
}

/// Longest retention: a hundred years.
const MAX_DAYS: u32 = 36_500;

fn days<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let days: Option<u32> = serde::Deserialize::deserialize(deserializer)?;
    match days {
        Some(days) if !(1..=MAX_DAYS).contains(&days) => {
            Err(serde::de::Error::custom(format!("1 to {MAX_DAYS} days are expected, not {days}")))
        }
        days => Ok(days),
    }
}

impl Rules {
    /// Of each rule the shorter: a tenant may keep for less than a pipeline, never for longer.
    #[must_use]
    pub fn tighter(self, other: Rules) -> Rules {
        let shorter = |a: Option<u32>, b: Option<u32>| a.into_iter().chain(b).min();
        Rules {
            raw_days: shorter(self.raw_days, other.raw_days),
            artifacts_days: shorter(self.artifacts_days, other.artifacts_days),
            document_days: shorter(self.document_days, other.document_days),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_shorter_of_two_rules_holds() {
        let pipeline = Rules { raw_days: Some(30), document_days: Some(90), ..Rules::default() };
        let tenant = Rules { raw_days: Some(60), artifacts_days: Some(7), document_days: Some(10) };
        let both = Rules { raw_days: Some(30), artifacts_days: Some(7), document_days: Some(10) };
        assert_eq!((pipeline.tighter(tenant), tenant.tighter(pipeline)), (both, both));
    }

    #[test]
    fn days_have_bounds_and_other_keys_are_refused() {
        assert!(serde_json::from_str::<Rules>(r#"{"raw_days": 0}"#).is_err());
        assert!(serde_json::from_str::<Rules>(r#"{"raw_days": 36501}"#).is_err());
        assert!(serde_json::from_str::<Rules>(r#"{"raw": 3}"#).is_err());
        assert_eq!(serde_json::from_str::<Rules>("{}").unwrap(), Rules::default());
    }
}
