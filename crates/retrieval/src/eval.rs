//! Measuring retrieval and answers on labelled data, outside the live path.
//!
//! A data set in BEIR layout ([`beir`]) is written into a scratch tenant and an index directory of its own
//! ([`scratch`]), searched through the very code that serves ([`retrieval`], [`answers`]), and judged by [`measures`];
//! [`significance`] tells a difference from noise. Vectors are kept on disk between evaluations ([`vectors`]). Not here:
//! the command line and the suites (the binary's).

pub mod answers;
pub mod beir;
pub mod measures;
pub mod retrieval;
pub mod scratch;
pub mod significance;
pub mod trec;
pub mod vectors;

pub use answers::{AnswersReport, evaluate_answers};
pub use beir::BeirFolder;
pub use retrieval::{ModeReport, RetrievalReport, evaluate_retrieval};
pub use scratch::{Bench, Progress};
