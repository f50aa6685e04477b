//! The one path to model providers.
//!
//! What it promises: every request to a provider, failed or not, has a ledger row that was written before the request
//! was sent; a tenant's hard budget is never passed, not by calls that run at once either; configured secrets do not
//! leave; an answer is whole, or it is a typed failure. The models of a use are tried in the configured order, each with
//! retries that honour `Retry-After`, a breaker of its own and the limits of its provider; deterministic answers are
//! remembered. Not here: what an answer means. The prompts have their registry in [`prompts`].

mod answer;
mod breaker;
mod cache;
mod call;
mod config;
mod ledger;
mod limits;
mod prices;
pub mod prompts;
mod provider;
mod redaction;
mod structured;
mod tries;

pub use call::{Completion, ModelCall};
pub use config::{BUILT_IN, Dialect, GatewayConfig, JsonMode, ModelConfig, ProviderLimits, UseConfig};
pub use prices::{Price, Prices};
pub use provider::Deltas;
pub use redaction::Redaction;

use crate::database::Database;
use breaker::Breaker;
use docmill_model::{Code, Failure};
use futures::future::{Either, select};
use limits::Limiter;
use provider::{Bounds, Provider};
use redaction::Redactor;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use structured::Schema;
use tokio::time::{Instant, timeout};

/// One configured model with its state.
struct Model {
    provider: Provider,
    name: String,
    /// `None` when the table does not name it.
    price: Option<Price>,
    breaker: Breaker,
    limiter: Arc<Limiter>,
}

impl Model {
    fn price(&self) -> Price {
        self.price.unwrap_or_default()
    }
}

/// The gateway.
pub struct Gateway {
    models: Vec<Arc<Model>>,
    database: Database,
    redactor: Redactor,
    config: GatewayConfig,
}

impl Gateway {
    /// A gateway over the configured models; makes no request.
    ///
    /// # Errors
    /// `CONFIG_INVALID` without models, for an unreadable URL or pattern, for a use that names a model which is not
    /// there, or when TLS cannot be set up.
    pub fn new(config: GatewayConfig, database: Database) -> Result<Self, Failure> {
        if config.models.is_empty() {
            return Err(Failure::new(Code::ConfigInvalid, "no model is configured for the gateway"));
        }
        let names: Vec<String> = config.models.iter().map(ModelConfig::name).collect();
        for (used_for, own) in &config.uses {
            let mut listed = own.models.iter().flatten();
            if let Some(unknown) = listed.find(|name| *name != BUILT_IN && !names.contains(name)) {
                let message = format!("`llm.uses.{used_for}` names `{unknown}`, which is not in `llm.models`");
                return Err(Failure::new(Code::ConfigInvalid, message));
            }
        }
        let client = crate::http::client(|builder| builder.connect_timeout(Duration::from_secs(5)))?;
        let bounds = Bounds { max_response_bytes: config.max_response_bytes, stall: config.stall_timeout };
        let mut limiters: BTreeMap<&str, Arc<Limiter>> = BTreeMap::new();
        let mut models = Vec::with_capacity(config.models.len());
        for model in &config.models {
            let limits = config.limits.get(&model.provider).copied().unwrap_or_default();
            let limiter = limiters.entry(&model.provider).or_insert_with(|| Arc::new(Limiter::new(limits)));
            let (name, price) = (model.name(), config.prices.of(&model.provider, &model.model));
            if price.is_none() {
                tracing::warn!(
                    model = name,
                    "no price is known for this model; its calls count as free, and under a hard budget it is not asked"
                );
            }
            models.push(Arc::new(Model {
                provider: Provider::new(model, client.clone(), bounds)?,
                name,
                price,
                breaker: Breaker::default(),
                limiter: Arc::clone(limiter),
            }));
        }
        Ok(Self { models, database, redactor: Redactor::new(&config.redactions)?, config })
    }

    /// The models of a use, in order; a list ends at [`BUILT_IN`].
    fn models_for(&self, used_for: &str) -> Vec<Arc<Model>> {
        let own = self.config.uses.get(used_for).and_then(|own| own.models.as_ref());
        let Some(listed) = own else { return self.models.clone() };
        let named = |name: &String| self.models.iter().find(|model| model.name == *name).cloned();
        listed.iter().take_while(|name| *name != BUILT_IN).filter_map(named).collect()
    }

    /// True when a model is configured for this use.
    #[must_use]
    pub fn serves(&self, used_for: &str) -> bool {
        !self.models_for(used_for).is_empty()
    }

    /// Names of the models of a use, in order; part of what makes two results differ.
    #[must_use]
    pub fn models_of(&self, used_for: &str) -> Vec<String> {
        self.models_for(used_for).iter().map(|model| model.name.clone()).collect()
    }

    /// A whole answer from the first model of the call's use that gives one.
    ///
    /// # Errors
    /// `BUDGET_EXCEEDED`; `PRICE_UNKNOWN` under a hard budget; `OUTPUT_LIMIT` when the answer does not fit the tokens or bytes allowed; `PROVIDER_REFUSED`, also
    /// for a prompt that is too long for every model and for a use without models; `PROVIDER_OUTPUT_INVALID` when it does
    /// not fit the schema after one repair; `PROVIDER_ERROR` when no model answered in time, or a streamed answer broke
    /// off; `OVERLOADED` when none was free to ask; `SCHEMA_INVALID`; `DATABASE_UNAVAILABLE`.
    pub async fn complete(&self, call: ModelCall<'_>) -> Result<Completion, Failure> {
        let bounds = self.config.bounds_of(call.feature);
        let deadline = Instant::now() + bounds.total_timeout;
        let schema = call.schema.map(Schema::compile).transpose()?;
        let models = self.models_for(call.feature);
        let mut rest = models.as_slice();
        let mut last = Failure::new(Code::ProviderRefused, "no model is configured for this use");
        while let [model, after @ ..] = rest {
            rest = after;
            let asked = match (bounds.hedge_after, after) {
                (Some(patience), [second, others @ ..]) if call.deltas.is_none() => {
                    let (asked, is_hedged) =
                        self.hedged(model, second, patience, &call, schema.as_ref(), deadline).await;
                    if is_hedged {
                        rest = others;
                    }
                    asked
                }
                _ => self.ask(model, &call, schema.as_ref(), deadline).await,
            };
            match asked {
                Ok(completion) => return Ok(completion),
                Err(failure) if is_ours(failure.code) || call.is_beyond_recall() => return Err(failure),
                Err(failure) => {
                    tracing::warn!(model = model.name, code = %failure.code, "a model gave no usable answer");
                    last = failure;
                }
            }
        }
        Err(last)
    }

    /// The answer of `first`; when it takes longer than `patience`, of whichever answers first. Also tells whether
    /// `second` was asked.
    async fn hedged(
        &self,
        first: &Arc<Model>,
        second: &Arc<Model>,
        patience: Duration,
        call: &ModelCall<'_>,
        schema: Option<&Schema>,
        deadline: Instant,
    ) -> (Result<Completion, Failure>, bool) {
        let mut first = pin!(self.ask(first, call, schema, deadline));
        if let Ok(answered) = timeout(patience, &mut first).await {
            return (answered, false);
        }
        metrics::counter!("docmill_model_calls_hedged_total").increment(1);
        let second = pin!(self.ask(second, call, schema, deadline));
        let answered = match select(first, second).await {
            Either::Left((Err(_), other)) => other.await,
            Either::Right((Err(_), other)) => other.await,
            Either::Left((answered, _)) | Either::Right((answered, _)) => answered,
        };
        (answered, true)
    }
}

/// Failures that another model would have as well.
fn is_ours(code: Code) -> bool {
    matches!(code, Code::BudgetExceeded | Code::DatabaseUnavailable | Code::Internal | Code::SchemaInvalid)
}

fn no_answer() -> Failure {
    Failure::new(Code::ProviderError, "no model provider gave an answer in time")
}
