//! `/v1/keys`: made once and shown once, listed without their secret, revoked with effect on the next request.

use super::{KeyRequest, insert};
use crate::audit;
use crate::auth::Administrator;
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use docmill_model::scope::Scope;
use docmill_model::{Code, Failure, KeyId, PrincipalId};
use secrecy::ExposeSecret;
use serde_json::json;
use time::OffsetDateTime;

/// Most keys of one tenant that are not revoked.
pub const MAX_LIVE_KEYS: i64 = 1_000;
/// Most access labels of one key.
pub const MAX_LABELS: usize = 100;

/// A key to make.
#[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// A name for people, 1 to 200 bytes.
    pub name: String,
    /// Permissions, at least one.
    pub scopes: Vec<Scope>,
    /// Access labels the holder has, at most 100.
    #[serde(default)]
    pub labels: Vec<String>,
    /// End of validity, RFC 3339; never when absent.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
}

/// A key as it is listed.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct KeyView {
    /// Identifier.
    pub id: KeyId,
    /// Who acts with it; stands in the audit log.
    pub principal_id: PrincipalId,
    /// Name for people.
    pub name: String,
    /// First characters of the key.
    pub prefix: String,
    /// Permissions.
    pub scopes: Vec<String>,
    /// Access labels.
    pub labels: Vec<String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// End of validity.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was revoked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    /// Last use, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
}

/// A key just made: the only answer that holds its text.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub struct CreatedKey {
    /// Identifier.
    pub id: KeyId,
    /// Who acts with it.
    pub principal_id: PrincipalId,
    /// The key. It is not stored and cannot be shown again.
    pub key: String,
}

/// All keys of the tenant, newest first.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct KeyList {
    /// The keys, also revoked ones.
    pub keys: Vec<KeyView>,
}

#[derive(sqlx::FromRow)]
struct KeyRow {
    id: uuid::Uuid,
    principal_id: uuid::Uuid,
    name: String,
    prefix: String,
    scopes: Vec<String>,
    labels: Vec<String>,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
    last_used_at: Option<OffsetDateTime>,
}

fn validate(request: &CreateKey) -> Result<(), Problem> {
    if request.name.is_empty() || request.name.len() > 200 || request.name.contains('\0') {
        return Err(Problem::field("name", "1 to 200 bytes without NUL are expected"));
    }
    if request.scopes.is_empty() {
        return Err(Problem::field("scopes", "at least one is expected"));
    }
    let labels_ok = request.labels.iter().all(|l| !l.is_empty() && l.len() <= 100 && !l.contains('\0'));
    if !labels_ok || request.labels.len() > MAX_LABELS {
        return Err(Problem::field("labels", "at most 100 labels of 1 to 100 bytes are expected"));
    }
    if request.expires_at.is_some_and(|at| at <= OffsetDateTime::now_utc()) {
        return Err(Problem::field("expires_at", "an instant in the future is expected"));
    }
    Ok(())
}

/// Makes an API key.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = CreateKey,
    responses((status = 201, body = CreatedKey), (status = 422, body = ProblemBody)))]
pub async fn create(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    JsonBody(request): JsonBody<CreateKey>,
) -> Result<(StatusCode, Json<CreatedKey>), Problem> {
    validate(&request)?;
    let (tenant, pepper) = (principal.tenant_id, state.pepper.clone());
    let mut scopes = request.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    let request = KeyRequest {
        tenant_id: tenant,
        name: request.name,
        scopes,
        labels: request.labels,
        expires_at: request.expires_at,
    };
    let write = state.database.write(tenant, move |connection| {
        Box::pin(async move {
            let live: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM api_keys WHERE tenant_id = current_tenant() AND revoked_at IS NULL",
            )
            .fetch_one(&mut *connection)
            .await?;
            if live >= MAX_LIVE_KEYS {
                let message = "the tenant has as many live keys as it may have; revoke some";
                return Err(Failure::limit(Code::FieldInvalid, message, MAX_LIVE_KEYS as u64, live as u64).into());
            }
            let new = insert(connection, &pepper, &request).await?;
            let data = json!({"scopes": request.scopes, "prefix": new.prefix()});
            audit::record(connection, &principal, "key.create", &new.id.to_string(), data).await?;
            Ok(new)
        })
    });
    let new = write.await?;
    let created = CreatedKey { id: new.id, principal_id: new.principal_id, key: new.secret.expose_secret().to_owned() };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Lists the API keys of the tenant.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", responses((status = 200, body = KeyList)))]
pub async fn list(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
) -> Result<Json<KeyList>, Problem> {
    let read = state.database.read(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let rows: Vec<KeyRow> = sqlx::query_as(
                "SELECT id, principal_id, name, prefix, scopes, labels, created_at, expires_at, revoked_at, last_used_at
                 FROM api_keys WHERE tenant_id = current_tenant() ORDER BY created_at DESC, id DESC LIMIT 10000",
            )
            .fetch_all(connection)
            .await?;
            Ok(rows)
        })
    });
    let keys = read.await?.into_iter().map(|row| KeyView {
        id: row.id.into(),
        principal_id: row.principal_id.into(),
        name: row.name,
        prefix: row.prefix,
        scopes: row.scopes,
        labels: row.labels,
        created_at: row.created_at,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
        last_used_at: row.last_used_at,
    });
    Ok(Json(KeyList { keys: keys.collect() }))
}

/// Revokes an API key. Repeating it changes nothing.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys", params(("id" = String, Path, description = "Key id")),
    responses((status = 204), (status = 404, body = ProblemBody)))]
pub async fn revoke(
    State(state): State<ApiState>,
    Administrator(principal): Administrator,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let id: KeyId = id.parse().map_err(|_| Problem::not_found())?;
    let write = state.database.write(principal.tenant_id, move |connection| {
        Box::pin(async move {
            let known: Option<bool> = sqlx::query_scalar(
                "SELECT revoked_at IS NOT NULL FROM api_keys WHERE tenant_id = current_tenant() AND id = $1 FOR UPDATE",
            )
            .bind(id.0)
            .fetch_optional(&mut *connection)
            .await?;
            let is_revoked = known.ok_or_else(|| Failure::new(Code::NotFound, "no such key"))?;
            if !is_revoked {
                sqlx::query("UPDATE api_keys SET revoked_at = now() WHERE tenant_id = current_tenant() AND id = $1")
                    .bind(id.0)
                    .execute(&mut *connection)
                    .await?;
                audit::record(connection, &principal, "key.revoke", &id.to_string(), json!({})).await?;
            }
            Ok(())
        })
    });
    write.await?;
    Ok(StatusCode::NO_CONTENT)
}
