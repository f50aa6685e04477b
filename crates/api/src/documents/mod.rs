//! Documents over HTTP: declare, upload by signed URL, complete, list, read the results, delete.
//!
//! Bytes never pass through here: `create` signs a URL, `complete` asks the store what arrived.

pub mod chunks;
pub mod complete;
pub mod create;
mod declare;
pub mod delete;
pub mod list;
pub mod pages;
pub mod read;
pub mod results;
pub mod text;

use crate::problem::Problem;
use docmill_model::{DocumentId, VersionId};
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A document as every route shows it.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DocumentView {
    /// Identifier.
    pub id: DocumentId,
    /// File name as declared; a label only.
    pub name: String,
    /// Collection.
    pub collection: String,
    /// The uploader's own identifier.
    pub external_id: Option<String>,
    /// `uploading`, `processing`, `done`, `partial`, `failed`, `cancelled` or `expired`.
    pub state: String,
    /// Code of the failure, where there is one.
    pub code: Option<String>,
    /// The uploader's metadata.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Value,
    /// Access labels; empty means every caller of the tenant.
    pub labels: Vec<String>,
    /// True once the newest or an older version answers questions.
    pub searchable: bool,
    /// The newest version.
    pub version: VersionView,
    /// When it was declared.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its state last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// One version of a document.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct VersionView {
    /// Identifier.
    pub id: VersionId,
    /// From 1.
    pub number: i32,
    /// Declared media type.
    pub content_type: String,
    /// Size in bytes.
    pub size_bytes: i64,
    /// SHA-256 of the bytes.
    pub sha256: String,
    /// Detected format, once read.
    pub format: Option<String>,
    /// ISO 639-3 language, once read.
    pub language: Option<String>,
    /// Pages, once read; absent for formats without pages.
    pub pages: Option<i32>,
    /// Characters of canonical text, once read.
    pub characters: Option<i32>,
    /// Title, once read.
    pub title: Option<String>,
    /// Pages, and parts of files without pages, that could not be read, at most the first hundred; the document is then
    /// `partial`.
    pub failed_pages: Vec<FailedPage>,
}

/// A page that could not be read, or a part of a file without pages.
#[derive(Debug, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct FailedPage {
    /// Number of the page, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// Element path of the part, as `body/drawing[2]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Why: an error code.
    pub code: String,
}

#[derive(sqlx::FromRow)]
pub(crate) struct DocumentRow {
    id: uuid::Uuid,
    name: String,
    collection: String,
    external_id: Option<String>,
    state: String,
    code: Option<String>,
    metadata: serde_json::Value,
    labels: Vec<String>,
    visible_generation: Option<uuid::Uuid>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    #[sqlx(flatten)]
    version: VersionRow,
}

#[derive(sqlx::FromRow)]
pub(crate) struct VersionRow {
    version_id: uuid::Uuid,
    number: i32,
    content_type: String,
    size_bytes: i64,
    sha256: String,
    format: Option<String>,
    language: Option<String>,
    page_count: Option<i32>,
    char_count: Option<i32>,
    title: Option<String>,
    failed_pages: sqlx::types::Json<Vec<FailedPage>>,
}

impl From<VersionRow> for VersionView {
    fn from(row: VersionRow) -> Self {
        VersionView {
            id: row.version_id.into(),
            number: row.number,
            content_type: row.content_type,
            size_bytes: row.size_bytes,
            sha256: row.sha256,
            format: row.format,
            language: row.language,
            pages: row.page_count,
            characters: row.char_count,
            title: row.title,
            failed_pages: row.failed_pages.0,
        }
    }
}

impl From<DocumentRow> for DocumentView {
    fn from(row: DocumentRow) -> Self {
        DocumentView {
            id: row.id.into(),
            name: row.name,
            collection: row.collection,
            external_id: row.external_id,
            state: row.state,
            code: row.code,
            metadata: row.metadata,
            labels: row.labels,
            searchable: row.visible_generation.is_some(),
            version: row.version.into(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// One document of the current tenant that a caller with `labels` may see.
pub(crate) async fn find(
    connection: &mut PgConnection,
    id: DocumentId,
    labels: &[String],
) -> Result<Option<DocumentView>, sqlx::Error> {
    let row: Option<DocumentRow> = sqlx::query_as(
        "SELECT d.id, d.name, d.collection, d.external_id, d.state, d.code, d.metadata, d.labels, d.visible_generation,
                d.created_at, d.updated_at, v.id AS version_id, v.number, v.content_type, v.size_bytes, v.sha256,
                v.format, v.language, v.page_count, v.char_count, v.title, v.failed_pages
         FROM documents d
         JOIN LATERAL (SELECT * FROM document_versions v WHERE v.tenant_id = d.tenant_id AND v.document_id = d.id
                       ORDER BY v.number DESC LIMIT 1) v ON true
         WHERE d.tenant_id = current_tenant() AND d.id = $1 AND d.deleted_at IS NULL
           AND (d.labels = '{}' OR d.labels && $2)",
    )
    .bind(id.0)
    .bind(labels)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Into::into))
}

/// An identifier in a path; anything unreadable is as unknown as an unknown one.
pub(crate) fn document_id(text: &str) -> Result<DocumentId, Problem> {
    text.parse().map_err(|_| Problem::not_found())
}
