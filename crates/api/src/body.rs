//! JSON bodies and query strings with problem+json for everything that does not fit.

use crate::problem::Problem;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use docmill_model::Code;
use serde::de::DeserializeOwned;

/// A JSON body; unknown fields, wrong types and oversize answer with a code.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(JsonBody(value)),
            Err(rejection) => Err(refused(rejection)),
        }
    }
}

fn refused(rejection: JsonRejection) -> Problem {
    if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        return crate::entry::body_too_large(None);
    }
    match rejection {
        // Serde names the field and the expected type; it quotes the field's value only for enums and short scalars.
        JsonRejection::JsonDataError(error) => Problem::new(Code::FieldInvalid, first_line(&error.body_text())),
        JsonRejection::MissingJsonContentType(_) => {
            Problem::new(Code::BodyInvalid, "the header `Content-Type: application/json` is missing")
        }
        other => Problem::new(Code::BodyInvalid, first_line(&other.body_text())),
    }
}

/// A query string; unknown and malformed parameters answer with a code.
pub struct QueryParams<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_some_and(|query| query.contains("%00")) {
            return Err(Problem::new(Code::FieldInvalid, "the query string holds NUL"));
        }
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(QueryParams(value)),
            Err(rejection) => Err(Problem::new(Code::FieldInvalid, first_line(&rejection.body_text()))),
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}
