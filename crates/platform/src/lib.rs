//! The outside world: Postgres, the object store, the embedding and reranking models, model providers and webhook receivers.
//!
//! Each is behind one type, with time limits, retries and typed failures, so that the rest of Docmill never talks to a
//! socket. Not here: what is stored and why (the stages' and the API's), and the services' own processes (`embedded`).

pub mod artifacts;
pub mod audit;
pub mod blobs;
pub mod database;
pub mod embedder;
pub mod failpoints;
pub mod feed;
pub mod gateway;
mod http;
pub mod layout;
mod onnxruntime;
pub mod reranker;
pub mod tokens;
pub mod webhooks;
