//! HTTP: uploads by signed URL, documents and their results, search, answers, keys, webhooks, operators.
//!
//! Promises: a caller sees its own tenant only, and an unknown identifier cannot be told from a foreign one; every error
//! is one problem+json shape with a stable code; files are uploaded past here; every change writes an audit row in
//! its own transaction. Not here: parsing, stages, retrieval itself, reading configuration (the binary does).

pub mod answers;
pub mod audit;
pub mod auth;
pub mod body;
pub mod collections;
pub mod conversations;
pub mod cursor;
pub mod documents;
pub mod entry;
pub mod feedback;
pub mod health;
pub mod idempotency;
pub mod keys;
pub mod lifecycle;
pub mod limits;
pub mod mcp;
pub mod openai;
pub mod openapi;
pub mod operate;
pub mod pager;
pub mod pipelines;
pub mod problem;
pub mod prompts;
pub mod router;
pub mod search;
pub mod serve;
pub mod state;
pub mod telemetry;
pub mod trace;
pub mod usage;
pub mod webhooks;

pub use openapi::openapi;
pub use router::router;
pub use state::{ApiConfig, ApiParts, ApiState, Readiness};
