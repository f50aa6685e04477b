//! What Docmill sees in one file, for people: a report as JSON or as one HTML page with everything drawn on it.

mod html;

use crate::observed::{Observed, Steps};
use crate::parser::{FailedParse, Parsed};
use docmill_model::document::PageOutcome;

pub use html::{failure_html, inspection_html};

/// The report of `docmill inspect FILE --json`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Inspection {
    /// `ok`, `partial` or the code of the failure.
    pub outcome: String,
    /// The format in which the bytes are read, also when reading them failed.
    pub format: Option<String>,
    /// The type as declared: the media type, or else the name's extension.
    pub declared: Option<String>,
    /// The media type of the bytes.
    pub detected: Option<String>,
    /// The engine that read it.
    pub engine: Option<String>,
    /// Number of pages.
    pub pages: usize,
    /// Number of words: those with boxes, or runs without white space where there are no pages.
    pub words: usize,
    /// The canonical text.
    pub text: String,
    /// One entry per page: `text`, `ocr`, `blank`, or the code of its failure.
    pub page_outcomes: Vec<String>,
    /// Wall clock.
    pub millis: u64,
    /// Where it went.
    pub steps: Steps,
    /// Largest resident size of the child.
    pub peak_rss_bytes: u64,
    /// The failure's sentence.
    pub message: Option<String>,
    /// The limit that spoke.
    pub limit: Option<u64>,
    /// What was measured against it.
    pub measured: Option<u64>,
    /// Number of blocks.
    pub blocks: usize,
    /// Number of tables.
    pub tables: usize,
    /// Number of links.
    pub links: usize,
    /// Number of hidden spans.
    pub hidden: usize,
    /// Language of the document.
    pub language: Option<String>,
}

impl Inspection {
    /// The report of one parse.
    #[must_use]
    pub fn of(parsed: &Result<Parsed, FailedParse>) -> Self {
        match parsed {
            Ok(parsed) => Self::of_document(parsed),
            Err(failed) => Self {
                millis: failed.millis,
                peak_rss_bytes: failed.peak_rss_bytes,
                message: Some(failed.failure.message.clone()),
                limit: failed.failure.limit,
                measured: failed.failure.measured,
                ..Self::empty(failed.failure.code.as_str(), &failed.observed)
            },
        }
    }

    fn empty(outcome: &str, observed: &Observed) -> Self {
        let detected = observed.detected.as_ref();
        Self {
            outcome: outcome.to_owned(),
            format: detected.and_then(|detected| detected.format).map(|format| format.as_str().to_owned()),
            declared: observed.declared.clone(),
            detected: detected.map(|detected| detected.media_type.clone()),
            engine: None,
            pages: 0,
            words: 0,
            text: String::new(),
            page_outcomes: Vec::new(),
            millis: 0,
            steps: observed.steps,
            peak_rss_bytes: 0,
            message: None,
            limit: None,
            measured: None,
            blocks: 0,
            tables: 0,
            links: 0,
            hidden: 0,
            language: None,
        }
    }

    fn of_document(parsed: &Parsed) -> Self {
        let document = &parsed.document;
        let words =
            if document.words.is_empty() { document.text.split_whitespace().count() } else { document.words.len() };
        Self {
            format: Some(document.format.as_str().to_owned()),
            engine: Some(document.engine.clone()),
            pages: document.pages.len(),
            words,
            text: document.text.clone(),
            page_outcomes: document.pages.iter().map(|page| outcome(&page.outcome)).collect(),
            millis: parsed.millis,
            peak_rss_bytes: parsed.peak_rss_bytes,
            blocks: document.blocks.len(),
            tables: document.tables.len(),
            links: document.links.len(),
            hidden: document.hidden.len(),
            language: document.language.clone(),
            ..Self::empty(if document.is_partial() { "partial" } else { "ok" }, &parsed.observed)
        }
    }
}

fn outcome(outcome: &PageOutcome) -> String {
    match outcome {
        PageOutcome::Text => "text".to_owned(),
        PageOutcome::Ocr { .. } => "ocr".to_owned(),
        PageOutcome::Blank => "blank".to_owned(),
        PageOutcome::Failed { failure } => failure.code.as_str().to_owned(),
    }
}
