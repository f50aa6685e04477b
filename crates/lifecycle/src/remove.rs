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
/// lexical index by `feed::append`, which comes last in the transaction.
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
    counts.add(&crate::words::forget(connection, documents).await?);
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

/// What goes with the rows of documents.
async fn count(connection: &mut PgConnection, documents: &[Uuid]) -> Result<Counts, DbError> {
    let counted: sqlx::types::Json<Counts> = sqlx::query_scalar(
        "SELECT jsonb_object_agg(kind, number) FROM (
             SELECT 'versions' AS kind, count(*) AS number FROM document_versions WHERE tenant_id = current_tenant() AND document_id = ANY ($1)
             UNION ALL SELECT 'runs', count(*) FROM runs WHERE tenant_id = current_tenant() AND document_id = ANY ($1)
             UNION ALL SELECT 'jobs', count(*) FROM jobs WHERE tenant_id = current_tenant() AND document_id = ANY ($1)
             UNION ALL SELECT 'dead_letters', count(*) FROM jobs WHERE tenant_id = current_tenant() AND document_id = ANY ($1) AND state = 'dead'
             UNION ALL SELECT 'generations', count(*) FROM generations WHERE tenant_id = current_tenant() AND document_id = ANY ($1)
             UNION ALL SELECT 'chunks', count(*) FROM chunks WHERE tenant_id = current_tenant() AND document_id = ANY ($1)
             UNION ALL SELECT 'results',
                (SELECT count(*) FROM extractions WHERE tenant_id = current_tenant() AND document_id = ANY ($1))
                + (SELECT count(*) FROM summaries WHERE tenant_id = current_tenant() AND document_id = ANY ($1))
             UNION ALL SELECT 'deliveries', count(*) FROM deliveries WHERE tenant_id = current_tenant() AND document_id = ANY ($1)
             UNION ALL SELECT 'events', count(*) FROM document_events WHERE tenant_id = current_tenant() AND document_id = ANY ($1)) AS counted",
    )
    .bind(documents)
    .fetch_one(connection)
    .await?;
    Ok(Counts { documents: documents.len() as i64, ..counted.0 })
}
