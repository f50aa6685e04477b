//! `POST /v1/documents`: declare a file, receive a signed URL for exactly those bytes.

use super::declare::Declaration;
use crate::auth::Uploader;
use crate::body::JsonBody;
use crate::idempotency::{self, Replayed};
use crate::problem::{Problem, ProblemBody};
use crate::search::holds_nul;
use crate::state::ApiState;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use docmill_model::{Code, DocumentId, Failure, Sha256Hex, VersionId};
use std::collections::BTreeMap;
use time::OffsetDateTime;

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

/// Where and how to PUT the bytes. Send exactly these headers. The store answers 412 when the bytes have come before: go on
/// with `complete`.
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
    /// The version to be uploaded, also when it was declared exactly so before, or the one that already holds these bytes.
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
    let pipeline = pipeline.clone();
    let version_id = VersionId::fresh();
    let blobs = state.blobs.clone();
    let key = idempotency::key(&headers)?;
    let tenant = principal.tenant_id;
    let traceparent = crate::trace::traceparent(&headers);
    let turn = state.intake.turn(tenant).await?;
    let reply = state
        .database
        .write(tenant, move |connection| {
            Box::pin(async move {
                let _turn = turn;
                let (principal, request) = (&principal, &request);
                let work = Declaration { principal, request, sha256, version_id, pipeline, traceparent, blobs };
                let Some(key) = key else { return work.declare(connection).await };
                match idempotency::begin(connection, principal.principal_id, &key, request).await? {
                    Replayed::Before { status, body } => Ok((status, body)),
                    Replayed::First => {
                        let (status, body) = work.declare(connection).await?;
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
        if !metadata.is_object() || size > MAX_METADATA_BYTES || holds_nul(metadata) {
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
