//! Embedding spaces: vectors of one model lie in one space, vectors of two models are never compared.
//!
//! One space is active: it answers unless another is named. A process serves the spaces whose fingerprint one of its
//! models has ([`Embedders`]). Not here: building, switching and dropping (retrieval's).

use super::Embedder;
use crate::database::{Database, DbError};
use docmill_model::{Code, Failure};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A space, as `embedding_spaces` has it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Space {
    /// Number of the space in `vectors`; a dropped space's is given out again.
    pub id: i32,
    /// Name, as requests give it.
    pub name: String,
    /// Length of its vectors.
    pub dimensions: i32,
    /// The model that fills it; `None` until the first one does.
    pub fingerprint: Option<String>,
    /// When it was created: what tells it from one that had its number and name before.
    pub created_at: time::OffsetDateTime,
    /// `building`, `ready` or `dropping`.
    pub state: String,
    /// True for the one that answers.
    pub is_active: bool,
    /// True while nothing is embedded into it.
    pub is_paused: bool,
}

/// The columns of [`Space`].
macro_rules! select_space {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, s.name, s.dimensions, s.fingerprint, s.created_at, s.state, s.is_paused,
                    EXISTS (SELECT 1 FROM active_spaces a WHERE a.space_id = s.id) AS is_active
             FROM embedding_spaces s ",
            $rest
        )
    };
}

impl Space {
    /// The space that answers.
    ///
    /// # Errors
    /// The driver's.
    pub async fn active(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        sqlx::query_as(select_space!("WHERE s.id = (SELECT space_id FROM active_spaces)")).fetch_one(connection).await
    }

    /// The space of this name, whatever its state.
    ///
    /// # Errors
    /// The driver's.
    pub async fn named(connection: &mut PgConnection, name: &str) -> Result<Option<Self>, sqlx::Error> {
        sqlx::query_as(select_space!("WHERE s.name = $1")).bind(name).fetch_optional(connection).await
    }

    /// All spaces, the active one first.
    ///
    /// # Errors
    /// The driver's.
    pub async fn all(connection: &mut PgConnection) -> Result<Vec<Self>, sqlx::Error> {
        sqlx::query_as(select_space!("ORDER BY is_active DESC, s.created_at, s.id")).fetch_all(connection).await
    }

    /// True when vectors may be written into it.
    #[must_use]
    pub fn is_standing(&self) -> bool {
        self.state != "dropping"
    }

    /// True when both are the same vectors: numbers and names are given out again.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.id, self.created_at, &self.fingerprint) == (other.id, other.created_at, &other.fingerprint)
    }

    /// The column type its vectors are compared as, as in its index.
    #[must_use]
    pub fn column_type(&self) -> String {
        format!("vector({})", self.dimensions)
    }
}

/// The models of a process.
#[derive(Clone)]
pub struct Embedders {
    first: Arc<dyn Embedder>,
    further: Arc<BTreeMap<String, Arc<dyn Embedder>>>,
}

impl Embedders {
    /// The model of the settings, and those that further spaces are built with, by name.
    #[must_use]
    pub fn new(first: Arc<dyn Embedder>, further: BTreeMap<String, Arc<dyn Embedder>>) -> Self {
        Self { first, further: Arc::new(further) }
    }

    /// The model of the settings: what compares texts that lie in no space, such as sentences of a summary.
    #[must_use]
    pub fn first(&self) -> &Arc<dyn Embedder> {
        &self.first
    }

    /// The model a space of this name is built with.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<dyn Embedder>> {
        self.further.get(name).or_else(|| (self.own_name() == name).then_some(&self.first))
    }

    /// Names of all models.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        std::iter::once(self.own_name()).chain(self.further.keys().cloned()).collect()
    }

    /// The first model is not named by the settings, but by what it is.
    fn own_name(&self) -> String {
        let fingerprint = self.first.fingerprint();
        fingerprint.split('@').next().unwrap_or_default().to_owned()
    }

    /// The model whose vectors lie in `space`; a space that no model filled yet is the first one's.
    #[must_use]
    pub fn of(&self, space: &Space) -> Option<Arc<dyn Embedder>> {
        let serves = |model: &&Arc<dyn Embedder>| {
            model.dimensions() == space.dimensions as usize && space.fingerprint == Some(model.fingerprint())
        };
        match space.fingerprint {
            None => Some(self.first.clone()).filter(|model| model.dimensions() == space.dimensions as usize),
            Some(_) => std::iter::once(&self.first).chain(self.further.values()).find(serves).cloned(),
        }
    }

    /// The model of the space that answers now.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when this process has it not, `DATABASE_UNAVAILABLE`.
    pub async fn answering(&self, database: &Database) -> Result<Arc<dyn Embedder>, Failure> {
        let mut connection = database.engine().acquire().await.map_err(DbError::from)?;
        self.need(&Space::active(&mut connection).await.map_err(DbError::from)?)
    }

    /// [`Self::of`], or why there is none.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn need(&self, space: &Space) -> Result<Arc<dyn Embedder>, Failure> {
        self.of(space).ok_or_else(|| {
            let message =
                format!("this process has no model for the embedding space `{}`; name it in its settings", space.name);
            Failure::new(Code::ConfigInvalid, message)
        })
    }
}

impl From<Arc<dyn Embedder>> for Embedders {
    fn from(first: Arc<dyn Embedder>) -> Self {
        Self::new(first, BTreeMap::new())
    }
}

impl<E: Embedder + 'static> From<Arc<E>> for Embedders {
    fn from(first: Arc<E>) -> Self {
        Self::new(first, BTreeMap::new())
    }
}

/// Binds the active space to the first model when nothing fills it yet, and refuses to start when no model of this
/// process serves it.
///
/// # Errors
/// `CONFIG_INVALID` when the space has vectors of another length or of another model; `DATABASE_UNAVAILABLE`.
pub async fn bind_space(database: &Database, embedders: &Embedders) -> Result<(), Failure> {
    let first = embedders.first();
    sqlx::query(
        "UPDATE embedding_spaces SET fingerprint = $1
         WHERE id = (SELECT space_id FROM active_spaces) AND fingerprint IS NULL AND dimensions = $2",
    )
    .bind(first.fingerprint())
    .bind(first.dimensions() as i32)
    .execute(database.engine())
    .await
    .map_err(DbError::from)?;
    let mut connection = database.engine().acquire().await.map_err(DbError::from)?;
    let spaces = Space::all(&mut connection).await.map_err(DbError::from)?;
    for space in spaces.iter().filter(|space| embedders.of(space).is_none()) {
        if space.is_active {
            return Err(unserved(space, &**first));
        }
        tracing::warn!(space = space.name, "no model of this process serves this embedding space");
    }
    Ok(())
}

fn unserved(space: &Space, first: &dyn Embedder) -> Failure {
    let Some(bound) = &space.fingerprint else {
        let message = "the embedding model gives vectors of another length than the database holds; start with the model of \
                       before, and build a space for this one (`embedding.models`, `docmill spaces build`)";
        let (limit, measured) = (space.dimensions as u64, first.dimensions() as u64);
        return Failure::limit(Code::ConfigInvalid, message, limit, measured);
    };
    let message = format!(
        "the vectors that answer, of the space `{}`, are of the model {bound}, this process has {}; use the model of before \
         (DOCMILL_EMBEDDING_PROVIDER, DOCMILL_MODEL_DIR), name it in `embedding.models`, or use another database",
        space.name,
        first.fingerprint()
    );
    Failure::new(Code::ConfigInvalid, message)
}
