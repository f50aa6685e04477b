//! What models cost, in millionths of a US dollar for a million tokens. The committed table (`deploy/prices.json`) is a
//! start with a date; prices change, and whoever runs a deployment checks them and names a file of its own.

use docmill_model::{Code, Failure};
use std::collections::BTreeMap;

const COMMITTED: &str = include_str!("../../../../deploy/prices.json");
const PER_TOKENS: u64 = 1_000_000;

/// Micro-dollars for a million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Input tokens.
    pub input: u64,
    /// Input tokens the provider had cached.
    pub cached: u64,
    /// Output tokens.
    pub output: u64,
}

impl Price {
    /// Micro-dollars for a request, rounded up. `cached` tokens are part of `input`.
    #[must_use]
    pub fn cost(&self, input: u64, output: u64, cached: u64) -> u64 {
        let cached = cached.min(input);
        let parts = [(input - cached, self.input), (cached, self.cached), (output, self.output)];
        let sum = parts.iter().fold(0u64, |sum, (tokens, price)| sum.saturating_add(tokens.saturating_mul(*price)));
        sum.div_ceil(PER_TOKENS)
    }
}

/// Prices by `provider/model` or `model`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices(pub BTreeMap<String, Price>);

/// A table as it stands in a file.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// For whoever reads the file.
    #[serde(rename = "note")]
    _note: String,
    /// When the prices were looked up.
    #[serde(rename = "as_of")]
    _as_of: String,
    /// Prices in millionths of a US dollar for a million tokens.
    microusd_per_million_tokens: BTreeMap<String, Price>,
}

impl Prices {
    /// The committed table.
    #[must_use]
    pub fn committed() -> Self {
        Self::read(COMMITTED).unwrap_or_default()
    }

    /// The table in the text of a file.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with the place.
    pub fn read(text: &str) -> Result<Self, Failure> {
        let table: Result<Table, _> = serde_json::from_str(text);
        table
            .map(|table| Self(table.microusd_per_million_tokens))
            .map_err(|error| Failure::new(Code::ConfigInvalid, format!("the price table cannot be read: {error}")))
    }

    /// The price of a model, when it is known.
    #[must_use]
    pub fn of(&self, provider: &str, model: &str) -> Option<Price> {
        self.0.get(&format!("{provider}/{model}")).or_else(|| self.0.get(model)).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn costs_count_cached_tokens_once_and_round_up() {
        let price = Prices::committed().of("openai", "gpt-4o-mini").unwrap();
        assert_eq!(price.cost(1_000_000, 0, 0), 150_000);
        assert_eq!(price.cost(1_000_000, 1_000_000, 400_000), 90_000 + 30_000 + 600_000);
        assert_eq!(price.cost(1, 0, 0), 1);
        assert_eq!(price.cost(0, 0, 5), 0);
        assert_eq!(Prices::committed().of("local", "llama"), None);
    }
}
