//! The shapes a search takes and gives; exactly what the API puts on the wire.

pub use super::options::{Expand, Freshness};
pub use super::rerank::Reranking;
use crate::Filters;
use docmill_model::{ChunkId, Code, DocumentId, Failure, VersionId};
use std::time::Instant;

/// Longest query, in characters.
pub const MAX_QUERY_CHARS: usize = 4_000;
/// Most hits of one search.
pub const MAX_K: u32 = 100;

/// Which halves look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SearchMode {
    /// Both, their scores combined.
    #[default]
    Hybrid,
    /// BM25 alone.
    Lexical,
    /// Cosine alone.
    Dense,
}

/// A search.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    /// The words to look for, 1–4,000 characters. No operators: every character is text.
    pub query: String,
    /// Hits wanted, 1–100.
    #[serde(default = "default_k")]
    pub k: u32,
    /// Which halves look.
    #[serde(default)]
    pub mode: SearchMode,
    /// What to narrow to.
    #[serde(default)]
    pub filters: Filters,
    /// True to get ranks and scores of both halves with every hit.
    #[serde(default)]
    pub explain: bool,
    /// What to give of a hit's surroundings; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand: Option<Expand>,
    /// The embedding space to compare in, by name; the active one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// How much hits should differ from each other, 0–1: 0 ranks by score alone, 1 by difference alone after the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub diversity: f64,
    /// True to get with every hit where else its text, or nearly its text, stands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copies: bool,
    /// How much newer documents are preferred; not at all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness: Option<Freshness>,
    /// True to have the best candidates read again, together with the query: by the installation's cross-encoder, else by
    /// the words that stand near each other; false not to. The installation's setting when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank: Option<bool>,
}

fn default_k() -> u32 {
    10
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

impl SearchRequest {
    /// A hybrid search for `query` with defaults.
    #[must_use]
    pub fn new(query: impl Into<String>) -> Self {
        Self {
            query: query.into(),
            k: default_k(),
            mode: SearchMode::Hybrid,
            filters: Filters::default(),
            explain: false,
            expand: None,
            diversity: 0.0,
            copies: false,
            freshness: None,
            space: None,
            rerank: None,
        }
    }

    /// Checks every bound.
    ///
    /// # Errors
    /// `QUERY_EMPTY` without a letter or digit, `QUERY_LIMIT` over 4,000 characters, `FIELD_INVALID` for `k`, `expand`,
    /// `diversity`, `freshness` and filters.
    pub fn check(&self) -> Result<(), Failure> {
        check_query(&self.query)?;
        if self.k < 1 || self.k > MAX_K {
            let message = format!("k must be between 1 and {MAX_K}");
            return Err(Failure::limit(Code::FieldInvalid, message, u64::from(MAX_K), u64::from(self.k)));
        }
        if !(0.0..=1.0).contains(&self.diversity) {
            return Err(Failure::new(Code::FieldInvalid, "diversity must be between 0 and 1"));
        }
        self.expand.as_ref().map_or(Ok(()), Expand::check)?;
        self.freshness.as_ref().map_or(Ok(()), Freshness::check)?;
        self.filters.check()
    }
}

pub(crate) fn check_query(query: &str) -> Result<(), Failure> {
    let chars = query.chars().count();
    if chars > MAX_QUERY_CHARS {
        let message = "the query has too many characters";
        return Err(Failure::limit(Code::QueryLimit, message, MAX_QUERY_CHARS as u64, chars as u64));
    }
    if query.chars().any(char::is_alphanumeric) {
        Ok(())
    } else {
        Err(Failure::new(Code::QueryEmpty, "the query holds no word"))
    }
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct SearchResponse {
    /// Best first; at most `k`, fewer only when fewer match. Equal texts are one hit; one that says nearly the same as a
    /// better one is left out while others match.
    pub hits: Vec<Hit>,
    /// Time inside retrieval, milliseconds.
    pub took_ms: f64,
    /// A half that did not answer in time, failed or is being rebuilt, so that the other answered alone: `lexical` or
    /// `dense`. Or `lexical` because this node is out of rotation and may lack what became visible last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
    /// What became of reranking, where that was asked for or is the installation's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reranking: Option<Reranking>,
    /// True when this was found by an earlier search, since which nothing visible has changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
}

impl SearchResponse {
    /// This, as what a search begun at `started` came to.
    pub(super) fn since(self, started: Instant) -> Self {
        let took = started.elapsed();
        metrics::histogram!("docmill_search_seconds").record(took.as_secs_f64());
        Self { took_ms: took.as_secs_f64() * 1e3, ..self }
    }
}

/// One passage.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Hit {
    /// The chunk; equal content keeps its id.
    pub chunk_id: ChunkId,
    /// Its document.
    pub document_id: DocumentId,
    /// The version that answers.
    pub version_id: VersionId,
    /// File name of the document.
    pub document: String,
    /// Title found in the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Collection of the document.
    pub collection: String,
    /// The passage, as canonical text less hidden text.
    pub text: String,
    /// What it mostly holds: `text`, `table`, `code` or `list`.
    pub kind: String,
    /// ISO 639-3 language, where one was detected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Headings above it, outermost first.
    pub heading_path: Vec<String>,
    /// First page from 1, for paged formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_start: Option<u32>,
    /// Last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_end: Option<u32>,
    /// First character in the canonical text.
    pub char_start: u32,
    /// One past the last character.
    pub char_end: u32,
    /// The score that ordered the hits; comparable within one response only. Between 1 and 2 for those that were reranked.
    pub score: f64,
    /// Present when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// What stands around it; present when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// Where else the text stands, at most 20 places; present when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<Vec<Copy>>,
}

/// A passage that was left out of the hits because one says the same.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[schema(as = HitCopy)]
pub struct Copy {
    /// The chunk.
    pub chunk_id: ChunkId,
    /// Its document.
    pub document_id: DocumentId,
    /// The version that answers.
    pub version_id: VersionId,
    /// File name of the document.
    pub document: String,
    /// Collection of the document.
    pub collection: String,
    /// First page from 1, for paged formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_start: Option<u32>,
    /// First character in the canonical text.
    pub char_start: u32,
    /// One past the last character.
    pub char_end: u32,
    /// True for the same text under the same headings, false for one that says nearly the same.
    pub is_equal: bool,
}

/// The passages around a hit in the version that answers, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Context {
    /// Those before it; empty at the beginning.
    pub before: Vec<String>,
    /// Those after it; empty at the end.
    pub after: Vec<String>,
}

/// Where a score came from.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Explanation {
    /// Rank from 1 among the visible BM25 candidates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bm25_rank: Option<u32>,
    /// BM25 score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bm25_score: Option<f64>,
    /// Rank from 1 among the visible dense candidates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense_rank: Option<u32>,
    /// Cosine similarity, -1 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dense_cosine: Option<f64>,
    /// The fused score.
    pub fused: f64,
    /// What the age of the document left of the score, 0–1, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness: Option<f64>,
    /// Score of reranking, 0–1, where the passage was read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank: Option<f64>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn queries_are_bounded_at_the_limit_and_one_past_it() {
        assert!(SearchRequest::new("é".repeat(MAX_QUERY_CHARS)).check().is_ok());
        let failure = SearchRequest::new("é".repeat(MAX_QUERY_CHARS + 1)).check().unwrap_err();
        assert_eq!((failure.code, failure.limit, failure.measured), (Code::QueryLimit, Some(4_000), Some(4_001)));
        for empty in ["", "  \n\t", "?!…", "\u{200b}"] {
            assert_eq!(SearchRequest::new(empty).check().unwrap_err().code, Code::QueryEmpty);
        }
    }

    #[test]
    fn k_is_bounded() {
        for (k, ok) in [(0, false), (1, true), (100, true), (101, false)] {
            assert_eq!(SearchRequest { k, ..SearchRequest::new("a") }.check().is_ok(), ok, "k = {k}");
        }
    }

    #[test]
    fn a_request_reads_with_defaults_and_refuses_unknown_keys() {
        let request: SearchRequest = serde_json::from_str(r#"{"query": "a"}"#).unwrap();
        assert_eq!(request, SearchRequest::new("a"));
        assert!(serde_json::from_str::<SearchRequest>(r#"{"query": "a", "tenant": "b"}"#).is_err());
    }
}
