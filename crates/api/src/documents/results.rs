//! `GET /v1/documents/{id}/versions`, `/summary`, `/extraction`: what the stages made of a document.
//!
//! Without a version in the request, results are those of the version that answers questions, else of the newest.

use super::{VersionView, document_id, find};
use crate::auth::{Reader, Viewer};
use crate::body::QueryParams;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_model::results::{FieldValue, SummarySentence};
use docmill_model::{Code, DocumentId, Failure, VersionId};
use docmill_platform::database::DbError;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// Which version to read.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct VersionQuery {
    /// Number of the version, from 1; the one that answers questions when absent, else the newest.
    version: Option<i32>,
}

/// The version whose results are read.
#[derive(sqlx::FromRow)]
pub(crate) struct ReadVersion {
    pub(crate) id: uuid::Uuid,
    pub(crate) number: i32,
    pub(crate) format: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) title: Option<String>,
    /// The text that answers point into; while a replay reads the version anew, the one before.
    pub(crate) parsed_sha256: Option<String>,
}

/// Finds the version to read, of a document a caller with `labels` may see.
pub(crate) async fn read_version(
    connection: &mut PgConnection,
    id: DocumentId,
    labels: &[String],
    number: Option<i32>,
) -> Result<ReadVersion, DbError> {
    let row: Option<ReadVersion> = sqlx::query_as(
        "SELECT v.id, v.number, v.format, v.language, v.title, coalesce(g.parsed_sha256, v.parsed_sha256) AS parsed_sha256
         FROM documents d JOIN document_versions v ON v.tenant_id = d.tenant_id AND v.document_id = d.id
         LEFT JOIN generations g ON g.tenant_id = d.tenant_id AND g.id = d.visible_generation AND g.version_id = v.id
         WHERE d.tenant_id = current_tenant() AND d.id = $1 AND d.deleted_at IS NULL AND (d.labels = '{}' OR d.labels && $2)
           AND ($3::int IS NULL OR v.number = $3)
         ORDER BY (v.id = d.visible_version) DESC NULLS LAST, v.number DESC LIMIT 1",
    )
    .bind(id.0)
    .bind(labels)
    .bind(number)
    .fetch_optional(connection)
    .await?;
    row.ok_or_else(|| Failure::new(Code::NotFound, "no such document or version").into())
}

pub(crate) fn not_ready(what: &str) -> Failure {
    Failure::new(Code::NotReady, format!("this version has no {what}"))
}

/// A version among the others of its document.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ListedVersion {
    /// The version.
    #[serde(flatten)]
    pub version: VersionView,
    /// True for the one that answers questions.
    pub answers: bool,
    /// True once retention removed the uploaded bytes.
    pub file_removed: bool,
}

#[derive(sqlx::FromRow)]
struct ListedRow {
    #[sqlx(flatten)]
    version: super::VersionRow,
    answers: bool,
    file_removed: bool,
}

/// All versions of a document, newest first.
#[utoipa::path(get, path = "/v1/documents/{id}/versions", tag = "documents", params(("id" = String, Path, description = "Document id")),
    responses((status = 200, body = Vec<ListedVersion>), (status = 404, body = ProblemBody)))]
pub async fn versions(
    State(state): State<ApiState>,
    Viewer(principal): Viewer,
    Path(id): Path<String>,
) -> Result<Json<Vec<ListedVersion>>, Problem> {
    let id = document_id(&id)?;
    let labels = principal.labels;
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            if find(connection, id, &labels).await?.is_none() {
                return Err(Failure::new(Code::NotFound, "no such document").into());
            }
            let rows: Vec<ListedRow> = sqlx::query_as(
                "SELECT v.id AS version_id, v.number, v.content_type, v.size_bytes, v.sha256, v.format, v.language, v.page_count,
                        v.char_count, v.title, v.failed_pages, coalesce(d.visible_version = v.id, false) AS answers, v.raw_removed_at IS NOT NULL AS file_removed
                 FROM document_versions v JOIN documents d ON d.tenant_id = v.tenant_id AND d.id = v.document_id
                 WHERE v.tenant_id = current_tenant() AND v.document_id = $1 ORDER BY v.number DESC LIMIT 1000",
            )
            .bind(id.0)
            .fetch_all(connection)
            .await?;
            Ok(rows)
        })
    });
    let listed = |row: ListedRow| ListedVersion {
        version: row.version.into(),
        answers: row.answers,
        file_removed: row.file_removed,
    };
    Ok(Json(read.await?.into_iter().map(listed).collect()))
}

/// A summary; every sentence says where it comes from.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct SummaryView {
    /// The document.
    pub document_id: DocumentId,
    /// The version that was summarised.
    pub version_id: VersionId,
    /// Its number.
    pub version: i32,
    /// `extractive` or `provider/model`.
    pub engine: String,
    /// Sentences in the order to read.
    pub sentences: Vec<SummarySentence>,
}

/// The summary of a document.
#[utoipa::path(get, path = "/v1/documents/{id}/summary", tag = "documents",
    params(("id" = String, Path, description = "Document id"), VersionQuery),
    responses((status = 200, body = SummaryView), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
pub async fn summary(
    State(state): State<ApiState>,
    Reader(principal): Reader,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<VersionQuery>,
) -> Result<Json<SummaryView>, Problem> {
    let id = document_id(&id)?;
    let labels = principal.labels;
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let version = read_version(connection, id, &labels, query.version).await?;
            let row: Option<(String, sqlx::types::Json<Vec<SummarySentence>>)> = sqlx::query_as(
                "SELECT engine, sentences FROM summaries WHERE tenant_id = current_tenant() AND version_id = $1",
            )
            .bind(version.id)
            .fetch_optional(connection)
            .await?;
            let (engine, sentences) = row.ok_or_else(|| not_ready("summary"))?;
            let (document_id, version_id) = (id, version.id.into());
            Ok(SummaryView { document_id, version_id, version: version.number, engine, sentences: sentences.0 })
        })
    });
    Ok(Json(read.await?))
}

/// Extracted values; each says where it comes from.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ExtractionView {
    /// The document.
    pub document_id: DocumentId,
    /// The version that was read.
    pub version_id: VersionId,
    /// Its number.
    pub version: i32,
    /// Name of the schema in the pipeline file.
    pub schema: String,
    /// `rules` or `provider/model`.
    pub engine: String,
    /// Values by field, with their place.
    pub fields: BTreeMap<String, Vec<FieldValue>>,
    /// The object that validates against the schema.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// The structured values of a document.
#[utoipa::path(get, path = "/v1/documents/{id}/extraction", tag = "documents",
    params(("id" = String, Path, description = "Document id"), VersionQuery),
    responses((status = 200, body = ExtractionView), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody)))]
pub async fn extraction(
    State(state): State<ApiState>,
    Reader(principal): Reader,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<VersionQuery>,
) -> Result<Json<ExtractionView>, Problem> {
    type Row = (String, String, sqlx::types::Json<BTreeMap<String, Vec<FieldValue>>>, serde_json::Value);
    let id = document_id(&id)?;
    let labels = principal.labels;
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let version = read_version(connection, id, &labels, query.version).await?;
            let row: Option<Row> = sqlx::query_as(
                "SELECT schema_name, engine, fields, data FROM extractions WHERE tenant_id = current_tenant() AND version_id = $1",
            )
            .bind(version.id)
            .fetch_optional(connection)
            .await?;
            let (schema, engine, fields, data) = row.ok_or_else(|| not_ready("extraction"))?;
            let (version_id, version) = (version.id.into(), version.number);
            Ok(ExtractionView { document_id: id, version_id, version, schema, engine, fields: fields.0, data })
        })
    });
    Ok(Json(read.await?))
}
