//! How stages ask a model: through the gateway, by a registered prompt, for the job; and what they do without an answer.

use docmill_model::{Code, Failure, Sha256Hex};
use docmill_platform::gateway::prompts::Prompts;
use docmill_platform::gateway::{Completion, Gateway, ModelCall};
use docmill_runtime::{JobContext, StageError};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How long a job that waits for a provider waits before it asks again.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// Most output tokens of a call.
const MAX_OUTPUT_TOKENS: u32 = 4_096;

/// Who does the work of a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Docmill itself, without a model provider.
    #[default]
    Builtin,
    /// The models configured for the stage (`llm.uses`), where the document bears out what they say.
    Llm,
}

/// What happens when no model gives a usable answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// Docmill does the work itself.
    #[default]
    Builtin,
    /// The job waits until a model answers; an answer that is no use still leaves the work to Docmill.
    Wait,
}

/// The models of a stage.
#[derive(Clone)]
pub(crate) struct StageModels {
    pub gateway: Option<Arc<Gateway>>,
    pub prompts: Prompts,
}

impl StageModels {
    /// What makes results of these models differ: which models, and which versions of the prompt.
    pub fn fingerprint(&self, used_for: &str) -> String {
        let Some(gateway) = self.gateway.as_ref().filter(|gateway| gateway.serves(used_for)) else {
            return String::new();
        };
        format!("{} {}", gateway.models_of(used_for).join(" "), self.prompts.fingerprint(used_for))
    }

    /// The answer to the prompt named like its use, as JSON of `schema`.
    ///
    /// # Errors
    /// The gateway's; `PROVIDER_REFUSED` when no model is configured.
    pub async fn ask(
        &self,
        job: &JobContext,
        used_for: &'static str,
        values: &[(&str, &str)],
        schema: &Value,
    ) -> Result<(Completion, Value), Failure> {
        let none = || Failure::new(Code::ProviderRefused, "no model is configured for this stage");
        let gateway = self.gateway.as_ref().ok_or_else(none)?;
        let input = job.document_id.to_string();
        let prompt = self.prompts.choose(used_for, job.tenant_id, &input).await?;
        let (system, user, version) = (prompt.system(values), prompt.user(values), prompt.id());
        let call = ModelCall {
            prompt_version: Some(&version),
            documents: &[job.document_id],
            job: Some((job.job_id, job.fence, used_for)),
            max_output_tokens: MAX_OUTPUT_TOKENS,
            schema: Some(schema),
            ..ModelCall::new(job.tenant_id, used_for, &system, &user)
        };
        let done = gateway.complete(call).await?;
        let json = done.json.clone().unwrap_or_default();
        Ok((done, json))
    }
}

/// What a failed call means for the job: `Ok` leaves the work to Docmill.
///
/// # Errors
/// `BUDGET_EXCEEDED`, for which the job is held until the budget is raised, and failures of the database; a snooze when
/// the job is to wait for the provider.
pub(crate) fn without_model(failure: Failure, when_down: WhenDown) -> Result<Code, StageError> {
    match failure.code {
        Code::BudgetExceeded | Code::DatabaseUnavailable => Err(failure.into()),
        Code::ProviderError | Code::Overloaded if when_down == WhenDown::Wait => Err(StageError::Snooze(ASK_AGAIN)),
        code => {
            tracing::warn!(%code, "no usable answer of a model; the work is done without");
            metrics::counter!("docmill_stage_fallbacks_total", "code" => code.as_str()).increment(1);
            Ok(code)
        }
    }
}

/// A word that does not stand in `text`, because it is made from all of it.
pub(crate) fn marker(text: &str) -> String {
    Sha256Hex::of(format!("marker {text}").as_bytes()).as_str()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_hold_the_job_outages_wait_when_told_and_all_else_is_done_without() {
        let fails = |code, when_down| without_model(Failure::new(code, ""), when_down);
        assert!(matches!(fails(Code::BudgetExceeded, WhenDown::Builtin), Err(StageError::Failed(_))));
        assert!(matches!(fails(Code::ProviderError, WhenDown::Wait), Err(StageError::Snooze(_))));
        assert!(matches!(fails(Code::ProviderError, WhenDown::Builtin), Ok(Code::ProviderError)));
        assert!(matches!(fails(Code::ProviderOutputInvalid, WhenDown::Wait), Ok(Code::ProviderOutputInvalid)));
    }
}
