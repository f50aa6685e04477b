//! Looks at the invariants over content now and then, for the metric and the log. A loop of its own: a look takes longer than
//! a lease, and the rounds must not wait for it.

use crate::doctor;
use crate::engine::Core;
use tokio_util::sync::CancellationToken;

/// Looks until `stop` fires.
pub(crate) async fn run(core: &Core, stop: CancellationToken) {
    doctor::watch(stop, |until, first| doctor::examine_content(&core.database, until, first)).await;
}
