//! Retention: rules of a pipeline, tightened by those of a tenant, and what they let go.
//!
//! Rules are policy, not part of a pipeline's version: those of today's files hold for every document, whichever version
//! it was processed with. What is being worked on is left alone.

use crate::receipt::{Cause, Counts};
use crate::remove::{self, Condemned};
use crate::{Stores, delete, finish, receipt};
pub use docmill_model::retention::Rules;
use docmill_model::{Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Most documents, versions or runs one pass takes of a kind.
const BATCH: i64 = 500;
/// Days after which an upload that was never completed is forgotten.
pub const ABANDONED_DAYS: i32 = 7;

/// Rules by pipeline name.
pub type PipelineRules = BTreeMap<String, Rules>;

/// What the rules let go now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Documents to remove whole, also uploads that were never completed.
    pub documents: Vec<Uuid>,
    /// Versions whose uploaded bytes go.
    pub raw: Vec<Uuid>,
    /// Settled runs whose intermediate results go.
    pub runs: Vec<Uuid>,
    /// The rules that say so, by pipeline.
    rules: PipelineRules,
}

impl Plan {
    /// True when nothing is due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.raw.is_empty() && self.runs.is_empty()
    }
}

/// The tenant's own rules.
///
/// # Errors
/// Of the database.
pub async fn of_tenant(database: &Database, tenant: TenantId) -> Result<Rules, Failure> {
    let read = database.read(tenant, |connection| {
        Box::pin(async move {
            let stored: Option<serde_json::Value> =
                sqlx::query_scalar("SELECT settings -> 'retention' FROM tenants WHERE id = current_tenant()")
                    .fetch_one(connection)
                    .await?;
            Ok(stored)
        })
    });
    let stored = read.await?;
    Ok(stored.and_then(|stored| serde_json::from_value(stored).ok()).unwrap_or_default())
}

/// Sets the tenant's own rules, in the caller's transaction.
///
/// # Errors
/// Of the database.
pub async fn set(connection: &mut PgConnection, rules: Rules) -> Result<(), DbError> {
    sqlx::query("UPDATE tenants SET settings = jsonb_set(settings, '{retention}', $1) WHERE id = current_tenant()")
        .bind(sqlx::types::Json(rules))
        .execute(connection)
        .await?;
    Ok(())
}

/// The rules that hold for a tenant, by pipeline; documents of a pipeline that has no file any more follow the tenant's.
///
/// # Errors
/// Of the database.
pub async fn effective(
    database: &Database,
    tenant: TenantId,
    pipelines: &PipelineRules,
) -> Result<PipelineRules, Failure> {
    let own = of_tenant(database, tenant).await?;
    let gone = database.read(tenant, |connection| {
        Box::pin(async move {
            let names: Vec<String> =
                sqlx::query_scalar("SELECT DISTINCT name FROM pipeline_versions").fetch_all(connection).await?;
            Ok(names)
        })
    });
    let gone = gone.await?.into_iter().map(|name| (name, own));
    let present = pipelines.iter().map(|(name, rules)| (name.clone(), rules.tighter(own)));
    Ok(gone.chain(present).collect())
}

/// What is due now, at most 500 of a kind.
///
/// # Errors
/// Of the database.
pub async fn plan(database: &Database, tenant: TenantId, pipelines: &PipelineRules) -> Result<Plan, Failure> {
    let rules = effective(database, tenant, pipelines).await?;
    let read = database.read(tenant, move |connection| Box::pin(async move { due(connection, rules).await }));
    Ok(read.await?)
}

fn names(rules: &PipelineRules) -> Vec<&str> {
    rules.keys().map(String::as_str).collect()
}

fn days(rules: &PipelineRules, of: fn(&Rules) -> Option<u32>) -> Vec<Option<i32>> {
    rules.values().map(|rule| of(rule).map(|days| days as i32)).collect()
}

/// The documents whose time is over, or whether this one's is.
async fn due_documents(
    connection: &mut PgConnection,
    rules: &PipelineRules,
    only: Option<Uuid>,
) -> Result<Vec<Uuid>, DbError> {
    let documents = sqlx::query_scalar(
        "SELECT d.id FROM documents d
         LEFT JOIN LATERAL (SELECT v.accepted_at, v.pipeline_version FROM document_versions v
             WHERE v.tenant_id = d.tenant_id AND v.document_id = d.id AND v.upload_state = 'accepted'
             ORDER BY v.number DESC LIMIT 1) v ON true
         LEFT JOIN pipeline_versions p ON p.version = v.pipeline_version
         LEFT JOIN unnest($1::text[], $2::integer[]) AS rule (name, days) ON rule.name = p.name
         WHERE d.tenant_id = current_tenant() AND d.deleted_at IS NULL AND d.parent_id IS NULL AND ($5::uuid IS NULL OR d.id = $5)
           AND (d.retention_until < now() OR v.accepted_at < now() - make_interval(days => rule.days)
                OR (d.state = 'expired' AND v.accepted_at IS NULL AND d.updated_at < now() - make_interval(days => $3)))
           AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant_id = d.tenant_id AND r.document_id = d.id AND r.state = 'running')
         ORDER BY d.id LIMIT $4",
    )
    .bind(names(rules))
    .bind(days(rules, |rule| rule.document_days))
    .bind(ABANDONED_DAYS)
    .bind(BATCH)
    .bind(only)
    .fetch_all(connection)
    .await?;
    Ok(documents)
}

async fn due(connection: &mut PgConnection, rules: PipelineRules) -> Result<Plan, DbError> {
    let documents = due_documents(connection, &rules, None).await?;
    let raw = sqlx::query_scalar(
        "SELECT v.id FROM document_versions v JOIN pipeline_versions p ON p.version = v.pipeline_version
         JOIN unnest($1::text[], $2::integer[]) AS rule (name, days) ON rule.name = p.name
         WHERE v.tenant_id = current_tenant() AND v.upload_state = 'accepted' AND v.raw_removed_at IS NULL
           AND v.accepted_at < now() - make_interval(days => rule.days)
           AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant_id = v.tenant_id AND r.version_id = v.id AND r.state = 'running')
         ORDER BY v.id LIMIT $3",
    )
    .bind(names(&rules))
    .bind(days(&rules, |rule| rule.raw_days))
    .bind(BATCH)
    .fetch_all(&mut *connection)
    .await?;
    let runs = sqlx::query_scalar(
        "SELECT r.id FROM runs r JOIN pipeline_versions p ON p.version = r.pipeline_version
         JOIN unnest($1::text[], $2::integer[]) AS rule (name, days) ON rule.name = p.name
         WHERE r.tenant_id = current_tenant() AND r.settled_at < now() - make_interval(days => rule.days)
           AND EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = r.tenant_id AND j.run_id = r.id AND j.manifest IS NOT NULL)
         ORDER BY r.id LIMIT $3",
    )
    .bind(names(&rules))
    .bind(days(&rules, |rule| rule.artifacts_days))
    .bind(BATCH)
    .fetch_all(connection)
    .await?;
    Ok(Plan { documents, raw, runs, rules })
}

/// Carries a plan out and returns what is gone; what another pass did meanwhile is skipped. Objects follow when no run is
/// open that may need them.
///
/// # Errors
/// Of the database and the object store; repeating goes on where it ended.
pub async fn apply(stores: &Stores, tenant: TenantId, plan: Plan) -> Result<Counts, Failure> {
    let mut receipts = Vec::new();
    for document in plan.documents {
        let embedded = delete::embedded_texts(&stores.database, &stores.artifacts, tenant, vec![document]).await?;
        let rules = plan.rules.clone();
        let removed = stores.database.write(tenant, move |connection| {
            Box::pin(async move {
                delete::lock(connection, &[document], None).await?;
                // What came in since the plan may have given it more time.
                if due_documents(connection, &rules, Some(document)).await?.is_empty() {
                    return Ok(None);
                }
                let removed =
                    delete::document(connection, document.into(), Cause::Retention, None, None, embedded).await?;
                let receipt = removed.receipt;
                removed.withdraw(connection).await?;
                Ok(Some(receipt))
            })
        });
        match removed.await.map_err(Failure::from) {
            Ok(receipt) => receipts.extend(receipt),
            Err(failure) if failure.code == docmill_model::Code::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    if !(plan.raw.is_empty() && plan.runs.is_empty()) {
        let (raw, runs) = (plan.raw, plan.runs);
        let released = stores
            .database
            .write(tenant, move |connection| Box::pin(async move { release(connection, &raw, &runs).await }));
        receipts.push(released.await?);
    }
    let mut total = Counts::default();
    for id in receipts {
        finish::finish(stores, tenant, id).await?;
        let read = stores.database.read(tenant, move |connection| Box::pin(receipt::find(connection, id)));
        if let Some(receipt) = read.await? {
            total.add(&receipt.counts);
        }
    }
    Ok(total)
}

/// Lets go of uploaded bytes and of intermediate results, under one receipt.
async fn release(connection: &mut PgConnection, raw: &[Uuid], runs: &[Uuid]) -> Result<Uuid, DbError> {
    // A run that is starting holds its document; it is seen afterwards.
    sqlx::query(
        "SELECT id FROM documents WHERE tenant_id = current_tenant() AND id IN (
             SELECT document_id FROM document_versions WHERE tenant_id = current_tenant() AND id = ANY ($1))
         ORDER BY id FOR NO KEY UPDATE",
    )
    .bind(raw)
    .execute(&mut *connection)
    .await?;
    let accepted = sqlx::query_scalar(
        "UPDATE document_versions v SET raw_removed_at = now()
         WHERE v.tenant_id = current_tenant() AND v.id = ANY ($1) AND v.raw_removed_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant_id = v.tenant_id AND r.version_id = v.id AND r.state = 'running')
         RETURNING v.sha256",
    )
    .bind(raw)
    .fetch_all(&mut *connection)
    .await?;
    let artifacts = sqlx::query_scalar(
        "WITH released AS (
            SELECT j.id, j.manifest FROM jobs j JOIN runs r ON r.tenant_id = j.tenant_id AND r.id = j.run_id
            WHERE j.tenant_id = current_tenant() AND j.run_id = ANY ($1) AND r.state <> 'running' AND j.manifest IS NOT NULL),
         emptied AS (
            UPDATE jobs j SET manifest = NULL FROM released WHERE j.tenant_id = current_tenant() AND j.id = released.id),
         superseded AS (
            UPDATE document_versions v SET parsed_sha256 = NULL FROM runs r, documents d
            WHERE v.tenant_id = current_tenant() AND r.tenant_id = v.tenant_id AND r.version_id = v.id AND r.id = ANY ($1)
              AND d.tenant_id = v.tenant_id AND d.id = v.document_id AND d.visible_version IS DISTINCT FROM v.id
              AND EXISTS (SELECT 1 FROM document_versions n WHERE n.tenant_id = v.tenant_id AND n.document_id = v.document_id
                          AND n.number > v.number AND n.upload_state = 'accepted')
            RETURNING v.id),
         unquoted AS (
            DELETE FROM cited_texts c USING superseded s WHERE c.tenant_id = current_tenant() AND c.version_id = s.id)
         SELECT DISTINCT a.value ->> 'sha256' FROM released, jsonb_each(released.manifest -> 'artifacts') a",
    )
    .bind(runs)
    .fetch_all(&mut *connection)
    .await?;
    let receipt = remove::open(connection, Cause::Retention, "", None, true).await?;
    let condemned = Condemned { artifacts, accepted, ..Condemned::default() };
    let counts = remove::condemn(connection, receipt, &condemned).await?;
    receipt::add(connection, receipt, &counts).await?;
    Ok(receipt)
}
