//! The OpenAPI document, made from the handlers and committed as a snapshot: a changed API shows in review.

use crate::{
    answers, audit, collections, conversations, documents, feedback, health, keys, lifecycle, openai, operate,
    pipelines, prompts, search, telemetry, usage, webhooks,
};
use axum::http::header;
use axum::response::IntoResponse;
use std::sync::LazyLock;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Docmill",
        description = "Uploaded files become searchable, cited, structured knowledge. Errors are problem+json with a stable `code`. \
                       Unknown and foreign identifiers give the same 404. Positions in text count Unicode scalar values.",
    ),
    paths(
        health::healthz, health::readyz, telemetry::metrics_text, document,
        documents::create::create, documents::list::list, documents::list::get, documents::delete::delete,
        documents::complete::complete, documents::read::events, documents::read::jobs, documents::results::versions,
        documents::text::text, documents::pages::page, documents::results::summary, documents::results::extraction, documents::chunks::chunks,
        collections::list, search::search, answers::create, answers::get, feedback::create, feedback::list,
        conversations::create, conversations::get, conversations::delete, conversations::ask,
        openai::chat::complete, openai::embeddings::embed, openai::models, openai::get_model, pipelines::list, pipelines::schema, pipelines::get,
        keys::routes::create, keys::routes::list, keys::routes::revoke, audit::routes::list, audit::routes::check,
        webhooks::create, webhooks::list, webhooks::delete, webhooks::rotate, webhooks::enable,
        webhooks::deliveries::list, webhooks::deliveries::retry, usage::report, usage::budgets::get, usage::budgets::set,
        prompts::list, prompts::get, prompts::rollout, prompts::rollback,
        lifecycle::list, lifecycle::get, lifecycle::delete_collection, lifecycle::retention::show, lifecycle::retention::set,
        lifecycle::retention::apply, lifecycle::tenants::delete, lifecycle::tenants::deletion,
        operate::doctor::examine, operate::doctor::repair, operate::backlog::report, operate::dead::list, operate::dead::show, operate::dead::retry,
        operate::dead::discard, operate::replays::plan, operate::replays::start, operate::replays::list,
        operate::replays::get, operate::replays::set_state, operate::replays::difference::difference,
        operate::schedules::list, operate::schedules::plan, operate::schedules::run, operate::schedules::set_state,
        operate::jobs::list, operate::jobs::get, operate::runs::get, operate::runs::cancel,
        operate::spaces::plan, operate::spaces::build, operate::spaces::list, operate::spaces::get, operate::spaces::drop,
        operate::spaces::set_state, operate::spaces::switch,
        operate::pauses::list, operate::pauses::create, operate::pauses::delete,
    ),
    tags(
        (name = "documents", description = "Upload by signed URL, follow the work, read the results"),
        (name = "questions", description = "Search and cited answers"),
        (name = "assistants", description = "The interfaces assistants speak: OpenAI's; MCP is at /mcp"),
        (name = "pipelines", description = "What documents go through"),
        (name = "keys", description = "API keys and the audit log"),
        (name = "webhooks", description = "Notifications, signed as in Standard Webhooks"),
        (name = "lifecycle", description = "Receipts of deletions, collections and tenants that go, retention"),
        (name = "operate", description = "Jobs, dead letters, replays: ids and states, never text"),
        (name = "service", description = "Health, metrics, this document; without a key"),
    ),
    security(("key" = [])),
    modifiers(&KeyScheme, &OperationNames),
)]
struct Api;

struct KeyScheme;

impl Modify for KeyScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("dmk_…").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// Generators of clients name functions after operations, so each needs a name of its own: method and path.
struct OperationNames;

impl Modify for OperationNames {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let words: Vec<String> = path
                .split('/')
                .filter(|word| !word.is_empty() && *word != "v1")
                .map(|word| match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
                    Some(parameter) => format!("by_{parameter}"),
                    None => word.replace('.', "_"),
                })
                .collect();
            for (method, operation) in
                [("get", &mut item.get), ("post", &mut item.post), ("put", &mut item.put), ("delete", &mut item.delete)]
            {
                if let Some(operation) = operation {
                    operation.operation_id = Some(format!("{method}_{}", words.join("_")));
                }
            }
        }
    }
}

/// The OpenAPI document of this build.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// The document this route is part of.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, content_type = "application/json")))]
pub async fn document() -> impl IntoResponse {
    static TEXT: LazyLock<String> = LazyLock::new(|| openapi().to_json().unwrap_or_default());
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}
