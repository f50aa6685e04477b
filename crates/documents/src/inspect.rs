//! What Docmill sees in one file, for people: a report as JSON or as one HTML page with everything drawn on it.

mod html;

use crate::observed::{Observed, Steps};
use crate::parser::{FailedParse, Parsed};
use docmill_model::document::{BlockKind, PageOutcome};
use std::collections::BTreeMap;

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
    /// Parts of a file without pages that could not be read: element path and code.
    pub failed_parts: Vec<(String, String)>,
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
    /// Number of blocks per role.
    pub roles: BTreeMap<&'static str, usize>,
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
            Err(failed) => Self::of_failure(failed),
        }
    }

    fn of_failure(failed: &FailedParse) -> Self {
        Self {
            millis: failed.millis,
            peak_rss_bytes: failed.peak_rss_bytes,
            message: Some(failed.failure.message.clone()),
            limit: failed.failure.limit,
            measured: failed.failure.measured,
            ..Self::empty(failed.failure.code.as_str(), &failed.observed)
        }
    }

    /// What was declared and detected, as one line.
    #[must_use]
    pub fn detection(&self) -> String {
        let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "nothing".to_owned());
        format!("declared: {}, detected: {}", named(&self.declared), named(&self.detected))
    }

    /// Where the time went, and the child's memory, as one line.
    #[must_use]
    pub fn timings(&self) -> String {
        let Steps { start_millis, read_millis, recognise_millis, decode_millis } = self.steps;
        format!(
            "{} ms ({start_millis} starting, {read_millis} reading, {recognise_millis} recognising, {decode_millis} taking over), {} MiB",
            self.millis,
            self.peak_rss_bytes >> 20
        )
    }

    /// The blocks by role, as one line.
    #[must_use]
    pub fn blocks_by_role(&self) -> String {
        let counted = self.roles.iter().map(|(role, count)| format!("{count} {role}"));
        counted.collect::<Vec<_>>().join(", ")
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
            failed_parts: Vec::new(),
            millis: 0,
            steps: observed.steps,
            peak_rss_bytes: 0,
            message: None,
            limit: None,
            measured: None,
            blocks: 0,
            roles: BTreeMap::new(),
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
        let mut roles = BTreeMap::new();
        for block in &document.blocks {
            *roles.entry(role(block.role)).or_default() += 1;
        }
        Self {
            format: Some(document.format.as_str().to_owned()),
            engine: Some(document.engine.clone()),
            pages: document.pages.len(),
            words,
            text: document.text.clone(),
            page_outcomes: document.pages.iter().map(|page| outcome(&page.outcome)).collect(),
            failed_parts: (document.failed_parts.iter())
                .map(|part| (part.path.clone(), part.failure.code.to_string()))
                .collect(),
            millis: parsed.millis,
            peak_rss_bytes: parsed.peak_rss_bytes,
            blocks: document.blocks.len(),
            roles,
            tables: document.tables.len(),
            links: document.links.len(),
            hidden: document.hidden.len(),
            language: document.language.clone(),
            ..Self::empty(if document.is_partial() { "partial" } else { "ok" }, &parsed.observed)
        }
    }
}

fn role(role: BlockKind) -> &'static str {
    match role {
        BlockKind::Heading { .. } => "heading",
        BlockKind::Paragraph => "paragraph",
        BlockKind::ListItem => "list_item",
        BlockKind::Table { .. } => "table",
        BlockKind::Caption => "caption",
        BlockKind::Code => "code",
        BlockKind::Furniture => "furniture",
        BlockKind::Footnote => "footnote",
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
