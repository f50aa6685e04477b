//! The dense half: cosine over pgvector, with the caller's limits inside the scan.
//!
//! Promises min(k, n) results for every tenant and filter: few rows are scanned exactly, many go through the HNSW
//! index with an iterative scan, and where that comes back short the exact scan answers. Runs inside the caller's
//! transaction, so that both halves of a search see one snapshot.

use crate::search::scope::SearchScope;
use docmill_model::{ChunkId, TenantId};
use docmill_platform::embedder::Space;
use pgvector::Vector;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// When to scan exactly and how hard the index tries.
#[derive(Clone, Copy, Debug)]
pub struct DenseConfig {
    /// Up to this many matching rows every distance is computed; about 2 ms for each thousand.
    pub exact_rows: i64,
    /// Candidates HNSW keeps while it walks (`hnsw.ef_search`), 1–1000.
    pub ef_search: u32,
    /// Rows an iterative scan may visit before it gives up (`hnsw.max_scan_tuples`).
    pub max_scan_tuples: u32,
}

impl Default for DenseConfig {
    fn default() -> Self {
        Self { exact_rows: 2_000, ef_search: 120, max_scan_tuples: 40_000 }
    }
}

/// How a transaction finds what is nearest; see [`Dense::way`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By every distance.
    Scan,
    /// Through the index: the planner is left this one way until the nearest are found.
    Walk,
}

/// A visible chunk near the query.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseHit {
    /// The chunk.
    pub chunk_id: ChunkId,
    /// Identity of its vector; equal for equal texts.
    pub embed_hash: Vec<u8>,
    /// ISO 639-3 language of the chunk.
    pub language: Option<String>,
    /// Cosine similarity, -1 to 1.
    pub cosine: f64,
}

/// The dense half: its constants, and which tenants are known to be large.
#[derive(Debug)]
pub struct Dense {
    config: DenseConfig,
    /// Tenants with more vectors in a space than are scanned exactly. One that shrank is only searched less directly.
    large: Mutex<HashSet<(TenantId, i32)>>,
}

impl Dense {
    /// With these constants.
    #[must_use]
    pub fn new(config: DenseConfig) -> Self {
        Self { config, large: Mutex::default() }
    }

    /// How this transaction finds what is nearest, which can be said before there is a question. Makes it ready for that:
    /// until then it should ask for nothing else.
    ///
    /// # Errors
    /// The driver's.
    pub async fn way(
        &self,
        connection: &mut PgConnection,
        tenant: TenantId,
        space: &Space,
        scope: &SearchScope,
    ) -> Result<Way, sqlx::Error> {
        if !self.is_large(connection, tenant, space).await? || is_narrow(connection, &self.config, scope).await? {
            return Ok(Way::Scan);
        }
        plan_in_distance_order(connection, &self.config).await?;
        Ok(Way::Walk)
    }

    /// Leaves a transaction that was made ready, where there is no question after all.
    ///
    /// # Errors
    /// The driver's.
    pub async fn leave(&self, connection: &mut PgConnection, way: Way) -> Result<(), sqlx::Error> {
        match way {
            Way::Scan => Ok(()),
            Way::Walk => plan_freely(connection).await,
        }
    }

    /// The `limit` visible texts of the transaction's tenant in `scope` that are nearest in `space`, nearest first; ties go
    /// by chunk id.
    /// Chunks of equal text have one vector and are one text, known by one of them; fewer than `limit` are all.
    ///
    /// # Errors
    /// The driver's.
    pub async fn nearest(
        &self,
        connection: &mut PgConnection,
        way: Way,
        space: &Space,
        scope: &SearchScope,
        query: &[f32],
        limit: i64,
    ) -> Result<Vec<DenseHit>, sqlx::Error> {
        let query = Vector::from(query.to_vec());
        if way == Way::Walk {
            let found = approximate(connection, space, scope, &query, limit).await?;
            plan_freely(connection).await?;
            if found.len() as i64 >= limit {
                return Ok(found);
            }
        }
        exact(connection, space, scope, &query, limit).await
    }

    /// True when the tenant owns more vectors than are scanned exactly. Counting so many costs as much as a search:
    /// the answer is kept.
    async fn is_large(
        &self,
        connection: &mut PgConnection,
        tenant: TenantId,
        space: &Space,
    ) -> Result<bool, sqlx::Error> {
        let owner = (tenant, space.id);
        if self.large.lock().unwrap_or_else(PoisonError::into_inner).contains(&owner) {
            return Ok(true);
        }
        let owned: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT 1 FROM vectors WHERE tenant_id = current_tenant() AND space_id = $2 LIMIT $1) AS few",
        )
        .bind(self.config.exact_rows + 1)
        .bind(space.id)
        .fetch_one(connection)
        .await?;
        let is_large = owned > self.config.exact_rows;
        if is_large {
            self.large.lock().unwrap_or_else(PoisonError::into_inner).insert(owner);
        }
        Ok(is_large)
    }
}

/// True when filters leave few enough rows to compute every distance.
async fn is_narrow(
    connection: &mut PgConnection,
    config: &DenseConfig,
    scope: &SearchScope,
) -> Result<bool, sqlx::Error> {
    if !scope.is_narrowed() {
        return Ok(false);
    }
    let matching: i64 = sqlx::query_scalar_with(
        "SELECT count(*) FROM (
            SELECT 1 FROM documents d JOIN chunks c ON c.tenant_id = d.tenant_id AND c.generation_id = d.visible_generation
            WHERE d.tenant_id = current_tenant() AND document_matches(d, $1, $2, $3, $4, $5, $6, $7) LIMIT $8) AS few",
        scope.arguments()?,
    )
    .bind(config.exact_rows + 1)
    .fetch_one(connection)
    .await?;
    Ok(matching <= config.exact_rows)
}

/// `sql` with the number and the column type of `space` written out: only so does the planner see which index it is about.
pub(crate) fn in_space(space: &Space, sql: &str) -> AssertSqlSafe<String> {
    // A number and a length: nothing a caller could have written.
    AssertSqlSafe(sql.replace("{space}", &space.id.to_string()).replace("{column}", &space.column_type()))
}

/// Every distance computed: the materialized step keeps the planner away from the approximate index.
async fn exact(
    connection: &mut PgConnection,
    space: &Space,
    scope: &SearchScope,
    query: &Vector,
    limit: i64,
) -> Result<Vec<DenseHit>, sqlx::Error> {
    let rows = sqlx::query_with(
        in_space(
            space,
            "WITH near AS MATERIALIZED (
            SELECT DISTINCT ON (c.embed_hash)
                   c.id, c.embed_hash, c.language, ((v.embedding::{column}) <=> $9::{column}) AS distance
            FROM documents d
            JOIN chunks c ON c.tenant_id = d.tenant_id AND c.generation_id = d.visible_generation
            JOIN vectors v ON v.tenant_id = c.tenant_id AND v.space_id = {space} AND v.embed_hash = c.embed_hash
            WHERE d.tenant_id = current_tenant() AND document_matches(d, $1, $2, $3, $4, $5, $6, $7)
            ORDER BY c.embed_hash, c.id)
         SELECT id, embed_hash, language, distance FROM near ORDER BY distance, id LIMIT $8",
        ),
        scope.arguments()?,
    )
    .bind(limit)
    .bind(query)
    .fetch_all(connection)
    .await?;
    rows.iter().map(hit).collect()
}

/// Through HNSW in distance order, each vector joined to one visible chunk of its text (asked for in no order:
/// the planner would read all chunks by id), until `limit` rows passed.
async fn approximate(
    connection: &mut PgConnection,
    space: &Space,
    scope: &SearchScope,
    query: &Vector,
    limit: i64,
) -> Result<Vec<DenseHit>, sqlx::Error> {
    let rows = sqlx::query_with(in_space(
        space,
        "SELECT c.id, c.embed_hash, c.language, ((v.embedding::{column}) <=> $9::{column}) AS distance
         FROM vectors v
         CROSS JOIN LATERAL (
            SELECT c.id, c.embed_hash, c.language
            FROM chunks c
            JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id AND d.visible_generation = c.generation_id
            WHERE c.tenant_id = v.tenant_id AND c.embed_hash = v.embed_hash AND document_matches(d, $1, $2, $3, $4, $5, $6, $7)
            LIMIT 1) c
         WHERE v.tenant_id = current_tenant() AND v.space_id = {space}
         ORDER BY (v.embedding::{column}) <=> $9::{column} LIMIT $8",
    ), scope.arguments()?)
    .bind(limit)
    .bind(query)
    .fetch_all(connection)
    .await?;
    let mut hits: Vec<DenseHit> = rows.iter().map(hit).collect::<Result<_, _>>()?;
    hits.sort_by(|a, b| b.cosine.total_cmp(&a.cosine).then(a.chunk_id.cmp(&b.chunk_id)));
    Ok(hits)
}

/// Leaves the planner one way: walk the index in order and look each candidate up, joins as written; so it need not look
/// for one again at every question. Until [`plan_freely`]; what is pgvector's ends with the transaction.
async fn plan_in_distance_order(connection: &mut PgConnection, config: &DenseConfig) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', $1, true),
                set_config('hnsw.max_scan_tuples', $2, true), set_config('enable_sort', 'off', true),
                set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
                set_config('enable_material', 'off', true), set_config('enable_seqscan', 'off', true),
                set_config('join_collapse_limit', '1', true), set_config('plan_cache_mode', 'force_generic_plan', true)",
    )
    .bind(config.ef_search.to_string())
    .bind(config.max_scan_tuples.to_string())
    .execute(connection)
    .await
    .map(|_| ())
}

/// Gives the planner back its ways.
async fn plan_freely(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT set_config('enable_sort', 'on', true), set_config('enable_hashjoin', 'on', true),
                set_config('enable_mergejoin', 'on', true), set_config('enable_material', 'on', true),
                set_config('enable_seqscan', 'on', true), set_config('join_collapse_limit', '8', true),
                set_config('plan_cache_mode', 'auto', true)",
    )
    .execute(connection)
    .await
    .map(|_| ())
}

fn hit(row: &sqlx::postgres::PgRow) -> Result<DenseHit, sqlx::Error> {
    Ok(DenseHit {
        chunk_id: ChunkId(row.try_get("id")?),
        embed_hash: row.try_get("embed_hash")?,
        language: row.try_get("language")?,
        cosine: 1.0 - row.try_get::<f64, _>("distance")?,
    })
}
