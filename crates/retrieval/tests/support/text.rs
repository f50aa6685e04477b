//! The canonical text of a document made of passages, and that text laid out on one page.

use docmill_model::Span;
use docmill_model::document::{Format, Page, PageOutcome, ParsedDocument, Rect, Word};

/// Passages joined by blank lines, and where each stands.
pub fn canonical(passages: &[String]) -> (String, Vec<Span>) {
    let (mut text, mut spans, mut at) = (String::new(), Vec::new(), 0);
    for passage in passages {
        let length = passage.chars().count() as u32;
        spans.push(Span::new(at, at + length));
        text.push_str(passage);
        text.push_str("\n\n");
        at += length + 2;
    }
    (text, spans)
}

/// One page with a box for every word.
pub fn paged(text: &str) -> ParsedDocument {
    let length = text.chars().count() as u32;
    let mut words = Vec::new();
    let (mut start, mut current) = (0, String::new());
    for (at, c) in text.chars().chain([' ']).enumerate() {
        if c.is_whitespace() {
            if !current.is_empty() {
                let x = words.len() as f32 * 10.0;
                let rect = Rect { x0: x, y0: 10.0, x1: x + 9.0, y1: 20.0 };
                words.push(Word { span: Span::new(start, at as u32), page: 1, rect, confidence: 1.0 });
                current.clear();
            }
            start = at as u32 + 1;
        } else {
            current.push(c);
        }
    }
    let page = Page {
        number: 1,
        width: 600.0,
        height: 800.0,
        rotation: 0,
        span: Span::new(0, length),
        outcome: PageOutcome::Text,
    };
    ParsedDocument {
        schema: ParsedDocument::SCHEMA,
        format: Format::Pdf,
        engine: "pdfium".to_owned(),
        text: text.to_owned(),
        pages: vec![page],
        blocks: Vec::new(),
        words,
        tables: Vec::new(),
        links: Vec::new(),
        hidden: Vec::new(),
        language: None,
        metadata: std::collections::BTreeMap::new(),
        failed_parts: Vec::new(),
    }
}
