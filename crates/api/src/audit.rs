//! The audit log as the API writes and shows it: who made a change is whose key was shown.
//!
//! Not here: the rows and what binds each to the one before, which are `docmill_platform::audit`'s.

pub mod routes;

use crate::auth::Principal;
use docmill_platform::audit;
use docmill_platform::database::DbError;
use serde_json::Value;
use sqlx::PgConnection;

pub use docmill_platform::audit::verify;

/// Writes one row. Call it last in the transaction: rows of one tenant wait for each other until the commit.
///
/// # Errors
/// Database failures.
pub async fn record(
    connection: &mut PgConnection,
    principal: &Principal,
    action: &str,
    subject: &str,
    data: Value,
) -> Result<(), DbError> {
    audit::record(connection, Some(principal.principal_id), action, subject, data).await
}
