//! The engine: stages, pipeline files, the job state machine, leases, outbox, relay, consumers and reconciler.
//!
//! It owns the tables `runs`, `jobs`, `attempts`, `outbox`, `pauses`, `parked_events`, `replays`, `replay_skips`, `schedules`,
//! `stage_cache` and `pipeline_versions`; no other crate writes them. Postgres is the truth and JetStream a doorbell: nothing here relies
//! on the order of events or on the broker's memory. What decides is pure ([`machine`]); SQL applies it under a fence.

mod broker;
mod cache;
mod claim;
mod consumer;
mod lease;
mod reconciler;
mod relay;
mod settle;
mod turn;
mod worker;

pub mod backlog;
pub mod control;
pub mod dead;
pub mod deliveries;
pub mod doctor;
pub mod engine;
pub mod machine;
pub mod pipeline;
pub mod registry;
pub mod replay;
pub mod runs;
pub mod schedule;
pub mod stage;

pub use docmill_platform::failpoints;
pub use engine::{BrokerStatus, Engine, EngineConfig};
pub use registry::Registry;
pub use stage::{InSample, JobContext, Policy, Stage, StageError};
