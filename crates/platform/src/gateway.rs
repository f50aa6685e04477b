//! The one path to model providers.
//!
//! What it promises: every request to a provider, failed or not, has a ledger row that was written before the request
//! was sent; a tenant's hard budget is never passed, not by calls that run at once either; configured secrets do not
//! leave; an answer is whole, or it is a typed failure. Models are tried in the configured order, each with retries that
//! honour `Retry-After` and a breaker of its own. Speaks OpenAI's chat completions, as most servers do. Not here:
//! prompts, and what an answer means.

mod answer;
mod breaker;
mod config;
mod ledger;
mod prices;
mod provider;
mod redaction;
mod structured;

pub use config::{GatewayConfig, JsonMode, ModelConfig};
pub use prices::{Price, Prices};
pub use redaction::Redaction;

use crate::database::Database;
use answer::{Again, Reply};
use breaker::Breaker;
use docmill_model::{Code, DocumentId, Failure, JobId, TenantId};
use ledger::Entry;
use provider::{Message, Provider, Wanted};
use redaction::Redactor;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use structured::Schema;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// One call.
#[derive(Clone, Debug)]
pub struct ModelCall<'a> {
    /// Who pays.
    pub tenant_id: TenantId,
    /// What the budget is counted by: `answers`, `extract`, `summarize`, …
    pub feature: &'a str,
    /// What was asked for within the feature.
    pub task: &'a str,
    /// Version of the prompt, for the ledger.
    pub prompt_version: Option<&'a str>,
    /// The document it is about.
    pub document_id: Option<DocumentId>,
    /// The job it is made for, with its fence.
    pub job: Option<(JobId, i64)>,
    /// System message.
    pub system: &'a str,
    /// User message.
    pub user: &'a str,
    /// Most output tokens.
    pub max_output_tokens: u32,
    /// JSON Schema the answer must fit; one repair is tried.
    pub schema: Option<&'a Value>,
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
            document_id: None,
            job: None,
            system,
            user,
            max_output_tokens: 2048,
            schema: None,
        }
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
    /// What the answering request cost.
    pub cost_microusd: u64,
}

impl std::fmt::Debug for Completion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Completion")
            .field("model", &self.model)
            .field("chars", &self.text.chars().count())
            .finish_non_exhaustive()
    }
}

/// One configured model with its state.
struct Model {
    provider: Provider,
    name: String,
    price: Price,
    breaker: Breaker,
}

/// The gateway.
pub struct Gateway {
    models: Vec<Arc<Model>>,
    database: Database,
    redactor: Redactor,
    slots: Semaphore,
    config: GatewayConfig,
}

impl Gateway {
    /// A gateway over the configured models; makes no request.
    ///
    /// # Errors
    /// `CONFIG_INVALID` without models, for an unreadable URL or pattern, or when TLS cannot be set up.
    pub fn new(config: GatewayConfig, database: Database) -> Result<Self, Failure> {
        if config.models.is_empty() {
            return Err(Failure::new(Code::ConfigInvalid, "no model is configured for the gateway"));
        }
        let client = crate::http::client(|builder| builder.connect_timeout(Duration::from_secs(5)))?;
        let model = |model: &ModelConfig| {
            let name = format!("{}/{}", model.provider, model.model);
            let price = config.prices.of(&model.provider, &model.model);
            if price.is_none() {
                tracing::warn!(model = name, "no price is known for this model; its calls count as free");
            }
            let provider = Provider::new(model, client.clone(), config.max_response_bytes)?;
            Ok(Arc::new(Model { provider, name, price: price.unwrap_or_default(), breaker: Breaker::default() }))
        };
        Ok(Self {
            models: config.models.iter().map(model).collect::<Result<_, Failure>>()?,
            database,
            redactor: Redactor::new(&config.redactions)?,
            slots: Semaphore::new(config.concurrency.max(1)),
            config,
        })
    }

    /// `provider/model` of the preferred model.
    #[must_use]
    pub fn engine(&self) -> String {
        self.models.first().map(|model| model.name.clone()).unwrap_or_default()
    }

    /// A whole answer from the first model that gives one.
    ///
    /// # Errors
    /// `BUDGET_EXCEEDED`; `OUTPUT_LIMIT` when the answer does not fit the tokens or bytes allowed; `PROVIDER_REFUSED`;
    /// `PROVIDER_OUTPUT_INVALID` when it does not fit the schema after one repair; `PROVIDER_ERROR` when no model
    /// answered in time; `OVERLOADED` when none was free to ask; `SCHEMA_INVALID`; `DATABASE_UNAVAILABLE`.
    pub async fn complete(&self, call: ModelCall<'_>) -> Result<Completion, Failure> {
        let deadline = Instant::now() + self.config.total_timeout;
        let schema = call.schema.map(Schema::compile).transpose()?;
        let Ok(Ok(_slot)) = timeout_at(deadline, self.slots.acquire()).await else {
            return Err(Failure::new(Code::Overloaded, "too many calls to model providers are under way"));
        };
        let mut last = no_answer();
        for model in &self.models {
            match self.ask(model, &call, schema.as_ref(), deadline).await {
                Ok(completion) => return Ok(completion),
                Err(failure) if is_ours(failure.code) => return Err(failure),
                Err(failure) => {
                    tracing::warn!(model = model.name, code = %failure.code, "a model gave no usable answer");
                    last = failure;
                }
            }
        }
        Err(last)
    }

    /// An answer of one model: with a schema it is validated, and the model is told once what is wrong.
    async fn ask(
        &self,
        model: &Arc<Model>,
        call: &ModelCall<'_>,
        schema: Option<&Schema>,
        deadline: Instant,
    ) -> Result<Completion, Failure> {
        let system = model.provider.system_message(call.system, call.schema);
        let mut messages =
            vec![Message::system(self.redactor.clean(&system)), Message::user(self.redactor.clean(call.user))];
        let reply = self.try_often(model, call, &messages, schema, deadline).await?;
        let Some(schema) = schema else { return Ok(completion(model, reply, None)) };
        let problems = match schema.read(&reply.text) {
            Ok(json) => return Ok(completion(model, reply, Some(json))),
            Err(problems) => problems,
        };
        messages.push(Message::assistant(reply.text));
        messages.push(Message::user(structured::repair(&problems)));
        let reply = self.try_often(model, call, &messages, Some(schema), deadline).await?;
        match schema.read(&reply.text) {
            Ok(json) => Ok(completion(model, reply, Some(json))),
            Err(_) => Err(Failure::new(
                Code::ProviderOutputInvalid,
                "the model's answer does not fit its schema, also after a repair",
            )),
        }
    }

    /// One reply of one model, after as many tries as are allowed and worth it.
    async fn try_often(
        &self,
        model: &Arc<Model>,
        call: &ModelCall<'_>,
        messages: &[Message],
        schema: Option<&Schema>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let mut last = no_answer();
        for attempt in 0..self.config.tries.max(1) {
            if !model.breaker.admits(Instant::now()) {
                return Err(Failure::new(
                    Code::ProviderError,
                    "the model provider failed repeatedly and is left alone for a moment",
                ));
            }
            let (failure, again) = match self.try_once(model, call, messages, schema, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => failed,
            };
            last = failure;
            let wait = match again {
                Again::Never => break,
                Again::After(wait) => wait,
                Again::Soon => jittered(self.config.backoff, attempt),
            };
            let is_last = attempt + 1 >= self.config.tries;
            if is_last || Instant::now() + wait >= deadline {
                break;
            }
            tokio::time::sleep(wait).await;
        }
        Err(last)
    }

    /// One request, between its ledger row's opening and closing. It runs in a task of its own: a caller that goes away
    /// leaves no row open.
    async fn try_once(
        &self,
        model: &Arc<Model>,
        call: &ModelCall<'_>,
        messages: &[Message],
        schema: Option<&Schema>,
        deadline: Instant,
    ) -> Result<Reply, (Failure, Again)> {
        let limit = call.max_output_tokens.min(self.config.max_output_tokens).max(1);
        let wanted = Wanted { messages: messages.to_vec(), max_output_tokens: limit, schema: call.schema.cloned() };
        let reserved = model.price.cost(wanted.estimated_tokens(), u64::from(limit), 0);
        let entry = Entry::of(call, model.provider.name(), model.provider.model(), reserved);
        let until = deadline.min(Instant::now() + self.config.try_timeout);
        let (asked, database, schema) = (Arc::clone(model), self.database.clone(), schema.cloned());
        let work = async move {
            let model = asked;
            let row = ledger::open(&database, entry).await.map_err(|failure| {
                model.breaker.released();
                (failure, Again::Never)
            })?;
            let started = Instant::now();
            let sent =
                timeout_at(until, model.provider.send(&wanted)).await.unwrap_or_else(|_| Err(answer::timed_out()));
            let closing = ledger::Closing::of(&sent, &model.price, reserved, started.elapsed(), schema.as_ref());
            match &sent {
                Ok(_) => model.breaker.succeeded(),
                Err(fault) if fault.counts => model.breaker.failed(Instant::now()),
                Err(_) => model.breaker.released(),
            }
            metrics::counter!("docmill_model_calls_total", "model" => model.name.clone(), "outcome" => closing.outcome)
                .increment(1);
            metrics::histogram!("docmill_model_call_seconds", "model" => model.name.clone())
                .record(started.elapsed().as_secs_f64());
            ledger::close(&database, row, closing).await;
            sent.map_err(|fault| (*fault.failure, fault.again))
        };
        tokio::spawn(work).await.unwrap_or_else(|_| {
            model.breaker.released();
            Err((no_answer(), Again::Never))
        })
    }
}

fn completion(model: &Model, reply: Reply, json: Option<Value>) -> Completion {
    Completion {
        json,
        model: model.name.clone(),
        tokens_in: reply.usage.input,
        tokens_out: reply.usage.output,
        cost_microusd: model.price.cost(reply.usage.input, reply.usage.output, reply.usage.cached),
        text: reply.text,
    }
}

/// Failures that another model would have as well.
fn is_ours(code: Code) -> bool {
    matches!(code, Code::BudgetExceeded | Code::DatabaseUnavailable | Code::Internal | Code::SchemaInvalid)
}

fn no_answer() -> Failure {
    Failure::new(Code::ProviderError, "no model provider gave an answer in time")
}

/// Between half and all of the doubled delay.
fn jittered(backoff: Duration, attempt: u32) -> Duration {
    backoff.saturating_mul(1 << attempt.min(6)).mul_f64(rand::random_range(0.5..1.0))
}
