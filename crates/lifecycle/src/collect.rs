//! Collecting what nothing uses any more: leftovers of failed runs, replaced generations, unreferenced vectors, artifacts
//! and objects, results nobody asked for again.
//!
//! Nothing is removed on sight. A pass condemns what it finds unreferenced, under a receipt like any deletion; what a run
//! takes up meanwhile is spared. Passes are bounded and may be killed anywhere.

use crate::receipt::{self, Cause, Counts};
use crate::remove::{self, Condemned};
use crate::{Stores, finish};
use docmill_model::{Failure, TenantId};
use docmill_platform::database::DbError;
use docmill_platform::feed::{self, Op};
use docmill_platform::layout::{accepted_prefix, artifact_key, artifact_prefix, upload_prefix};
use sqlx::PgConnection;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// Most rows or objects of a kind that one pass takes.
const BATCH: i64 = 5_000;
/// Generations removed in one pass.
const GENERATIONS: i64 = 200;

/// How old what is unused has to be.
#[derive(Clone, Copy, Debug)]
pub struct Ages {
    /// Rows and objects without a reference: longer than a writer needs between writing and referring.
    pub unreferenced: Duration,
    /// Remembered results of stages since they were last used.
    pub cached: Duration,
}

impl Default for Ages {
    fn default() -> Self {
        Self { unreferenced: Duration::from_secs(3_600), cached: Duration::from_secs(30 * 86_400) }
    }
}

/// One pass over a tenant. Returns what is gone; the rest is in open receipts until no run may need it.
///
/// # Errors
/// Of the database and the object store.
pub async fn pass(stores: &Stores, tenant: TenantId, ages: Ages) -> Result<Counts, Failure> {
    let strays = strays(stores, tenant, ages).await?;
    let Some(id) = begin(stores, tenant, ages, strays).await? else { return Ok(Counts::default()) };
    finish::finish(stores, tenant, id).await?;
    let read = stores.database.read(tenant, move |connection| Box::pin(receipt::find(connection, id)));
    Ok(read.await?.map(|receipt| receipt.counts).unwrap_or_default())
}

/// Begins a pass, without a look through the tenant's objects: forgets remembered results that nobody used for as long as
/// `ages` say, removes generations that were replaced or never shown, and condemns the vectors and artifacts that nothing uses,
/// which the sweeper takes away. True when there was anything of that.
///
/// # Errors
/// Of the database.
pub async fn begin_pass(stores: &Stores, tenant: TenantId, ages: Ages) -> Result<bool, Failure> {
    Ok(begin(stores, tenant, ages, Strays::default()).await?.is_some())
}

/// Opens the receipt of a pass; `None` when there is nothing to collect.
async fn begin(stores: &Stores, tenant: TenantId, ages: Ages, strays: Strays) -> Result<Option<Uuid>, Failure> {
    let condemned = stores.database.write(tenant, move |connection| {
        Box::pin(async move { condemn_unused(connection, tenant, ages, strays).await })
    });
    Ok(condemned.await?)
}

/// Finds what is unused and condemns it in one transaction; `None` when there is nothing.
async fn condemn_unused(
    connection: &mut PgConnection,
    tenant: TenantId,
    ages: Ages,
    strays: Strays,
) -> Result<Option<Uuid>, DbError> {
    // Passes over one tenant take turns, or two would condemn the same.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('collect:' || current_tenant()::text, 0))")
        .execute(&mut *connection)
        .await?;
    let mut counts = Counts { cached_results: forget(connection, ages.cached).await?, ..Counts::default() };
    let generations = generations(connection, ages.unreferenced, &mut counts).await?;
    adopt(connection, tenant, &strays.artifacts).await?;
    let condemned = Condemned {
        embed_hashes: unused_vectors(connection, ages.unreferenced).await?,
        artifacts: unused_artifacts(connection, ages.unreferenced).await?,
        accepted: sqlx::query_scalar(UNUSED_ACCEPTED).bind(strays.accepted).fetch_all(&mut *connection).await?,
        uploads: strays.uploads,
        is_upload_open: false,
    };
    if condemned.is_empty() && counts == Counts::default() {
        return Ok(None);
    }
    let id = remove::open(connection, Cause::Collect, "", None, true).await?;
    counts.add(&remove::condemn(connection, id, &condemned).await?);
    receipt::add(connection, id, &counts).await?;
    feed::append(connection, Op::Remove, &generations).await?;
    Ok(Some(id))
}

/// Forgets results that nobody has used for long.
async fn forget(connection: &mut PgConnection, age: Duration) -> Result<i64, DbError> {
    let forgotten = sqlx::query(
        "DELETE FROM stage_cache WHERE tenant_id = current_tenant() AND used_at < now() - make_interval(secs => $1)",
    )
    .bind(age.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(forgotten.rows_affected() as i64)
}

/// Removes generations that were replaced, and those whose run ended without showing them.
async fn generations(connection: &mut PgConnection, age: Duration, counts: &mut Counts) -> Result<Vec<Uuid>, DbError> {
    let unused: Vec<Uuid> = sqlx::query_scalar(
        "SELECT g.id FROM generations g WHERE g.tenant_id = current_tenant()
           AND g.state <> 'visible' AND coalesce(g.retired_at, g.created_at) < now() - make_interval(secs => $1)
           AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.tenant_id = g.tenant_id AND r.document_id = g.document_id
                           AND r.state = 'running')
           AND NOT EXISTS (SELECT 1 FROM documents d WHERE d.tenant_id = g.tenant_id AND d.id = g.document_id
                           AND d.visible_generation = g.id)
         ORDER BY g.id LIMIT $2 FOR UPDATE OF g SKIP LOCKED",
    )
    .bind(age.as_secs_f64())
    .bind(GENERATIONS)
    .fetch_all(&mut *connection)
    .await?;
    if unused.is_empty() {
        return Ok(unused);
    }
    counts.chunks += sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM chunks WHERE tenant_id = current_tenant() AND generation_id = ANY ($1)",
    )
    .bind(&unused)
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM generations WHERE tenant_id = current_tenant() AND id = ANY ($1)")
        .bind(&unused)
        .execute(connection)
        .await?;
    counts.generations += unused.len() as i64;
    Ok(unused)
}

async fn unused_vectors(connection: &mut PgConnection, age: Duration) -> Result<Vec<Vec<u8>>, DbError> {
    let hashes = sqlx::query_scalar(
        "SELECT DISTINCT v.embed_hash FROM vectors v WHERE v.tenant_id = current_tenant()
           AND v.created_at < now() - make_interval(secs => $1)
           AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.tenant_id = v.tenant_id AND c.embed_hash = v.embed_hash)
         LIMIT $2",
    )
    .bind(age.as_secs_f64())
    .bind(BATCH)
    .fetch_all(connection)
    .await?;
    Ok(hashes)
}

async fn unused_artifacts(connection: &mut PgConnection, age: Duration) -> Result<Vec<String>, DbError> {
    let unused = sqlx::query_scalar(
        "SELECT sha256 FROM artifacts WHERE tenant_id = current_tenant() AND created_at < now() - make_interval(secs => $1)
         EXCEPT SELECT parsed_sha256 FROM document_versions WHERE tenant_id = current_tenant()
         EXCEPT SELECT parsed_sha256 FROM generations WHERE tenant_id = current_tenant()
         EXCEPT SELECT parsed_sha256 FROM cited_texts WHERE tenant_id = current_tenant()
         EXCEPT SELECT a.value ->> 'sha256' FROM jobs j, jsonb_each(j.manifest -> 'artifacts') a WHERE j.tenant_id = current_tenant()
         EXCEPT SELECT a.value ->> 'sha256' FROM stage_cache s, jsonb_each(s.manifest -> 'artifacts') a WHERE s.tenant_id = current_tenant()
         LIMIT $2",
    )
    .bind(age.as_secs_f64())
    .bind(BATCH)
    .fetch_all(connection)
    .await?;
    Ok(unused)
}

/// Objects without a row that accounts for them.
#[derive(Default)]
struct Strays {
    /// SHA-256 of accepted files.
    accepted: Vec<String>,
    /// Keys of uploads that are no longer wanted.
    uploads: Vec<String>,
    /// SHA-256 of artifacts whose row is gone.
    artifacts: Vec<String>,
}

/// Of names under a prefix those that no row accounts for.
const UNUSED_ACCEPTED: &str = "SELECT unnest($1::text[]) EXCEPT SELECT sha256 FROM document_versions
    WHERE tenant_id = current_tenant() AND upload_state IN ('pending', 'accepted') AND raw_removed_at IS NULL";
const UNWANTED_UPLOADS: &str = "SELECT unnest($1::text[]) EXCEPT SELECT id::text FROM document_versions
    WHERE tenant_id = current_tenant() AND upload_state = 'pending'";
const UNKNOWN_ARTIFACTS: &str = "SELECT name FROM unnest($1::text[]) AS name WHERE name ~ '^[0-9a-f]{64}$'
    EXCEPT SELECT sha256 FROM artifacts WHERE tenant_id = current_tenant()";

/// Looks through the tenant's objects. Objects younger than the age are left: their row may be on its way.
async fn strays(stores: &Stores, tenant: TenantId, ages: Ages) -> Result<Strays, Failure> {
    let limit = OffsetDateTime::now_utc() - ages.unreferenced;
    let prefix = upload_prefix(tenant);
    let uploads = unaccounted(stores, tenant, &prefix, limit, UNWANTED_UPLOADS).await?;
    Ok(Strays {
        accepted: unaccounted(stores, tenant, &accepted_prefix(tenant), limit, UNUSED_ACCEPTED).await?,
        uploads: uploads.into_iter().map(|name| format!("{prefix}{name}")).collect(),
        artifacts: unaccounted(stores, tenant, &artifact_prefix(tenant), limit, UNKNOWN_ARTIFACTS).await?,
    })
}

/// The last parts of keys under a prefix whose objects were written before `limit` and which `query` lets through, until
/// there are enough for one pass.
async fn unaccounted(
    stores: &Stores,
    tenant: TenantId,
    prefix: &str,
    limit: OffsetDateTime,
    query: &'static str,
) -> Result<Vec<String>, Failure> {
    let mut strays = Vec::new();
    let mut after: Option<String> = None;
    while strays.len() < BATCH as usize {
        let page = stores.blobs().list(prefix, after.as_deref()).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        let old = page.iter().filter(|entry| entry.modified < limit);
        let names: Vec<String> = old.filter_map(|entry| entry.key.rsplit('/').next()).map(str::to_owned).collect();
        let read = stores.database.read(tenant, move |connection| {
            Box::pin(async move { Ok(sqlx::query_scalar::<_, String>(query).bind(names).fetch_all(connection).await?) })
        });
        strays.extend(read.await?);
    }
    Ok(strays)
}

/// Gives artifacts without a row one again, so that a writer of equal bytes and the collection take turns at it.
async fn adopt(connection: &mut PgConnection, tenant: TenantId, sha256s: &[String]) -> Result<(), DbError> {
    let keys: Vec<String> =
        sha256s.iter().filter_map(|sha256| sha256.parse().ok()).map(|sha256| artifact_key(tenant, &sha256)).collect();
    sqlx::query(
        "INSERT INTO artifacts (tenant_id, sha256, size_bytes, key, created_at)
         SELECT current_tenant(), sha256, 0, key, 'epoch' FROM unnest($1::text[], $2::text[]) AS stray (sha256, key)
         ON CONFLICT DO NOTHING",
    )
    .bind(sha256s)
    .bind(keys)
    .execute(connection)
    .await?;
    Ok(())
}
