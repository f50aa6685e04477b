//! Embedding spaces beside each other: one is built from the chunks that are stored, while another answers.
//!
//! [`steer`] holds what an operator does, each in one transaction: a new space, a pause, the switch, a drop. [`Builder`]
//! then does the work in the background, from facts alone, so that any number of builders may be killed anywhere. A space
//! that does not answer is kept complete like the one that does, so that both answer by name and the way back is a switch.
//!
//! A text belongs into a space when a chunk that stands (of a generation that is not retired) has it and some other space
//! has a vector of it: what a pipeline never embeds is not embedded here either. Not here: which space a search compares
//! in ([`crate::search`]), and the vectors of new documents (the embed stage's, which writes into every standing space).

mod build;
mod empty;
mod facts;
mod fill;
mod gaps;
mod plan;
pub mod steer;

pub use build::{Builder, BuilderConfig};
pub use fill::{embed_each, enter_refused};
pub use plan::{SpacePlan, plan};
pub use steer::{SpaceDrop, SpaceRow, Switched};

use docmill_model::{Failure, TenantId};
use docmill_platform::database::{Database, DbError};
use docmill_platform::embedder::Space;

/// Most spaces at a time.
pub const MAX_SPACES: usize = 8;

/// All spaces, the active one first.
async fn all(database: &Database) -> Result<Vec<Space>, Failure> {
    let mut connection = database.engine().acquire().await.map_err(DbError::from)?;
    Ok(Space::all(&mut connection).await.map_err(DbError::from)?)
}

/// The other spaces: what has a vector in one of them belongs into `space`.
fn others(spaces: &[Space], space: i32) -> Vec<i32> {
    spaces.iter().map(|other| other.id).filter(|other| *other != space).collect()
}

/// Every tenant, that of evaluations aside.
async fn tenants(database: &Database) -> Result<Vec<TenantId>, Failure> {
    let mut tenants = database.tenants().await?;
    tenants.retain(|tenant| *tenant != TenantId::of_evaluations());
    Ok(tenants)
}
