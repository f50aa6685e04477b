//! What is asked of a model, and what comes back.

use super::Deltas;
use docmill_model::{ConversationId, DocumentId, JobId, TenantId};
use serde_json::Value;

/// One call.
#[derive(Clone, Debug)]
pub struct ModelCall<'a> {
    /// Who pays.
    pub tenant_id: TenantId,
    /// What the budget is counted by and the models are listed by: `answers`, `rewrite`, `extract`, `summarize`.
    pub feature: &'a str,
    /// What was asked for within the feature.
    pub task: &'a str,
    /// Version of the prompt, for ledger and cache.
    pub prompt_version: Option<&'a str>,
    /// The documents whose text is in it: deleting one forgets the remembered answer.
    pub documents: &'a [DocumentId],
    /// The conversation it belongs to.
    pub conversation: Option<ConversationId>,
    /// The job it is made for, with its fence, and the job's stage.
    pub job: Option<(JobId, i64, &'a str)>,
    /// System message.
    pub system: &'a str,
    /// User message.
    pub user: &'a str,
    /// Most output tokens.
    pub max_output_tokens: u32,
    /// False for a call whose answer is not remembered, because nothing would find it when it has to be forgotten.
    pub remember: bool,
    /// JSON Schema the answer must fit; one repair is tried.
    pub schema: Option<&'a Value>,
    /// Receives the answer while it is written. Once text was delivered a failure is final: no other try, no other model.
    pub deltas: Option<Deltas>,
}

impl<'a> ModelCall<'a> {
    /// A call of plain text with at most 2,048 output tokens; `task` is the feature.
    #[must_use]
    pub fn new(tenant_id: TenantId, feature: &'a str, system: &'a str, user: &'a str) -> Self {
        Self {
            tenant_id,
            feature,
            task: feature,
            prompt_version: None,
            documents: &[],
            conversation: None,
            job: None,
            system,
            user,
            max_output_tokens: 2048,
            remember: true,
            schema: None,
            deltas: None,
        }
    }

    pub(super) fn is_beyond_recall(&self) -> bool {
        self.deltas.as_ref().is_some_and(Deltas::has_started)
    }
}

/// What a model answered, whole.
#[derive(Clone, PartialEq)]
pub struct Completion {
    /// The text; never blank.
    pub text: String,
    /// The validated JSON, when a schema was given.
    pub json: Option<Value>,
    /// `provider/model` that answered.
    pub model: String,
    /// Input tokens of the answering request.
    pub tokens_in: u64,
    /// Output tokens of the answering request.
    pub tokens_out: u64,
    /// What the answering request cost; nothing for a remembered answer.
    pub cost_microusd: u64,
    /// True when the answer was remembered.
    pub is_cached: bool,
}

impl std::fmt::Debug for Completion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Completion")
            .field("model", &self.model)
            .field("chars", &self.text.chars().count())
            .finish_non_exhaustive()
    }
}
