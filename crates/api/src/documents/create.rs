//! `POST /v1/documents`: declare a file, receive a signed URL for exactly those bytes.

use super::{DocumentView, find};
use crate::audit;
use crate::auth::{Principal, Uploader};
use crate::body::JsonBody;
use crate::idempotency::{self, Replayed};
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use docmill_lifecycle::UPLOAD_TTL;
use docmill_model::{Code, DocumentId, Failure, Sha256Hex, VersionId};
use docmill_platform::artifacts::{Share, lock_accepted};
use docmill_platform::blobs::PresignPut;
use docmill_platform::database::DbError;
use docmill_platform::layout::upload_key;
use serde_json::json;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::time::Duration;
use time::OffsetDateTime;

/// How long a declared upload waits for `complete` before it expires.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(24 * 3600);
const MAX_METADATA_BYTES: usize = 16 * 1024;
const MAX_LABELS: usize = 32;

/// The declaration of a file.
#[derive(Debug, serde::Deserialize, serde::Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateDocument {
    /// File name, 1 to 255 bytes; used as a label only.
    pub name: String,
    /// Media type of the bytes; compared with what they turn out to be.
    #[schema(example = "application/pdf")]
    pub content_type: String,
    /// Exact size in bytes, at least 1.
    #[serde(deserialize_with = "size")]
    pub size: i64,
    /// SHA-256 of the bytes, 64 hex digits.
    pub sha256: String,
    /// Name of a configured pipeline; `default` when absent.
    #[serde(default)]
    pub pipeline: Option<String>,
    /// Collection, 1 to 200 bytes; `default` when absent.
    #[serde(default)]
    pub collection: Option<String>,
    /// Free JSON object of at most 16 KiB, usable in search filters.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Value>,
    /// Your own identifier: uploading again under it makes a new version.
    #[serde(default)]
    pub external_id: Option<String>,
    /// Access labels: only callers holding one of them see the document. Empty means the whole tenant.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// Where and how to PUT the bytes. Send exactly these headers.
#[derive(Debug, serde::Deserialize, serde::Serialize, utoipa::ToSchema)]
pub struct Upload {
    /// The signed URL.
    pub url: String,
    /// Always `PUT`.
    pub method: String,
    /// Headers that are part of the signature.
    pub headers: BTreeMap<String, String>,
    /// When the URL stops working.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// The answer to a declaration.
#[derive(Debug, serde::Deserialize, serde::Serialize, utoipa::ToSchema)]
pub struct Created {
    /// The document.
    pub id: DocumentId,
    /// The version to be uploaded, or the one that already holds these bytes.
    pub version_id: VersionId,
    /// Its number, from 1.
    pub version: i32,
    /// The document's state.
    pub state: String,
    /// True when these bytes are already here and nothing needs uploading.
    pub deduplicated: bool,
    /// Present unless `deduplicated`.
    pub upload: Option<Upload>,
}

/// Declares a file and signs a URL to upload it.
#[utoipa::path(post, path = "/v1/documents", tag = "documents", request_body = CreateDocument,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeating a request with the same key and body gives the same answer; 1 to 255 bytes")),
    responses((status = 201, body = Created), (status = 200, body = Created, description = "These bytes are already here"),
              (status = 413, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<ApiState>,
    Uploader(principal): Uploader,
    headers: HeaderMap,
    JsonBody(request): JsonBody<CreateDocument>,
) -> Result<(StatusCode, Json<serde_json::Value>), Problem> {
    let sha256 = validate(&request, &principal.labels)?;
    let pipeline = state
        .pipelines
        .get(request.pipeline.as_deref().unwrap_or("default"))
        .ok_or_else(|| Problem::new(Code::PipelineUnknown, "no pipeline of this name is configured"))?;
    let pipeline = pipeline.version.clone();
    let version_id = VersionId::fresh();
    let upload_url = sign(&state, &principal, &request, &sha256, version_id).await?;
    let key = idempotency::key(&headers)?;
    let tenant = principal.tenant_id;
    let traceparent = crate::trace::traceparent(&headers);
    let reply = state
        .database
        .write(tenant, move |connection| {
            Box::pin(async move {
                let work =
                    Declaration { principal: &principal, request: &request, sha256, version_id, pipeline, traceparent };
                let Some(key) = key else { return work.declare(connection, upload_url).await };
                match idempotency::begin(connection, principal.principal_id, &key, &request).await? {
                    Replayed::Before { status, body } => Ok((status, body)),
                    Replayed::First => {
                        let (status, body) = work.declare(connection, upload_url).await?;
                        idempotency::finish(connection, principal.principal_id, &key, status, &body).await?;
                        Ok((status, body))
                    }
                }
            })
        })
        .await?;
    let status = StatusCode::from_u16(reply.0).unwrap_or(StatusCode::CREATED);
    Ok((status, Json(reply.1)))
}

/// A whole number; what no 64 bits hold counts as the largest there is, so that the limit speaks and not the parser.
fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = <serde_json::Number as serde::Deserialize>::deserialize(deserializer)?;
    let huge = || number.as_f64().filter(|n| n.fract() == 0.0).map(|n| if n > 0.0 { i64::MAX } else { i64::MIN });
    number.as_i64().or_else(huge).ok_or_else(|| serde::de::Error::custom("a whole number of bytes is expected"))
}

async fn sign(
    state: &ApiState,
    principal: &Principal,
    request: &CreateDocument,
    sha256: &Sha256Hex,
    version_id: VersionId,
) -> Result<Upload, Problem> {
    let signed = state
        .blobs
        .presign_put(PresignPut {
            key: upload_key(principal.tenant_id, version_id),
            size_bytes: request.size as u64,
            sha256: sha256.clone(),
            content_type: request.content_type.clone(),
            expires: UPLOAD_TTL,
        })
        .await
        .map_err(Failure::from)?;
    Ok(Upload { url: signed.url, method: signed.method, headers: signed.headers, expires_at: signed.expires_at })
}

fn validate(request: &CreateDocument, held: &[String]) -> Result<Sha256Hex, Problem> {
    let name = &request.name;
    if name.is_empty() || name.len() > 255 || name.contains('\0') {
        return Err(Failure::limit(
            Code::NameInvalid,
            "the file name is empty, too long or holds NUL",
            255,
            name.len() as u64,
        )
        .into());
    }
    if request.size < 1 {
        return Err(Problem::new(Code::SizeInvalid, format!("`size` is {}; a file has at least 1 byte", request.size)));
    }
    let sha256 = request.sha256.parse().map_err(|_| Problem::field("sha256", "64 hex digits are expected"))?;
    let type_ok = request.content_type.len() <= 255
        && request.content_type.is_ascii()
        && request.content_type.contains('/')
        && !request.content_type.chars().any(|c| c.is_ascii_control());
    if !type_ok {
        return Err(Problem::field("content_type", "a media type such as application/pdf is expected"));
    }
    for (field, value, limit) in [("collection", &request.collection, 200), ("external_id", &request.external_id, 500)]
    {
        if value.as_ref().is_some_and(|v| v.is_empty() || v.len() > limit || v.contains('\0')) {
            return Err(Problem::field(field, &format!("1 to {limit} bytes without NUL are expected")));
        }
    }
    if let Some(metadata) = &request.metadata {
        let size = metadata.to_string().len();
        if !metadata.is_object() || size > MAX_METADATA_BYTES || metadata.to_string().contains("\\u0000") {
            return Err(Problem::field("metadata", "a JSON object of at most 16384 bytes without NUL is expected"));
        }
    }
    let labels_ok = request.labels.len() <= MAX_LABELS
        && request.labels.iter().all(|l| !l.is_empty() && l.len() <= 100 && !l.contains('\0'));
    if !labels_ok {
        return Err(Problem::field("labels", "at most 32 labels of 1 to 100 bytes are expected"));
    }
    if !request.labels.is_empty() && !request.labels.iter().any(|label| held.contains(label)) {
        return Err(Problem::field(
            "labels",
            "at least one label your key holds is expected; you would not see the document",
        ));
    }
    Ok(sha256)
}

struct Declaration<'a> {
    principal: &'a Principal,
    request: &'a CreateDocument,
    sha256: Sha256Hex,
    version_id: VersionId,
    pipeline: String,
    traceparent: Option<String>,
}

impl Declaration<'_> {
    async fn declare(self, connection: &mut PgConnection, upload: Upload) -> Result<(u16, serde_json::Value), DbError> {
        self.check_size(connection).await?;
        if let Some(created) = self.existing(connection).await? {
            return reply(200, &created);
        }
        let document = self.document(connection).await?;
        let version = self.version(connection, document).await?;
        let view = find(connection, document, &self.principal.labels).await?;
        let state = view.map_or_else(|| "uploading".to_owned(), |view: DocumentView| view.state);
        let created = Created {
            id: document,
            version_id: self.version_id,
            version,
            state,
            deduplicated: false,
            upload: Some(upload),
        };
        let data = json!({"version_id": self.version_id, "size_bytes": self.request.size, "sha256": self.sha256});
        audit::record(connection, self.principal, "document.create", &document.to_string(), data).await?;
        reply(201, &created)
    }

    async fn check_size(&self, connection: &mut PgConnection) -> Result<(), DbError> {
        let limit: i64 = sqlx::query_scalar("SELECT max_file_bytes FROM tenants WHERE id = current_tenant()")
            .fetch_one(connection)
            .await?;
        if self.request.size > limit {
            let (limit, size) = (limit as u64, self.request.size as u64);
            return Err(Failure::limit(
                Code::SizeLimit,
                "the file is larger than the tenant's limit in bytes",
                limit,
                size,
            )
            .into());
        }
        Ok(())
    }

    /// The version that already holds these bytes: in the collection without an external id, else the newest version
    /// under that id. A failed document counts too: a failure is remembered, not uploaded for ever.
    async fn existing(&self, connection: &mut PgConnection) -> Result<Option<Created>, DbError> {
        let row: Option<(uuid::Uuid, uuid::Uuid, i32, String)> = sqlx::query_as(
            "SELECT d.id, v.id, v.number, d.state FROM documents d
             JOIN document_versions v ON v.tenant_id = d.tenant_id AND v.document_id = d.id
             WHERE d.tenant_id = current_tenant() AND d.deleted_at IS NULL AND d.collection = $1 AND v.sha256 = $2
               AND v.upload_state = 'accepted' AND d.external_id IS NOT DISTINCT FROM $3
               AND (d.labels = '{}' OR d.labels && $4)
               AND NOT EXISTS (SELECT 1 FROM document_versions n WHERE n.tenant_id = v.tenant_id
                               AND n.document_id = v.document_id AND n.number > v.number AND n.upload_state = 'accepted')
             ORDER BY d.created_at LIMIT 1",
        )
        .bind(self.request.collection.as_deref().unwrap_or("default"))
        .bind(self.sha256.as_str())
        .bind(&self.request.external_id)
        .bind(&self.principal.labels)
        .fetch_optional(connection)
        .await?;
        Ok(row.map(|(id, version_id, version, state)| Created {
            id: id.into(),
            version_id: version_id.into(),
            version,
            state,
            deduplicated: true,
            upload: None,
        }))
    }

    async fn document(&self, connection: &mut PgConnection) -> Result<DocumentId, DbError> {
        let id: Option<uuid::Uuid> = sqlx::query_scalar(
            "INSERT INTO documents (tenant_id, id, collection, external_id, name, metadata, labels)
             VALUES (current_tenant(), $1, $2, $3, $4, $5, $6)
             ON CONFLICT (tenant_id, collection, external_id) WHERE external_id IS NOT NULL AND deleted_at IS NULL
             DO UPDATE SET name = excluded.name, metadata = excluded.metadata, labels = excluded.labels, updated_at = now()
             WHERE documents.labels = '{}' OR documents.labels && $7
             RETURNING id",
        )
        .bind(DocumentId::fresh().0)
        .bind(self.request.collection.as_deref().unwrap_or("default"))
        .bind(&self.request.external_id)
        .bind(&self.request.name)
        .bind(self.request.metadata.clone().unwrap_or_else(|| serde_json::json!({})))
        .bind(&self.request.labels)
        .bind(&self.principal.labels)
        .fetch_optional(connection)
        .await?;
        let taken = || Failure::new(Code::Conflict, "this external id belongs to a document your key may not see");
        Ok(id.ok_or_else(taken)?.into())
    }

    async fn version(&self, connection: &mut PgConnection, document: DocumentId) -> Result<i32, DbError> {
        lock_accepted(connection, self.sha256.as_str(), Share::Declaring).await?;
        let number: i32 = sqlx::query_scalar(
            "INSERT INTO document_versions (tenant_id, id, document_id, number, content_type, size_bytes, sha256,
                                            pipeline_version, upload_key, upload_expires_at, traceparent)
             SELECT current_tenant(), $1, $2, coalesce(max(number), 0) + 1, $3, $4, $5, $6, $7,
                    now() + make_interval(secs => $8), $9
             FROM document_versions WHERE tenant_id = current_tenant() AND document_id = $2
             RETURNING number",
        )
        .bind(self.version_id.0)
        .bind(document.0)
        .bind(&self.request.content_type)
        .bind(self.request.size)
        .bind(self.sha256.as_str())
        .bind(&self.pipeline)
        .bind(upload_key(self.principal.tenant_id, self.version_id))
        .bind(UPLOAD_PATIENCE.as_secs_f64())
        .bind(&self.traceparent)
        .fetch_one(&mut *connection)
        .await?;
        sqlx::query(
            "INSERT INTO document_events (tenant_id, document_id, kind, data)
             VALUES (current_tenant(), $1, 'upload.created', jsonb_build_object('version', $2::int, 'size_bytes', $3::bigint))",
        )
        .bind(document.0)
        .bind(number)
        .bind(self.request.size)
        .execute(connection)
        .await?;
        Ok(number)
    }
}

fn reply(status: u16, created: &Created) -> Result<(u16, serde_json::Value), DbError> {
    let body = serde_json::to_value(created).map_err(|_| Failure::new(Code::Internal, "reply cannot be encoded"))?;
    Ok((status, body))
}
