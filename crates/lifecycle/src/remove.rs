//! The first half of every deletion: rows go, the receipt says what they leave behind.

use crate::receipt::{self, Cause, Counts};
use docmill_model::PrincipalId;
use docmill_platform::database::DbError;
use sqlx::PgConnection;
use uuid::Uuid;

/// Longest life of a signed upload URL: what is put there later goes when it has run out.
pub const UPLOAD_TTL: std::time::Duration = std::time::Duration::from_secs(15 * 60);

/// What may have to go besides the rows.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub(crate) struct Condemned {
    pub embed_hashes: Vec<Vec<u8>>,
    /// SHA-256 of artifacts.
    pub artifacts: Vec<String>,
    /// SHA-256 of accepted files.
    pub accepted: Vec<String>,
    /// Keys of upload objects.
    pub uploads: Vec<String>,
    /// A signed URL may still be used.
    pub is_upload_open: bool,
}

impl Condemned {
    pub fn is_empty(&self) -> bool {
        self.embed_hashes.is_empty() && self.artifacts.is_empty() && self.accepted.is_empty() && self.uploads.is_empty()
    }
}

/// Opens a receipt.
pub(crate) async fn open(
    connection: &mut PgConnection,
    cause: Cause,
    subject: &str,
    principal: Option<PrincipalId>,
    rows_removed: bool,
) -> Result<Uuid, DbError> {
    let id = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO deletions (tenant_id, id, cause, subject, principal_id, rows_removed)
         VALUES (current_tenant(), $1, $2, $3, $4, $5)",
    )
    .bind(id)
    .bind(cause.as_str())
    .bind(subject)
    .bind(principal.map(|principal| principal.0))
    .bind(rows_removed)
    .execute(connection)
    .await?;
    Ok(id)
}

/// Adds to what a receipt condemns. Remembered results that need a condemned artifact go at once, so that no later run
/// relies on one.
pub(crate) async fn condemn(connection: &mut PgConnection, id: Uuid, more: &Condemned) -> Result<Counts, DbError> {
    sqlx::query(
        "UPDATE deletions SET waits_for = NULL,
                finish_after = CASE WHEN $2 THEN now() + make_interval(secs => $3) ELSE finish_after END
         WHERE tenant_id = current_tenant() AND id = $1",
    )
    .bind(id)
    .bind(more.is_upload_open)
    .bind(UPLOAD_TTL.as_secs_f64())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO condemned (tenant_id, deletion_id, kind, name)
         SELECT current_tenant(), $1, kind, name FROM (
             SELECT 'vector' AS kind, encode(hash, 'hex') AS name FROM unnest($2::bytea[]) AS hash
             UNION ALL SELECT 'artifact', unnest($3::text[])
             UNION ALL SELECT 'accepted', unnest($4::text[])
             UNION ALL SELECT 'upload', unnest($5::text[])) AS more
         ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(&more.embed_hashes)
    .bind(&more.artifacts)
    .bind(&more.accepted)
    .bind(&more.uploads)
    .execute(&mut *connection)
    .await?;
    let forgotten = sqlx::query(
        "WITH unused AS (
            SELECT unnest($1::text[]) AS sha256
            EXCEPT SELECT a.value ->> 'sha256' FROM jobs j, jsonb_each(j.manifest -> 'artifacts') a WHERE j.tenant_id = current_tenant())
         DELETE FROM stage_cache s WHERE s.tenant_id = current_tenant() AND EXISTS (
            SELECT 1 FROM jsonb_each(s.manifest -> 'artifacts') a JOIN unused u ON u.sha256 = a.value ->> 'sha256')",
    )
    .bind(&more.artifacts)
    .execute(connection)
    .await?;
    Ok(Counts { cached_results: forgotten.rows_affected() as i64, ..Counts::default() })
}

/// Removes documents with all their rows, locked by the caller, and writes down under receipt `id` what they leave.
/// `embedded` are hashes of texts that were embedded but never indexed. Returns the generations to take out of the
/// lexical index by [`withdraw`], which comes last in the transaction.
pub(crate) async fn documents(
    connection: &mut PgConnection,
    id: Uuid,
    documents: &[Uuid],
    embedded: Vec<Vec<u8>>,
) -> Result<Vec<Uuid>, DbError> {
    let mut condemned = leftovers(connection, documents).await?;
    condemned.embed_hashes.extend(embedded);
    condemned.embed_hashes.sort_unstable();
    condemned.embed_hashes.dedup();
    let generations: Vec<Uuid> =
        sqlx::query_scalar("SELECT id FROM generations WHERE tenant_id = current_tenant() AND document_id = ANY ($1)")
            .bind(documents)
            .fetch_all(&mut *connection)
            .await?;
    let mut counts = count(connection, documents).await?;
    crate::words::forget(connection, documents).await?;
    sqlx::query("DELETE FROM documents WHERE tenant_id = current_tenant() AND id = ANY ($1)")
        .bind(documents)
        .execute(&mut *connection)
        .await?;
    counts.add(&condemn(connection, id, &condemned).await?);
    receipt::add(connection, id, &counts).await?;
    Ok(generations)
}

async fn leftovers(connection: &mut PgConnection, documents: &[Uuid]) -> Result<Condemned, DbError> {
    let left = sqlx::query_as(
        "SELECT ARRAY(SELECT DISTINCT embed_hash FROM chunks
                      WHERE tenant_id = current_tenant() AND document_id = ANY ($1)) AS embed_hashes,
                ARRAY(SELECT a.value ->> 'sha256' FROM jobs j, jsonb_each(j.manifest -> 'artifacts') a
                      WHERE j.tenant_id = current_tenant() AND j.document_id = ANY ($1)
                      UNION SELECT parsed_sha256 FROM document_versions
                      WHERE tenant_id = current_tenant() AND document_id = ANY ($1) AND parsed_sha256 IS NOT NULL
                      UNION SELECT parsed_sha256 FROM generations
                      WHERE tenant_id = current_tenant() AND document_id = ANY ($1) AND parsed_sha256 IS NOT NULL
                      UNION SELECT parsed_sha256 FROM cited_texts
                      WHERE tenant_id = current_tenant() AND document_id = ANY ($1)) AS artifacts,
                ARRAY(SELECT DISTINCT sha256 FROM document_versions
                      WHERE tenant_id = current_tenant() AND document_id = ANY ($1) AND accepted_key IS NOT NULL) AS accepted,
                ARRAY(SELECT upload_key FROM document_versions
                      WHERE tenant_id = current_tenant() AND document_id = ANY ($1)) AS uploads,
                EXISTS (SELECT 1 FROM document_versions WHERE tenant_id = current_tenant()
                        AND document_id = ANY ($1) AND upload_state = 'pending') AS is_upload_open",
    );
    Ok(left.bind(documents).fetch_one(connection).await?)
}

async fn count(connection: &mut PgConnection, documents: &[Uuid]) -> Result<Counts, DbError> {
    let (versions, runs, jobs, generations, chunks, results): (i64, i64, i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM document_versions WHERE tenant_id = current_tenant() AND document_id = ANY ($1)),
                (SELECT count(*) FROM runs WHERE tenant_id = current_tenant() AND document_id = ANY ($1)),
                (SELECT count(*) FROM jobs WHERE tenant_id = current_tenant() AND document_id = ANY ($1)),
                (SELECT count(*) FROM generations WHERE tenant_id = current_tenant() AND document_id = ANY ($1)),
                (SELECT count(*) FROM chunks WHERE tenant_id = current_tenant() AND document_id = ANY ($1)),
                (SELECT count(*) FROM extractions WHERE tenant_id = current_tenant() AND document_id = ANY ($1))
                + (SELECT count(*) FROM summaries WHERE tenant_id = current_tenant() AND document_id = ANY ($1))",
    )
    .bind(documents)
    .fetch_one(connection)
    .await?;
    let documents = documents.len() as i64;
    Ok(Counts { documents, versions, runs, jobs, generations, chunks, results, ..Counts::default() })
}

/// Takes generations out of the lexical index. The numbers of the feed come last in a transaction.
pub(crate) async fn withdraw(connection: &mut PgConnection, generations: &[Uuid]) -> Result<(), DbError> {
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
