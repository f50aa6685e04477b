//! Prompts: versioned templates in files, and which version a call uses.
//!
//! A file is `prompts/NAME.vVERSION.md` in the folder of pipeline files: `key: value` lines, then the sections `# system`
//! and `# user`. A version never changes; a changed text is a new version. Which one is used is a [`Rule`] of the
//! registry ([`Prompts`]): for everybody, for a share of the calls, for single tenants. Values are put in where `{{name}}`
//! stands, once: what a value holds is never read as a template.

pub mod evaluations;
pub mod registry;
mod rule;

pub use registry::{Prompts, RolloutRow, VersionRow};
pub use rule::{Rule, Share};

use docmill_model::{Code, Failure, Sha256Hex};

/// The prompt files this build was made with, by path below the folder of pipeline files.
pub const COMMITTED: &[(&str, &str)] = &[
    ("prompts/answer.v1.md", include_str!("../../../../pipelines/prompts/answer.v1.md")),
    ("prompts/extract.v1.md", include_str!("../../../../pipelines/prompts/extract.v1.md")),
    ("prompts/memory.v1.md", include_str!("../../../../pipelines/prompts/memory.v1.md")),
    ("prompts/rewrite.v1.md", include_str!("../../../../pipelines/prompts/rewrite.v1.md")),
    ("prompts/summarize.v1.md", include_str!("../../../../pipelines/prompts/summarize.v1.md")),
];

/// One version of one prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Name: what it is for.
    pub name: String,
    /// Version from 1.
    pub version: i32,
    /// For people.
    pub description: String,
    /// The file as it is.
    pub text: String,
    system: String,
    user: String,
}

impl Prompt {
    /// Reads a prompt file.
    ///
    /// # Errors
    /// `CONFIG_INVALID` saying what is missing.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let invalid = |what: &str| Failure::new(Code::ConfigInvalid, format!("a prompt file has {what}"));
        let (head, body) = text.split_once("\n# system\n").ok_or_else(|| invalid("no section `# system`"))?;
        let (system, user) = body.split_once("\n# user\n").ok_or_else(|| invalid("no section `# user`"))?;
        let mut prompt = Self {
            name: String::new(),
            version: 0,
            description: String::new(),
            text: text.to_owned(),
            system: system.trim().to_owned(),
            user: user.trim().to_owned(),
        };
        for line in head.lines().filter(|line| !line.trim().is_empty()) {
            match line.split_once(':').map(|(key, value)| (key.trim(), value.trim())) {
                Some(("name", value)) => prompt.name = value.to_owned(),
                Some(("version", value)) => prompt.version = value.parse().unwrap_or(0),
                Some(("description", value)) => prompt.description = value.to_owned(),
                _ => return Err(invalid("a line before `# system` that is none of name, version, description")),
            }
        }
        if prompt.name.is_empty() || prompt.version < 1 {
            return Err(invalid("no `name`, or no `version` from 1"));
        }
        Ok(prompt)
    }

    /// The prompt files of this build.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn committed() -> Result<Vec<Self>, Failure> {
        COMMITTED.iter().map(|(_, text)| Self::parse(text)).collect()
    }

    /// Every `*.md` of a folder, in the order of their names; none when there is no such folder.
    ///
    /// # Errors
    /// `CONFIG_INVALID` naming the file.
    pub fn read_folder(folder: &std::path::Path) -> Result<Vec<Self>, Failure> {
        let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
        paths.sort();
        let read = |path: &std::path::PathBuf| {
            let named = |what: String| Failure::new(Code::ConfigInvalid, format!("{}: {what}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
            let prompt = Self::parse(&text).map_err(|failure| named(failure.message))?;
            let expected = format!("{}.v{}.md", prompt.name, prompt.version);
            if path.file_name().is_none_or(|name| name != expected.as_str()) {
                return Err(named(format!("by its content this file is {expected}")));
            }
            Ok(prompt)
        };
        paths.iter().map(read).collect()
    }

    /// `name@version`, as ledger and cache know it.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// SHA-256 of the file.
    #[must_use]
    pub fn sha256(&self) -> Sha256Hex {
        Sha256Hex::of(self.text.as_bytes())
    }

    /// The system message.
    #[must_use]
    pub fn system(&self, values: &[(&str, &str)]) -> String {
        fill(&self.system, values)
    }

    /// The user message.
    #[must_use]
    pub fn user(&self, values: &[(&str, &str)]) -> String {
        fill(&self.user, values)
    }
}

/// `template` with each `{{name}}` replaced, in one pass; names without a value stay.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find("{{") {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        let close = rest.find("}}");
        let value = close.and_then(|close| values.iter().find(|(name, _)| *name == rest[2..close].trim()));
        match (close, value) {
            (Some(close), Some((_, value))) => {
                out.push_str(value);
                rest = &rest[close + 2..];
            }
            _ => {
                out.push_str("{{");
                rest = &rest[2..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn committed_prompts_are_read_and_named_as_their_files() {
        for ((path, _), prompt) in COMMITTED.iter().zip(Prompt::committed().unwrap()) {
            assert_eq!(*path, format!("prompts/{}.v{}.md", prompt.name, prompt.version));
            assert!(!prompt.description.is_empty() && !prompt.system(&[]).is_empty(), "{path}");
        }
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/prompts");
        assert_eq!(Prompt::read_folder(&folder).unwrap(), Prompt::committed().unwrap());
    }

    #[test]
    fn values_are_put_in_once() {
        let values = [("a", "1 {{b}}"), ("b", "2")];
        assert_eq!(fill("x {{a}} y {{ b }} z {{c}} {{", &values), "x 1 {{b}} y 2 z {{c}} {{");
    }

    #[test]
    fn files_that_are_no_prompts_are_refused() {
        for bad in [
            "",
            "name: a\nversion: 1\n\n# system\ntext",
            "name: a\n\n# system\nx\n# user\ny",
            "what\n# system\nx\n# user\ny",
        ] {
            assert_eq!(Prompt::parse(bad).unwrap_err().code, Code::ConfigInvalid, "{bad}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b.v1.md"), "name: a\nversion: 1\n\n# system\nx\n# user\ny").unwrap();
        let failure = Prompt::read_folder(folder.path()).unwrap_err();
        assert!(failure.message.contains("b.v1.md") && failure.message.contains("a.v1.md"), "{failure}");
    }
}
