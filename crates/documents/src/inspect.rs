//! What Docmill sees in one file, for people: a report as JSON or as one HTML page with everything drawn on it.

use crate::parser::{FailedParse, Parsed};
use crate::render::escape;
use docmill_model::document::{BlockKind, PageOutcome, ParsedDocument, Rect};
use docmill_model::{CanonicalText, Span};
use std::fmt::Write;

/// The report of `docmill inspect FILE --json`.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Inspection {
    /// `ok`, `partial` or the code of the failure.
    pub outcome: String,
    /// The detected format, when the file was read.
    pub format: Option<String>,
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
                outcome: failed.failure.code.as_str().to_owned(),
                format: None,
                engine: None,
                pages: 0,
                words: 0,
                text: String::new(),
                page_outcomes: Vec::new(),
                millis: failed.millis,
                peak_rss_bytes: failed.peak_rss_bytes,
                message: Some(failed.failure.message.clone()),
                limit: failed.failure.limit,
                measured: failed.failure.measured,
                blocks: 0,
                tables: 0,
                links: 0,
                hidden: 0,
                language: None,
            },
        }
    }

    fn of_document(parsed: &Parsed) -> Self {
        let document = &parsed.document;
        let words =
            if document.words.is_empty() { document.text.split_whitespace().count() } else { document.words.len() };
        Self {
            outcome: if document.is_partial() { "partial" } else { "ok" }.to_owned(),
            format: Some(document.format.as_str().to_owned()),
            engine: Some(document.engine.clone()),
            pages: document.pages.len(),
            words,
            text: document.text.clone(),
            page_outcomes: document.pages.iter().map(|page| outcome(&page.outcome)).collect(),
            millis: parsed.millis,
            peak_rss_bytes: parsed.peak_rss_bytes,
            message: None,
            limit: None,
            measured: None,
            blocks: document.blocks.len(),
            tables: document.tables.len(),
            links: document.links.len(),
            hidden: document.hidden.len(),
            language: document.language.clone(),
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

const STYLE: &str = "body{font:14px sans-serif;background:#eee;margin:1em}.page{position:relative;background:#fff;margin:0 0 1em;box-shadow:0 0 4px #999}\
.page img{position:absolute;left:0;top:0;width:100%;height:100%}.b,.w{position:absolute;box-sizing:border-box}.b{border:1px solid #06c}.b i{position:absolute;right:100%;top:0;font:10px monospace;white-space:nowrap;background:#ffc}\
.w{border-bottom:1px solid #0a04}.heading{border-color:#c00}.table{border-color:#080}.furniture{border-color:#aaa;background:#aaa3}.list_item{border-color:#a0a}\
.block{background:#fff;border-left:4px solid #06c;margin:.3em 0;padding:.2em .5em;white-space:pre-wrap}.hidden{background:#fdd}";

/// One HTML page with the pages' pictures (PNG as base64 by page number, where there are any), blocks and words drawn
/// over them, or the blocks one below the other for formats without pages. Nothing in it is loaded from elsewhere.
#[must_use]
pub fn inspection_html(document: &ParsedDocument, title: &str, pictures: &[(u32, String)]) -> String {
    let text = CanonicalText::from_canonical(document.text.clone());
    let title = escape(title);
    let mut out =
        format!("<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>");
    let language = document.language.as_deref().unwrap_or("unknown language");
    let _ = write!(
        out,
        "<p>{} read by {}, {language}, {} blocks, {} words</p>",
        document.format.as_str(),
        escape(&document.engine),
        document.blocks.len(),
        document.words.len()
    );
    if document.pages.is_empty() || document.words.is_empty() {
        for block in &document.blocks {
            let hidden = document.hidden.iter().any(|h| h.overlaps(block.span));
            let class = if hidden { "block hidden" } else { "block" };
            let path = escape(block.path.as_deref().unwrap_or_default());
            let words = escape(text.slice(block.span).unwrap_or_default());
            let _ = write!(out, "<div class=\"{class}\" title=\"{path}\"><b>{}</b> {words}</div>", role(block.role));
        }
        return out;
    }
    for page in &document.pages {
        let (width, height) = (page.width.max(1.0), page.height.max(1.0));
        let _ = write!(
            out,
            "<h2>Page {} ({})</h2><div class=page style=\"width:{width}px;height:{height}px\">",
            page.number,
            outcome(&page.outcome)
        );
        if let Some((_, png)) = pictures.iter().find(|(number, _)| *number == page.number) {
            let _ = write!(out, "<img alt=\"\" src=\"data:image/png;base64,{png}\">");
        }
        for (index, block) in document.blocks.iter().enumerate().filter(|(_, b)| b.page == Some(page.number)) {
            if let Some(rect) = block.rect {
                let name = role(block.role);
                let _ = write!(out, "<div class=\"b {name}\" style=\"{}\"><i>{index} {name}</i></div>", place(rect));
            }
        }
        for word in document.words.iter().filter(|w| w.page == page.number) {
            let label = escape(text.slice(Span::new(word.span.start, word.span.end)).unwrap_or_default());
            let _ = write!(out, "<div class=w style=\"{}\" title=\"{label}\"></div>", place(word.rect));
        }
        out.push_str("</div>");
    }
    out
}

fn place(rect: Rect) -> String {
    format!(
        "left:{:.1}px;top:{:.1}px;width:{:.1}px;height:{:.1}px",
        rect.x0,
        rect.y0,
        rect.x1 - rect.x0,
        rect.y1 - rect.y0
    )
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
