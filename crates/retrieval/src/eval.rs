//! Measuring retrieval, answers, extraction and summaries on labelled data, outside the live path.
//!
//! A data set in BEIR layout ([`beir`]) is written into a scratch tenant and an index directory of its own
//! ([`scratch`]), searched through the very code that serves ([`retrieval`], [`answers`]), and judged by [`measures`];
//! [`outcome`] compares two runs case by case, [`gate`] says when that fails, and [`significance`] tells a difference from noise. [`labelled`] and
//! [`references`] read sets for extraction and summaries, [`fields`] and [`rouge`] judge those, [`excerpts`] judges chunking. Vectors are kept on disk
//! between evaluations ([`vectors`]). Not here: the command line and suite files (the binary's).

pub mod answers;
pub mod beir;
pub mod excerpts;
pub mod fields;
pub mod gate;
pub mod injection;
pub mod labelled;
pub mod measures;
pub mod outcome;
pub mod references;
pub mod retrieval;
pub mod rouge;
pub mod scratch;
pub mod significance;
pub mod trec;
pub mod vectors;

pub use answers::{AnswersReport, evaluate_answers};
pub use beir::BeirFolder;
pub use gate::Gate;
pub use injection::{InjectionCase, evaluate_injection};
pub use outcome::{Change, Measure, Outcome, compare, fingerprint};
pub use retrieval::{ModeReport, RetrievalReport, evaluate_retrieval};
pub use scratch::{Bench, Progress};
