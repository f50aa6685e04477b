//! The shapes a question takes and an answer gives; exactly what the API puts on the wire.

use crate::Filters;
use crate::search::wire::check_query;
use docmill_model::document::Rect;
use docmill_model::{AnswerId, ChunkId, Code, DocumentId, Failure, Sha256Hex, VersionId};

/// Most passages an answer may rest on.
pub const MAX_PASSAGES: u32 = 50;
/// Most sentences of an answer.
pub const MAX_SENTENCES: u32 = 10;

/// A question.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnswerRequest {
    /// The question, 1–4,000 characters.
    pub question: String,
    /// What to narrow to.
    #[serde(default)]
    pub filters: Filters,
    /// Passages to read, 1–50.
    #[serde(default = "default_k")]
    pub k: u32,
    /// Most sentences of the answer, 1–10.
    #[serde(default = "default_sentences")]
    pub max_sentences: u32,
    /// True for an answer as server-sent events: `retrieval`, then for each sentence `token`s and `citations`, last
    /// `answer` with the whole, or `error`. A stream without `answer` is no answer.
    #[serde(default)]
    pub stream: bool,
    /// The embedding space to find passages in, by name; the active one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
}

fn default_k() -> u32 {
    10
}

fn default_sentences() -> u32 {
    3
}

impl AnswerRequest {
    /// A question over all documents with defaults.
    #[must_use]
    pub fn new(question: impl Into<String>) -> Self {
        let (k, max_sentences) = (default_k(), default_sentences());
        Self { question: question.into(), filters: Filters::default(), k, max_sentences, stream: false, space: None }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// `QUERY_EMPTY`, `QUERY_LIMIT`, or `FIELD_INVALID` for `k`, `max_sentences` and filters.
    pub fn check(&self) -> Result<(), Failure> {
        check_query(&self.question)?;
        for (name, value, limit) in [("k", self.k, MAX_PASSAGES), ("max_sentences", self.max_sentences, MAX_SENTENCES)]
        {
            if value < 1 || value > limit {
                let message = format!("{name} must be between 1 and {limit}");
                return Err(Failure::limit(Code::FieldInvalid, message, u64::from(limit), u64::from(value)));
            }
        }
        self.filters.check()
    }
}

/// An answer, or the honest absence of one.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Answer {
    /// Identity of the stored snapshot.
    pub id: AnswerId,
    /// `extractive` or `provider/model`.
    pub engine: String,
    /// False when the documents hold no answer; then there are no sentences.
    pub found: bool,
    /// Sentences in the order to read, each with at least one verified citation.
    pub sentences: Vec<AnswerSentence>,
    /// Sentences of a model that the documents do not bear out; they were removed.
    #[serde(default)]
    pub removed: u32,
    /// What a model used; absent for answers without one and for stored ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What a reader should know: that the answer is extractive, that nothing was found, what was left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Tokens of the model call behind an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Usage {
    /// Tokens sent.
    pub tokens_in: u64,
    /// Tokens received.
    pub tokens_out: u64,
}

/// One sentence of an answer.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct AnswerSentence {
    /// The sentence; `None` when it was generated and every document it cites is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Places that hold it.
    pub citations: Vec<Citation>,
}

/// Words on a page: `canonical[char_start..char_end] == quote`, checked before it is sent.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Citation {
    /// The document.
    pub document_id: DocumentId,
    /// The version that was read.
    pub version_id: VersionId,
    /// The passage the quote stands in.
    pub chunk_id: ChunkId,
    /// File name of the document; `None` when withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// SHA-256 of the uploaded bytes of the version; `None` when withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// First page of the quote from 1, for paged formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// Where the quote's lines stand on their pages, for paged formats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<PageBox>,
    /// First character in the canonical text.
    pub char_start: u32,
    /// One past the last character.
    pub char_end: u32,
    /// The words; `None` when withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<String>,
    /// True when the document was deleted, or is no longer visible to the reader, after the answer was given.
    #[serde(default)]
    pub withdrawn: bool,
    /// The text the positions point into, for the stored snapshot; not on the wire.
    #[serde(skip)]
    pub parsed_sha256: Option<Sha256Hex>,
}

/// A rectangle on a page, in the page's units, origin top left.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct PageBox {
    /// Page from 1.
    pub page: u32,
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

impl From<(u32, Rect)> for PageBox {
    fn from((page, rect): (u32, Rect)) -> Self {
        Self { page, x0: rect.x0, y0: rect.y0, x1: rect.x1, y1: rect.y1 }
    }
}
