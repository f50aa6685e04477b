//! What a locked child says of its sandbox: how it is locked, and what came of its attempts to get out.

use crate::frames::Lockdown;
use docmill_model::{Code, Failure};
use std::collections::BTreeMap;

/// The state of the sandbox, for `docmill doctor`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SandboxReport {
    /// How a child was locked.
    pub lockdown: Lockdown,
    /// Attempts to escape, each `denied` or `ALLOWED`.
    pub probe: BTreeMap<String, String>,
    /// Installed OCR language packs; empty without tesseract.
    pub ocr_packs: Vec<String>,
}

impl SandboxReport {
    /// Whether every attempt to escape was denied.
    ///
    /// # Errors
    /// `SANDBOX_UNAVAILABLE` with the names of the attempts that were not.
    pub fn check(&self) -> Result<(), Failure> {
        let came = self.probe.iter().filter(|(_, came)| *came != "denied");
        let allowed: Vec<&str> = came.map(|(attempt, _)| attempt.as_str()).collect();
        if allowed.is_empty() && !self.probe.is_empty() {
            return Ok(());
        }
        let message = format!("the sandbox does not hold: {}", allowed.join(", "));
        Err(Failure::new(Code::SandboxUnavailable, message))
    }
}

#[cfg(test)]
mod tests {
    use super::SandboxReport;
    use crate::frames::Lockdown;
    use docmill_model::Code;

    #[test]
    fn one_attempt_that_succeeds_is_a_failure() {
        let report = |fork: &str| SandboxReport {
            lockdown: Lockdown::default(),
            probe: [("fork", fork), ("open_file", "denied")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
            ocr_packs: Vec::new(),
        };
        assert_eq!(report("denied").check(), Ok(()));
        let failure = report("ALLOWED").check().expect_err("a hole");
        assert_eq!((failure.code, failure.message.contains("fork")), (Code::SandboxUnavailable, true));
    }
}
