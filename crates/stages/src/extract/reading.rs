//! The document as the rules read it: visible text of the same length as the canonical one, so that places carry over.

use crate::visible::page_at;
use docmill_model::document::ParsedDocument;
use docmill_model::results::{FieldValue, Place};
use docmill_model::{CanonicalText, Span};
use serde_json::Value;
use std::ops::Range;

/// Something recognised, in bytes of [`Reading::text`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub range: Range<usize>,
    pub normalized: Value,
    pub confidence: f32,
}

impl Found {
    pub fn new(range: Range<usize>, normalized: impl Into<Value>, confidence: f32) -> Self {
        Self { range, normalized: normalized.into(), confidence }
    }
}

/// One document, visible text only.
pub(super) struct Reading<'a> {
    document: &'a ParsedDocument,
    canonical: CanonicalText,
    text: CanonicalText,
}

impl<'a> Reading<'a> {
    /// Hidden characters become line breaks: nothing is recognised in them or across them.
    pub fn of(document: &'a ParsedDocument) -> Self {
        let mut hidden = document.hidden.iter().peekable();
        let seen = document.text.chars().enumerate().map(|(at, c)| {
            let at = at as u32;
            while hidden.next_if(|span| span.end <= at).is_some() {}
            if hidden.peek().is_some_and(|span| span.start <= at) { '\n' } else { c }
        });
        let text = CanonicalText::from_canonical(seen.collect());
        Self { document, canonical: CanonicalText::from_canonical(document.text.clone()), text }
    }

    /// What is read.
    pub fn text(&self) -> &str {
        self.text.as_str()
    }

    /// ISO 639-3 language of the document.
    pub fn language(&self) -> Option<&str> {
        self.document.language.as_deref()
    }

    /// The value with its place, or `None` when it does not stand in the canonical text exactly as read.
    pub fn value(&self, found: &Found, confidence: f32) -> Option<FieldValue> {
        let span = Span::new(self.text.char_of(found.range.start), self.text.char_of(found.range.end));
        let raw = self.canonical.slice(span).filter(|raw| *raw == &self.text.as_str()[found.range.clone()])?;
        let place = Place { span, page: page_at(&self.document.pages, span.start) };
        let recognised = self.recognition(span);
        let confidence = (confidence * found.confidence * recognised).clamp(0.0, 1.0);
        Some(FieldValue {
            raw: raw.to_owned(),
            normalized: found.normalized.clone(),
            place,
            confidence: (confidence * 100.0).round() / 100.0,
        })
    }

    /// How sure text recognition was of the words of a span; 1 for a text layer and formats without pages.
    fn recognition(&self, span: Span) -> f32 {
        let words = &self.document.words;
        let first = words.partition_point(|word| word.span.end <= span.start);
        let inside = words[first..].iter().take_while(|word| word.span.start < span.end);
        inside.map(|word| word.confidence).fold(1.0, f32::min)
    }
}
