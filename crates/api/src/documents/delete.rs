//! `DELETE /v1/documents/{id}`: gone from every listing, search and answer when the call returns; what nothing else uses
//! follows, and the receipt tells when it is gone too.

use super::document_id;
use crate::audit;
use crate::auth::Uploader;
use crate::lifecycle::DeletionView;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_lifecycle::receipt::Cause;
use docmill_lifecycle::{Receipt, delete, receipt, sweep};
use docmill_model::{Code, Failure};
use serde_json::json;

/// Deletes a document and everything that came from it, children included.
#[utoipa::path(delete, path = "/v1/documents/{id}", tag = "documents", params(("id" = String, Path, description = "Document id")),
    responses((status = 200, body = DeletionView), (status = 404, body = ProblemBody)))]
pub async fn delete(
    State(state): State<ApiState>,
    Uploader(principal): Uploader,
    Path(id): Path<String>,
) -> Result<Json<DeletionView>, Problem> {
    let id = document_id(&id)?;
    let (tenant, stores) = (principal.tenant_id, state.stores());
    let embedded = delete::embedded_texts(&stores.database, &stores.artifacts, tenant, vec![id.0]).await?;
    let removed = state.database.write(tenant, move |connection| {
        Box::pin(async move {
            let (by, labels) = (Some(principal.principal_id), Some(principal.labels.as_slice()));
            let removed = delete::document(connection, id, Cause::Document, by, labels, embedded).await?;
            let (receipt, data) =
                (removed.receipt, json!({"documents": removed.documents, "receipt": removed.receipt}));
            audit::record(connection, &principal, "document.delete", &id.to_string(), data).await?;
            removed.withdraw(connection).await?;
            Ok(receipt)
        })
    });
    let receipt = removed.await?;
    if let Err(failure) = sweep::finish(&stores, tenant, receipt).await {
        tracing::warn!(document = %id, code = %failure.code, "a deletion is finished later");
    }
    let read = state.database.read(tenant, move |connection| Box::pin(receipt::find(connection, receipt)));
    let found: Option<Receipt> = read.await?;
    let found = found.ok_or_else(|| Failure::new(Code::Internal, "the receipt of a deletion is not there"))?;
    Ok(Json(found.into()))
}
