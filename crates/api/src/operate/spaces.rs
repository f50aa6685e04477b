//! `/v1/operate/spaces`: embedding spaces beside each other: a plan, the build, the switch, the drop.
//!
//! Spaces are the installation's: whoever operates one tenant sees which there are, and keys of the operator tenant steer.

use super::{is_installation, require_installation};
use crate::audit;
use crate::auth::Operator;
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::embedder::Embedder;
use docmill_retrieval::spaces::{self, SpaceDrop, SpacePlan, SpaceRow, steer};
use serde_json::json;
use std::sync::Arc;
use time::OffsetDateTime;

/// Receipts of drops that are shown.
const RECEIPTS: i64 = 50;

/// An embedding space.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct SpaceView {
    /// Name, as requests give it in `space`.
    pub name: String,
    /// `active`: answers; `ready`: nothing is missing; `building`; `dropping`.
    pub state: String,
    /// True while nothing is embedded into it.
    pub paused: bool,
    /// True while a worker builds it or has just looked.
    pub is_driven: bool,
    /// Length of its vectors.
    pub dimensions: i32,
    /// Its model: name, weights, runtime and settings.
    pub fingerprint: Option<String>,
    /// True when the process that answers this has its model.
    pub is_served: bool,
    /// False when it has no approximate index: every search computes all distances.
    pub is_indexed: bool,
    /// Distinct texts of all tenants that belong into it, as last counted, for the installation's operators; null before
    /// the first count (the only space, or one that is paused, needs none).
    pub texts: Option<i64>,
    /// Of them without a vector.
    pub missing: Option<i64>,
    /// Vectors made while it was built.
    pub embedded: Option<i64>,
    /// What its building last failed with; it is tried again.
    pub code: Option<String>,
    /// Since when it is there.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Since when nothing was missing.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ready_at: Option<OffsetDateTime>,
    /// Since when it answers.
    #[serde(with = "time::serde::rfc3339::option")]
    pub switched_at: Option<OffsetDateTime>,
}

/// Embedding spaces.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct SpaceList {
    /// The active one first.
    pub spaces: Vec<SpaceView>,
    /// Receipts of the spaces dropped last, newest first.
    pub dropped: Vec<SpaceDrop>,
    /// Models in the settings of the process that answers this, which a space can be built with.
    pub models: Vec<String>,
}

/// Which space to build.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildSpace {
    /// Name of a model in the settings (`embedding.models`); the space gets the same.
    pub model: String,
    /// Enter it paused: nothing is embedded into it but what a schedule with `embed_into` asks for, until it is resumed.
    #[serde(default)]
    pub paused: bool,
}

/// Where a space is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpaceProgress {
    /// Embed nothing into it.
    Paused,
    /// Go on.
    Running,
}

/// A change of a space.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSpace {
    /// `paused` or `running`.
    pub state: SpaceProgress,
}

fn view(state: &ApiState, row: SpaceRow, with_counts: bool) -> SpaceView {
    let counted = |count: Option<i64>| count.filter(|_| with_counts);
    SpaceView {
        is_served: state.search.embedders().of(&row.space).is_some(),
        state: if row.space.is_active { "active".to_owned() } else { row.space.state },
        name: row.space.name,
        paused: row.space.is_paused,
        is_driven: row.is_driven,
        dimensions: row.space.dimensions,
        fingerprint: row.space.fingerprint,
        is_indexed: row.is_indexed,
        texts: counted(row.texts),
        missing: counted(row.missing),
        embedded: counted(Some(row.embedded)),
        code: row.code,
        created_at: row.created_at,
        ready_at: row.ready_at,
        switched_at: row.switched_at,
    }
}

/// The space of this name.
async fn find(state: &ApiState, tenant: TenantId, name: &str, with_counts: bool) -> Result<SpaceView, Problem> {
    let read = state.database.read(tenant, |connection| Box::pin(steer::list(connection)));
    let row = read.await?.into_iter().find(|row| row.space.name == name).ok_or_else(Problem::not_found)?;
    Ok(view(state, row, with_counts))
}

fn model(state: &ApiState, name: &str) -> Result<Arc<dyn Embedder>, Problem> {
    let embedders = state.search.embedders();
    embedders.named(name).cloned().ok_or_else(|| {
        let known = embedders.names().join(", ");
        Problem::field("model", &format!("no such model in the settings (`embedding.models`); there are: {known}"))
    })
}

/// Lists the embedding spaces, and what became of dropped ones.
#[utoipa::path(get, path = "/v1/operate/spaces", tag = "operate", responses((status = 200, body = SpaceList)))]
pub async fn list(State(state): State<ApiState>, Operator(principal): Operator) -> Result<Json<SpaceList>, Problem> {
    let with_counts = is_installation(&state, &principal);
    let read = state.database.read(principal.tenant_id, |connection| {
        Box::pin(async move { Ok((steer::list(connection).await?, steer::drops(connection, RECEIPTS).await?)) })
    });
    let (rows, mut dropped) = read.await?;
    if !with_counts {
        dropped.clear();
    }
    let models = state.search.embedders().names();
    let spaces = rows.into_iter().map(|row| view(&state, row, with_counts)).collect();
    Ok(Json(SpaceList { spaces, dropped, models }))
}

/// Shows one embedding space.
#[utoipa::path(get, path = "/v1/operate/spaces/{name}", tag = "operate", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = SpaceView), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(name): Path<String>,
) -> Result<Json<SpaceView>, Problem> {
    let with_counts = is_installation(&state, &principal);
    Ok(Json(find(&state, principal.tenant_id, &name, with_counts).await?))
}

/// Says what building a space would take; changes nothing.
#[utoipa::path(post, path = "/v1/operate/spaces/plan", tag = "operate", request_body = BuildSpace,
    responses((status = 200, body = SpacePlan), (status = 403, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn plan(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    JsonBody(request): JsonBody<BuildSpace>,
) -> Result<Json<SpacePlan>, Problem> {
    require_installation(&state, &principal)?;
    let model = model(&state, &request.model)?;
    Ok(Json(spaces::plan(&state.database, &request.model, &*model).await?))
}

/// Builds a space from the chunks that are stored. Repeating it goes on with what is there.
#[utoipa::path(post, path = "/v1/operate/spaces", tag = "operate", request_body = BuildSpace,
    responses((status = 201, body = SpaceView), (status = 403, body = ProblemBody), (status = 409, body = ProblemBody),
              (status = 422, body = ProblemBody)))]
pub async fn build(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    JsonBody(request): JsonBody<BuildSpace>,
) -> Result<(StatusCode, Json<SpaceView>), Problem> {
    require_installation(&state, &principal)?;
    let (model, name, tenant) = (model(&state, &request.model)?, request.model.clone(), principal.tenant_id);
    let is_paused = request.paused;
    let write = state.database.write(tenant, move |connection| {
        Box::pin(async move {
            let space = steer::create_in(connection, &name, &*model, is_paused).await?;
            let data =
                json!({"dimensions": space.dimensions, "fingerprint": space.fingerprint, "paused": space.is_paused});
            audit::record(connection, &principal, "space.build", &name, data).await
        })
    });
    write.await?;
    Ok((StatusCode::CREATED, Json(find(&state, tenant, &request.model, true).await?)))
}

/// Stops embedding into a space, or lets it go on. Not for the one that answers.
#[utoipa::path(post, path = "/v1/operate/spaces/{name}/state", tag = "operate", request_body = SetSpace,
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = SpaceView), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
              (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn set_state(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(name): Path<String>,
    JsonBody(request): JsonBody<SetSpace>,
) -> Result<Json<SpaceView>, Problem> {
    require_installation(&state, &principal)?;
    let (space, tenant, is_paused) = (name.clone(), principal.tenant_id, request.state == SpaceProgress::Paused);
    find(&state, tenant, &name, false).await?;
    let write = state.database.write(tenant, move |connection| {
        Box::pin(async move {
            if steer::pause_in(connection, &space, is_paused).await? {
                audit::record(connection, &principal, "space.state", &space, json!({"paused": is_paused})).await?;
            }
            Ok(())
        })
    });
    write.await?;
    Ok(Json(find(&state, tenant, &name, true).await?))
}

/// Makes a space the one that answers, by one row update. Refused while a visible text has no vector in it; the space
/// that answered before stays complete, and answers by name.
#[utoipa::path(post, path = "/v1/operate/spaces/{name}/switch", tag = "operate", params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = SpaceView), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
              (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn switch(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(name): Path<String>,
) -> Result<Json<SpaceView>, Problem> {
    require_installation(&state, &principal)?;
    let (space, tenant, database) = (name.clone(), principal.tenant_id, state.database.clone());
    if !find(&state, tenant, &name, false).await?.is_served {
        let message = format!("this process has no model for the embedding space `{name}`; name it in its settings");
        return Err(Failure::new(Code::ConfigInvalid, message).into());
    }
    let checked = steer::check_switch(&database, &name).await?;
    let write = state.database.write(tenant, move |connection| {
        Box::pin(async move {
            let switched = steer::switch_in(connection, &database, tenant, &checked).await?;
            if switched.from != switched.to {
                audit::record(connection, &principal, "space.switch", &space, json!({"from": switched.from})).await?;
            }
            Ok(())
        })
    });
    write.await?;
    Ok(Json(find(&state, tenant, &name, true).await?))
}

/// Drops a space that does not answer: no request finds it from then on, its vectors go in small steps once runs begun
/// before have settled. The receipt counts them.
#[utoipa::path(delete, path = "/v1/operate/spaces/{name}", tag = "operate", params(("name" = String, Path, description = "Its name")),
    responses((status = 202, body = SpaceDrop), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
              (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn drop(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<SpaceDrop>), Problem> {
    require_installation(&state, &principal)?;
    let tenant = principal.tenant_id;
    find(&state, tenant, &name, false).await?;
    let write = state.database.write(tenant, move |connection| {
        Box::pin(async move {
            let receipt = steer::drop_in(connection, &name).await?;
            audit::record(connection, &principal, "space.drop", &name, json!({"receipt": receipt.id})).await?;
            Ok(receipt)
        })
    });
    Ok((StatusCode::ACCEPTED, Json(write.await?)))
}
