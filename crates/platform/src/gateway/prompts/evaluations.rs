//! What versions of prompts measured, for rollouts that rest on it. Figures only; what a suite means is not known here.

use super::registry::unavailable;
use crate::database::Database;
use docmill_model::Failure;
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// One run of a suite file with one version of a prompt.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct EvaluationRow {
    /// The version.
    pub version: i32,
    /// Name of the suite file.
    pub evaluation: String,
    /// The outcomes, as a list of JSON objects without the scores of single cases.
    pub suites: Value,
    /// What the run failed, in words; empty when it passed.
    pub failed: Vec<String>,
    /// When it ended.
    pub created_at: OffsetDateTime,
}

/// Keeps what `version` of prompt `name` measured.
///
/// # Errors
/// `DATABASE_UNAVAILABLE`; `INTERNAL` for a version that is not registered.
pub async fn record(
    database: &Database,
    name: &str,
    version: i32,
    evaluation: &str,
    suites: &Value,
    failed: &[String],
) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO prompt_evaluations (name, version, evaluation, suites, failed) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(name)
    .bind(version)
    .bind(evaluation)
    .bind(suites)
    .bind(failed)
    .execute(database.engine())
    .await
    .map_err(unavailable)?;
    Ok(())
}

/// The newest run of each version and suite file of prompt `name`, by version and name of the file; at most 1,000.
///
/// # Errors
/// Database failures.
pub async fn newest(connection: &mut PgConnection, name: &str) -> Result<Vec<EvaluationRow>, sqlx::Error> {
    sqlx::query_as(
        "SELECT DISTINCT ON (version, evaluation) version, evaluation, suites, failed, created_at
         FROM prompt_evaluations WHERE name = $1 ORDER BY version DESC, evaluation, id DESC LIMIT 1000",
    )
    .bind(name)
    .fetch_all(connection)
    .await
}
