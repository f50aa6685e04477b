//! `Idempotency-Key`: the key, a fingerprint of the request and the answer live in the transaction that does the work,
//! so a repeated request gets the first one's answer, byte for byte, whatever was lost in between.

use crate::problem::Problem;
use axum::http::HeaderMap;
use docmill_model::{Code, Failure, PrincipalId, Sha256Hex};
use docmill_platform::database::DbError;
use serde::Serialize;
use sqlx::PgConnection;

/// Longest key in bytes.
const MAX_KEY_BYTES: usize = 255;

/// What is known about a key.
pub enum Replayed {
    /// Never seen: do the work, then [`finish`].
    First,
    /// Seen with the same request: give this answer again.
    Before {
        /// HTTP status.
        status: u16,
        /// Body.
        body: serde_json::Value,
    },
}

/// The key of a request, if it has one.
///
/// # Errors
/// `BODY_INVALID` for an empty, overlong or unprintable key.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let invalid = || {
        let failure = Failure::limit(
            Code::BodyInvalid,
            "`Idempotency-Key` must be 1 to 255 printable ASCII characters",
            MAX_KEY_BYTES as u64,
            value.len() as u64,
        );
        Problem::from(failure)
    };
    let text = value.to_str().map_err(|_| invalid())?;
    if text.is_empty() || text.len() > MAX_KEY_BYTES { Err(invalid()) } else { Ok(Some(text.to_owned())) }
}

/// Claims the key in the current transaction. A concurrent holder is waited for (up to the lock timeout).
///
/// # Errors
/// `KEY_REUSED` when the key was used for another request, `IN_PROGRESS` when the first one still runs.
pub async fn begin<T: Serialize + Sync>(
    connection: &mut PgConnection,
    principal: PrincipalId,
    key: &str,
    request: &T,
) -> Result<Replayed, DbError> {
    let fingerprint = Sha256Hex::of(&serde_json::to_vec(request).unwrap_or_default());
    let claimed = sqlx::query(
        "INSERT INTO idempotency_keys (tenant_id, principal_id, key, request_sha256)
         VALUES (current_tenant(), $1, $2, $3) ON CONFLICT (tenant_id, principal_id, key) DO NOTHING",
    )
    .bind(principal.0)
    .bind(key)
    .bind(fingerprint.as_str())
    .execute(&mut *connection)
    .await
    .map_err(still_running)?;
    if claimed.rows_affected() == 1 {
        return Ok(Replayed::First);
    }
    let (seen, status, body): (String, Option<i32>, Option<serde_json::Value>) = sqlx::query_as(
        "SELECT request_sha256, status, response FROM idempotency_keys
         WHERE tenant_id = current_tenant() AND principal_id = $1 AND key = $2",
    )
    .bind(principal.0)
    .bind(key)
    .fetch_one(connection)
    .await?;
    if seen != fingerprint.as_str() {
        return Err(Failure::new(Code::KeyReused, "this Idempotency-Key was used for a different request").into());
    }
    match (status, body) {
        (Some(status), Some(body)) => Ok(Replayed::Before { status: status as u16, body }),
        _ => Err(in_progress().into()),
    }
}

fn in_progress() -> Failure {
    Failure::new(Code::InProgress, "the first request with this Idempotency-Key is still running")
}

/// The first request holds the key's row until it has answered; who waited for that too long is told so.
fn still_running(error: sqlx::Error) -> DbError {
    match error.as_database_error().and_then(|db| db.code()).as_deref() {
        Some("55P03") => in_progress().into(),
        _ => error.into(),
    }
}

/// Records the answer, in the transaction that did the work.
///
/// # Errors
/// Database failures.
pub async fn finish(
    connection: &mut PgConnection,
    principal: PrincipalId,
    key: &str,
    status: u16,
    body: &serde_json::Value,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE idempotency_keys SET status = $3, response = $4
         WHERE tenant_id = current_tenant() AND principal_id = $1 AND key = $2",
    )
    .bind(principal.0)
    .bind(key)
    .bind(i32::from(status))
    .bind(body)
    .execute(connection)
    .await?;
    Ok(())
}
