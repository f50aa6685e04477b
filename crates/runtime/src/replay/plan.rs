//! What a replay would do, by the real cache keys: each stage of each document is asked for as its job will ask.
//!
//! A stage that is forced gives what the cache holds of it, and an effect what it gave the last time: what comes after is
//! looked up by that, and for stages that are deterministic the units of the plan are those that are then done. What a stage
//! of another version or with other settings will give is not known before: everything after it counts as computed, as do
//! documents of equal bytes, of which the second may find what the first has computed. Then they are at most those.

use super::select::{self, Candidate};
use super::{ReplayFilter, check};
use crate::cache;
use crate::pipeline::{Pipeline, Pipelines};
use crate::registry::Registry;
use docmill_model::manifest::Manifest;
use docmill_model::{Code, Failure, Sha256Hex, TenantId};
use docmill_platform::database::{Database, DbError};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use uuid::Uuid;

/// Documents looked at in one transaction.
pub(super) const PAGE: i64 = 500;

/// What a replay would do.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ReplayPlan {
    /// Documents that get a run.
    pub documents: i64,
    /// Documents that match and get none, by code: `FILE_REMOVED` where retention let go of what would have to be read.
    pub skipped: BTreeMap<String, i64>,
    /// Documents that match beyond what the budget allows: a later firing of the schedule comes to them.
    pub beyond_budget: i64,
    /// The pipelines those runs follow: name and version.
    pub pipelines: BTreeMap<String, String>,
    /// Per stage, in pipeline order.
    pub stages: Vec<StagePlan>,
    /// Work time expected: the average of earlier attempts for each unit, added up over all stages. Workers share it.
    pub work_secs: f64,
    /// Cost expected, in millionths of a dollar, from what such units cost before.
    pub cost_microusd: i64,
}

/// What a replay would do at one stage.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct StagePlan {
    /// The stage.
    pub stage: String,
    /// Jobs that compute.
    pub compute: i64,
    /// Jobs whose result is in the cache.
    pub cached: i64,
    /// Work time expected, in seconds.
    pub work_secs: f64,
    /// Cost expected, in millionths of a dollar.
    pub cost_microusd: i64,
}

/// What a filter would replay; changes nothing.
///
/// # Errors
/// `FIELD_INVALID` for an unknown stage, pipeline or status, or database failures.
pub async fn plan(
    database: &Database,
    registry: &Arc<Registry>,
    pipelines: &Pipelines,
    tenant: TenantId,
    filter: &ReplayFilter,
) -> Result<ReplayPlan, Failure> {
    check(registry, pipelines, filter)?;
    let mut plan = ReplayPlan::default();
    let mut after = Uuid::nil();
    loop {
        let (asked, limit) = (filter.clone(), filter.sample.unwrap_or(PAGE));
        let page = database.read(tenant, move |connection| {
            Box::pin(async move { Ok(select::page(connection, &asked, None, after, limit).await?) })
        });
        let page = page.await?;
        let Some(last) = page.last() else { break };
        after = last.document_id;
        let mut by_version: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
        for candidate in page {
            by_version.entry(candidate.pipeline_version.clone()).or_default().push(candidate);
        }
        for (version, group) in by_version {
            let old = pipelines.resolve(database, &version).await?;
            let new = pipelines.get(&old.name).unwrap_or(old);
            plan.pipelines.insert(new.name.clone(), new.version.clone());
            let forced = filter.stage.clone().filter(|_| filter.recompute);
            let pipeline = if filter.sample.is_some() { Arc::new(new.in_sample(registry)) } else { new.clone() };
            let registry = registry.clone();
            let counted = database.read(tenant, move |connection| {
                Box::pin(async move {
                    let forced = forced.as_deref();
                    let unreadable = unreadable(connection, tenant, &registry, &pipeline, forced, &group).await?;
                    let readable: Vec<Candidate> =
                        group.into_iter().filter(|candidate| !unreadable.contains(&candidate.document_id)).collect();
                    let forecast =
                        Forecast { tenant, registry: &registry, pipeline: &pipeline, forced, made: BTreeMap::new() };
                    let stages = forecast.count(connection, &readable).await?;
                    Ok((readable.len() as i64, unreadable.len() as i64, stages))
                })
            });
            let (readable, unreadable, stages) = counted.await?;
            plan.documents += readable;
            if unreadable > 0 {
                *plan.skipped.entry(Code::FileRemoved.as_str().to_owned()).or_default() += unreadable;
            }
            plan.add(stages);
        }
        if filter.sample.is_some() {
            break;
        }
    }
    price(database, tenant, &mut plan).await?;
    Ok(plan)
}

impl ReplayPlan {
    fn add(&mut self, stages: Vec<StagePlan>) {
        for counted in stages {
            match self.stages.iter_mut().find(|known| known.stage == counted.stage) {
                Some(known) => {
                    known.compute += counted.compute;
                    known.cached += counted.cached;
                }
                None => self.stages.push(counted),
            }
        }
    }
}

/// Documents of a group that a run could not read: their uploaded bytes are gone, and a stage that reads them would have
/// to compute.
pub(super) async fn unreadable(
    connection: &mut PgConnection,
    tenant: TenantId,
    registry: &Registry,
    pipeline: &Pipeline,
    forced: Option<&str>,
    group: &[Candidate],
) -> Result<BTreeSet<Uuid>, DbError> {
    let mut found = BTreeSet::new();
    let is_root = |name: &str| pipeline.ancestors(name).is_empty();
    for candidate in group.iter().filter(|candidate| candidate.raw_removed) {
        for stage in pipeline.stages.iter().filter(|stage| !stage.on_settled && is_root(&stage.name)) {
            let erased = registry.get(&stage.name).filter(|erased| erased.cacheable());
            let Some(erased) = erased.filter(|_| forced != Some(stage.name.as_str())) else {
                found.insert(candidate.document_id);
                continue;
            };
            let source = cache::source(connection, candidate.version_id).await?;
            let key = cache::key(tenant, pipeline, stage, &**erased, &[], &source);
            if cache::lookup(connection, std::slice::from_ref(&key)).await?.is_empty() {
                found.insert(candidate.document_id);
            }
        }
    }
    Ok(found)
}

/// What the jobs of a group of documents will find.
struct Forecast<'a> {
    tenant: TenantId,
    registry: &'a Registry,
    pipeline: &'a Pipeline,
    forced: Option<&'a str>,
    /// Hashes of the manifests expected, by document and stage.
    made: BTreeMap<(Uuid, String), Sha256Hex>,
}

impl Forecast<'_> {
    async fn count(mut self, connection: &mut PgConnection, group: &[Candidate]) -> Result<Vec<StagePlan>, DbError> {
        let earlier = earlier(connection, group).await?;
        let mut stages = Vec::new();
        for stage in &self.pipeline.stages {
            let mut keys: BTreeMap<Uuid, String> = BTreeMap::new();
            let erased = self.registry.get(&stage.name).filter(|erased| erased.cacheable());
            for candidate in group {
                let (Some(erased), Some(inputs)) = (erased, self.inputs(candidate.document_id, &stage.name)) else {
                    continue;
                };
                let source =
                    if inputs.is_empty() { cache::source(connection, candidate.version_id).await? } else { Vec::new() };
                let key = cache::key(self.tenant, self.pipeline, stage, &**erased, &inputs, &source);
                keys.insert(candidate.document_id, key);
            }
            let wanted: Vec<String> = keys.values().cloned().collect();
            let hits = cache::lookup(connection, &wanted).await?;
            let mut cached = 0;
            for candidate in group {
                let hit = keys.get(&candidate.document_id).and_then(|key| hits.get(key));
                let before = earlier.get(&(candidate.run_id, stage.name.clone()));
                if hit.is_some() && self.forced != Some(stage.name.as_str()) {
                    cached += 1;
                }
                // Effects are repeated and give what they gave; a forced stage gives what the cache holds.
                let repeats = erased.is_none() && self.inputs(candidate.document_id, &stage.name).is_some();
                if let Some(manifest) = hit.or(before.filter(|_| repeats)) {
                    self.made.insert((candidate.document_id, stage.name.clone()), manifest.hash());
                }
            }
            let compute = group.len() as i64 - cached;
            stages.push(StagePlan { stage: stage.name.clone(), compute, cached, ..StagePlan::default() });
        }
        Ok(stages)
    }

    /// The inputs of a stage as its job will see them; `None` when one of them is not known before it is made.
    fn inputs(&self, document: Uuid, stage: &str) -> Option<Vec<cache::Input<'_>>> {
        let ancestors = self.pipeline.ancestors(stage);
        let before = self.pipeline.stages.iter().filter(|other| ancestors.contains(other.name.as_str()));
        before
            .map(|other| Some((other.name.as_str(), self.made.get(&(document, other.name.clone()))?.clone())))
            .collect()
    }
}

/// Manifests of the runs that are to be repeated, by run and stage.
async fn earlier(
    connection: &mut PgConnection,
    group: &[Candidate],
) -> Result<BTreeMap<(Uuid, String), Manifest>, DbError> {
    let runs: Vec<Uuid> = group.iter().map(|candidate| candidate.run_id).collect();
    let rows: Vec<(Uuid, String, serde_json::Value)> = sqlx::query_as(
        "SELECT run_id, stage, manifest FROM jobs
         WHERE tenant_id = current_tenant() AND run_id = ANY ($1) AND state = 'done' AND manifest IS NOT NULL",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|(run, stage, made)| Some(((run, stage), serde_json::from_value(made).ok()?)))
        .collect())
}

/// Adds what such units took and cost before.
async fn price(database: &Database, tenant: TenantId, plan: &mut ReplayPlan) -> Result<(), Failure> {
    let averages: Vec<(String, f64, f64)> = database
        .read(tenant, move |connection| {
            Box::pin(async move {
                Ok(sqlx::query_as(
                    "SELECT j.stage, avg(a.run_millis)::float8 / 1000, avg(coalesce(l.cost, 0))::float8
                     FROM attempts a JOIN jobs j ON j.tenant_id = a.tenant_id AND j.id = a.job_id
                     LEFT JOIN LATERAL (SELECT sum(l.cost_microusd) AS cost FROM ledger l
                                        WHERE l.tenant_id = j.tenant_id AND l.job_id = j.id) AS l ON true
                     WHERE a.tenant_id = current_tenant() AND a.outcome = 'done' AND NOT a.cached AND a.run_millis IS NOT NULL
                       AND a.started_at > now() - interval '30 days'
                     GROUP BY j.stage",
                )
                .fetch_all(connection)
                .await?)
            })
        })
        .await?;
    for stage in &mut plan.stages {
        let Some((_, secs, cost)) = averages.iter().find(|(name, ..)| *name == stage.stage) else { continue };
        stage.work_secs = (secs * stage.compute as f64 * 10.0).round() / 10.0;
        stage.cost_microusd = (cost * stage.compute as f64).round() as i64;
    }
    // Not `sum`: that of nothing is negative zero.
    plan.work_secs = plan.stages.iter().fold(0.0, |secs, stage| secs + stage.work_secs);
    plan.cost_microusd = plan.stages.iter().map(|stage| stage.cost_microusd).sum();
    Ok(())
}
