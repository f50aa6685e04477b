//! Versions of prompts that an evaluation is made with, and what is kept of it for a rollout.
//!
//! A prompt that no call was made with was not judged, and where a model did not answer, the documents' own sentences were
//! judged instead: neither passes for an evaluation of the prompt.

use super::results::Results;
use crate::assembly::Assembly;
use docmill_model::{Code, Failure};
use docmill_platform::database::Database;
use docmill_platform::gateway::prompts::evaluations;
use docmill_retrieval::answers::{Ask, Generated, Generator, Models};
use docmill_retrieval::eval::{Measure, Outcome};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A version of a prompt: `NAME@VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    name: String,
    version: i32,
}

impl std::str::FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('@').filter(|(name, _)| !name.is_empty());
        let version = parts.and_then(|(_, version)| version.parse().ok()).filter(|version| *version >= 1);
        let (name, version) = parts.map(|(name, _)| name).zip(version).ok_or("NAME@VERSION is expected")?;
        Ok(Self { name: name.to_owned(), version })
    }
}

/// Calls of one prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Calls {
    all: usize,
    unanswered: usize,
}

/// The models with some prompts at given versions; counts the calls.
pub struct Pinned {
    models: Models,
    pins: Vec<Pin>,
    calls: Mutex<BTreeMap<String, Calls>>,
}

impl Pinned {
    /// With the versions `pins`.
    ///
    /// # Errors
    /// `CONFIG_INVALID` without a model, or for a prompt that is named twice; `FIELD_INVALID` for a version that is not
    /// registered.
    pub async fn new(assembly: &Assembly, pins: &[Pin]) -> Result<Arc<Self>, Failure> {
        let invalid = |what: String| Failure::new(Code::ConfigInvalid, what);
        let gateway = assembly.gateway.clone();
        let gateway =
            gateway.ok_or_else(|| invalid("--prompt needs a model (`llm.models`) to judge it with".into()))?;
        let mut prompts = assembly.prompts.clone();
        for (at, pin) in pins.iter().enumerate() {
            if pins[..at].iter().any(|earlier| earlier.name == pin.name) {
                return Err(invalid(format!("--prompt names {} twice", pin.name)));
            }
            prompts = prompts.pinned(&pin.name, pin.version).await?;
        }
        Ok(Arc::new(Self { models: Models::new(gateway, prompts), pins: pins.to_vec(), calls: Mutex::default() }))
    }

    /// The versions by name.
    pub fn versions(&self) -> BTreeMap<String, i32> {
        self.pins.iter().map(|pin| (pin.name.clone(), pin.version)).collect()
    }

    fn calls(&self, name: &str) -> Calls {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or_default()
    }

    /// What stands against `results` as an evaluation of the prompts, in words.
    ///
    /// # Errors
    /// `CONFIG_INVALID` for a prompt that no suite asked a model by.
    pub fn objections(&self) -> Result<Vec<String>, Failure> {
        let mut found = Vec::new();
        for pin in &self.pins {
            let calls = self.calls(&pin.name);
            if calls.all == 0 {
                let message =
                    format!("no suite of this file asks a model by the prompt {}, so none judges it", pin.name);
                return Err(Failure::new(Code::ConfigInvalid, message));
            }
            if calls.unanswered > 0 {
                let message = format!("the models did not answer {} of {} calls", calls.unanswered, calls.all);
                found.push(format!("{}@{}: {message}", pin.name, pin.version));
            }
        }
        Ok(found)
    }

    /// Keeps the figures of `results` with each version, where rollouts look for them.
    ///
    /// # Errors
    /// `DATABASE_UNAVAILABLE`.
    pub async fn record(&self, database: &Database, results: &Results) -> Result<(), Failure> {
        let suites = results.suites.iter().map(|outcome| Outcome {
            measures: outcome.measures.iter().map(|measure| Measure::plain(&measure.name, measure.value)).collect(),
            ..outcome.clone()
        });
        let suites = serde_json::json!(suites.collect::<Vec<_>>());
        for pin in &self.pins {
            evaluations::record(database, &pin.name, pin.version, &results.name, &suites, &results.failed).await?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Generator for Pinned {
    fn serves(&self, used_for: &str) -> bool {
        self.models.serves(used_for)
    }

    async fn instructions(&self, ask: &Ask<'_>) -> Result<String, Failure> {
        self.models.instructions(ask).await
    }

    async fn generate(&self, ask: Ask<'_>) -> Result<Generated, Failure> {
        let name = ask.prompt.to_owned();
        let generated = self.models.generate(ask).await;
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = calls.entry(name).or_default();
        counted.all += 1;
        counted.unanswered += usize::from(generated.is_err());
        generated
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_version_is_written_as_name_and_number() {
        let pin = "answer@12".parse::<Pin>().unwrap();
        assert_eq!((pin.name.as_str(), pin.version), ("answer", 12));
        for bad in ["", "answer", "@1", "answer@", "answer@0", "answer@-1", "answer@two", "answer@1@2"] {
            assert!(bad.parse::<Pin>().is_err(), "{bad}");
        }
    }
}
