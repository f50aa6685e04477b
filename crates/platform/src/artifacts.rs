//! Content-addressed artifacts of a tenant: what stages hand each other through the object store.
//!
//! An intent row is committed before the PUT, so an object that lost its writer is always known and can be collected;
//! equal bytes of one tenant are stored once. Tenants never share a key.

use crate::blobs::Blobs;
use crate::database::{Database, DbError};
use crate::failpoints::Failpoints;
use crate::layout::artifact_key;
use bytes::Bytes;
use docmill_model::manifest::ArtifactRef;
use docmill_model::{Failure, Sha256Hex, TenantId};
use sqlx::PgConnection;
use std::sync::Arc;

/// Reads and writes artifacts.
#[derive(Clone)]
pub struct Artifacts {
    database: Database,
    blobs: Arc<dyn Blobs>,
    failpoints: Failpoints,
}

impl Artifacts {
    /// Over a database and an object store.
    #[must_use]
    pub fn new(database: Database, blobs: Arc<dyn Blobs>) -> Self {
        let failpoints = database.failpoints().at("api");
        Self { database, blobs, failpoints }
    }

    /// The same artifacts for a stage: the place of the points at which a test lets it die.
    #[must_use]
    pub fn at(&self, stage: &str) -> Self {
        Self { failpoints: self.failpoints.at(stage), ..self.clone() }
    }

    /// The object store underneath.
    #[must_use]
    pub fn blobs(&self) -> &Arc<dyn Blobs> {
        &self.blobs
    }

    /// Stores `bytes` and returns their address. Equal bytes give the same address and one object.
    ///
    /// # Errors
    /// `STORE_UNAVAILABLE` or `DATABASE_UNAVAILABLE`.
    pub async fn put(&self, tenant: TenantId, bytes: Bytes) -> Result<ArtifactRef, Failure> {
        let reference = ArtifactRef { sha256: Sha256Hex::of(&bytes), size_bytes: bytes.len() as u64 };
        let key = artifact_key(tenant, &reference.sha256);
        if self.intend(tenant, &reference, &key).await? {
            return Ok(reference);
        }
        self.failpoints.hit("artifact.intended", "").await;
        self.blobs.put(&key, bytes, &reference.sha256).await?;
        self.failpoints.hit("artifact.put", "").await;
        let sha256 = reference.sha256.to_string();
        self.database
            .write(tenant, move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE artifacts SET state = 'stored' WHERE tenant_id = current_tenant() AND sha256 = $1",
                    )
                    .bind(sha256)
                    .execute(connection)
                    .await?;
                    Ok(())
                })
            })
            .await?;
        Ok(reference)
    }

    /// Writes the intent row; true when the object is already stored.
    async fn intend(&self, tenant: TenantId, reference: &ArtifactRef, key: &str) -> Result<bool, Failure> {
        let (sha256, size, key) = (reference.sha256.to_string(), reference.size_bytes as i64, key.to_owned());
        let state: String = self
            .database
            .write(tenant, move |connection| {
                Box::pin(async move {
                    let state = sqlx::query_scalar(
                        "INSERT INTO artifacts (tenant_id, sha256, size_bytes, key) VALUES (current_tenant(), $1, $2, $3)
                         ON CONFLICT (tenant_id, sha256) DO UPDATE SET created_at = now() RETURNING state",
                    )
                    .bind(sha256)
                    .bind(size)
                    .bind(key)
                    .fetch_one(connection)
                    .await?;
                    Ok(state)
                })
            })
            .await?;
        Ok(state == "stored")
    }

    /// Reads an artifact back and checks its hash.
    ///
    /// # Errors
    /// `OBJECT_MISSING`, `HASH_MISMATCH` or `STORE_UNAVAILABLE`.
    pub async fn get(&self, tenant: TenantId, sha256: &Sha256Hex) -> Result<Bytes, Failure> {
        Ok(self.blobs.get_verified(&artifact_key(tenant, sha256), sha256).await?)
    }
}

/// Locks an accepted file of the current tenant until the transaction ends. Whoever declares bytes and whoever removes
/// them take turns: no declaration relies on an object that is about to go, and of two that declare the same, one finds
/// the other's.
///
/// # Errors
/// Of the database.
pub async fn lock_accepted(connection: &mut PgConnection, sha256: &str) -> Result<(), DbError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('accepted:' || current_tenant()::text || $1, 0))")
        .bind(sha256)
        .execute(connection)
        .await?;
    Ok(())
}
