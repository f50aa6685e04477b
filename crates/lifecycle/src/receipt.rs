//! The receipt of a deletion: who asked for what, and what is gone.

use docmill_platform::database::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// What is gone, by kind. Kinds that a deletion does not touch stay 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Documents, with their names and metadata.
    pub documents: i64,
    /// Versions.
    pub versions: i64,
    /// Runs of the pipeline, with their attempts.
    pub runs: i64,
    /// Jobs of those runs.
    pub jobs: i64,
    /// Generations, each taken out of every lexical index.
    pub generations: i64,
    /// Passages.
    pub chunks: i64,
    /// Extractions and summaries.
    pub results: i64,
    /// Stored answers that quoted them: their quotes are withdrawn.
    pub answers: i64,
    /// Questions of conversations about them, emptied.
    pub messages: i64,
    /// Comments of readers on such answers.
    pub comments: i64,
    /// Remembered answers of models that rested on them.
    pub model_answers: i64,
    /// Jobs that had been given up.
    pub dead_letters: i64,
    /// Deliveries of webhooks, with what they said.
    pub deliveries: i64,
    /// Events of their feeds.
    pub events: i64,
    /// Vectors nothing else used.
    pub vectors: i64,
    /// Remembered results of stages.
    pub cached_results: i64,
    /// Artifacts nothing else used.
    pub artifacts: i64,
    /// Objects in the store: uploads, accepted files, artifacts.
    pub objects: i64,
}

impl Counts {
    /// Adds `other`, kind by kind.
    pub fn add(&mut self, other: &Counts) {
        for (into, from) in [
            (&mut self.documents, other.documents),
            (&mut self.versions, other.versions),
            (&mut self.runs, other.runs),
            (&mut self.jobs, other.jobs),
            (&mut self.generations, other.generations),
            (&mut self.chunks, other.chunks),
            (&mut self.results, other.results),
            (&mut self.answers, other.answers),
            (&mut self.messages, other.messages),
            (&mut self.comments, other.comments),
            (&mut self.model_answers, other.model_answers),
            (&mut self.dead_letters, other.dead_letters),
            (&mut self.deliveries, other.deliveries),
            (&mut self.events, other.events),
            (&mut self.vectors, other.vectors),
            (&mut self.cached_results, other.cached_results),
            (&mut self.artifacts, other.artifacts),
            (&mut self.objects, other.objects),
        ] {
            *into += from;
        }
    }
}

/// Why something was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody deleted a document.
    Document,
    /// Somebody deleted a collection.
    Collection,
    /// A retention rule ran out.
    Retention,
    /// Nothing used it any more.
    Collect,
}

impl Cause {
    /// The stored spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Document => "document",
            Cause::Collection => "collection",
            Cause::Retention => "retention",
            Cause::Collect => "collect",
        }
    }
}

/// The record of one deletion. It stays for ever and holds no content.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Its identifier.
    pub id: Uuid,
    /// `document`, `collection`, `retention` or `collect`.
    pub cause: String,
    /// Id of the document, name of the collection; empty for what nothing used.
    pub subject: String,
    /// What is gone so far.
    pub counts: Counts,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
    /// When the last of it was gone; absent while something is left to do.
    pub finished_at: Option<OffsetDateTime>,
}

type Row = (Uuid, String, String, sqlx::types::Json<Counts>, OffsetDateTime, Option<OffsetDateTime>);

fn receipt((id, cause, subject, counts, created_at, finished_at): Row) -> Receipt {
    Receipt { id, cause, subject, counts: counts.0, created_at, finished_at }
}

/// The receipt of that id, of the current tenant.
///
/// # Errors
/// Of the database.
pub async fn find(connection: &mut PgConnection, id: Uuid) -> Result<Option<Receipt>, DbError> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT id, cause, subject, counts, created_at, finished_at FROM deletions WHERE tenant_id = current_tenant() AND id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(receipt))
}

/// At most `limit` receipts of the current tenant, newest first, after the one of `after`.
///
/// # Errors
/// Of the database.
pub async fn list(
    connection: &mut PgConnection,
    after: Option<(OffsetDateTime, Uuid)>,
    limit: i64,
) -> Result<Vec<Receipt>, DbError> {
    let (at, id) = after.unzip();
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, cause, subject, counts, created_at, finished_at FROM deletions
         WHERE tenant_id = current_tenant() AND ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2))
         ORDER BY created_at DESC, id DESC LIMIT $3",
    )
    .bind(at)
    .bind(id)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(receipt).collect())
}

/// Adds to what a receipt has counted.
pub(crate) async fn add(connection: &mut PgConnection, id: Uuid, more: &Counts) -> Result<(), DbError> {
    let counts: sqlx::types::Json<Counts> =
        sqlx::query_scalar("SELECT counts FROM deletions WHERE tenant_id = current_tenant() AND id = $1 FOR UPDATE")
            .bind(id)
            .fetch_one(&mut *connection)
            .await?;
    let mut counts = counts.0;
    counts.add(more);
    sqlx::query("UPDATE deletions SET counts = $2 WHERE tenant_id = current_tenant() AND id = $1")
        .bind(id)
        .bind(sqlx::types::Json(counts))
        .execute(connection)
        .await?;
    Ok(())
}
