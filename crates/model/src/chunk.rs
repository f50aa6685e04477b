//! Chunks: the passages that are embedded, indexed and cited.

use crate::Span;

/// What a chunk mostly holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChunkKind {
    /// Running text.
    Text,
    /// Rows of a table.
    Table,
    /// Preformatted code.
    Code,
    /// List items.
    List,
}

impl ChunkKind {
    /// The stored spelling.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ChunkKind::Text => "text",
            ChunkKind::Table => "table",
            ChunkKind::Code => "code",
            ChunkKind::List => "list",
        }
    }
}

/// One passage of canonical text. `text == canonical[span]`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Chunk {
    /// Position among the chunks of the document, from 0 without gaps.
    pub ordinal: u32,
    /// Where in the canonical text.
    pub span: Span,
    /// The words.
    pub text: String,
    /// Titles of the headings above, outermost first.
    pub heading_path: Vec<String>,
    /// What it mostly holds.
    pub kind: ChunkKind,
    /// First page from 1, for paged formats.
    pub page_start: Option<u32>,
    /// Last page.
    pub page_end: Option<u32>,
    /// Tokens of [`Chunk::embed_text`] in the embedding model's tokenizer; never more than its window.
    pub tokens: u32,
    /// ISO 639-3 language.
    pub language: Option<String>,
    /// True when the span overlaps text a reader would not see.
    pub has_hidden: bool,
}

impl Chunk {
    /// The text that is embedded: heading path, newline, words. Its hash is the identity of the vector.
    #[must_use]
    pub fn embed_text(&self) -> String {
        embed_text(&self.heading_path, &self.text)
    }
}

/// [`Chunk::embed_text`] of a chunk that is at hand as its parts.
#[must_use]
pub fn embed_text(heading_path: &[String], text: &str) -> String {
    if heading_path.is_empty() { text.to_owned() } else { format!("{}\n{text}", heading_path.join(" > ")) }
}

/// All chunks of one version, as stored in the artifact of kind `chunks`.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ChunkList {
    /// In order.
    pub chunks: Vec<Chunk>,
}
