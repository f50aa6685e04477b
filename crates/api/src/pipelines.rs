//! `GET /v1/pipelines`, `/v1/pipelines/schema`, `/v1/pipelines/{name}`: what a document goes through. The same for all tenants.

use crate::auth::Anyone;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_runtime::pipeline::Pipeline;

/// A stage of a pipeline.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct StageView {
    /// Name.
    pub name: String,
    /// Stages that come before it.
    pub after: Vec<String>,
    /// A failed required stage fails the run; a failed optional one makes it partial.
    pub required: bool,
    /// Runs when everything else has ended, however it ended.
    pub on_settled: bool,
    /// Settings, defaults filled in.
    #[schema(value_type = Object)]
    pub settings: serde_json::Value,
}

/// A configured pipeline.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PipelineView {
    /// How uploads name it.
    pub name: String,
    /// For people.
    pub description: String,
    /// Hash of the content; runs pin it.
    pub version: String,
    /// Stages, each after all it depends on.
    pub stages: Vec<StageView>,
    /// The graph as a Mermaid flowchart.
    pub mermaid: String,
}

impl From<&Pipeline> for PipelineView {
    fn from(pipeline: &Pipeline) -> Self {
        let stages = pipeline.stages.iter().map(|stage| StageView {
            name: stage.name.clone(),
            after: stage.after.clone(),
            required: stage.required,
            on_settled: stage.on_settled,
            settings: stage.settings.clone(),
        });
        Self {
            name: pipeline.name.clone(),
            description: pipeline.description.clone(),
            version: pipeline.version.clone(),
            stages: stages.collect(),
            mermaid: pipeline.mermaid(),
        }
    }
}

/// The configured pipelines.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PipelineList {
    /// By name.
    pub pipelines: Vec<PipelineView>,
}

/// Lists the configured pipelines.
#[utoipa::path(get, path = "/v1/pipelines", tag = "pipelines", responses((status = 200, body = PipelineList)))]
pub async fn list(State(state): State<ApiState>, _caller: Anyone) -> Json<PipelineList> {
    Json(PipelineList { pipelines: state.pipelines.all().iter().map(|pipeline| (&**pipeline).into()).collect() })
}

/// The JSON Schema of pipeline files, with the settings of every stage.
#[utoipa::path(get, path = "/v1/pipelines/schema", tag = "pipelines", responses((status = 200, body = Object)))]
pub async fn schema(State(state): State<ApiState>, _caller: Anyone) -> Json<serde_json::Value> {
    Json(state.registry.schema())
}

/// One pipeline.
#[utoipa::path(get, path = "/v1/pipelines/{name}", tag = "pipelines", params(("name" = String, Path, description = "Pipeline name")),
    responses((status = 200, body = PipelineView), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    _caller: Anyone,
    Path(name): Path<String>,
) -> Result<Json<PipelineView>, Problem> {
    let pipeline = state.pipelines.get(&name).ok_or_else(Problem::not_found)?;
    Ok(Json((&*pipeline).into()))
}
