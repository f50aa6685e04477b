//! Every route in one table, and the layers around it.

use crate::state::ApiState;
use crate::{
    answers, audit, collections, conversations, documents, entry, feedback, health, keys, lifecycle, mcp, openai,
    openapi, operate, pipelines, prompts, search, telemetry, usage, webhooks,
};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodFilter, on};
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;

/// Routes as they are added: the router, and what a test compares with the OpenAPI document.
#[derive(Default)]
pub(crate) struct Table {
    router: Router<ApiState>,
    /// Method and path of every route.
    pub(crate) rows: Vec<(&'static str, &'static str)>,
}

impl Table {
    pub(crate) fn get<H: Handler<T, ApiState>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("get", MethodFilter::GET, path, handler)
    }

    pub(crate) fn post<H: Handler<T, ApiState>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("post", MethodFilter::POST, path, handler)
    }

    pub(crate) fn put<H: Handler<T, ApiState>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("put", MethodFilter::PUT, path, handler)
    }

    pub(crate) fn delete<H: Handler<T, ApiState>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("delete", MethodFilter::DELETE, path, handler)
    }

    fn add<H: Handler<T, ApiState>, T: 'static>(
        mut self,
        name: &'static str,
        filter: MethodFilter,
        path: &'static str,
        handler: H,
    ) -> Self {
        self.rows.push((name, path));
        self.router = self.router.route(path, on(filter, handler));
        self
    }
}

/// All routes.
pub(crate) fn table() -> Table {
    let table = Table::default()
        .get("/healthz", health::healthz)
        .get("/readyz", health::readyz)
        .get("/metrics", telemetry::metrics_text)
        .get("/openapi.json", openapi::document)
        .post("/v1/documents", documents::create::create)
        .get("/v1/documents", documents::list::list)
        .get("/v1/documents/{id}", documents::list::get)
        .delete("/v1/documents/{id}", documents::delete::delete)
        .post("/v1/documents/{id}/complete", documents::complete::complete)
        .get("/v1/documents/{id}/events", documents::read::events)
        .get("/v1/documents/{id}/jobs", documents::read::jobs)
        .get("/v1/documents/{id}/versions", documents::results::versions)
        .get("/v1/documents/{id}/text", documents::text::text)
        .get("/v1/documents/{id}/pages/{page}", documents::pages::page)
        .get("/v1/documents/{id}/summary", documents::results::summary)
        .get("/v1/documents/{id}/extraction", documents::results::extraction)
        .get("/v1/documents/{id}/chunks", documents::chunks::chunks)
        .get("/v1/collections", collections::list)
        .post("/v1/search", search::search)
        .post("/v1/answers", answers::create)
        .get("/v1/answers/{id}", answers::get)
        .post("/v1/answers/{id}/feedback", feedback::create)
        .get("/v1/answers/{id}/feedback", feedback::list)
        .post("/v1/conversations", conversations::create)
        .get("/v1/conversations/{id}", conversations::get)
        .delete("/v1/conversations/{id}", conversations::delete)
        .post("/v1/conversations/{id}/messages", conversations::ask)
        .post("/v1/chat/completions", openai::chat::complete)
        .post("/v1/embeddings", openai::embeddings::embed)
        .get("/v1/models", openai::models)
        .get("/v1/models/{name}", openai::get_model)
        .get("/v1/pipelines", pipelines::list)
        .get("/v1/pipelines/schema", pipelines::schema)
        .get("/v1/pipelines/{name}", pipelines::get)
        .post("/v1/keys", keys::routes::create)
        .get("/v1/keys", keys::routes::list)
        .delete("/v1/keys/{id}", keys::routes::revoke)
        .get("/v1/audit", audit::routes::list)
        .get("/v1/audit/verify", audit::routes::check)
        .post("/v1/webhooks", webhooks::create)
        .get("/v1/webhooks", webhooks::list)
        .delete("/v1/webhooks/{id}", webhooks::delete)
        .post("/v1/webhooks/{id}/rotate", webhooks::rotate)
        .post("/v1/webhooks/{id}/enable", webhooks::enable)
        .get("/v1/webhooks/{id}/deliveries", webhooks::deliveries::list)
        .post("/v1/webhooks/{id}/deliveries/{delivery}/retry", webhooks::deliveries::retry)
        .get("/v1/usage", usage::report)
        .get("/v1/usage/budgets", usage::budgets::get)
        .put("/v1/usage/budgets", usage::budgets::set)
        .get("/v1/operate/prompts", prompts::list)
        .get("/v1/operate/prompts/{name}", prompts::get)
        .post("/v1/operate/prompts/{name}/rollout", prompts::rollout)
        .post("/v1/operate/prompts/{name}/rollback", prompts::rollback);
    operate::add(lifecycle::add(table))
}

/// The whole HTTP side over `state`. Further routes (a console) may be merged into it.
pub fn router(state: ApiState) -> Router {
    let routes: Router = table().router.with_state(state.clone());
    mcp::mount(routes.clone(), state.clone())
        .merge(routes)
        .fallback(entry::no_route)
        .method_not_allowed_fallback(entry::no_method)
        .layer(DefaultBodyLimit::max(crate::limits::MAX_BODY_BYTES))
        .layer(from_fn_with_state(state.clone(), entry::admit))
        .layer(CatchPanicLayer::custom(entry::after_panic))
        .layer(CompressionLayer::new())
        .layer(cors(&state.config.cors_origins))
        .layer(from_fn(entry::observe))
}

/// Browsers of the configured origins may call with a key in the header; no cookies exist to be sent along.
fn cors(origins: &[String]) -> CorsLayer {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("traceparent"),
            HeaderName::from_static("mcp-protocol-version"),
            entry::REQUEST_ID,
        ])
        .expose_headers([entry::REQUEST_ID, header::RETRY_AFTER])
        .max_age(Duration::from_secs(600))
}

#[cfg(test)]
mod tests {
    use super::table;
    use std::collections::BTreeSet;

    #[test]
    fn the_openapi_document_and_the_table_name_the_same_routes() {
        let document = serde_json::to_value(crate::openapi()).expect("the document is JSON");
        let paths = document["paths"].as_object().expect("paths");
        let documented: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().expect("methods");
                methods.keys().map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
            })
            .collect();
        let routed = table().rows.into_iter().map(|(method, path)| (method.to_owned(), path.to_owned()));
        assert_eq!(documented, routed.collect::<BTreeSet<_>>());
    }
}
