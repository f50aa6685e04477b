//! Deletions somebody asks for: a document, or a collection.
//!
//! A document's rows go in the transaction of the request: it is out of every listing, search and answer when the call
//! returns. So is a collection, whose documents then go in batches. Answers that quoted what is gone show
//! `withdrawn`.

use crate::receipt::Cause;
use crate::{Stores, remove};
use docmill_model::chunk::ChunkList;
use docmill_model::manifest::kind;
use docmill_model::{Code, DocumentId, Failure, PrincipalId, Sha256Hex, TenantId};
use docmill_platform::artifacts::Artifacts;
use docmill_platform::database::{Database, DbError};
use docmill_platform::feed::{self, Op};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

/// Documents of a collection removed in one transaction.
const BATCH: i64 = 50;
/// The statements of a batch lock and remove at most this long.
const BATCH_PATIENCE: Duration = Duration::from_secs(30);

/// Hashes of texts that were embedded for chunks of these documents which never reached the index: only the chunk lists
/// in the object store know them. Read before the transaction of the removal.
///
/// # Errors
/// `DATABASE_UNAVAILABLE`. A list that cannot be read leaves vectors behind that nothing finds, until they are collected.
pub async fn embedded_texts(
    database: &Database,
    artifacts: &Artifacts,
    tenant: TenantId,
    documents: Vec<Uuid>,
) -> Result<Vec<Vec<u8>>, Failure> {
    let read = database.read(tenant, move |connection| {
        Box::pin(async move {
            let lists: Vec<String> = sqlx::query_scalar(
                "SELECT DISTINCT j.manifest -> 'artifacts' -> $2 ->> 'sha256' FROM jobs j
                 WHERE j.tenant_id = current_tenant() AND j.document_id = ANY ($1) AND j.manifest -> 'artifacts' ? $2",
            )
            .bind(documents)
            .bind(kind::CHUNKS)
            .fetch_all(connection)
            .await?;
            Ok(lists)
        })
    });
    let mut hashes = BTreeSet::new();
    for list in read.await? {
        let Ok(list) = chunk_list(artifacts, tenant, &list).await else { continue };
        hashes.extend(list.chunks.iter().map(|chunk| Sha256Hex::of(chunk.embed_text().as_bytes()).to_bytes().to_vec()));
    }
    Ok(hashes.into_iter().collect())
}

/// A list of chunks by its address; one that nobody can read counts as missing.
pub(crate) async fn chunk_list(artifacts: &Artifacts, tenant: TenantId, sha256: &str) -> Result<ChunkList, Failure> {
    let unreadable = || Failure::new(Code::ObjectMissing, "the list of chunks cannot be read");
    let sha256 = sha256.parse().map_err(|_| unreadable())?;
    let bytes = artifacts.get(tenant, &sha256).await?;
    serde_json::from_slice(&bytes).map_err(|_| unreadable())
}

/// A document that is being removed: the receipt, and what is left to do at the end of the transaction.
pub struct Removed {
    /// Id of the receipt.
    pub receipt: Uuid,
    /// Documents removed: the one asked for and its children.
    pub documents: usize,
    generations: Vec<Uuid>,
}

impl Removed {
    /// Takes what was removed out of the lexical index: the last statement of the transaction.
    ///
    /// # Errors
    /// Of the database.
    pub async fn withdraw(self, connection: &mut PgConnection) -> Result<(), DbError> {
        feed::append(connection, Op::Remove, &self.generations).await.map(|_| ())
    }
}

/// Removes a document and its children, in the caller's transaction. `labels` are those the caller holds; without any
/// the whole tenant is in reach.
///
/// # Errors
/// `NOT_FOUND` for a document that is not there or not the caller's.
pub async fn document(
    connection: &mut PgConnection,
    id: DocumentId,
    cause: Cause,
    principal: Option<PrincipalId>,
    labels: Option<&[String]>,
    embedded: Vec<Vec<u8>>,
) -> Result<Removed, DbError> {
    let documents = family(connection, &[id.0], labels, false).await?;
    lock(connection, &documents, Some(id)).await?;
    let receipt = remove::open(connection, cause, &id.to_string(), principal, true).await?;
    let generations = remove::documents(connection, receipt, &documents, embedded).await?;
    Ok(Removed { receipt, documents: documents.len(), generations })
}

/// The documents and their children, as far as the caller may see the former; `also_doomed` includes those of a
/// collection that is being deleted.
async fn family(
    connection: &mut PgConnection,
    documents: &[Uuid],
    labels: Option<&[String]>,
    also_doomed: bool,
) -> Result<Vec<Uuid>, DbError> {
    let family = sqlx::query_scalar(
        "WITH RECURSIVE doomed AS (
             SELECT id FROM documents WHERE tenant_id = current_tenant() AND id = ANY ($1) AND (deleted_at IS NULL OR $3)
                                        AND ($2::text[] IS NULL OR labels = '{}' OR labels && $2)
             UNION SELECT c.id FROM documents c JOIN doomed p ON c.parent_id = p.id WHERE c.tenant_id = current_tenant())
         SELECT id FROM doomed",
    )
    .bind(documents)
    .bind(labels)
    .bind(also_doomed)
    .fetch_all(connection)
    .await?;
    Ok(family)
}

/// Locks documents, runs first: the engine settles in that order.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    documents: &[Uuid],
    wanted: Option<DocumentId>,
) -> Result<(), DbError> {
    sqlx::query(
        "SELECT id FROM runs WHERE tenant_id = current_tenant() AND document_id = ANY ($1) ORDER BY id FOR UPDATE",
    )
    .bind(documents)
    .execute(&mut *connection)
    .await?;
    let locked: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM documents WHERE tenant_id = current_tenant() AND id = ANY ($1) ORDER BY id FOR UPDATE",
    )
    .bind(documents)
    .fetch_all(connection)
    .await?;
    match wanted {
        // Also when somebody else deleted it while this call waited.
        Some(id) if !locked.contains(&id.0) => Err(Failure::new(Code::NotFound, "no such document").into()),
        _ => Ok(()),
    }
}

/// Opens the receipt of a collection's deletion, in the caller's transaction. Its documents are out of every listing,
/// search and declaration from the commit on; the sweeper then removes them.
/// Returns the receipt's id and how many documents there are.
///
/// # Errors
/// `NOT_FOUND` when no document is in it.
pub async fn collection(
    connection: &mut PgConnection,
    name: &str,
    principal: PrincipalId,
) -> Result<(Uuid, i64), DbError> {
    let doomed = sqlx::query(
        "UPDATE documents SET deleted_at = now() WHERE tenant_id = current_tenant() AND collection = $1 AND deleted_at IS NULL",
    )
    .bind(name)
    .execute(&mut *connection)
    .await?;
    let documents = doomed.rows_affected() as i64;
    if documents == 0 {
        return Err(Failure::new(Code::NotFound, "no such collection").into());
    }
    let receipt = remove::open(connection, Cause::Collection, name, Some(principal), false).await?;
    feed::corpus_changed(connection).await?;
    Ok((receipt, documents))
}

/// Removes the next batch of a collection that is being deleted; true once none of its documents is left. Documents
/// declared after the request are not among them.
pub(crate) async fn advance(stores: &Stores, tenant: TenantId, receipt: Uuid) -> Result<bool, Failure> {
    let batch = stores.database.read(tenant, move |connection| {
        Box::pin(async move {
            let batch: Vec<Uuid> = sqlx::query_scalar(
                "SELECT d.id FROM documents d JOIN deletions x ON x.tenant_id = d.tenant_id AND x.id = $1
                 WHERE d.tenant_id = current_tenant() AND d.collection = x.subject AND d.deleted_at IS NOT NULL
                 ORDER BY d.id LIMIT $2",
            )
            .bind(receipt)
            .bind(BATCH)
            .fetch_all(connection)
            .await?;
            Ok(batch)
        })
    });
    let batch = batch.await?;
    let embedded = embedded_texts(&stores.database, &stores.artifacts, tenant, batch.clone()).await?;
    let removed = stores.database.write(tenant, move |connection| {
        Box::pin(async move {
            sqlx::query("SELECT set_config('lock_timeout', $1, true)")
                .bind(format!("{}ms", BATCH_PATIENCE.as_millis()))
                .execute(&mut *connection)
                .await?;
            // Two sweepers take turns.
            let open: Option<bool> = sqlx::query_scalar(
                "SELECT rows_removed FROM deletions WHERE tenant_id = current_tenant() AND id = $1 FOR UPDATE",
            )
            .bind(receipt)
            .fetch_optional(&mut *connection)
            .await?;
            if open != Some(false) {
                return Ok(true);
            }
            if batch.is_empty() {
                sqlx::query("UPDATE deletions SET rows_removed = true WHERE tenant_id = current_tenant() AND id = $1")
                    .bind(receipt)
                    .execute(connection)
                    .await?;
                return Ok(true);
            }
            let documents = family(connection, &batch, None, true).await?;
            lock(connection, &documents, None).await?;
            let generations = remove::documents(connection, receipt, &documents, embedded).await?;
            feed::append(connection, Op::Remove, &generations).await?;
            Ok(false)
        })
    });
    Ok(removed.await?)
}
