//! What ends: receipts of deletions, collections and tenants that are deleted, retention.

pub mod retention;
pub mod tenants;

use crate::audit;
use crate::auth::{Administrator, Anyone};
use crate::body::QueryParams;
use crate::cursor;
use crate::pager::page_size;
use crate::problem::{Problem, ProblemBody};
use crate::router::Table;
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_lifecycle::{Counts, Receipt, delete, receipt};
use docmill_model::{Code, Failure};
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

/// Adds the routes.
pub(crate) fn add(table: Table) -> Table {
    table
        .get("/v1/deletions", list)
        .get("/v1/deletions/{id}", get)
        .delete("/v1/collections/{name}", delete_collection)
        .get("/v1/retention", retention::show)
        .put("/v1/retention", retention::set)
        .post("/v1/retention/apply", retention::apply)
        .delete("/v1/tenants/{id}", tenants::delete)
        .get("/v1/tenants/{id}/deletion", tenants::deletion)
}

/// The receipt of a deletion. It stays for ever and holds no content.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DeletionView {
    /// Identifier.
    pub id: Uuid,
    /// `document`, `collection`, `retention`, or `collect` for what nothing used any more.
    pub cause: String,
    /// Id of the document, name of the collection; empty where there is none.
    pub subject: String,
    /// `open` while something is left to remove: shared or still in use by a run; `finished`.
    pub state: &'static str,
    /// What is gone so far.
    pub removed: CountsView,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the last of it was gone.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
}

/// What is gone, by kind.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct CountsView {
    /// Documents, children included.
    pub documents: i64,
    /// Versions of documents.
    pub versions: i64,
    /// Runs, with their attempts.
    pub runs: i64,
    /// Jobs.
    pub jobs: i64,
    /// Generations, each taken out of every lexical index.
    pub generations: i64,
    /// Passages.
    pub chunks: i64,
    /// Extractions and summaries.
    pub results: i64,
    /// Stored answers that quoted them: their quotes are withdrawn.
    pub answers: i64,
    /// Questions of conversations about them, emptied.
    pub messages: i64,
    /// Comments of readers on such answers.
    pub comments: i64,
    /// Remembered answers of models that rested on them.
    pub model_answers: i64,
    /// Jobs that had been given up.
    pub dead_letters: i64,
    /// Deliveries of webhooks, with what they said.
    pub deliveries: i64,
    /// Events of their feeds.
    pub events: i64,
    /// Vectors nothing else used.
    pub vectors: i64,
    /// Remembered results of stages.
    pub cached_results: i64,
    /// Artifacts nothing else used.
    pub artifacts: i64,
    /// Objects of the store.
    pub objects: i64,
}

impl From<Counts> for CountsView {
    fn from(counts: Counts) -> Self {
        Self {
            documents: counts.documents,
            versions: counts.versions,
            runs: counts.runs,
            jobs: counts.jobs,
            generations: counts.generations,
            chunks: counts.chunks,
            results: counts.results,
            answers: counts.answers,
            messages: counts.messages,
            comments: counts.comments,
            model_answers: counts.model_answers,
            dead_letters: counts.dead_letters,
            deliveries: counts.deliveries,
            events: counts.events,
            vectors: counts.vectors,
            cached_results: counts.cached_results,
            artifacts: counts.artifacts,
            objects: counts.objects,
        }
    }
}

impl From<Receipt> for DeletionView {
    fn from(receipt: Receipt) -> Self {
        Self {
            id: receipt.id,
            cause: receipt.cause,
            subject: receipt.subject,
            state: if receipt.finished_at.is_some() { "finished" } else { "open" },
            removed: receipt.counts.into(),
            created_at: receipt.created_at,
            finished_at: receipt.finished_at,
        }
    }
}

/// Paging of the receipts.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeletionQuery {
    /// Page size, 1 to 200; 50 when absent.
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One page of receipts, newest first.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DeletionPage {
    /// The receipts.
    pub deletions: Vec<DeletionView>,
    /// Pass as `cursor` for the next page; absent on the last.
    pub next_cursor: Option<String>,
}

/// Lists the receipts of deletions, newest first.
#[utoipa::path(get, path = "/v1/deletions", tag = "lifecycle", params(DeletionQuery),
    responses((status = 200, body = DeletionPage), (status = 422, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    QueryParams(query): QueryParams<DeletionQuery>,
) -> Result<Json<DeletionPage>, Problem> {
    let (limit, tenant) = (page_size(query.limit)?, principal.tenant_id);
    let after: Option<(OffsetDateTime, Uuid)> =
        query.cursor.as_deref().map(|c| cursor::decode(&state.pepper, tenant, "deletions", c)).transpose()?;
    let read = state.database.read(tenant, move |connection| Box::pin(receipt::list(connection, after, limit + 1)));
    let mut receipts = read.await?;
    let more = receipts.len() as i64 > limit;
    receipts.truncate(limit as usize);
    let last = receipts.last().filter(|_| more);
    let next_cursor = last.map(|r| cursor::encode(&state.pepper, tenant, "deletions", &(r.created_at, r.id)));
    Ok(Json(DeletionPage { deletions: receipts.into_iter().map(Into::into).collect(), next_cursor }))
}

/// Shows the receipt of a deletion.
#[utoipa::path(get, path = "/v1/deletions/{id}", tag = "lifecycle", params(("id" = String, Path, description = "Receipt id")),
    responses((status = 200, body = DeletionView), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    Anyone(principal): Anyone,
    Path(id): Path<String>,
) -> Result<Json<DeletionView>, Problem> {
    let id: Uuid = id.parse().map_err(|_| Problem::not_found())?;
    let read = state.database.read(principal.tenant_id, move |connection| Box::pin(receipt::find(connection, id)));
    Ok(Json(read.await?.ok_or_else(Problem::not_found)?.into()))
}

/// Deletes a collection: every document in it when the call is made, whatever its labels. They go in batches; the receipt
/// tells how far it is.
#[utoipa::path(delete, path = "/v1/collections/{name}", tag = "lifecycle", params(("name" = String, Path, description = "Collection")),
    responses((status = 202, body = DeletionView), (status = 404, body = ProblemBody)))]
pub async fn delete_collection(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<DeletionView>), Problem> {
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let (id, documents) = delete::collection(connection, &name, principal.principal_id).await?;
            let data = json!({"documents": documents, "receipt": id});
            audit::record(connection, &principal, "collection.delete", &name, data).await?;
            let receipt = receipt::find(connection, id).await?;
            Ok(receipt.ok_or_else(|| Failure::new(Code::Internal, "the receipt of a deletion is not there"))?)
        })
    });
    let receipt = write.await?;
    Ok((StatusCode::ACCEPTED, Json(receipt.into())))
}
