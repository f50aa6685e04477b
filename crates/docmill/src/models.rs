//! Settings become the gateway to model providers, its prompts, and what answers make of both.

use crate::assembly::Assembly;
use crate::config::{Config, LlmSettings, RolloutSettings};
use docmill_api::prompts::gate::RolloutGate;
use docmill_model::{Code, Failure};
use docmill_platform::database::Database;
use docmill_platform::gateway::prompts::{Prompt, Prompts};
use docmill_platform::gateway::{Gateway, GatewayConfig, ModelConfig, Prices};
use docmill_retrieval::answers::{ANSWERS, Generator, Models};
use docmill_retrieval::eval::Gate;
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The gateway, where a model is configured.
///
/// # Errors
/// `CONFIG_INVALID` naming the setting.
pub fn gateway(settings: &LlmSettings, database: &Database) -> Result<Option<Arc<Gateway>>, Failure> {
    let models = models(settings)?;
    if models.is_empty() {
        return Ok(None);
    }
    let mut config = GatewayConfig::new(models);
    config.uses = settings.uses.iter().map(|(name, own)| (name.clone(), own.0.clone())).collect();
    config.limits = settings.limits.clone();
    config.redactions.extend(settings.redactions.iter().cloned());
    config.try_timeout = settings.try_timeout;
    config.total_timeout = settings.total_timeout;
    config.stall_timeout = settings.stall_timeout;
    config.hedge_after = settings.hedge_after;
    config.tries = settings.tries;
    config.cache_for = settings.cache_for;
    if let Some(path) = &settings.prices {
        let invalid = |what: String| Failure::new(Code::ConfigInvalid, format!("llm.prices: {what}"));
        let text = std::fs::read_to_string(path).map_err(|error| invalid(format!("{}: {error}", path.display())))?;
        config.prices = Prices::read(&text).map_err(|failure| invalid(failure.message))?;
    }
    warn_of_patience(&config);
    Ok(Some(Arc::new(Gateway::new(config, database.clone())?)))
}

/// Warns when a request ends before its models were given up: the documents' own sentences would then come too late.
fn warn_of_patience(config: &GatewayConfig) {
    let own = |used_for: &str| config.uses.get(used_for).and_then(|own| own.total_timeout);
    let total: Duration = [ANSWERS, "rewrite"].iter().map(|name| own(name).unwrap_or(config.total_timeout)).sum();
    if total >= docmill_api::limits::REQUEST_TIMEOUT {
        tracing::warn!(
            secs = total.as_secs(),
            "llm.uses: answers and rewrite together wait longer for models than a request may take; only streams get such answers"
        );
    }
}

/// The listed models with their keys; the short form comes first.
fn models(settings: &LlmSettings) -> Result<Vec<ModelConfig>, Failure> {
    let mut models = settings.models.clone();
    for model in &mut models {
        let Some(variable) = &model.api_key_env else { continue };
        let key = std::env::var(variable).map_err(|_| {
            let message = format!("llm.models: {} wants its key in {variable}, which is not set", model.name());
            Failure::new(Code::ConfigInvalid, message)
        })?;
        model.api_key = Some(SecretString::from(key));
    }
    if let Some(base_url) = &settings.base_url {
        let model = Config::need(&settings.model, "DOCMILL_LLM_MODEL")?;
        models.insert(0, ModelConfig::new(&provider(base_url), base_url, settings.api_key.clone(), model));
    }
    Ok(models)
}

/// The provider's name in ledger and metrics: the host of its address.
fn provider(base_url: &str) -> String {
    let host = base_url.split("://").nth(1).unwrap_or(base_url);
    host.split(['/', ':']).next().unwrap_or(host).to_owned()
}

/// The prompts beside the pipeline files, registered; the built-in ones fill what a folder does not hold.
///
/// # Errors
/// `CONFIG_INVALID` for a file that is no prompt or a version that was changed; `DATABASE_UNAVAILABLE`.
pub async fn prompts(pipelines: &Path, database: &Database) -> Result<Prompts, Failure> {
    let mut files = Prompt::read_folder(&pipelines.join("prompts"))?;
    for prompt in Prompt::committed()? {
        if !files.iter().any(|file| file.name == prompt.name) {
            files.push(prompt);
        }
    }
    Prompts::register(database.clone(), files).await
}

/// Generated answers, where a model is configured for them.
pub fn generator(assembly: &Assembly) -> Option<Arc<dyn Generator>> {
    let gateway = assembly.gateway.clone()?;
    Some(Arc::new(Models::new(gateway, assembly.prompts.clone())))
}

/// What versions of `prompts` have to pass before they are rolled out.
///
/// # Errors
/// `CONFIG_INVALID` for a prompt that there is not, and for a condition that cannot be read or compares with an earlier
/// run: that is what `--against` and `--fail-if` of the evaluation itself are for.
pub fn rollout_gates(settings: &LlmSettings, prompts: &Prompts) -> Result<BTreeMap<String, RolloutGate>, Failure> {
    let names = prompts.names();
    let read = |(name, own): (&String, &RolloutSettings)| {
        let invalid = |what: &str| Failure::new(Code::ConfigInvalid, format!("llm.rollouts.{name}: {what}"));
        if !names.contains(name) {
            return Err(invalid(&format!("there is no such prompt, only {}", names.join(", "))));
        }
        let mut fail_if = Vec::with_capacity(own.fail_if.len());
        for text in &own.fail_if {
            let gate = Gate::parse(text).map_err(|failure| invalid(&failure.message))?;
            if gate.needs_baseline() {
                return Err(invalid(&format!("`{text}` compares with an earlier run; give it to the evaluation")));
            }
            fail_if.push(gate);
        }
        Ok((name.clone(), RolloutGate { evaluation: own.evaluation.clone(), fail_if }))
    };
    settings.rollouts.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn gates_of_rollouts_are_about_prompts_there_are_and_figures() {
        let prompts = Prompts::of_files(Prompt::committed().unwrap());
        let read = |name: &str, condition: &str| {
            let own = RolloutSettings { evaluation: "nightly".to_owned(), fail_if: vec![condition.to_owned()] };
            let settings = LlmSettings { rollouts: BTreeMap::from([(name.to_owned(), own)]), ..settings() };
            rollout_gates(&settings, &prompts)
        };
        let gates = read("answer", "faq.token_f1 < 0.5").unwrap();
        assert_eq!((gates["answer"].evaluation.as_str(), gates["answer"].fail_if.len()), ("nightly", 1));
        for (name, condition, expected) in [
            ("answers", "faq.token_f1 < 0.5", "only answer, extract, memory, rewrite, summarize"),
            ("answer", "faq.token_f1", "is no condition"),
            ("answer", "worse *", "compares with an earlier run"),
        ] {
            let failure = read(name, condition).unwrap_err();
            assert!(failure.code == Code::ConfigInvalid && failure.message.contains(expected), "{failure}");
        }
    }

    fn settings() -> LlmSettings {
        crate::config::load::load(None).unwrap().llm
    }
}
