//! The engine: stages, pipeline files, the job state machine, leases, outbox, relay, consumers and reconciler.
//!
//! It owns the tables `runs`, `jobs`, `attempts`, `outbox`, `stage_cache` and `pipeline_versions`; no other crate
//! writes them. Postgres is the truth and JetStream a doorbell: nothing here relies on the order of events or on the
//! broker's memory.

pub mod machine;
pub mod pipeline;
pub mod registry;
pub mod runs;
pub mod stage;

pub use stage::{JobContext, Policy, Stage, StageError};
