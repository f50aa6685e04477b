//! The doctor: the invariants as named queries over live data. Each returns the rows that break it, as ids or names.
//!
//! A healthy system has none, also under load: what is merely on its way gets the time the reconciler needs. Those of the
//! engine are read as its role, so nothing there can see text; those over content as each tenant. To examine changes
//! nothing and tells nobody: only loops that judge again publish what they found, since nobody would take back what a request
//! told.

mod content;
mod examined;
mod queries;
mod repair;
mod watch;

pub use content::{UNUSED_VECTOR, examine_content};
pub use examined::Examined;
pub use repair::{Repair, repair};
pub use watch::watch;
pub(crate) use watch::{AGAIN, SHARE};

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
pub async fn examine(database: &Database) -> Result<Examined, Failure> {
    let mut examined = Examined::default();
    for invariant in queries::ALL {
        let rows: Vec<(String, String)> =
            sqlx::query_as(invariant.sql).fetch_all(database.engine()).await.map_err(DbError::from)?;
        examined.enter(invariant.name, rows.into_iter().map(|row| invariant.violation(row)).collect());
    }
    Ok(examined)
}

impl Invariant {
    /// What a row of its query says.
    fn violation(&self, (subject, detail): (String, String)) -> Violation {
        Violation { invariant: self.name.to_owned(), subject, detail }
    }
}
