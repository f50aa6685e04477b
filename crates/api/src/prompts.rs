//! `/v1/operate/prompts`: which prompts there are, which version is used by whom, and going back.
//!
//! Prompts belong to the installation: everybody who operates may look, keys of the operator tenant may change. Where the
//! settings say so, a version is rolled out only when it passed its evaluation ([`gate`]), or for a reason that is kept.

pub mod gate;

use crate::audit;
use crate::auth::Operator;
use crate::body::JsonBody;
use crate::operate::{is_installation, require_installation};
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_model::{Failure, PrincipalId, TenantId};
use docmill_platform::database::DbError;
use docmill_platform::gateway::prompts::registry::{self, RolloutRow, VersionRow};
use docmill_platform::gateway::prompts::{Rule, Share, evaluations};
use gate::{PromptEvaluation, PromptGate, RolloutGate};
use serde_json::json;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// Longest reason, in characters.
const MAX_REASON_CHARS: usize = 500;

/// A version.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PromptVersion {
    /// From 1.
    pub version: i32,
    /// SHA-256 of the file.
    pub sha256: String,
    /// When a server registered it.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The file; only when one prompt is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Which version is used.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptRule {
    /// By everybody for whom nothing else is said.
    pub version: i32,
    /// Another version for a share of the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<PromptShare>,
    /// Versions of single tenants, by id. Shown to the operator tenant only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub tenants: BTreeMap<TenantId, i32>,
}

/// A rule that is to hold, as [`PromptRule`].
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptRollout {
    /// By everybody for whom nothing else is said.
    version: i32,
    /// Another version for a share of the calls.
    #[serde(default)]
    share: Option<PromptShare>,
    /// Versions of single tenants, by id.
    #[serde(default)]
    #[schema(value_type = Object)]
    tenants: BTreeMap<TenantId, i32>,
    /// Why it is rolled out although its evaluation is missing or failed: 1 to 500 characters, kept in the audit log.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 500)]
    force: Option<String>,
}

/// A version for a share of the calls.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptShare {
    /// The version.
    pub version: i32,
    /// Of a hundred calls.
    pub percent: u8,
}

/// A prompt.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PromptView {
    /// Its name.
    pub name: String,
    /// Oldest first.
    pub versions: Vec<PromptVersion>,
    /// What holds now.
    pub rule: Option<PromptRule>,
    /// What held before, newest first, at most 100; only when one prompt is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PromptChange>,
    /// What a version has to pass before it is rolled out, where the settings say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<PromptGate>,
    /// The newest run of each version and suite file; only when one prompt is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evaluations: Vec<PromptEvaluation>,
}

/// An entry of the history.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PromptChange {
    /// Number, rising.
    pub id: i64,
    /// What held from then on.
    pub rule: PromptRule,
    /// The entry a rollback went back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restores: Option<i64>,
    /// Who decided.
    pub principal_id: Option<PrincipalId>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// The prompts of the installation.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PromptList {
    /// By name.
    pub prompts: Vec<PromptView>,
}

impl PromptRule {
    fn shown(rule: &Rule, with_tenants: bool) -> Self {
        Self {
            version: rule.version,
            share: rule.share.map(|share| PromptShare { version: share.version, percent: share.percent }),
            tenants: if with_tenants { rule.tenants.clone() } else { BTreeMap::new() },
        }
    }
}

impl From<PromptRule> for Rule {
    fn from(rule: PromptRule) -> Self {
        let share = rule.share.map(|share| Share { version: share.version, percent: share.percent });
        Self { version: rule.version, share, tenants: rule.tenants }
    }
}

fn version(row: VersionRow, with_text: bool) -> PromptVersion {
    let text = with_text.then_some(row.text);
    PromptVersion { version: row.version, sha256: row.sha256, created_at: row.created_at, text }
}

fn change(row: RolloutRow, with_tenants: bool) -> PromptChange {
    PromptChange {
        id: row.id,
        rule: PromptRule::shown(&row.rule, with_tenants),
        restores: row.restores,
        principal_id: row.principal_id.filter(|_| with_tenants),
        created_at: row.created_at,
    }
}

/// Lists the prompts with the versions in use.
#[utoipa::path(get, path = "/v1/operate/prompts", tag = "operate", responses((status = 200, body = PromptList)))]
pub async fn list(State(state): State<ApiState>, Operator(principal): Operator) -> Result<Json<PromptList>, Problem> {
    let (sees_all, config) = (is_installation(&state, &principal), state.config.clone());
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let mut prompts: Vec<PromptView> = Vec::new();
            for row in registry::versions(&mut *connection, None).await? {
                if prompts.last().is_none_or(|last| last.name != row.name) {
                    let rule = registry::history(&mut *connection, &row.name).await?.into_iter().next();
                    let rule = rule.map(|row| PromptRule::shown(&row.rule, sees_all));
                    prompts.push(PromptView {
                        name: row.name.clone(),
                        versions: Vec::new(),
                        rule,
                        history: Vec::new(),
                        gate: config.rollout_gates.get(&row.name).map(PromptGate::from),
                        evaluations: Vec::new(),
                    });
                }
                if let Some(prompt) = prompts.last_mut() {
                    prompt.versions.push(version(row, false));
                }
            }
            Ok(prompts)
        })
    });
    Ok(Json(PromptList { prompts: read.await? }))
}

/// A prompt with its texts and history.
#[utoipa::path(get, path = "/v1/operate/prompts/{name}", tag = "operate", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = PromptView), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(name): Path<String>,
) -> Result<Json<PromptView>, Problem> {
    let (sees_all, config) = (is_installation(&state, &principal), state.config.clone());
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let versions = registry::versions(&mut *connection, Some(&name)).await?;
            let history = registry::history(&mut *connection, &name).await?;
            let evaluations = evaluations::newest(connection, &name).await?;
            let history: Vec<PromptChange> = history.into_iter().map(|row| change(row, sees_all)).collect();
            let rule = history.first().map(|entry| entry.rule.clone());
            let versions: Vec<PromptVersion> = versions.into_iter().map(|row| version(row, true)).collect();
            let gate = config.rollout_gates.get(&name).map(PromptGate::from);
            let evaluations = evaluations.into_iter().map(PromptEvaluation::from).collect();
            Ok(PromptView { name, versions, rule, history, gate, evaluations })
        })
    });
    let prompt = read.await?;
    if prompt.versions.is_empty() { Err(Problem::not_found()) } else { Ok(Json(prompt)) }
}

/// Makes a rule hold; in effect everywhere within two seconds. Where the settings ask for an evaluation, a version that
/// somebody newly gets has to have passed it.
#[utoipa::path(post, path = "/v1/operate/prompts/{name}/rollout", tag = "operate", request_body = PromptRollout,
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = PromptRule), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
              (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn rollout(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(name): Path<String>,
    JsonBody(wanted): JsonBody<PromptRollout>,
) -> Result<Json<PromptRule>, Problem> {
    require_installation(&state, &principal)?;
    let PromptRollout { version, share, tenants, force } = wanted;
    if let Some(reason) = &force
        && !(1..=MAX_REASON_CHARS).contains(&reason.trim().chars().count())
    {
        return Err(Problem::field("force", "a reason of 1 to 500 characters is expected"));
    }
    let wanted = PromptRule { version, share, tenants };
    let (rule, config) = (Rule::from(wanted.clone()), state.config.clone());
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let current = registry::history(&mut *connection, &name).await?.into_iter().next();
            registry::roll_out(&mut *connection, &name, &rule, principal.principal_id).await?;
            let gate = config.rollout_gates.get(&name);
            let refusal = match (gate, current) {
                (Some(gate), Some(current)) => refusal(connection, gate, &name, &rule, &current.rule).await?,
                _ => None,
            };
            let mut data = json!({"version": rule.version});
            match (refusal, force) {
                (None, _) => {}
                // Leaving with an error takes back what was written.
                (Some(failure), None) => return Err(failure.into()),
                (Some(failure), Some(reason)) => {
                    data["forced"] = json!({"reason": reason.trim(), "code": failure.code, "refusal": failure.message});
                }
            }
            audit::record(connection, &principal, "prompt.rollout", &name, data).await
        })
    });
    write.await?;
    Ok(Json(wanted))
}

/// Why `rule` must not follow `current`, when one of the versions it raises did not pass `gate`.
async fn refusal(
    connection: &mut PgConnection,
    gate: &RolloutGate,
    name: &str,
    rule: &Rule,
    current: &Rule,
) -> Result<Option<Failure>, DbError> {
    let rows = evaluations::newest(connection, name).await?;
    Ok(rule.raised(current).into_iter().find_map(|version| gate.check(name, version, &rows).err()))
}

/// Goes back to the rule that held before the current one; what models answered under it is still remembered.
#[utoipa::path(post, path = "/v1/operate/prompts/{name}/rollback", tag = "operate", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = PromptRule), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
              (status = 409, body = ProblemBody)))]
pub async fn rollback(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(name): Path<String>,
) -> Result<Json<PromptRule>, Problem> {
    require_installation(&state, &principal)?;
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let rule = registry::roll_back(connection, &name, principal.principal_id).await?;
            let data = json!({"version": rule.version});
            audit::record(connection, &principal, "prompt.rollback", &name, data).await?;
            Ok(rule)
        })
    });
    Ok(Json(PromptRule::shown(&write.await?, true)))
}
