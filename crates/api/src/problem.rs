//! One error shape for every route: RFC 9457 problem+json with a stable `code`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use docmill_model::{Code, ErrorKind, Failure};
use docmill_platform::database::DbError;

/// The one sentence for unknown and foreign identifiers.
const NOTHING: &str = "nothing with this identifier";

/// The body of every error answer.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct ProblemBody {
    /// Where the code is explained.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable code, e.g. `NOT_FOUND`; `deploy/codes/` has a page for each.
    pub code: String,
    /// What happened here. Never holds document text or secrets.
    pub message: String,
    /// The limit that spoke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What was measured against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<u64>,
}

/// An error answer. Any [`Failure`] or database error becomes one with `?`.
#[derive(Debug)]
pub struct Problem {
    failure: Failure,
    retry_after_secs: Option<u32>,
}

impl Problem {
    /// A problem without a limit.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure::new(code, message).into()
    }

    /// The one answer for unknown and foreign identifiers alike.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, NOTHING)
    }

    /// A field that cannot be accepted.
    #[must_use]
    pub fn field(name: &str, why: &str) -> Self {
        Self::new(Code::FieldInvalid, format!("`{name}`: {why}"))
    }

    /// Adds `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, secs: u32) -> Self {
        self.retry_after_secs = Some(secs.max(1));
        self
    }

    /// The failure inside.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.failure
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        // One body for everything that is not there, whoever says so: unknown and foreign must read alike.
        if failure.code == Code::NotFound && failure.message != NOTHING {
            return Self::not_found();
        }
        let retry = (failure.code.kind() == ErrorKind::Transient && failure.code.http_status() != 402).then_some(1);
        Self { failure, retry_after_secs: retry }
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        if is_unstorable(&error) {
            return Self::new(Code::FieldInvalid, "a field holds NUL or another character that cannot be stored");
        }
        error.into_failure().into()
    }
}

/// Text the database has no form for (NUL, lone surrogates): the caller's input, not our fault.
fn is_unstorable(error: &DbError) -> bool {
    let DbError::Sqlx(error) = error else { return false };
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| matches!(&*code, "22021" | "22P05"))
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        DbError::from(error).into()
    }
}

impl Problem {
    /// What is sent.
    #[must_use]
    pub fn body(&self) -> ProblemBody {
        let Failure { code, message, limit, measured } = self.failure.clone();
        ProblemBody {
            kind: format!("urn:docmill:code:{code}"),
            title: code.help().to_owned(),
            status: code.http_status(),
            code: code.to_string(),
            message,
            limit,
            measured,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.failure.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(secs) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
