//! One model's answer to a call: remembered, or after as many tries as are allowed and worth it.

use super::answer::{Again, Reply, timed_out};
use super::call::{Completion, ModelCall};
use super::ledger::{self, Closing, Entry};
use super::provider::{Deltas, Message, Wanted};
use super::structured::{self, Schema};
use super::{Gateway, Model, cache, no_answer};
use docmill_model::{Code, Failure};
use serde_json::Value;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

impl Gateway {
    /// An answer of one model: with a schema it is validated, and the model is told once what is wrong.
    pub(super) async fn ask(
        &self,
        model: &Arc<Model>,
        call: &ModelCall<'_>,
        schema: Option<&Schema>,
        deadline: Instant,
    ) -> Result<Completion, Failure> {
        let config = model.provider.config();
        let system = model.provider.system_message(call.system, call.schema);
        let mut messages =
            vec![Message::system(self.redactor.clean(&system)), Message::user(self.redactor.clean(call.user))];
        let limit = self.output_limit(call);
        let is_kept = call.remember && config.temperature == Some(0.0) && !self.config.cache_for.is_zero();
        let key = is_kept.then(|| cache::key(config, call, &messages, limit));
        if let Some(key) = &key
            && let Some(completion) = self.remembered(model, call, schema, key).await
        {
            return Ok(completion);
        }
        let mut reply = self.try_often(model, call, &messages, schema, deadline).await?;
        let mut json = None;
        if let Some(schema) = schema {
            json = match schema.read(&reply.text) {
                Ok(json) => Some(json),
                // A repaired answer would follow the words that were delivered.
                Err(_) if call.is_beyond_recall() => return Err(unfit("the model's answer does not fit its schema")),
                Err(problems) => {
                    messages.push(Message::assistant(reply.text));
                    messages.push(Message::user(structured::repair(&problems)));
                    reply = self.try_often(model, call, &messages, Some(schema), deadline).await?;
                    let invalid = "the model's answer does not fit its schema, also after a repair";
                    Some(schema.read(&reply.text).map_err(|_| unfit(invalid))?)
                }
            };
        }
        if let Some(key) = key {
            cache::remember(&self.database, call, key, &reply).await;
        }
        Ok(completion(model, reply, json, false))
    }

    fn output_limit(&self, call: &ModelCall<'_>) -> u32 {
        call.max_output_tokens.min(self.config.bounds_of(call.feature).max_output_tokens).max(1)
    }

    /// The remembered answer, with a ledger row that says so.
    async fn remembered(
        &self,
        model: &Arc<Model>,
        call: &ModelCall<'_>,
        schema: Option<&Schema>,
        key: &str,
    ) -> Option<Completion> {
        let reply = cache::lookup(&self.database, call.tenant_id, key, self.config.cache_for).await?;
        let json = schema.map(|schema| schema.read(&reply.text)).transpose().ok()?;
        metrics::counter!("docmill_model_calls_total", "model" => model.name.clone(), "outcome" => "cached")
            .increment(1);
        ledger::note_cached(&self.database, Entry::of(call, &model.provider, Some(0), 0), reply.usage).await;
        if let Some(deltas) = &call.deltas {
            deltas.deliver(&reply.text);
        }
        Some(completion(model, reply, json, true))
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
        let tries = self.config.bounds_of(call.feature).tries;
        for attempt in 0..tries {
            let (failure, again) = match self.try_once(model, call, messages, schema, (attempt, deadline)).await {
                Ok(reply) => return Ok(reply),
                Err(failed) => failed,
            };
            last = failure;
            let wait = match again {
                _ if call.is_beyond_recall() => break,
                Again::Never => break,
                // Never before the provider wants it, and not all callers at once.
                Again::After(wait) => wait + jittered(self.config.backoff, attempt),
                Again::Soon => jittered(self.config.backoff, attempt),
            };
            let is_last = attempt + 1 >= tries;
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
        (attempt, deadline): (u32, Instant),
    ) -> Result<Reply, (Failure, Again)> {
        let bounds = self.config.bounds_of(call.feature);
        let limit = self.output_limit(call);
        let wanted = Wanted {
            messages: messages.to_vec(),
            max_output_tokens: limit,
            schema: call.schema.cloned(),
            deltas: call.deltas.clone(),
        };
        let abandoned = |failure: Failure| (failure, Again::Never);
        let input = wanted.estimated_tokens();
        let most = [model.provider.config().max_input_tokens, bounds.max_input_tokens].into_iter().flatten().min();
        if let Some(most) = most.filter(|most| input > *most) {
            let message = "the prompt is longer than the model takes, in tokens (estimated)";
            return Err(abandoned(Failure::limit(Code::ProviderRefused, message, most, input)));
        }
        let slot = model.limiter.admit(deadline).await.map_err(abandoned)?;
        // Nothing is waited for between this and the task, which tells the breaker how it ended.
        if !model.breaker.admits(Instant::now()) {
            let message = "the model provider failed repeatedly and is left alone for a moment";
            return Err(abandoned(Failure::new(Code::ProviderError, message)));
        }
        let reserved = model.price.map(|price| price.cost(input, u64::from(limit), 0));
        let entry = Entry::of(call, &model.provider, reserved, attempt + 1);
        let reserved = reserved.unwrap_or(0);
        let until = deadline.min(Instant::now() + bounds.try_timeout);
        // An answer that is being written has the time of any call; its pauses are bounded apart.
        let written_until = Instant::now() + self.config.total_timeout;
        let (asked, database, schema) = (Arc::clone(model), self.database.clone(), schema.cloned());
        let work = async move {
            let (model, _slot) = (asked, slot);
            let row = ledger::open(&database, entry).await.map_err(|failure| {
                model.breaker.released();
                (failure, Again::Never)
            })?;
            let started = Instant::now();
            let mut sending = pin!(model.provider.send(&wanted));
            let sent = match timeout_at(until, &mut sending).await {
                Err(_) if wanted.deltas.as_ref().is_some_and(Deltas::has_started) => {
                    timeout_at(written_until, sending).await
                }
                sent => sent,
            };
            let sent = sent.unwrap_or_else(|_| Err(timed_out()));
            let closing = Closing::of(&sent, model.price(), reserved, started.elapsed(), schema.as_ref());
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
            Err(abandoned(no_answer()))
        })
    }
}

fn unfit(message: &str) -> Failure {
    Failure::new(Code::ProviderOutputInvalid, message)
}

fn completion(model: &Model, reply: Reply, json: Option<Value>, is_cached: bool) -> Completion {
    let cost = model.price().cost(reply.usage.input, reply.usage.output, reply.usage.cached);
    Completion {
        json,
        model: model.name.clone(),
        tokens_in: reply.usage.input,
        tokens_out: reply.usage.output,
        cost_microusd: if is_cached { 0 } else { cost },
        text: reply.text,
        is_cached,
    }
}

/// Between half and all of the doubled delay.
fn jittered(backoff: Duration, attempt: u32) -> Duration {
    backoff.saturating_mul(1 << attempt.min(6)).mul_f64(rand::random_range(0.5..1.0))
}
