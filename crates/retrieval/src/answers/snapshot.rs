//! The stored form of an answer: ids, spans and hashes of quotes. Neither question nor answer text is kept, so a
//! deleted document takes its words out of every answer that quoted them.

use super::wire::{Answer, AnswerSentence, Citation};
use crate::Caller;
use docmill_model::{AnswerId, ChunkId, Code, DocumentId, Failure, Sha256Hex, Span, VersionId};
use docmill_platform::database::{Database, DbError};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Snapshot {
    /// Version of this layout.
    schema: u16,
    pub found: bool,
    /// Sentences of a model that were left out.
    #[serde(default)]
    pub removed: u32,
    pub sentences: Vec<Vec<StoredCitation>>,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct StoredCitation {
    pub document_id: DocumentId,
    pub version_id: VersionId,
    pub chunk_id: ChunkId,
    pub span: Span,
    pub quote_sha256: Sha256Hex,
    /// The text the span points into; a replay may have read the version anew since. Absent in older snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parsed_sha256: Option<Sha256Hex>,
}

/// What a citation needs of its document, as it stands now.
#[derive(Clone)]
pub(crate) struct CitedVersion {
    pub document: String,
    pub sha256: String,
    /// The text as it was read; `None` when nothing keeps it any more.
    pub parsed_sha256: Option<Sha256Hex>,
}

impl CitedVersion {
    fn of(row: &PgRow) -> Result<Self, DbError> {
        let parsed_sha256: Option<String> = row.try_get("parsed_sha256")?;
        let parsed_sha256 = parsed_sha256.and_then(|sha256| sha256.parse().ok());
        Ok(Self { document: row.try_get("name")?, sha256: row.try_get("sha256")?, parsed_sha256 })
    }
}

impl Snapshot {
    fn of(answer: &Answer) -> Self {
        let citations = |sentence: &AnswerSentence| sentence.citations.iter().map(StoredCitation::of).collect();
        let sentences = answer.sentences.iter().map(citations).collect();
        Self { schema: 1, found: answer.found, removed: answer.removed, sentences }
    }
}

impl StoredCitation {
    fn of(citation: &Citation) -> Self {
        Self {
            document_id: citation.document_id,
            version_id: citation.version_id,
            chunk_id: citation.chunk_id,
            span: Span::new(citation.char_start, citation.char_end),
            quote_sha256: Sha256Hex::of(citation.quote.as_deref().unwrap_or_default().as_bytes()),
            parsed_sha256: citation.parsed_sha256.clone(),
        }
    }

    /// The citation without words: its document is gone or no longer for this reader.
    pub fn withdrawn(&self) -> Citation {
        Citation {
            document_id: self.document_id,
            version_id: self.version_id,
            chunk_id: self.chunk_id,
            document: None,
            sha256: None,
            page: None,
            boxes: Vec::new(),
            char_start: self.span.start,
            char_end: self.span.end,
            quote: None,
            withdrawn: true,
            parsed_sha256: self.parsed_sha256.clone(),
        }
    }
}

/// Stores `answer` for its caller.
pub(crate) async fn store(
    database: &Database,
    caller: &Caller,
    question: &str,
    answer: &Answer,
) -> Result<(), Failure> {
    let snapshot = serde_json::to_value(Snapshot::of(answer))
        .map_err(|_| Failure::new(Code::Internal, "an answer could not be written"))?;
    let (id, principal, engine) = (answer.id.0, caller.principal_id.0, answer.engine.clone());
    let question = Sha256Hex::of(question.trim().as_bytes()).to_string();
    let cited: BTreeSet<Uuid> = answer
        .sentences
        .iter()
        .flat_map(|sentence| &sentence.citations)
        .map(|citation| citation.document_id.0)
        .collect();
    let cited: Vec<Uuid> = cited.into_iter().collect();
    let texts = texts(answer);
    let write = database.write(caller.tenant_id, move |connection| {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO answers (tenant_id, id, principal_id, question_sha256, snapshot, engine, document_ids)
                 VALUES (current_tenant(), $1, $2, $3, $4, $5, $6)",
            )
            .bind(id)
            .bind(principal)
            .bind(question)
            .bind(snapshot)
            .bind(engine)
            .bind(cited)
            .execute(&mut *connection)
            .await?;
            keep_texts(connection, texts).await?;
            Ok(())
        })
    });
    Ok(write.await?)
}

/// The texts an answer quotes, by version.
fn texts(answer: &Answer) -> BTreeSet<(Uuid, String)> {
    let citations = answer.sentences.iter().flat_map(|sentence| &sentence.citations);
    citations
        .filter_map(|citation| Some((citation.version_id.0, citation.parsed_sha256.as_ref()?.to_string())))
        .collect()
}

/// Writes down that these texts are quoted, so that they stand as long as their documents.
async fn keep_texts(connection: &mut PgConnection, texts: BTreeSet<(Uuid, String)>) -> Result<(), sqlx::Error> {
    let (versions, sha256s): (Vec<Uuid>, Vec<String>) = texts.into_iter().unzip();
    sqlx::query(
        "WITH there AS (
             SELECT v.id, v.document_id, quoted.sha256
             FROM unnest($1::uuid[], $2::text[]) AS quoted (version_id, sha256)
             JOIN document_versions v ON v.tenant_id = current_tenant() AND v.id = quoted.version_id
             JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id FOR KEY SHARE OF v, d)
         INSERT INTO cited_texts (tenant_id, version_id, document_id, parsed_sha256)
         SELECT current_tenant(), id, document_id, sha256 FROM there ON CONFLICT DO NOTHING",
    )
    .bind(versions)
    .bind(sha256s)
    .execute(connection)
    .await?;
    Ok(())
}

/// A stored snapshot with its engine, and what `caller` may still read of the versions it cites.
pub(crate) async fn load(
    database: &Database,
    caller: &Caller,
    id: AnswerId,
) -> Result<(String, Snapshot, HashMap<VersionId, CitedVersion>), Failure> {
    let labels = caller.labels.clone();
    let read = database.read(caller.tenant_id, move |connection| {
        Box::pin(async move {
            let row =
                sqlx::query("SELECT engine, snapshot FROM answers WHERE tenant_id = current_tenant() AND id = $1")
                    .bind(id.0)
                    .fetch_optional(&mut *connection)
                    .await?;
            let row = row.ok_or_else(|| Failure::new(Code::NotFound, "there is no such answer"))?;
            let snapshot: Snapshot = serde_json::from_value(row.try_get("snapshot")?)
                .map_err(|_| Failure::new(Code::Internal, "a stored answer cannot be read"))?;
            let cited: Vec<Uuid> = snapshot.sentences.iter().flatten().map(|citation| citation.version_id.0).collect();
            let versions = cited_versions(connection, &labels, &cited).await?;
            Ok((row.try_get("engine")?, snapshot, versions))
        })
    });
    Ok(read.await?)
}

/// The versions of `ids` whose documents stand and are for a reader with `labels`.
async fn cited_versions(
    connection: &mut PgConnection,
    labels: &[String],
    ids: &[Uuid],
) -> Result<HashMap<VersionId, CitedVersion>, DbError> {
    let rows = sqlx::query(
        "SELECT v.id, d.name, v.sha256, v.parsed_sha256
         FROM document_versions v JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id
         WHERE v.tenant_id = current_tenant() AND v.id = ANY ($2)
           AND document_matches(d, $1, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    .bind(labels)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((VersionId(row.try_get("id")?), CitedVersion::of(row)?))).collect()
}

/// What citations of these passages need, whose documents stand and are for a reader with `labels`: the text is the one
/// the passage was cut from, also while a replay reads the version anew.
pub(crate) async fn cited_chunks(
    connection: &mut PgConnection,
    labels: &[String],
    ids: &[Uuid],
) -> Result<HashMap<ChunkId, CitedVersion>, DbError> {
    let rows = sqlx::query(
        "SELECT c.id, d.name, v.sha256, coalesce(g.parsed_sha256, v.parsed_sha256) AS parsed_sha256
         FROM chunks c
         JOIN generations g ON g.tenant_id = c.tenant_id AND g.id = c.generation_id
         JOIN document_versions v ON v.tenant_id = g.tenant_id AND v.id = g.version_id
         JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id
         WHERE c.tenant_id = current_tenant() AND c.id = ANY ($2)
           AND document_matches(d, $1, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    .bind(labels)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((ChunkId(row.try_get("id")?), CitedVersion::of(row)?))).collect()
}
