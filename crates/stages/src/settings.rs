//! Settings in range, refused where the pipeline file is read rather than where the stage runs.

use serde::de::{Deserialize, Deserializer, Error};

/// A number from `LEAST` to `MOST`.
pub(crate) fn within<'de, D, const LEAST: u32, const MOST: u32>(deserializer: D) -> Result<u32, D::Error>
where
    D: Deserializer<'de>,
{
    let value = u32::deserialize(deserializer)?;
    if !(LEAST..=MOST).contains(&value) {
        return Err(D::Error::custom(format!("{value} is out of range; it must be {LEAST} to {MOST}")));
    }
    Ok(value)
}
