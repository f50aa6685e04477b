//! Planned failures of reads, for tests of everything that must survive a bad store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How one GET goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers 500.
    Error,
    /// Announces the whole length and ends the body after half of it.
    Truncated,
    /// Sends the right number of bytes with the first one changed.
    WrongBytes,
    /// Waits before it answers.
    Slow(Duration),
}

/// The faults that the next GETs will have, shared between a test and the store it runs. Empty in production.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    next: Arc<Mutex<VecDeque<Fault>>>,
}

impl Faults {
    /// The next `count` GETs that are not planned for yet go wrong like `fault`.
    pub fn plan(&self, fault: Fault, count: usize) {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).extend(std::iter::repeat_n(fault, count));
    }

    pub(super) fn take(&self) -> Option<Fault> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
