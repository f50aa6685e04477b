//! Logs go to standard error; where that leads is the supervisor's business.

use crate::config::{LogFormat, LogSettings};
use docmill_model::{Code, Failure};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging for a role.
///
/// # Errors
/// `CONFIG_INVALID` for a filter that cannot be read.
pub fn start(settings: &LogSettings) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|e| Failure::new(Code::ConfigInvalid, format!("the log filter cannot be read: {e}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Pretty => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|e| Failure::new(Code::Internal, format!("logging cannot be started: {e}")))
}

/// Starts logging for a command of a person: warnings only.
pub fn quiet() {
    let filter = EnvFilter::try_from_env("DOCMILL_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().try_init();
}
