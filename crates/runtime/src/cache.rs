//! The stage cache: what an earlier job with the same inputs produced.
//!
//! The key holds everything that can change the result: tenant, stage, its version, the fingerprint of its engines,
//! its settings with their schemas, and the manifests of all that came before. A stage that comes after nothing reads
//! the uploaded bytes: their hash, type and name stand in for a manifest.

use crate::claim::Claimed;
use crate::engine::Core;
use crate::pipeline::{Pipeline, PipelineStage};
use crate::registry::ErasedStage;
use docmill_model::manifest::Manifest;
use docmill_model::{Code, Failure, Sha256Hex, TenantId};
use docmill_platform::database::DbError;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;
use uuid::Uuid;

/// What a job starts from.
pub(crate) struct Start {
    /// Manifests of the ancestors that are done, in pipeline order.
    pub inputs: Vec<(String, Manifest)>,
    /// The key, for a stage that may be cached.
    pub key: Option<String>,
    /// What the cache holds for it.
    pub hit: Option<Manifest>,
}

/// Loads a job's inputs and asks the cache.
pub(crate) async fn start(
    core: &Arc<Core>,
    claimed: &Claimed,
    pipeline: &Arc<Pipeline>,
    stage: &PipelineStage,
    erased: &Arc<dyn ErasedStage>,
) -> Result<Start, DbError> {
    let (claimed, pipeline, stage, erased) = (claimed.clone(), pipeline.clone(), stage.clone(), erased.clone());
    core.database
        .write(claimed.tenant_id, move |connection| {
            Box::pin(async move {
                let inputs = inputs(connection, &claimed, &pipeline).await?;
                if !erased.cacheable() {
                    return Ok(Start { inputs, key: None, hit: None });
                }
                let source =
                    if inputs.is_empty() { source(connection, claimed.version_id.0).await? } else { Vec::new() };
                let hashes: Vec<Input<'_>> =
                    inputs.iter().map(|(name, manifest)| (name.as_str(), manifest.hash())).collect();
                let key = key(claimed.tenant_id, &pipeline, &stage, &*erased, &hashes, &source);
                let hit = if claimed.recompute {
                    None
                } else {
                    lookup(connection, slice::from_ref(&key)).await?.remove(&key)
                };
                Ok(Start { inputs, key: Some(key), hit })
            })
        })
        .await
}

async fn inputs(
    connection: &mut PgConnection,
    claimed: &Claimed,
    pipeline: &Pipeline,
) -> Result<Vec<(String, Manifest)>, DbError> {
    let rows: Vec<(String, serde_json::Value)> = sqlx::query_as(
        "SELECT stage, manifest FROM jobs
         WHERE tenant_id = current_tenant() AND run_id = $1 AND state = 'done' AND manifest IS NOT NULL AND id <> $2",
    )
    .bind(claimed.run_id.0)
    .bind(claimed.job_id.0)
    .fetch_all(connection)
    .await?;
    let ancestors = pipeline.ancestors(&claimed.stage);
    let mut inputs = Vec::new();
    for stage in pipeline.stages.iter().filter(|stage| ancestors.contains(stage.name.as_str())) {
        for (name, manifest) in rows.iter().filter(|(name, _)| *name == stage.name) {
            let manifest = serde_json::from_value(manifest.clone()).map_err(|_| {
                DbError::Failed(Failure::new(
                    Code::Internal,
                    format!("the manifest of stage `{name}` has another layout"),
                ))
            })?;
            inputs.push((name.clone(), manifest));
        }
    }
    Ok(inputs)
}

/// Identity of the uploaded bytes as a parser sees them: what they are, what they are said to be, and the extension of
/// the name, which is all of it that a parser looks at.
pub(crate) async fn source(connection: &mut PgConnection, version: Uuid) -> Result<Vec<String>, DbError> {
    let row: Option<(String, String, String)> = sqlx::query_as(
        "SELECT v.sha256, v.content_type, coalesce(v.name, d.name) FROM document_versions v
         JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id
         WHERE v.tenant_id = current_tenant() AND v.id = $1",
    )
    .bind(version)
    .fetch_optional(connection)
    .await?;
    let extension = |name: &str| name.rsplit_once('.').map(|(_, end)| end.to_ascii_lowercase()).unwrap_or_default();
    Ok(row.map(|(sha256, kind, name)| vec![sha256, kind, extension(&name)]).unwrap_or_default())
}

/// An input of a stage: who made it, and the hash of its manifest.
pub(crate) type Input<'a> = (&'a str, Sha256Hex);

/// The key of a stage's result; `source` only for a stage without inputs.
pub(crate) fn key(
    tenant: TenantId,
    pipeline: &Pipeline,
    stage: &PipelineStage,
    erased: &dyn ErasedStage,
    inputs: &[Input<'_>],
    source: &[String],
) -> String {
    let parts = serde_json::json!([
        tenant,
        stage.name,
        erased.version(),
        erased.fingerprint(),
        pipeline.settings_hash(stage),
        inputs,
        source,
    ]);
    Sha256Hex::of(parts.to_string().as_bytes()).to_string()
}

/// What the cache holds of `keys`.
pub(crate) async fn lookup(
    connection: &mut PgConnection,
    keys: &[String],
) -> Result<BTreeMap<String, Manifest>, DbError> {
    let stored: Vec<(String, serde_json::Value)> =
        sqlx::query_as("SELECT key, manifest FROM stage_cache WHERE tenant_id = current_tenant() AND key = ANY ($1)")
            .bind(keys)
            .fetch_all(connection)
            .await?;
    // An entry of another layout is no entry.
    Ok(stored.into_iter().filter_map(|(key, manifest)| Some((key, serde_json::from_value(manifest).ok()?))).collect())
}
