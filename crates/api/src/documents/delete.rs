//! `DELETE /v1/documents/{id}`: gone from every listing, search and answer at once; the bytes follow.
//!
//! One transaction removes the rows (versions, runs, jobs, chunks, results, deliveries go with them), tells the lexical
//! index, and writes down what else belonged to the document alone. [`super::deletions`] then removes vectors and
//! objects nothing else uses, now if it can, else later. Answers that quoted the document show `withdrawn`.

use super::{deletions, document_id};
use crate::audit;
use crate::auth::{Principal, Uploader};
use crate::documents::create::UPLOAD_TTL;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::chunk::ChunkList;
use docmill_model::manifest::kind;
use docmill_model::{Code, DocumentId, Failure, Sha256Hex, TenantId};
use docmill_platform::artifacts::Artifacts;
use docmill_platform::database::DbError;
use serde_json::json;
use sqlx::PgConnection;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Deletes a document and everything that came from it.
#[utoipa::path(delete, path = "/v1/documents/{id}", tag = "documents", params(("id" = String, Path, description = "Document id")),
    responses((status = 204), (status = 404, body = ProblemBody)))]
pub async fn delete(
    State(state): State<ApiState>,
    Uploader(principal): Uploader,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = document_id(&id)?;
    let tenant = principal.tenant_id;
    let embedded = embedded_texts(&state, tenant, id).await?;
    let write = state
        .database
        .write(tenant, move |connection| Box::pin(async move { remove(connection, &principal, id, embedded).await }));
    write.await?;
    if let Err(failure) = deletions::finish(&state.database, &state.blobs, tenant, id).await {
        tracing::warn!(document = %id, code = %failure.code, "a deletion is finished later");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Hashes of texts that were embedded for chunks which never reached the index: only the chunk lists know them.
async fn embedded_texts(state: &ApiState, tenant: TenantId, id: DocumentId) -> Result<BTreeSet<Vec<u8>>, Problem> {
    let read = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let lists: Vec<String> = sqlx::query_scalar(
                "SELECT DISTINCT j.manifest -> 'artifacts' -> $2 ->> 'sha256' FROM jobs j
                 WHERE j.tenant_id = current_tenant() AND j.document_id = $1 AND j.manifest -> 'artifacts' ? $2",
            )
            .bind(id.0)
            .bind(kind::CHUNKS)
            .fetch_all(connection)
            .await?;
            Ok(lists)
        })
    });
    let mut hashes = BTreeSet::new();
    for list in read.await? {
        // A list that cannot be read leaves vectors behind that nothing finds; the deletion itself goes on.
        let Some(list) = chunk_list(&state.artifacts, tenant, &list).await else { continue };
        hashes.extend(list.chunks.iter().map(|chunk| Sha256Hex::of(chunk.embed_text().as_bytes()).to_bytes().to_vec()));
    }
    Ok(hashes)
}

async fn chunk_list(artifacts: &Artifacts, tenant: TenantId, sha256: &str) -> Option<ChunkList> {
    let bytes = artifacts.get(tenant, &sha256.parse().ok()?).await.ok()?;
    serde_json::from_slice(&bytes).ok()
}

async fn remove(
    connection: &mut PgConnection,
    principal: &Principal,
    id: DocumentId,
    mut embedded: BTreeSet<Vec<u8>>,
) -> Result<(), DbError> {
    let documents = lock(connection, principal, id).await?;
    let indexed: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT DISTINCT embed_hash FROM chunks WHERE tenant_id = current_tenant() AND document_id = ANY ($1)",
    )
    .bind(&documents)
    .fetch_all(&mut *connection)
    .await?;
    embedded.extend(indexed);
    let generations: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM generations WHERE tenant_id = current_tenant() AND document_id = ANY ($1)")
            .bind(&documents)
            .fetch_all(&mut *connection)
            .await?;
    write_down(connection, id, &documents, &embedded).await?;
    sqlx::query("DELETE FROM documents WHERE tenant_id = current_tenant() AND id = $1")
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let data = json!({"documents": documents.len(), "generations": generations.len()});
    audit::record(connection, principal, "document.delete", &id.to_string(), data).await?;
    withdraw(connection, &generations).await
}

/// Locks the document and its children, runs first: the engine settles in that order.
async fn lock(connection: &mut PgConnection, principal: &Principal, id: DocumentId) -> Result<Vec<Uuid>, DbError> {
    let documents: Vec<Uuid> = sqlx::query_scalar(
        "WITH RECURSIVE doomed AS (
             SELECT id FROM documents WHERE tenant_id = current_tenant() AND id = $1 AND deleted_at IS NULL
                                        AND (labels = '{}' OR labels && $2)
             UNION SELECT c.id FROM documents c JOIN doomed p ON c.parent_id = p.id WHERE c.tenant_id = current_tenant())
         SELECT id FROM doomed",
    )
    .bind(id.0)
    .bind(&principal.labels)
    .fetch_all(&mut *connection)
    .await?;
    for lock in [
        "SELECT id FROM runs WHERE tenant_id = current_tenant() AND document_id = ANY ($1) ORDER BY id FOR UPDATE",
        "SELECT id FROM documents WHERE tenant_id = current_tenant() AND id = ANY ($1) ORDER BY id FOR UPDATE",
    ] {
        let locked: Vec<Uuid> = sqlx::query_scalar(lock).bind(&documents).fetch_all(&mut *connection).await?;
        // Also when somebody else deleted it while this call waited.
        if lock.contains("FROM documents") && !locked.contains(&id.0) {
            return Err(Failure::new(Code::NotFound, "no such document").into());
        }
    }
    Ok(documents)
}

/// Writes down what may have to go besides the rows.
async fn write_down(
    connection: &mut PgConnection,
    id: DocumentId,
    documents: &[Uuid],
    embedded: &BTreeSet<Vec<u8>>,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO deletions (tenant_id, document_id, embed_hashes, artifacts, accepted, uploads, finish_after)
         SELECT current_tenant(), $1, $3,
                ARRAY(SELECT a.value ->> 'sha256' FROM jobs j, jsonb_each(j.manifest -> 'artifacts') a
                      WHERE j.tenant_id = current_tenant() AND j.document_id = ANY ($2)
                      UNION SELECT parsed_sha256 FROM document_versions
                      WHERE tenant_id = current_tenant() AND document_id = ANY ($2) AND parsed_sha256 IS NOT NULL),
                ARRAY(SELECT DISTINCT sha256 FROM document_versions
                      WHERE tenant_id = current_tenant() AND document_id = ANY ($2) AND accepted_key IS NOT NULL),
                ARRAY(SELECT upload_key FROM document_versions WHERE tenant_id = current_tenant() AND document_id = ANY ($2)),
                -- A signed URL outlives its document: what is still put there goes when the URL has run out.
                CASE WHEN EXISTS (SELECT 1 FROM document_versions WHERE tenant_id = current_tenant()
                                  AND document_id = ANY ($2) AND upload_state = 'pending')
                     THEN now() + make_interval(secs => $4) ELSE now() END",
    )
    .bind(id.0)
    .bind(documents)
    .bind(embedded.iter().cloned().collect::<Vec<_>>())
    .bind(UPLOAD_TTL.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes the generations out of the lexical index: the numbers of the feed come last in the transaction.
async fn withdraw(connection: &mut PgConnection, generations: &[Uuid]) -> Result<(), DbError> {
    if generations.is_empty() {
        return Ok(());
    }
    let count = generations.len() as i64;
    let head: i64 = sqlx::query_scalar(
        "INSERT INTO index_heads (tenant_id, seq) VALUES (current_tenant(), $1)
         ON CONFLICT (tenant_id) DO UPDATE SET seq = index_heads.seq + $1 RETURNING seq",
    )
    .bind(count)
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO index_ops (tenant_id, seq, op, generation_id)
         SELECT current_tenant(), $1 + g.position, 'remove', g.id FROM unnest($2::uuid[]) WITH ORDINALITY AS g (id, position)",
    )
    .bind(head - count)
    .bind(generations)
    .execute(connection)
    .await?;
    Ok(())
}
