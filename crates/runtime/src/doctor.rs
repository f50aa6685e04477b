//! The doctor: the invariants as named queries over live data. Each returns the rows that break it, as ids.
//!
//! A healthy system has none, also under load: what is merely on its way gets the time the reconciler needs. Those of the
//! engine are read as its role, so nothing there can see text; those over content as each tenant. The reconciler evaluates
//! both, the API when somebody asks; each that was judged tells its count as a metric.

mod content;
mod queries;
mod repair;

pub use content::{Examined, UNUSED_VECTOR, examine_content};
pub use repair::{Repair, repair};

use docmill_model::Failure;
use docmill_platform::database::{Database, DbError};

/// Most violations shown of one invariant.
pub const SHOWN_LIMIT: usize = 100;

/// One invariant.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Invariant {
    /// Stable name.
    pub name: &'static str,
    /// What must hold.
    pub sentence: &'static str,
    #[serde(skip)]
    sql: &'static str,
}

/// One row that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// Name of the invariant.
    pub invariant: String,
    /// What breaks it: `run <id>`, `job <id>`, ….
    pub subject: String,
    /// States, counts and ages; never text.
    pub detail: String,
}

/// Every invariant: those of [`examine`], then those of [`examine_content`].
pub fn invariants() -> impl Iterator<Item = &'static Invariant> {
    queries::ALL.iter().chain(content::ALL).chain(content::OF_EVERYONE)
}

/// Evaluates the invariants of the engine: cheap enough for a timer.
///
/// # Errors
/// Database failures.
pub async fn examine(database: &Database) -> Result<Vec<Violation>, Failure> {
    let mut violations = Vec::new();
    for invariant in queries::ALL {
        let rows: Vec<(String, String)> =
            sqlx::query_as(invariant.sql).fetch_all(database.engine()).await.map_err(DbError::from)?;
        publish(invariant.name, rows.len().min(SHOWN_LIMIT));
        violations.extend(rows.into_iter().take(SHOWN_LIMIT).map(|(subject, detail)| Violation {
            invariant: invariant.name.to_owned(),
            subject,
            detail,
        }));
    }
    Ok(violations)
}

/// Tells how many violations of an invariant there are, at most 100, as the gauge `docmill_invariant_violations`. Only of one
/// that was judged: 0 says that it holds.
pub fn publish(invariant: &'static str, violations: usize) {
    metrics::gauge!("docmill_invariant_violations", "invariant" => invariant).set(violations as f64);
}
