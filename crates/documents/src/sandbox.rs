//! The walls around a parser: what a child may do, and what its parent does with a child that misbehaves.
//!
//! Two profiles. `parse` is our own binary, re-executed, with its libraries opened before it locks itself: afterwards
//! it can compute, read its first and write its second descriptor, and nothing else. `tool` locks itself in the same
//! way, with leave to execute one binary and read that binary's files. Resource limits, an empty environment and the
//! system call filter are mandatory; Landlock is used where the kernel has it and its state is reported.

pub(crate) mod child;
pub(crate) mod lockdown;
mod misbehave;
pub(crate) mod parent;
mod probe;
pub(crate) mod report;
mod status;
pub(crate) mod tool;
pub(crate) mod warm;
mod watch;

use std::path::PathBuf;

/// What a child is started with, as its last argument.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Setup {
    /// Parse one request.
    Parse(ParseSetup),
    /// Become one tool.
    Tool(ToolSetup),
}

/// The `parse` profile.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ParseSetup {
    /// pdfium, if there is one.
    pub pdfium: Option<PathBuf>,
    /// Memory above what the child starts with.
    pub memory_bytes: u64,
    /// Processor time.
    pub cpu_secs: u64,
    /// Refuse to run without Landlock.
    pub landlock_required: bool,
}

/// The `tool` profile.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ToolSetup {
    /// The binary to become.
    pub binary: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
    /// Folders and files it may read.
    pub readable: Vec<PathBuf>,
    /// Folders with libraries it may load.
    pub libraries: Vec<PathBuf>,
    /// Address space.
    pub memory_bytes: u64,
    /// Processor time.
    pub cpu_secs: u64,
    /// Refuse to run without Landlock.
    pub landlock_required: bool,
}
