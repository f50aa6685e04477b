//! Results of an evaluation: kept as files of figures, found again, shown.

use crate::output;
use docmill_embedded::files;
use docmill_model::{Code, Failure};
use docmill_retrieval::eval::{Change, Outcome};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Most results kept of one suite file; older ones go.
const MAX_KEPT: usize = 100;

/// The outcomes of one run of a suite file.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Results {
    /// Name of the suite file.
    pub name: String,
    /// When, RFC 3339.
    pub made_at: String,
    /// Version of the binary.
    pub docmill: String,
    /// Versions of prompts it was made with, where they were named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prompts: BTreeMap<String, i32>,
    /// One outcome a suite.
    pub suites: Vec<Outcome>,
    /// The conditions it failed, in words; `last` passes such a run over.
    #[serde(default)]
    pub failed: Vec<String>,
}

impl Results {
    /// Results of now.
    pub fn new(name: &str, suites: Vec<Outcome>) -> Self {
        let made_at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        Self {
            name: name.to_owned(),
            made_at,
            docmill: env!("CARGO_PKG_VERSION").to_owned(),
            prompts: BTreeMap::new(),
            suites,
            failed: Vec::new(),
        }
    }

    /// The results in the file `name`; for `last` the newest in `kept` that failed nothing and has all of `suites`.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when there are none or they cannot be read.
    pub fn find(name: &str, kept: &Path, suites: &[&str]) -> Result<Self, Failure> {
        if name != "last" {
            return Self::read(Path::new(name));
        }
        for path in listed(kept).iter().rev() {
            let results = Self::read(path)?;
            let has = |suite: &&str| results.suites.iter().any(|outcome| outcome.suite == *suite);
            if results.failed.is_empty() && suites.iter().all(has) {
                return Ok(results);
            }
        }
        Err(invalid(
            "there is no earlier run of this file that passed, with all these suites, to compare with".to_owned(),
        ))
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| invalid(format!("{} cannot be read ({})", path.display(), e.kind())))?;
        serde_json::from_str(&text).map_err(|e| invalid(format!("{} holds no results: {e}", path.display())))
    }

    /// Writes them into `kept` under their time, and returns the path.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the folder cannot be written.
    pub fn keep(&self, kept: &Path) -> Result<PathBuf, Failure> {
        files::private_dir(kept)?;
        let path = kept.join(format!("{}.json", self.made_at.replace(':', "-")));
        self.write(&path)?;
        let all = listed(kept);
        all.iter().take(all.len().saturating_sub(MAX_KEPT)).for_each(|old| {
            let _ = std::fs::remove_file(old);
        });
        Ok(path)
    }

    /// Writes them to `path`.
    ///
    /// # Errors
    /// `CONFIG_INVALID` when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string(self).map_err(|e| invalid(format!("results cannot be written: {e}")))?;
        std::fs::write(path, text).map_err(|e| invalid(format!("{} cannot be written ({})", path.display(), e.kind())))
    }
}

/// Kept results, oldest first.
fn listed(kept: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(kept).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    found.sort();
    found
}

fn invalid(message: String) -> Failure {
    Failure::new(Code::ConfigInvalid, message)
}

/// Prints the figures of one suite.
pub fn show(outcome: &Outcome) {
    output::line(format!("== {} ({})", outcome.suite, outcome.kind));
    let rows = outcome.measures.iter().map(|measure| {
        let cases = if measure.cases.is_empty() { String::new() } else { measure.cases.len().to_string() };
        vec![measure.name.clone(), format!("{:.4}", measure.value), cases]
    });
    output::table(&["measure", "value", "cases"], rows);
}

/// Prints what changed.
pub fn show_changes(changes: &[Change]) {
    if changes.is_empty() {
        return;
    }
    output::line("== against the baseline");
    let rows = changes.iter().map(|change| {
        let interval = change.paired.map(|paired| format!("{:+.4} … {:+.4}", paired.low, paired.high));
        let p = change.paired.map(|paired| format!("{:.3}", paired.p_value));
        vec![
            change.name.clone(),
            format!("{:.4}", change.before),
            format!("{:.4}", change.after),
            format!("{:+.4}", change.after - change.before),
            interval.unwrap_or_default(),
            p.unwrap_or_default(),
        ]
    });
    output::table(&["measure", "before", "after", "difference", "95 %", "p"], rows);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_results_are_found_again_and_absent_ones_are_named() {
        let folder = std::env::temp_dir().join(format!("docmill-results-{}", uuid::Uuid::new_v4()));
        assert_eq!(Results::find("last", &folder, &[]).unwrap_err().code, Code::ConfigInvalid);
        let older = Results { made_at: "2026-01-01T00:00:00Z".to_owned(), ..Results::new("a", Vec::new()) };
        let newer = Results { made_at: "2026-01-02T00:00:00Z".to_owned(), ..older.clone() };
        newer.keep(&folder).unwrap();
        older.keep(&folder).unwrap();
        let last = |suites: &[&str]| Results::find("last", &folder, suites).map(|results| results.made_at);
        assert_eq!(last(&[]).unwrap(), newer.made_at);
        assert_eq!(last(&["scifact"]).unwrap_err().code, Code::ConfigInvalid, "none has the suite");
        let suite = Outcome { suite: "scifact".to_owned(), ..Outcome::default() };
        let whole = Results {
            made_at: "2026-01-03T00:00:00Z".to_owned(),
            suites: vec![suite],
            ..Results::new("a", Vec::new())
        };
        let failed = vec!["scifact.ndcg@10 < 1".to_owned()];
        let failed = Results { made_at: "2026-01-04T00:00:00Z".to_owned(), failed, ..whole.clone() };
        let path_of_failed = failed.keep(&folder).unwrap();
        assert!(last(&["scifact"]).is_err(), "a run that failed is no baseline");
        whole.keep(&folder).unwrap();
        assert_eq!(last(&["scifact"]).unwrap(), whole.made_at);
        let named = Results::find(&path_of_failed.display().to_string(), &folder, &[]).unwrap();
        assert_eq!(named.failed, failed.failed, "a file that is named is taken as it is");
        std::fs::write(&path_of_failed, "{}").unwrap();
        assert!(Results::find("last", &folder, &[]).unwrap_err().message.contains("no results"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
