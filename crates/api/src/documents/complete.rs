//! `POST /v1/documents/{id}/complete`: ask the store what arrived, pin it, start the run.
//!
//! The object is copied server-side to a content-addressed key; only that key is ever read, so bytes that change at
//! the upload key afterwards change nothing. Repeating the call gives the same answer.

use super::{DocumentView, document_id, find};
use crate::audit;
use crate::auth::{Principal, Uploader};
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_model::{Code, DocumentId, Failure, VersionId};
use docmill_platform::blobs::{BlobError, BlobHead};
use docmill_platform::database::DbError;
use docmill_platform::layout::accepted_key;
use docmill_runtime::runs::{Cause, StartRun, start_run};
use serde_json::json;
use sqlx::PgConnection;

#[derive(Clone, sqlx::FromRow)]
struct Pending {
    id: uuid::Uuid,
    size_bytes: i64,
    sha256: String,
    upload_state: String,
    upload_key: String,
    pipeline_version: String,
    traceparent: Option<String>,
}

/// Verifies the upload and starts processing.
#[utoipa::path(post, path = "/v1/documents/{id}/complete", tag = "documents",
    params(("id" = String, Path, description = "Document id")),
    responses((status = 200, body = DocumentView), (status = 404, body = ProblemBody),
              (status = 409, body = ProblemBody), (status = 410, body = ProblemBody)))]
pub async fn complete(
    State(state): State<ApiState>,
    Uploader(principal): Uploader,
    Path(id): Path<String>,
) -> Result<Json<DocumentView>, Problem> {
    let id = document_id(&id)?;
    let version = newest(&state, &principal, id).await?;
    let view = match version.upload_state.as_str() {
        "accepted" => as_it_is(&state, &principal, id).await?,
        "expired" => return Err(Problem::new(Code::UploadExpired, "the upload was not completed in time")),
        _ => accept(&state, &principal, id, version).await?,
    };
    view.map(Json).ok_or_else(Problem::not_found)
}

async fn as_it_is(state: &ApiState, principal: &Principal, id: DocumentId) -> Result<Option<DocumentView>, Problem> {
    let labels = principal.labels.clone();
    let read = state
        .database
        .read(principal.tenant_id, move |connection| Box::pin(async move { Ok(find(connection, id, &labels).await?) }));
    Ok(read.await?)
}

async fn newest(state: &ApiState, principal: &Principal, id: DocumentId) -> Result<Pending, Problem> {
    let labels = principal.labels.clone();
    let row: Option<Pending> = state
        .database
        .read(principal.tenant_id, move |connection| {
            Box::pin(async move {
                Ok(sqlx::query_as(
                    "SELECT v.id, v.size_bytes, v.sha256, v.upload_state, v.upload_key, v.pipeline_version, v.traceparent
                     FROM document_versions v JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id
                     WHERE d.tenant_id = current_tenant() AND d.id = $1 AND d.deleted_at IS NULL
                       AND (d.labels = '{}' OR d.labels && $2)
                     ORDER BY v.number DESC LIMIT 1",
                )
                .bind(id.0)
                .bind(labels)
                .fetch_optional(connection)
                .await?)
            })
        })
        .await?;
    row.ok_or_else(Problem::not_found)
}

/// Copies, starts the run, and shows the document as it is then.
async fn accept(
    state: &ApiState,
    principal: &Principal,
    id: DocumentId,
    version: Pending,
) -> Result<Option<DocumentView>, Problem> {
    let missing = || Problem::new(Code::UploadMissing, "the store has no object for this upload yet");
    let accepted = accepted_key(principal.tenant_id, &version.sha256);
    let copied = async {
        let head = state.blobs.head(&version.upload_key).await.map_err(Failure::from)?.ok_or_else(missing)?;
        if let Err(problem) = verify(&version, &head) {
            // Else the key would be taken, and no upload could set it right.
            let _ = state.blobs.delete(&version.upload_key).await;
            return Err(problem);
        }
        state.database.failpoints().hit("copy.before", "api").await;
        let copied = state.blobs.copy_if_absent(&version.upload_key, &accepted, &head.etag).await;
        state.database.failpoints().hit("copy.after", "api").await;
        match copied {
            Err(BlobError::Missing) => Err(missing()),
            other => other.map_err(|error| Failure::from(error).into()),
        }
    };
    if let Err(problem) = copied.await {
        // A call at the same time may have accepted the version and removed the uploaded object.
        let now = newest(state, principal, id).await?;
        let is_accepted = now.id == version.id && now.upload_state == "accepted";
        return if is_accepted { as_it_is(state, principal, id).await } else { Err(problem) };
    }
    let pipeline = state.pipelines.resolve(&state.database, &version.pipeline_version).await?;
    let (upload_key, principal) = (version.upload_key.clone(), principal.clone());
    let turn = state.intake.turn(principal.tenant_id).await?;
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let _turn = turn;
            if !mark_accepted(connection, id, &version, &accepted).await? {
                return Ok(find(connection, id, &principal.labels).await?);
            }
            let version_id = VersionId(version.id);
            let run = StartRun {
                document_id: id,
                version_id,
                pipeline: &pipeline,
                cause: Cause::Upload,
                parent_run: None,
                priority: 0,
                traceparent: version.traceparent.clone(),
            };
            let run = start_run(connection, run).await?;
            let data = json!({"version_id": version_id, "run_id": run});
            let view = find(connection, id, &principal.labels).await?;
            audit::record(connection, &principal, "document.complete", &id.to_string(), data).await?;
            Ok(view)
        })
    });
    let view = write.await?;
    // Best effort: an upload object that stays behind is collected when it is an hour old (`lifecycle/src/collect.rs`).
    let _ = state.blobs.delete(&upload_key).await;
    Ok(view)
}

fn verify(version: &Pending, head: &BlobHead) -> Result<(), Problem> {
    if head.size_bytes != version.size_bytes as u64 {
        let message = "`size` differs between declaration and stored object";
        return Err(Failure::limit(Code::UploadMismatch, message, version.size_bytes as u64, head.size_bytes).into());
    }
    match &head.sha256 {
        Some(stored) if stored.as_str() != version.sha256 => {
            Err(Problem::new(Code::UploadMismatch, "`sha256` differs between declaration and stored object"))
        }
        // A store that keeps no checksum was still told the signed one at the PUT; ingest recomputes it.
        _ => Ok(()),
    }
}

/// True when this call is the one that accepts the version.
async fn mark_accepted(
    connection: &mut PgConnection,
    id: DocumentId,
    version: &Pending,
    accepted: &str,
) -> Result<bool, DbError> {
    // The document first, as a deletion locks it; the state changes with the run that starts below.
    let known: Option<i32> =
        sqlx::query_scalar("SELECT 1 FROM documents WHERE tenant_id = current_tenant() AND id = $1 FOR NO KEY UPDATE")
            .bind(id.0)
            .fetch_optional(&mut *connection)
            .await?;
    known.ok_or_else(|| Failure::new(Code::NotFound, "no such document"))?;
    let told = sqlx::query(
        "WITH accepted AS (
            UPDATE document_versions SET upload_state = 'accepted', accepted_key = $2, accepted_at = now()
            WHERE tenant_id = current_tenant() AND id = $1 AND upload_state = 'pending' RETURNING document_id)
         INSERT INTO document_events (tenant_id, document_id, kind)
         SELECT current_tenant(), document_id, 'upload.accepted' FROM accepted",
    )
    .bind(version.id)
    .bind(accepted)
    .execute(connection)
    .await?;
    Ok(told.rows_affected() == 1)
}
