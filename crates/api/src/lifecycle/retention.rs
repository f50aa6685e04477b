//! `/v1/retention`: what is kept for how long, and letting go now what is due.

use super::CountsView;
use crate::audit;
use crate::auth::Administrator;
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use docmill_lifecycle::retention::{self, ABANDONED_DAYS, PipelineRules};
use docmill_lifecycle::{Counts, Rules};
use docmill_platform::blobs::{BlobError, Blobs};
use serde_json::json;
use std::collections::BTreeMap;
use uuid::Uuid;

/// What holds for the tenant.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct RetentionView {
    /// The tenant's own rules.
    pub tenant: Rules,
    /// By pipeline what holds: the shorter of its rule and the tenant's.
    pub pipelines: BTreeMap<String, Rules>,
    /// Days after which an upload that was never completed is forgotten.
    pub abandoned_days: i32,
    /// What the object store itself lets go of.
    pub store: StoreRules,
}

/// The lifecycle rule of the bucket, which concerns uploads only.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct StoreRules {
    /// `in_force`, `none`, `unsupported` by a store without such rules, `unreachable`.
    pub state: &'static str,
    /// Days after which an upload that is still there goes.
    pub uploads_days: Option<u32>,
    /// Days after which the parts of an unfinished multipart upload go.
    pub unfinished_days: Option<u32>,
}

async fn store_rules(blobs: &dyn Blobs) -> StoreRules {
    let (state, rule) = match blobs.upload_expiry().await {
        Ok(Some(rule)) => ("in_force", Some(rule)),
        Ok(None) => ("none", None),
        Err(BlobError::Unsupported) => ("unsupported", None),
        Err(_) => ("unreachable", None),
    };
    StoreRules {
        state,
        uploads_days: rule.map(|rule| rule.days),
        unfinished_days: rule.map(|rule| rule.unfinished_days),
    }
}

/// Whether to look only.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRetention {
    /// True shows what is due and removes nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is due, and what of it is gone. At most 500 of a kind at a time.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct RetentionReport {
    /// True when nothing was removed.
    pub dry_run: bool,
    /// Documents that go whole.
    pub documents: Vec<Uuid>,
    /// Versions whose uploaded bytes go.
    pub raw: Vec<Uuid>,
    /// Runs whose intermediate results go.
    pub runs: Vec<Uuid>,
    /// What is gone.
    pub removed: CountsView,
}

fn rules(state: &ApiState) -> PipelineRules {
    state.pipelines.all().iter().map(|pipeline| (pipeline.name.clone(), pipeline.retention)).collect()
}

/// Shows what is kept for how long.
#[utoipa::path(get, path = "/v1/retention", tag = "lifecycle", responses((status = 200, body = RetentionView)))]
pub async fn show(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
) -> Result<Json<RetentionView>, Problem> {
    let tenant = retention::of_tenant(&state.database, principal.tenant_id).await?;
    let pipelines = rules(&state).into_iter().map(|(name, rule)| (name, rule.tighter(tenant))).collect();
    let store = store_rules(&*state.blobs).await;
    Ok(Json(RetentionView { tenant, pipelines, abandoned_days: ABANDONED_DAYS, store }))
}

/// Sets the tenant's own rules. They can only shorten what pipelines say.
#[utoipa::path(put, path = "/v1/retention", tag = "lifecycle", request_body = Rules,
    responses((status = 200, body = RetentionView), (status = 400, body = ProblemBody)))]
pub async fn set(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    JsonBody(wanted): JsonBody<Rules>,
) -> Result<Json<RetentionView>, Problem> {
    let by = principal.clone();
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            retention::set(connection, wanted).await?;
            audit::record(connection, &by, "retention.set", &by.tenant_id.to_string(), json!(wanted)).await
        })
    });
    write.await?;
    show(State(state), Administrator(principal)).await
}

/// Lets go what is due now; with `dry_run` only tells.
#[utoipa::path(post, path = "/v1/retention/apply", tag = "lifecycle", request_body = ApplyRetention,
    responses((status = 200, body = RetentionReport)))]
pub async fn apply(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    JsonBody(request): JsonBody<ApplyRetention>,
) -> Result<Json<RetentionReport>, Problem> {
    let tenant = principal.tenant_id;
    let plan = retention::plan(&state.database, tenant, &rules(&state)).await?;
    let mut report = RetentionReport {
        dry_run: request.dry_run,
        documents: plan.documents.clone(),
        raw: plan.raw.clone(),
        runs: plan.runs.clone(),
        removed: Counts::default().into(),
    };
    if !request.dry_run && !plan.is_empty() {
        let data = json!({"documents": plan.documents.len(), "raw": plan.raw.len(), "runs": plan.runs.len()});
        report.removed = retention::apply(&state.stores(), tenant, plan).await?.into();
        let write = state.database.write(tenant, move |connection| {
            Box::pin(async move {
                audit::record(connection, &principal, "retention.apply", &principal.tenant_id.to_string(), data).await
            })
        });
        write.await?;
    }
    Ok(Json(report))
}
