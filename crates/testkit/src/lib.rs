//! The ground tests stand on: real Postgres, JetStream and S3, a world of its own for every test.
//!
//! [`world`] needs no preparation: the first test on a machine fetches the pinned parts and starts one Postgres and one
//! NATS server under `target/`, which stay up for the test processes that follow. Each world then has a database cloned
//! from a migrated template, an object store of its own on a real socket, and a stream prefix; all three are removed
//! when it is dropped, and those of killed test processes by the next one that starts.
//!
//! Nothing here is for production, so failures panic with what to do.
#![allow(clippy::panic)]

mod accepted;
pub mod prober;
pub mod proxy;
mod scan;
mod shared;
mod store;
mod told;
mod world;

pub use accepted::Accepted;
pub use docmill_embedded::objects::{Fault, Faults};
pub use shared::{Engines, Shared, corpora, engines, home, scratch_home, shared};
pub use told::Told;
pub use world::{World, connect as connect_nats, world};

use std::time::{Duration, Instant};

/// Polls `condition` every 10 ms until it holds.
///
/// # Panics
/// When it does not hold within `patience`.
pub async fn eventually<F: Future<Output = bool>>(what: &str, patience: Duration, condition: impl Fn() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < patience, "waited {patience:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
