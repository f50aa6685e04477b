//! The stored form of an answer: ids, spans and hashes of quotes. Neither question nor answer text is kept, so a
//! deleted document takes its words out of every answer that quoted them.

use super::wire::{Answer, AnswerSentence, Citation};
use crate::Caller;
use docmill_model::{AnswerId, ChunkId, Code, DocumentId, Failure, Sha256Hex, Span, VersionId};
use docmill_platform::database::{Database, DbError};
use sqlx::{PgConnection, Row};
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Snapshot {
    /// Version of this layout.
    schema: u16,
    pub found: bool,
    pub sentences: Vec<Vec<StoredCitation>>,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct StoredCitation {
    pub document_id: DocumentId,
    pub version_id: VersionId,
    pub chunk_id: ChunkId,
    pub span: Span,
    pub quote_sha256: Sha256Hex,
}

/// What a citation needs of its document, as it stands now.
#[derive(Clone)]
pub(crate) struct CitedVersion {
    pub document: String,
    pub sha256: String,
    pub parsed_sha256: Sha256Hex,
}

impl Snapshot {
    fn of(answer: &Answer) -> Self {
        let citations = |sentence: &AnswerSentence| sentence.citations.iter().map(StoredCitation::of).collect();
        Self { schema: 1, found: answer.found, sentences: answer.sentences.iter().map(citations).collect() }
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
            .execute(connection)
            .await?;
            Ok(())
        })
    });
    Ok(write.await?)
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
pub(crate) async fn cited_versions(
    connection: &mut PgConnection,
    labels: &[String],
    ids: &[Uuid],
) -> Result<HashMap<VersionId, CitedVersion>, DbError> {
    let rows = sqlx::query(
        "SELECT v.id, d.name, v.sha256, v.parsed_sha256
         FROM document_versions v JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id
         WHERE v.tenant_id = current_tenant() AND v.id = ANY ($2) AND v.parsed_sha256 IS NOT NULL
           AND document_matches(d, $1, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    .bind(labels)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let mut out = HashMap::with_capacity(rows.len());
    for row in rows {
        let Ok(parsed_sha256) = row.try_get::<String, _>("parsed_sha256")?.parse() else { continue };
        let version = CitedVersion { document: row.try_get("name")?, sha256: row.try_get("sha256")?, parsed_sha256 };
        out.insert(VersionId(row.try_get("id")?), version);
    }
    Ok(out)
}
