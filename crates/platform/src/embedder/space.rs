//! One space, one model: vectors of two models are never compared.

use super::Embedder;
use crate::database::{Database, DbError};
use docmill_model::{Code, Failure};

/// The space the vectors are in (`embedding_spaces`).
pub const SPACE: i32 = 1;

/// Binds the space to the model that fills it first; refuses another one.
///
/// # Errors
/// `CONFIG_INVALID` when the space has vectors of another length or of another model; `DATABASE_UNAVAILABLE`.
pub async fn bind_space(database: &Database, embedder: &dyn Embedder) -> Result<(), Failure> {
    let fingerprint = embedder.fingerprint();
    sqlx::query(
        "UPDATE embedding_spaces SET fingerprint = $2 WHERE id = $1 AND fingerprint IS NULL AND dimensions = $3",
    )
    .bind(SPACE)
    .bind(&fingerprint)
    .bind(embedder.dimensions() as i32)
    .execute(database.engine())
    .await
    .map_err(DbError::from)?;
    let (bound, dimensions): (Option<String>, i32) =
        sqlx::query_as("SELECT fingerprint, dimensions FROM embedding_spaces WHERE id = $1")
            .bind(SPACE)
            .fetch_one(database.engine())
            .await
            .map_err(DbError::from)?;
    if dimensions as usize != embedder.dimensions() {
        let message =
            "the embedding model gives vectors of another length than the database holds; use the model of before";
        return Err(Failure::limit(Code::ConfigInvalid, message, dimensions as u64, embedder.dimensions() as u64));
    }
    if bound.as_ref() != Some(&fingerprint) {
        let bound = bound.unwrap_or_default();
        let message = format!(
            "the vectors in the database are of the model {bound}, this process has {fingerprint}; \
             use the model of before (DOCMILL_EMBEDDING_PROVIDER, DOCMILL_MODEL_DIR) or another database"
        );
        return Err(Failure::new(Code::ConfigInvalid, message));
    }
    Ok(())
}
