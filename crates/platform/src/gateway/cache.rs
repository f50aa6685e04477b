//! Answers that a provider would give again: remembered by tenant, model, parameters, prompt version and input.
//!
//! Only whole answers at temperature 0 are kept, with the documents they rest on, so that a deletion finds them
//! (`model_cache.document_ids`). A remembered answer costs nothing and still has its ledger row.

use super::answer::{Reply, Usage};
use super::call::ModelCall;
use super::config::ModelConfig;
use super::provider::Message;
use crate::database::Database;
use docmill_model::{Sha256Hex, TenantId};
use std::collections::BTreeSet;
use std::time::Duration;

/// What identifies an answer.
pub(super) fn key(model: &ModelConfig, call: &ModelCall<'_>, messages: &[Message], max_output_tokens: u32) -> String {
    let parts = serde_json::json!([
        call.tenant_id,
        model.name(),
        model.base_url,
        model.temperature,
        max_output_tokens,
        format!("{:?}", model.json),
        call.feature,
        call.prompt_version,
        call.schema,
        messages,
    ]);
    Sha256Hex::of(parts.to_string().as_bytes()).to_string()
}

/// The remembered answer, if it is young enough. A database that does not answer remembers nothing.
pub(super) async fn lookup(database: &Database, tenant: TenantId, key: &str, ttl: Duration) -> Option<Reply> {
    let (key, ttl_secs) = (key.to_owned(), ttl.as_secs_f64());
    let read = database.read(tenant, move |connection| {
        Box::pin(async move {
            let found: Option<(String, i64, i64)> = sqlx::query_as(
                "SELECT response, tokens_in, tokens_out FROM model_cache
                 WHERE tenant_id = current_tenant() AND key = $1 AND created_at > now() - make_interval(secs => $2)",
            )
            .bind(key)
            .bind(ttl_secs)
            .fetch_optional(connection)
            .await?;
            Ok(found)
        })
    });
    let (text, input, output) = read.await.ok()??;
    let tokens = |count: i64| u64::try_from(count).unwrap_or(0);
    Some(Reply { text, usage: Usage { input: tokens(input), output: tokens(output), cached: tokens(input) } })
}

/// Remembers `reply`. When that fails, the next call asks again.
pub(super) async fn remember(database: &Database, call: &ModelCall<'_>, key: String, reply: &Reply) {
    let (text, input, output) = (reply.text.clone(), reply.usage.input as i64, reply.usage.output as i64);
    let distinct: BTreeSet<uuid::Uuid> = call.documents.iter().map(|id| id.0).collect();
    let documents: Vec<uuid::Uuid> = distinct.into_iter().collect();
    let written = database.write(call.tenant_id, move |connection| {
        Box::pin(async move {
            // A document that was deleted while the model wrote takes the answer along.
            sqlx::query(
                "WITH there AS (SELECT id FROM documents
                                WHERE tenant_id = current_tenant() AND id = ANY ($5) AND deleted_at IS NULL FOR KEY SHARE)
                 INSERT INTO model_cache (tenant_id, key, response, tokens_in, tokens_out, document_ids)
                 SELECT current_tenant(), $1, $2, $3, $4, $5 WHERE (SELECT count(*) FROM there) = cardinality($5)
                 ON CONFLICT (tenant_id, key) DO UPDATE
                 SET response = excluded.response, tokens_in = excluded.tokens_in, tokens_out = excluded.tokens_out, created_at = now()",
            )
            .bind(key)
            .bind(text)
            .bind(input)
            .bind(output)
            .bind(documents)
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    if let Err(error) = written.await {
        tracing::warn!(code = %error.into_failure().code, "a model's answer could not be remembered");
    }
}
