//! `questions.yaml`: what is asked, and what a right answer holds.

use docmill_model::{Code, Failure};
use serde_json::Value;
use std::path::Path;

/// One question with its expectation.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Asked as it stands.
    pub question: String,
    /// The quotes hold one of these.
    #[serde(default)]
    pub expect: Vec<String>,
    /// The file that holds the answer.
    #[serde(default)]
    pub document: Option<String>,
    /// Page of the answer, for people who write questions.
    #[serde(default)]
    #[allow(
        dead_code,
        reason = "part of the file's shape; a citation of another page that holds the fact is right, too"
    )]
    pub page: Option<u32>,
    /// Whether the documents answer it.
    pub found: bool,
}

/// Reads the questions.
///
/// # Errors
/// `CONFIG_INVALID` naming file and place.
pub fn read(path: &Path) -> Result<Vec<Question>, Failure> {
    let invalid = |e: &dyn std::fmt::Display| Failure::new(Code::ConfigInvalid, format!("{}: {e}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| invalid(&e))?;
    serde_saphyr::from_str(&text).map_err(|e| invalid(&e))
}

impl Question {
    /// True when its document is among `names`, or none is needed.
    pub fn is_about(&self, names: &[&str]) -> bool {
        self.document.as_ref().is_none_or(|document| names.contains(&document.as_str()))
    }

    /// True when the answer is as expected.
    pub fn is_met(&self, found: bool, citations: &[Value]) -> bool {
        let quotes: String = citations.iter().filter_map(|c| c["quote"].as_str()).collect::<Vec<_>>().join(" ");
        let quotes = one_spaced(&quotes);
        found == self.found && (!found || self.expect.iter().any(|part| quotes.contains(&one_spaced(part))))
    }
}

fn one_spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
