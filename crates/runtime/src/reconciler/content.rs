//! Looks at the invariants over content now and then, for the metric and the log. A loop of its own: a look takes longer than
//! a lease, and the rounds must not wait for it.

use super::{EXAMINE, EXAMINE_SHARE, tell};
use crate::doctor;
use crate::engine::Core;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between two looks, and before the first. What is violated is looked at again as soon as the engine's invariants are.
const PAUSE: Duration = Duration::from_secs(600);
/// Longest look; a query that is under way then still ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks until `stop` fires. Where the time does not suffice, the next look begins with the next invariant.
pub(crate) async fn run(core: &Arc<Core>, stop: CancellationToken) {
    let (mut first, mut pause) = (0_usize, PAUSE);
    while tokio::time::timeout(pause, stop.cancelled()).await.is_err() {
        let began = Instant::now();
        let examined = tokio::select! {
            () = stop.cancelled() => return,
            examined = doctor::examine_content(&core.database, began + PATIENCE, first) => examined,
        };
        pause = PAUSE;
        match examined {
            Ok(examined) if examined.violations.is_empty() => first = first.wrapping_add(1),
            Ok(examined) => {
                tell(&examined.violations);
                pause = EXAMINE;
            }
            Err(failure) => tracing::warn!(code = %failure.code, "the invariants over content were not evaluated"),
        }
        pause = pause.max(began.elapsed().saturating_mul(EXAMINE_SHARE));
    }
}
