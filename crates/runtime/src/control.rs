//! What an operator stops and starts: stages, pipelines, tenants.
//!
//! A pause is one row. The relay releases nothing for it, a claim sets the job aside, and once the row is gone the
//! reconciler frees what was set aside. Nothing paused is lost or reported as failed.

use docmill_model::{Code, Failure};
use docmill_platform::database::{Database, DbError};
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Longest subject of a pause, in bytes.
const MAX_SUBJECT: usize = 100;

/// What a pause is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseKind {
    /// A stage of all tenants.
    Stage,
    /// All runs of the pipelines of one name.
    Pipeline,
    /// All work of one tenant.
    Tenant,
}

impl PauseKind {
    /// The stored spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PauseKind::Stage => "stage",
            PauseKind::Pipeline => "pipeline",
            PauseKind::Tenant => "tenant",
        }
    }

    /// From the stored spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Stage, Self::Pipeline, Self::Tenant].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One pause in force.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Pause {
    /// What it is about.
    pub kind: PauseKind,
    /// Stage name, pipeline name or tenant id.
    pub subject: String,
    /// Since when.
    pub created_at: OffsetDateTime,
}

/// Pauses; true when it was not paused before.
///
/// # Errors
/// `FIELD_INVALID` for an empty or long subject, or database failures.
pub async fn pause(database: &Database, kind: PauseKind, subject: &str) -> Result<bool, Failure> {
    let mut connection = database.engine().acquire().await.map_err(DbError::from)?;
    Ok(pause_in(&mut connection, kind, subject).await?)
}

/// [`pause`] inside the caller's transaction, whose tenant may stop itself, stages and pipelines.
///
/// # Errors
/// As [`pause`].
pub async fn pause_in(connection: &mut PgConnection, kind: PauseKind, subject: &str) -> Result<bool, DbError> {
    if subject.is_empty() || subject.len() > MAX_SUBJECT {
        let (limit, measured) = (MAX_SUBJECT as u64, subject.len() as u64);
        let message = "the subject of a pause has 1 to 100 bytes";
        return Err(DbError::Failed(Failure::limit(Code::FieldInvalid, message, limit, measured)));
    }
    let made = sqlx::query("INSERT INTO pauses (kind, subject) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(kind.as_str())
        .bind(subject)
        .execute(connection)
        .await?;
    Ok(made.rows_affected() == 1)
}

/// Lifts a pause; true when there was one. Work goes on within one tick of the reconciler.
///
/// # Errors
/// Database failures.
pub async fn resume(database: &Database, kind: PauseKind, subject: &str) -> Result<bool, Failure> {
    let mut connection = database.engine().acquire().await.map_err(DbError::from)?;
    Ok(resume_in(&mut connection, kind, subject).await?)
}

/// [`resume`] inside the caller's transaction.
///
/// # Errors
/// The driver's error.
pub async fn resume_in(connection: &mut PgConnection, kind: PauseKind, subject: &str) -> Result<bool, DbError> {
    let removed = sqlx::query("DELETE FROM pauses WHERE kind = $1 AND subject = $2")
        .bind(kind.as_str())
        .bind(subject)
        .execute(connection)
        .await?;
    Ok(removed.rows_affected() == 1)
}

/// All pauses in force.
///
/// # Errors
/// Database failures.
pub async fn pauses(database: &Database) -> Result<Vec<Pause>, Failure> {
    let mut connection = database.engine().acquire().await.map_err(DbError::from)?;
    Ok(pauses_in(&mut connection).await?)
}

/// The pauses that the connection's tenant may see, the oldest first: its own, and those of stages and pipelines.
///
/// # Errors
/// The driver's error.
pub async fn pauses_in(connection: &mut PgConnection) -> Result<Vec<Pause>, DbError> {
    let rows: Vec<(String, String, OffsetDateTime)> =
        sqlx::query_as("SELECT kind, subject, created_at FROM pauses ORDER BY created_at, kind, subject")
            .fetch_all(connection)
            .await?;
    let pause = |(kind, subject, created_at): (String, String, OffsetDateTime)| {
        PauseKind::parse(&kind).map(|kind| Pause { kind, subject, created_at })
    };
    Ok(rows.into_iter().filter_map(pause).collect())
}
