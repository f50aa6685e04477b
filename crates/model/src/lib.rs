//! The nouns every other crate speaks: identifiers, error codes, the document model and the event envelope.
//!
//! This crate does no IO and knows no database, broker or HTTP server. What it promises: a value of these
//! types means the same thing in every crate and on every wire, and is stable once written (see the
//! versioned envelope in [`event`] and the stable strings in [`code`]).

pub mod chunk;
pub mod code;
pub mod document;
pub mod event;
pub mod hash;
pub mod id;
pub mod manifest;
pub mod results;
pub mod retention;
pub mod scope;
pub mod sensitive;
pub mod sentences;
pub mod text;

pub use code::{Code, CodePage, ErrorKind, Failure};
pub use hash::Sha256Hex;
pub use id::*;
pub use sensitive::Sensitive;
pub use text::{CanonicalText, Span};
