//! Documents with reference summaries, as public sets keep them: SciTLDR, SQuALITY, and one plain layout.

use super::beir::read_lines;
use docmill_model::Failure;
use serde_json::Value;
use std::path::Path;

/// How a set keeps its documents and references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceFormat {
    /// `{"source": [sentences], "target": [summaries]}`.
    Scitldr,
    /// `{"document", "questions": [{"responses": [{"response_text"}]}]}`; the first question asks for the plot.
    Squality,
    /// `{"text", "summaries": [summaries]}`.
    Plain,
}

/// A document with its reference summaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referenced {
    /// Its number in the file, from 1.
    pub name: String,
    /// The words.
    pub text: String,
    /// What people wrote.
    pub references: Vec<String>,
}

impl ReferenceFormat {
    /// Reads a file of JSON lines; at most `limit` documents.
    ///
    /// # Errors
    /// `FIELD_INVALID` with file and line.
    pub fn read(self, path: &Path, limit: usize) -> Result<Vec<Referenced>, Failure> {
        let lines: Vec<Value> = read_lines(path)?;
        let read = |(number, line): (usize, &Value)| {
            let (text, references) = match self {
                Self::Scitldr => (texts(&line["source"]).join(" "), texts(&line["target"])),
                Self::Squality => (text(&line["document"]), responses(&line["questions"][0]["responses"])),
                Self::Plain => (text(&line["text"]), texts(&line["summaries"])),
            };
            Referenced { name: (number + 1).to_string(), text, references }
        };
        Ok(lines.iter().enumerate().take(limit).map(read).collect())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn responses(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|response| text(&response["response_text"])).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_three_layouts_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        for (format, line) in [
            (ReferenceFormat::Scitldr, r#"{"source": ["A.", "B."], "target": ["S"]}"#),
            (
                ReferenceFormat::Squality,
                r#"{"document": "A. B.", "questions": [{"responses": [{"response_text": "S"}]}]}"#,
            ),
            (ReferenceFormat::Plain, r#"{"text": "A. B.", "summaries": ["S"]}"#),
        ] {
            std::fs::write(&path, format!("{line}\n{line}\n")).unwrap();
            let read = format.read(&path, 1).unwrap();
            assert_eq!(
                (read.len(), read[0].text.as_str(), &read[0].references[0][..]),
                (1, "A. B.", "S"),
                "{format:?}"
            );
        }
    }
}
