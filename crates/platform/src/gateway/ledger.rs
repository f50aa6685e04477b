//! The ledger row of one request, and the budgets that are counted over it.
//!
//! The row is committed before the request leaves, with what the request may cost at most; closing it writes what it did
//! cost. So the sum of a tenant's rows never understates, and a crash leaves a row that says `started`. Budgets stand in
//! `tenants.settings`: `{"budgets": {"total": {"soft": n, "hard": n}, "answers": {"hard": n}}}`, each in millionths of a
//! US dollar for a calendar month (UTC), `total` over all features.

use super::answer::{Fault, Reply, Usage};
use super::call::ModelCall;
use super::prices::Price;
use super::provider::Provider;
use super::structured::Schema;
use crate::database::{Database, DbError};
use docmill_model::{Code, Failure, TenantId};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::time::Duration;

/// What is known about a request before it is sent.
pub(super) struct Entry {
    tenant: TenantId,
    feature: String,
    task: String,
    provider: String,
    model: String,
    prompt_version: Option<String>,
    endpoint: String,
    document: Option<uuid::Uuid>,
    conversation: Option<uuid::Uuid>,
    job: Option<(uuid::Uuid, i64)>,
    stage: Option<String>,
    attempt: u32,
    /// What the request may cost at most; `None` when the model's price is not known.
    reserved_microusd: Option<u64>,
}

impl Entry {
    pub(super) fn of(call: &ModelCall<'_>, provider: &Provider, reserved_microusd: Option<u64>, attempt: u32) -> Self {
        Self {
            tenant: call.tenant_id,
            feature: call.feature.to_owned(),
            task: call.task.to_owned(),
            provider: provider.config().provider.clone(),
            model: provider.config().model.clone(),
            prompt_version: call.prompt_version.map(str::to_owned),
            endpoint: provider.endpoint(),
            document: call.documents.first().filter(|_| call.documents.len() == 1).map(|id| id.0),
            conversation: call.conversation.map(|id| id.0),
            job: call.job.map(|(id, fence, _)| (id.0, fence)),
            stage: call.job.map(|(_, _, stage)| stage.to_owned()),
            attempt,
            reserved_microusd,
        }
    }
}

/// An open row.
pub(super) struct Row {
    tenant: TenantId,
    id: i64,
}

/// What is known afterwards.
pub(super) struct Closing {
    pub(super) outcome: &'static str,
    usage: Usage,
    cost_microusd: u64,
    latency: Duration,
}

impl Closing {
    pub(super) fn of(
        sent: &Result<Reply, Fault>,
        price: Price,
        reserved: u64,
        latency: Duration,
        schema: Option<&Schema>,
    ) -> Self {
        let cost = |usage: Usage| price.cost(usage.input, usage.output, usage.cached);
        match sent {
            Ok(reply) => {
                let is_valid = schema.is_none_or(|schema| schema.read(&reply.text).is_ok());
                let outcome = if is_valid { "done" } else { "invalid" };
                Self { outcome, usage: reply.usage, cost_microusd: cost(reply.usage), latency }
            }
            Err(fault) => {
                let unknown = if fault.may_be_charged { reserved } else { 0 };
                let (usage, cost) = fault.usage.map_or((Usage::default(), unknown), |usage| (usage, cost(usage)));
                Self { outcome: fault.outcome, usage, cost_microusd: cost, latency }
            }
        }
    }
}

/// A tenant's limits for one month; a plain number is a hard one.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(untagged)]
enum Budget {
    Hard(u64),
    Both { soft: Option<u64>, hard: Option<u64> },
}

impl Budget {
    fn limits(self) -> (Option<u64>, Option<u64>) {
        match self {
            Budget::Hard(hard) => (None, Some(hard)),
            Budget::Both { soft, hard } => (soft, hard),
        }
    }
}

/// Checks the budgets and writes the row, in one transaction that other calls of the tenant wait for when it has budgets.
///
/// # Errors
/// `BUDGET_EXCEEDED`, `PRICE_UNKNOWN` under a hard budget, `CONFIG_INVALID` for budgets that cannot be read,
/// `DATABASE_UNAVAILABLE`.
pub(super) async fn open(database: &Database, entry: Entry) -> Result<Row, Failure> {
    let tenant = entry.tenant;
    let id = database.write(tenant, move |connection| {
        Box::pin(async move {
            check_budgets(connection, &entry).await?;
            insert(connection, entry).await
        })
    });
    Ok(Row { tenant, id: id.await? })
}

async fn check_budgets(connection: &mut PgConnection, entry: &Entry) -> Result<(), DbError> {
    let feature = entry.feature.as_str();
    let stored: Option<serde_json::Value> =
        sqlx::query_scalar("SELECT nullif(settings -> 'budgets', 'null') FROM tenants WHERE id = current_tenant()")
            .fetch_optional(&mut *connection)
            .await?
            .flatten();
    let Some(stored) = stored else { return Ok(()) };
    let budgets: BTreeMap<String, Budget> = serde_json::from_value(stored)
        .map_err(|_| Failure::new(Code::ConfigInvalid, "the tenant's `budgets` setting cannot be read"))?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('ledger ' || current_tenant()::text, 0))")
        .execute(&mut *connection)
        .await?;
    let (total, own): (i64, i64) = sqlx::query_as(
        "SELECT coalesce(sum(cost_microusd), 0)::bigint, coalesce(sum(cost_microusd) FILTER (WHERE feature = $1), 0)::bigint
         FROM ledger WHERE tenant_id = current_tenant() AND at >= date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'",
    )
    .bind(feature)
    .fetch_one(connection)
    .await?;
    for (name, spent) in [("total", total), (feature, own)] {
        let Some((soft, hard)) = budgets.get(name).map(|budget| budget.limits()) else { continue };
        if hard.is_some() && entry.reserved_microusd.is_none() {
            let (provider, model) = (&entry.provider, &entry.model);
            let message =
                format!("the tenant has a hard budget `{name}`, and no price is known for {provider}/{model}");
            return Err(Failure::new(Code::PriceUnknown, message).into());
        }
        let reserved = entry.reserved_microusd.unwrap_or(0);
        let would_be = u64::try_from(spent).unwrap_or(0).saturating_add(reserved);
        if let Some(hard) = hard.filter(|hard| would_be > *hard && reserved > 0) {
            let message = format!("the tenant's monthly budget `{name}` in micro-dollars does not cover this call");
            return Err(Failure::limit(Code::BudgetExceeded, message, hard, would_be).into());
        }
        if soft.is_some_and(|soft| would_be > soft) {
            metrics::counter!("docmill_budget_soft_exceeded_total", "budget" => name.to_owned()).increment(1);
            tracing::warn!(budget = name, spent_microusd = would_be, "a tenant's soft budget is passed");
        }
    }
    Ok(())
}

async fn insert(connection: &mut PgConnection, entry: Entry) -> Result<i64, DbError> {
    let id = sqlx::query_scalar(
        "INSERT INTO ledger (tenant_id, feature, task, provider, model, prompt_version, document_id, job_id, fence, units,
                             cost_microusd, outcome, endpoint, conversation_id, stage, attempt)
         VALUES (current_tenant(), $1, $2, $3, $4, $5, $6, $7, $8, 1, $9, 'started', $10, $11, $12, $13) RETURNING id",
    )
    .bind(entry.feature)
    .bind(entry.task)
    .bind(entry.provider)
    .bind(entry.model)
    .bind(entry.prompt_version)
    .bind(entry.document)
    .bind(entry.job.map(|job| job.0))
    .bind(entry.job.map(|job| job.1))
    .bind(signed(entry.reserved_microusd.unwrap_or(0)))
    .bind(entry.endpoint)
    .bind(entry.conversation)
    .bind(entry.stage)
    .bind(i32::try_from(entry.attempt).unwrap_or(i32::MAX))
    .fetch_one(connection)
    .await?;
    Ok(id)
}

/// Writes the row of a remembered answer: its tokens count as cached and cost nothing. Budgets have no say in it.
pub(super) async fn note_cached(database: &Database, entry: Entry, usage: Usage) {
    let tenant = entry.tenant;
    let closing = Closing { outcome: "cached", usage, cost_microusd: 0, latency: Duration::ZERO };
    let opened = database.write(tenant, move |connection| Box::pin(async move { insert(connection, entry).await }));
    match opened.await {
        Ok(id) => close(database, Row { tenant, id }, closing).await,
        Err(error) => {
            tracing::warn!(code = %error.into_failure().code, "a remembered answer has no ledger row");
        }
    }
}

/// Writes how the request ended. When that fails, the row stays as it was opened: it says `started` and overstates.
pub(super) async fn close(database: &Database, row: Row, closing: Closing) {
    let id = row.id;
    let closed = database.write(row.tenant, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "UPDATE ledger SET tokens_in = $2, tokens_out = $3, tokens_cached = $4, cost_microusd = $5, latency_millis = $6, outcome = $7
                 WHERE tenant_id = current_tenant() AND id = $1",
            )
            .bind(id)
            .bind(signed(closing.usage.input))
            .bind(signed(closing.usage.output))
            .bind(signed(closing.usage.cached))
            .bind(signed(closing.cost_microusd))
            .bind(i64::try_from(closing.latency.as_millis()).unwrap_or(i64::MAX))
            .bind(closing.outcome)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    if let Err(error) = closed.await {
        tracing::warn!(code = %error.into_failure().code, row = id, "a ledger row could not be closed");
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
