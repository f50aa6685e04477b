//! The embedded default: the pinned parts, and real Postgres, NATS and S3-compatible storage as supervised children.
//!
//! Production points Docmill at services of its own; this crate exists so that one command has the same components on
//! a laptop and in tests. Only this crate knows where parts come from and how the services are started.

pub mod checks;
pub mod database;
pub mod files;
pub mod home;
pub mod nats;
pub mod objects;
pub mod ocr;
pub mod parts;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod stack;
pub mod store;

pub use home::Home;
pub use stack::{DatabaseUrls, Endpoints, LocalParts, Stack, StoreAccess, Wanted};
