//! Prompts put to models through the gateway.

use super::generate::{Ask, Generated, Generator};
use docmill_model::Failure;
use docmill_platform::gateway::prompts::Prompts;
use docmill_platform::gateway::{Deltas, Gateway, ModelCall};
use std::sync::Arc;

/// The gateway with the prompts it is asked by.
pub struct Models {
    gateway: Arc<Gateway>,
    prompts: Prompts,
}

impl Models {
    /// Over both.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, prompts: Prompts) -> Self {
        Self { gateway, prompts }
    }
}

#[async_trait::async_trait]
impl Generator for Models {
    fn serves(&self, used_for: &str) -> bool {
        self.gateway.serves(used_for)
    }

    async fn instructions(&self, ask: &Ask<'_>) -> Result<String, Failure> {
        Ok(self.prompts.choose(ask.prompt, ask.tenant, ask.input).await?.system(ask.values))
    }

    async fn generate(&self, ask: Ask<'_>) -> Result<Generated, Failure> {
        let prompt = self.prompts.choose(ask.prompt, ask.tenant, ask.input).await?;
        let (system, user, version) = (prompt.system(ask.values), prompt.user(ask.values), prompt.id());
        let call = ModelCall {
            task: ask.prompt,
            prompt_version: Some(&version),
            documents: ask.documents.unwrap_or_default(),
            remember: ask.documents.is_some(),
            conversation: ask.conversation,
            max_output_tokens: ask.max_output_tokens,
            schema: ask.schema,
            deltas: ask.deltas.map(Deltas::new),
            ..ModelCall::new(ask.tenant, ask.used_for, &system, &user)
        };
        let done = self.gateway.complete(call).await?;
        Ok(Generated { text: done.text, engine: done.model, tokens_in: done.tokens_in, tokens_out: done.tokens_out })
    }
}
