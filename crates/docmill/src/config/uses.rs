//! What differs for one use of models: a plain list of their names, or settings beside it.

use docmill_platform::gateway::UseConfig;
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use std::time::Duration;

/// The settings of one use; what is absent is as for every other.
#[derive(Clone, Debug, PartialEq)]
pub struct UseSettings(pub UseConfig);

/// The long form.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Long {
    models: Option<Vec<String>>,
    #[serde(with = "humantime_serde")]
    try_timeout: Option<Duration>,
    #[serde(with = "humantime_serde")]
    total_timeout: Option<Duration>,
    tries: Option<u32>,
    #[serde(with = "humantime_serde")]
    hedge_after: Option<Duration>,
    max_input_tokens: Option<u64>,
    max_output_tokens: Option<u32>,
}

impl From<Long> for UseSettings {
    fn from(long: Long) -> Self {
        Self(UseConfig {
            models: long.models,
            try_timeout: long.try_timeout,
            total_timeout: long.total_timeout,
            tries: long.tries,
            hedge_after: long.hedge_after,
            max_input_tokens: long.max_input_tokens,
            max_output_tokens: long.max_output_tokens,
        })
    }
}

/// Reads both forms.
struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = UseSettings;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of models or the settings of a use")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<UseSettings, A::Error> {
        let models = Vec::deserialize(SeqAccessDeserializer::new(list))?;
        Ok(UseSettings(UseConfig { models: Some(models), ..UseConfig::default() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<UseSettings, A::Error> {
        Long::deserialize(MapAccessDeserializer::new(map)).map(UseSettings::from)
    }
}

impl<'de> Deserialize<'de> for UseSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}
