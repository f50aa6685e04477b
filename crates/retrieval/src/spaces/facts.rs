//! What a builder reads and writes about spaces: leases, counts, how far the feeds are.

use super::build::{Builder, Site};
use super::{gaps, tenants};
use docmill_model::{Failure, TenantId};
use docmill_platform::database::DbError;
use docmill_platform::embedder::Space;
use std::collections::HashMap;
use uuid::Uuid;

impl Builder {
    /// True while an operator has stopped the embed stage.
    pub(super) async fn is_paused(&self) -> Result<bool, Failure> {
        let paused =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pauses WHERE kind = 'stage' AND subject = 'embed')");
        Ok(paused.fetch_one(self.database.engine()).await.map_err(DbError::from)?)
    }

    /// Takes or keeps the space for a lease, and adds what was embedded to its counts; false when it is not ours.
    pub(super) async fn hold(&self, space: &Space, embedded: i64) -> Result<bool, Failure> {
        let held = sqlx::query(
            "UPDATE embedding_spaces SET builder = $2, lease_until = now() + make_interval(secs => $3),
                    embedded = embedded + $4, missing = greatest(missing - $4, 0)
             WHERE id = $1 AND fingerprint IS NOT DISTINCT FROM $5 AND state <> 'dropping' AND NOT is_paused
               AND (builder = $2 OR lease_until IS NULL OR lease_until < now())",
        )
        .bind(space.id)
        .bind(&self.config.name)
        .bind(self.config.lease.as_secs_f64())
        .bind(embedded)
        .bind(&space.fingerprint)
        .execute(self.database.engine())
        .await
        .map_err(DbError::from)?;
        Ok(held.rows_affected() == 1)
    }

    /// Counts what the space has and lacks, once before its first look.
    pub(super) async fn count(&mut self, site: &Site, tenants: &[TenantId]) -> Result<(), Failure> {
        if self.counted.contains(&site.key()) {
            return Ok(());
        }
        let gaps::Counted { texts, missing, .. } = self.counted_anew(site, tenants).await?;
        sqlx::query(
            "UPDATE embedding_spaces SET texts = $2, missing = $3, counted_at = now() WHERE id = $1 AND builder = $4",
        )
        .bind(site.space.id)
        .bind(texts)
        .bind(missing)
        .bind(&self.config.name)
        .execute(self.database.engine())
        .await
        .map_err(DbError::from)?;
        self.counted.insert(site.key());
        Ok(())
    }

    /// Nothing is missing.
    pub(super) async fn finish(&self, space: &Space) -> Result<(), Failure> {
        let finished = sqlx::query(
            "UPDATE embedding_spaces SET state = 'ready', ready_at = coalesce(ready_at, now()), missing = 0, code = NULL
             WHERE id = $1 AND builder = $2 AND state <> 'dropping' AND (state = 'building' OR missing > 0 OR code IS NOT NULL)",
        );
        let finished = finished.bind(space.id).bind(&self.config.name).execute(self.database.engine()).await;
        if finished.map_err(DbError::from)?.rows_affected() > 0 {
            tracing::info!(space = space.name, "the embedding space is complete");
        }
        Ok(())
    }

    /// How far the feeds are: a generation is on its tenant's feed once its chunks are written.
    pub(super) async fn heads(&self) -> Result<HashMap<TenantId, i64>, Failure> {
        let heads: Vec<(Uuid, i64)> = sqlx::query_as("SELECT tenant_id, seq FROM index_heads")
            .fetch_all(self.database.engine())
            .await
            .map_err(DbError::from)?;
        Ok(heads.into_iter().map(|(tenant, seq)| (TenantId(tenant), seq)).collect())
    }

    pub(super) async fn paused_tenants(&self) -> Result<Vec<String>, Failure> {
        let paused = sqlx::query_scalar("SELECT subject FROM pauses WHERE kind = 'tenant'");
        Ok(paused.fetch_all(self.database.engine()).await.map_err(DbError::from)?)
    }

    /// Generations that came onto the feed; `None` when it no longer tells.
    pub(super) async fn added(&self, tenant: TenantId, seen: i64, head: i64) -> Result<Option<Vec<Uuid>>, Failure> {
        let rows: Vec<(Uuid, bool)> = sqlx::query_as(
            "SELECT generation_id, op = 'add' FROM index_ops WHERE tenant_id = $1 AND seq > $2 AND seq <= $3",
        )
        .bind(tenant.0)
        .bind(seen)
        .bind(head)
        .fetch_all(self.database.engine())
        .await
        .map_err(DbError::from)?;
        let is_whole = rows.len() as i64 == head - seen;
        Ok(is_whole.then(|| rows.into_iter().filter(|(_, is_add)| *is_add).map(|(id, _)| id).collect()))
    }

    /// A paused space is ready only as long as nothing arrives for it: from then on it is one that is being built, and no
    /// search by its name misses anything silently.
    pub(super) async fn look_at_paused(&mut self, space: &Space, others: &[i32]) -> Result<(), Failure> {
        let Some(model) = self.embedders.of(space).filter(|_| space.state == "ready" && !space.is_active) else {
            return Ok(());
        };
        let site = Site { space: space.clone(), others: others.to_vec(), model };
        let (tenants, heads) = (tenants(&self.database).await?, self.heads().await?);
        for tenant in tenants.iter().copied() {
            let (head, key) = (heads.get(&tenant).copied().unwrap_or(0), (site.key(), tenant));
            let seen = self.seen.get(&key).copied();
            if seen == Some(head) {
                continue;
            }
            let added = match seen {
                Some(seen) => self.added(tenant, seen, head).await?,
                None => None,
            };
            if gaps::first(&self.database, tenant, space.id, others, added.as_deref(), 1).await?.is_empty() {
                self.seen.insert(key, head);
                continue;
            }
            let counted = self.counted_anew(&site, &tenants).await?;
            let reopened = sqlx::query(
                "UPDATE embedding_spaces SET state = 'building', texts = $2, missing = $3, counted_at = now()
                 WHERE id = $1 AND created_at = $4 AND state = 'ready' AND is_paused
                   AND NOT EXISTS (SELECT 1 FROM active_spaces a WHERE a.space_id = $1)",
            );
            let reopened = reopened.bind(space.id).bind(counted.texts).bind(counted.missing).bind(space.created_at);
            reopened.execute(self.database.engine()).await.map_err(DbError::from)?;
            return Ok(());
        }
        Ok(())
    }

    /// What all tenants have and lack in a space; it is kept meanwhile.
    async fn counted_anew(&self, site: &Site, tenants: &[TenantId]) -> Result<gaps::Counted, Failure> {
        let mut all = gaps::Counted::default();
        for tenant in tenants {
            let counted = gaps::count(&self.database, *tenant, site.space.id, &site.others).await?;
            all.texts += counted.texts;
            all.missing += counted.missing;
            self.hold(&site.space, 0).await?;
        }
        Ok(all)
    }
}
