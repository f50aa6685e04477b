//! The second half of every deletion: vectors, artifacts and objects that nothing else of the tenant uses.
//!
//! What is condemned goes once the runs that were open when it was condemned have settled: they may rely on a vector or
//! an object without a row that says so yet. Those that stand still for long are not waited for: what they rely on is
//! spared. Later runs see the condemnation and renew what they need. It goes in small
//! steps, each of which commits what it did, so that a deletion of any size ends, however often it is interrupted.

use crate::Stores;
use crate::idle::{self, Standing, standing};
use crate::receipt::{self, Counts};
use docmill_model::{Code, Failure, TenantId};
use docmill_platform::artifacts::lock_accepted;
use docmill_platform::blobs::Blobs;
use docmill_platform::database::DbError;
use docmill_platform::failpoints::Failpoints;
use docmill_platform::layout::accepted_key;
use sqlx::PgConnection;
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

/// Objects removed in one step.
const OBJECTS: i64 = 50;
/// Vectors removed in one step.
const VECTORS: i64 = 5_000;

/// A deletion whose rows are gone.
struct Open<'a> {
    stores: &'a Stores,
    tenant: TenantId,
    id: Uuid,
    /// Runs begun before may rely on what is condemned; what was made or renewed since is spared.
    waits_for: OffsetDateTime,
    /// No signed URL is left that could bring an upload back.
    is_due: bool,
    /// How runs stand that may rely on what is condemned.
    standing: Standing,
}

/// Removes what is condemned under receipt `id` and nothing else uses; true when nothing is left to do.
///
/// # Errors
/// `DATABASE_UNAVAILABLE`, `STORE_UNAVAILABLE`: the rest is done by the next call.
pub(crate) async fn finish(stores: &Stores, tenant: TenantId, id: Uuid) -> Result<bool, Failure> {
    let Some(open) = Open::find(stores, tenant, id).await? else { return Ok(false) };
    open.uploads().await?;
    match open.standing {
        Standing::Busy => return Ok(false),
        Standing::Idle => idle::spare(stores, tenant, id, open.waits_for).await?,
        Standing::Settled => {}
    }
    open.vectors().await?;
    open.artifacts().await?;
    open.accepted().await?;
    open.close().await
}

impl<'a> Open<'a> {
    async fn find(stores: &'a Stores, tenant: TenantId, id: Uuid) -> Result<Option<Open<'a>>, Failure> {
        // Committed before the look at open runs, so that a run begun later sees what is condemned.
        let marked = stores.database.write(tenant, move |connection| {
            Box::pin(async move {
                let open: Option<(OffsetDateTime, bool)> = sqlx::query_as(
                    "UPDATE deletions SET waits_for = coalesce(waits_for, clock_timestamp())
                     WHERE tenant_id = current_tenant() AND id = $1 AND finished_at IS NULL AND rows_removed
                     RETURNING waits_for, finish_after <= now()",
                )
                .bind(id)
                .fetch_optional(connection)
                .await?;
                Ok(open)
            })
        });
        let Some((waits_for, is_due)) = marked.await? else { return Ok(None) };
        let read = stores
            .database
            .read(tenant, move |connection| Box::pin(async move { standing(connection, waits_for).await }));
        let standing = read.await?;
        Ok(Some(Open { stores, tenant, id, waits_for, is_due, standing }))
    }

    /// Upload objects. Their names stay on the list while a signed URL could bring one back.
    async fn uploads(&self) -> Result<(), Failure> {
        let mut last = None;
        loop {
            let keys = self.condemned("upload", last.take(), OBJECTS).await?;
            let Some(end) = keys.last().cloned() else { return Ok(()) };
            let mut objects = 0;
            for key in &keys {
                objects += self.remover("upload").object(key).await?;
            }
            last = Some(end);
            let done = if self.is_due { keys } else { Vec::new() };
            let id = self.id;
            let noted = self.stores.database.write(self.tenant, move |connection| {
                Box::pin(
                    async move { note(connection, id, "upload", &done, Counts { objects, ..Counts::default() }).await },
                )
            });
            noted.await?;
        }
    }

    async fn vectors(&self) -> Result<(), Failure> {
        loop {
            let names = self.condemned("vector", None, VECTORS).await?;
            if names.is_empty() {
                return Ok(());
            }
            let (id, before) = (self.id, self.waits_for);
            let removed = self.stores.database.write(self.tenant, move |connection| {
                Box::pin(async move {
                    let removed = sqlx::query(
                        "DELETE FROM vectors v WHERE v.tenant_id = current_tenant() AND v.created_at < $2
                           AND v.embed_hash IN (SELECT decode(name, 'hex') FROM unnest($1::text[]) AS name)
                           AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.tenant_id = v.tenant_id AND c.embed_hash = v.embed_hash)",
                    )
                    .bind(&names)
                    .bind(before)
                    .execute(&mut *connection)
                    .await?;
                    sqlx::query(
                        "DELETE FROM refused_texts r WHERE r.tenant_id = current_tenant()
                           AND r.embed_hash IN (SELECT decode(name, 'hex') FROM unnest($1::text[]) AS name)
                           AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.tenant_id = r.tenant_id AND c.embed_hash = r.embed_hash)",
                    )
                    .bind(&names)
                    .execute(&mut *connection)
                    .await?;
                    let counts = Counts { vectors: removed.rows_affected() as i64, ..Counts::default() };
                    note(connection, id, "vector", &names, counts).await
                })
            });
            removed.await?;
        }
    }

    /// Artifacts lose their mark of being stored first, in a transaction of its own: whoever writes equal bytes from then
    /// on stores them again, also when this ends between the object and its row.
    async fn artifacts(&self) -> Result<(), Failure> {
        loop {
            let names = self.condemned("artifact", None, OBJECTS).await?;
            if names.is_empty() {
                return Ok(());
            }
            let (id, before, remover) = (self.id, self.waits_for, self.remover("artifact"));
            let listed = names.clone();
            let marked = self.stores.database.write(self.tenant, move |connection| {
                Box::pin(async move { unmark_unused(connection, &listed, before).await })
            });
            let unused = marked.await?;
            let removed = self.stores.database.write(self.tenant, move |connection| {
                Box::pin(async move {
                    let counts = remove_unmarked(connection, &remover, &unused, before).await?;
                    note(connection, id, "artifact", &names, counts).await
                })
            });
            removed.await?;
        }
    }

    /// Accepted files, one at a time under a lock that a declaration of the same bytes takes as well.
    async fn accepted(&self) -> Result<(), Failure> {
        loop {
            let names = self.condemned("accepted", None, OBJECTS).await?;
            if names.is_empty() {
                return Ok(());
            }
            for sha256 in names {
                let (id, tenant, remover) = (self.id, self.tenant, self.remover("accepted"));
                let removed = self.stores.database.write(tenant, move |connection| {
                    Box::pin(async move {
                        lock_accepted(connection, &sha256).await?;
                        // Also an upload that is still open counts: its `complete` may already rely on the object.
                        let used: bool = sqlx::query_scalar(
                            "SELECT EXISTS (SELECT 1 FROM document_versions WHERE tenant_id = current_tenant() AND sha256 = $1
                                            AND upload_state IN ('pending', 'accepted') AND raw_removed_at IS NULL)",
                        )
                        .bind(&sha256)
                        .fetch_one(&mut *connection)
                        .await?;
                        let objects = if used { 0 } else { remover.object(&accepted_key(tenant, &sha256)).await? };
                        let counts = Counts { objects, ..Counts::default() };
                        note(connection, id, "accepted", &[sha256], counts).await
                    })
                });
                removed.await?;
            }
        }
    }

    /// Ends the receipt when nothing is left on its list.
    async fn close(&self) -> Result<bool, Failure> {
        let id = self.id;
        let closed = self.stores.database.write(self.tenant, move |connection| {
            Box::pin(async move {
                let closed = sqlx::query(
                    "UPDATE deletions d SET finished_at = now() WHERE d.tenant_id = current_tenant() AND d.id = $1
                       AND d.finished_at IS NULL AND d.finish_after <= now()
                       AND NOT EXISTS (SELECT 1 FROM condemned c WHERE c.tenant_id = d.tenant_id AND c.deletion_id = d.id)",
                )
                .bind(id)
                .execute(connection)
                .await?;
                Ok(closed.rows_affected() == 1)
            })
        });
        Ok(closed.await?)
    }

    fn remover(&self, kind: &'static str) -> Remover {
        let failpoints = self.stores.database.failpoints().at(kind);
        Remover { blobs: self.stores.blobs().clone(), failpoints }
    }

    /// The next names of a kind on the list, after `last`.
    async fn condemned(&self, kind: &'static str, last: Option<String>, limit: i64) -> Result<Vec<String>, Failure> {
        let id = self.id;
        let read = self.stores.database.read(self.tenant, move |connection| {
            Box::pin(async move {
                let names: Vec<String> = sqlx::query_scalar(
                    "SELECT name FROM condemned WHERE tenant_id = current_tenant() AND deletion_id = $1 AND kind = $2
                       AND ($3::text IS NULL OR name > $3) ORDER BY name LIMIT $4",
                )
                .bind(id)
                .bind(kind)
                .bind(last)
                .bind(limit)
                .fetch_all(connection)
                .await?;
                Ok(names)
            })
        });
        Ok(read.await?)
    }
}

/// Strikes names off the list and adds to what is counted.
async fn note(
    connection: &mut PgConnection,
    id: Uuid,
    kind: &str,
    done: &[String],
    counts: Counts,
) -> Result<(), DbError> {
    sqlx::query(
        "DELETE FROM condemned WHERE tenant_id = current_tenant() AND deletion_id = $1 AND kind = $2 AND name = ANY ($3)",
    )
    .bind(id)
    .bind(kind)
    .bind(done)
    .execute(&mut *connection)
    .await?;
    receipt::add(connection, id, &counts).await
}

/// Removes objects of one kind.
struct Remover {
    blobs: Arc<dyn Blobs>,
    failpoints: Failpoints,
}

impl Remover {
    /// Removes an object; 1 when there was one.
    async fn object(&self, key: &str) -> Result<i64, Failure> {
        let there = self.blobs.head(key).await?.is_some();
        self.failpoints.hit("remove.before", "").await;
        match self.blobs.delete(key).await.map_err(Failure::from) {
            Err(failure) if failure.code != Code::ObjectMissing => return Err(failure),
            _ => {}
        }
        self.failpoints.hit("remove.after", "").await;
        Ok(i64::from(there))
    }
}

/// Takes the mark `stored` from artifacts that nothing refers to and nobody renewed; returns them.
async fn unmark_unused(
    connection: &mut PgConnection,
    sha256s: &[String],
    before: OffsetDateTime,
) -> Result<Vec<String>, DbError> {
    let unused = sqlx::query_scalar(
        "WITH unused AS (
            SELECT unnest($1::text[]) AS sha256
            EXCEPT SELECT parsed_sha256 FROM document_versions WHERE tenant_id = current_tenant()
            EXCEPT SELECT parsed_sha256 FROM generations WHERE tenant_id = current_tenant()
            EXCEPT SELECT parsed_sha256 FROM cited_texts WHERE tenant_id = current_tenant()
            EXCEPT SELECT a.value ->> 'sha256' FROM jobs j, jsonb_each(j.manifest -> 'artifacts') a WHERE j.tenant_id = current_tenant()
            EXCEPT SELECT a.value ->> 'sha256' FROM stage_cache s, jsonb_each(s.manifest -> 'artifacts') a WHERE s.tenant_id = current_tenant())
         UPDATE artifacts a SET state = 'intent' FROM unused u
         WHERE a.tenant_id = current_tenant() AND a.sha256 = u.sha256 AND a.created_at < $2 RETURNING a.sha256",
    )
    .bind(sha256s)
    .bind(before)
    .fetch_all(connection)
    .await?;
    Ok(unused)
}

/// Removes objects and rows of unmarked artifacts that nobody took up since. The lock on a row holds off a writer of
/// equal bytes until both are gone.
async fn remove_unmarked(
    connection: &mut PgConnection,
    remover: &Remover,
    sha256s: &[String],
    before: OffsetDateTime,
) -> Result<Counts, DbError> {
    let unused: Vec<(String, String)> = sqlx::query_as(
        "SELECT sha256, key FROM artifacts WHERE tenant_id = current_tenant() AND sha256 = ANY ($1) AND state = 'intent'
           AND created_at < $2 ORDER BY sha256 FOR UPDATE",
    )
    .bind(sha256s)
    .bind(before)
    .fetch_all(&mut *connection)
    .await?;
    let mut counts = Counts::default();
    for (_, key) in &unused {
        counts.objects += remover.object(key).await?;
    }
    let gone: Vec<&str> = unused.iter().map(|(sha256, _)| sha256.as_str()).collect();
    let removed = sqlx::query("DELETE FROM artifacts WHERE tenant_id = current_tenant() AND sha256 = ANY ($1)")
        .bind(&gone)
        .execute(connection)
        .await?;
    counts.artifacts += removed.rows_affected() as i64;
    Ok(counts)
}
