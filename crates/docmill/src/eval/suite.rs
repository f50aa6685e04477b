//! Suite files: what is judged on which data.

use docmill_model::{Code, Failure};
use docmill_retrieval::eval::labelled::LabelledFormat;
use docmill_retrieval::eval::references::ReferenceFormat;
use docmill_retrieval::search::SearchMode;
use std::path::{Path, PathBuf};

/// A file of suites.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteFile {
    /// Name under which results are kept; letters, digits, `-` and `_`.
    pub name: String,
    /// What to judge, in order.
    pub suites: Vec<Suite>,
    /// Conditions under which the run fails, as `--fail-if`.
    #[serde(default)]
    pub fail_if: Vec<String>,
}

/// One suite.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Suite {
    /// Rankings of a data set in BEIR layout.
    Retrieval {
        /// Name of the suite.
        name: String,
        /// The folder.
        beir: PathBuf,
        /// Judgements to use.
        #[serde(default)]
        split: Option<String>,
        /// Which halves look; all three when absent.
        #[serde(default = "all_modes")]
        modes: Vec<SearchMode>,
        /// Most questions, the first ones.
        #[serde(default)]
        questions: Option<usize>,
    },
    /// Answers on a data set in BEIR layout with `answers.jsonl`.
    Answers {
        /// Name of the suite.
        name: String,
        /// The folder.
        beir: PathBuf,
        /// Judgements to use.
        #[serde(default)]
        split: Option<String>,
        /// Folder whose questions nothing here answers.
        #[serde(default)]
        foreign: Option<PathBuf>,
        /// Most questions of each kind, the first ones.
        #[serde(default)]
        questions: Option<usize>,
    },
    /// Extracted fields of labelled documents.
    Extraction {
        /// Name of the suite.
        name: String,
        /// Layout of the set.
        format: LabelledFormat,
        /// The folder.
        path: PathBuf,
        /// Extraction schema; the one that suits the set when absent.
        #[serde(default)]
        schema: Option<String>,
    },
    /// Summaries of documents with references.
    Summaries {
        /// Name of the suite.
        name: String,
        /// Layout of the set.
        format: ReferenceFormat,
        /// The file.
        path: PathBuf,
        /// Sentences of a summary.
        sentences: usize,
        /// Most documents, the first ones.
        #[serde(default)]
        documents: Option<usize>,
    },
    /// The chunker beside windows of fixed size.
    Chunking {
        /// Name of the suite.
        name: String,
        /// The folder.
        path: PathBuf,
        /// Which halves look.
        #[serde(default)]
        mode: SearchMode,
        /// Retrieved characters; windows are a fifth of each.
        budgets: Vec<u32>,
    },
    /// Documents that try to talk to the system.
    Injection {
        /// Name of the suite.
        name: String,
        /// The cases, JSON lines.
        path: PathBuf,
    },
}

fn all_modes() -> Vec<SearchMode> {
    vec![SearchMode::Lexical, SearchMode::Dense, SearchMode::Hybrid]
}

impl SuiteFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with file, line and column.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let invalid = |what: String| Failure::new(Code::ConfigInvalid, format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| invalid(format!("cannot be read ({})", e.kind())))?;
        let file: Self = serde_saphyr::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        let is_plain =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        let mut names: Vec<&str> = file.suites.iter().map(Suite::name).collect();
        if let Some(bad) = names.iter().chain([&file.name.as_str()]).find(|name| !is_plain(name)) {
            return Err(invalid(format!("the name `{bad}` may hold letters, digits, - and _ only")));
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(invalid(format!("two suites are called `{}`", pair[0]))),
            None => Ok(file),
        }
    }
}

impl Suite {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Suite::Retrieval { name, .. }
            | Suite::Answers { name, .. }
            | Suite::Extraction { name, .. }
            | Suite::Summaries { name, .. }
            | Suite::Chunking { name, .. }
            | Suite::Injection { name, .. } => name,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use docmill_retrieval::eval::Gate;

    #[test]
    fn the_shipped_suite_files_read_and_their_conditions_too() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/eval");
        let mut kinds = std::collections::BTreeSet::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let file = SuiteFile::read(&path).unwrap();
            file.fail_if.iter().for_each(|text| drop(Gate::parse(text).unwrap()));
            kinds.extend(file.suites.iter().map(std::mem::discriminant).map(|kind| format!("{kind:?}")));
        }
        assert_eq!(kinds.len(), 6, "every kind of suite has an example");
    }

    #[test]
    fn mistakes_are_named() {
        let path = std::env::temp_dir().join(format!("docmill-suite-{}.yaml", uuid::Uuid::new_v4()));
        for (text, expected) in [
            ("name: a b\nsuites: []\n", "`a b`"),
            (
                "name: a\nsuites: [{kind: injection, name: x, path: p}, {kind: injection, name: x, path: q}]\n",
                "two suites",
            ),
            ("name: a\nsuites: [{kind: retreival, name: x}]\n", "retreival"),
            ("name: a\nsuites: [{kind: injection, name: x, path: p, k: 3}]\n", "unknown field"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(SuiteFile::read(&path).unwrap_err().message.contains(expected), "{text}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
