//! Who may run beside whom in one process: jobs that killed workers before run alone, all others together.
//!
//! A turn is taken before the lease, so nothing that waits for one keeps a job from other processes. It is given in the
//! order of asking: behind a job that waits to run alone nothing else begins.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The turns of one process.
#[derive(Default)]
pub(crate) struct Turns {
    lock: RwLock<()>,
}

/// The right to run, until it is dropped.
pub(crate) enum Turn<'t> {
    Alone(#[expect(dead_code, reason = "held for its drop")] RwLockWriteGuard<'t, ()>),
    Together(#[expect(dead_code, reason = "held for its drop")] RwLockReadGuard<'t, ()>),
}

impl Turns {
    /// A turn that nothing stands in the way of.
    pub(crate) fn free(&self, alone: bool) -> Option<Turn<'_>> {
        if alone { self.lock.try_write().ok().map(Turn::Alone) } else { self.lock.try_read().ok().map(Turn::Together) }
    }

    /// Waits for a turn.
    pub(crate) async fn next(&self, alone: bool) -> Turn<'_> {
        if alone { Turn::Alone(self.lock.write().await) } else { Turn::Together(self.lock.read().await) }
    }
}
