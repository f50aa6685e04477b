//! Groups atoms into chunks and fills in what is known about each.

use super::ChunkConfig;
use super::atoms::{Atom, runs};
use super::boundaries::{Bounds, pieces};
use super::headings::fit;
use crate::visible::page_at;
use docmill_model::chunk::{Chunk, ChunkKind};
use docmill_model::document::ParsedDocument;
use docmill_model::{CanonicalText, Span};
use docmill_platform::tokens::{TokenCounter, WINDOW};
use std::collections::BTreeMap;

/// The chunks of a document, in order. Pure: equal input gives equal output.
#[must_use]
pub fn chunk_document(document: &ParsedDocument, tokens: &TokenCounter, config: &ChunkConfig) -> Vec<Chunk> {
    let text = CanonicalText::from_canonical(document.text.clone());
    let max = config.body_tokens();
    let bounds = Bounds { window: config.target_tokens / 2, min: config.min_tokens, max };
    let assembler = Assembler { document, text: &text, tokens, config };
    let mut chunks = Vec::new();
    for run in runs(document, &text, tokens, max) {
        let weights: Vec<_> = run.iter().map(|atom| atom.weight).collect();
        for piece in pieces(&weights, bounds) {
            assembler.push(&run[piece], &mut chunks);
        }
    }
    for (ordinal, chunk) in chunks.iter_mut().enumerate() {
        chunk.ordinal = ordinal as u32;
    }
    chunks
}

struct Assembler<'a> {
    document: &'a ParsedDocument,
    text: &'a CanonicalText,
    tokens: &'a TokenCounter,
    config: &'a ChunkConfig,
}

impl Assembler<'_> {
    /// One chunk, or two where the tokenizer counts more for the whole than for its atoms.
    fn push(&self, atoms: &[Atom], out: &mut Vec<Chunk>) {
        let Some(chunk) = self.chunk(atoms) else { return };
        if chunk.tokens as usize > WINDOW && atoms.len() > 1 {
            let (left, right) = atoms.split_at(atoms.len() / 2);
            self.push(left, out);
            self.push(right, out);
            return;
        }
        out.push(chunk);
    }

    fn chunk(&self, atoms: &[Atom]) -> Option<Chunk> {
        let (first, last) = (atoms.first()?, atoms.last()?);
        let span = Span::new(first.span.start, last.span.end);
        let pages = &self.document.pages;
        let mut chunk = Chunk {
            ordinal: 0,
            span,
            text: self.text.slice(span)?.to_owned(),
            heading_path: fit(first.path.to_vec(), self.config.heading_tokens as usize, self.tokens),
            kind: kind(atoms),
            page_start: page_at(pages, span.start),
            page_end: page_at(pages, span.end - 1),
            tokens: 0,
            language: self.language(atoms),
            has_hidden: self.touches_hidden(span),
        };
        chunk.tokens = self.tokens.count(&chunk.embed_text()) as u32;
        Some(chunk)
    }

    /// True when hidden text stands right before, in or right after the passage, blanks aside: what it says may have been
    /// meant to be read with it.
    fn touches_hidden(&self, span: Span) -> bool {
        let hidden = &self.document.hidden;
        let is_blank = |from: u32, to: u32| {
            self.text.slice(Span::new(from, to)).is_some_and(|gap| gap.chars().all(char::is_whitespace))
        };
        let next = hidden.partition_point(|hidden| hidden.end <= span.start);
        let before = next.checked_sub(1).and_then(|place| hidden.get(place));
        before.is_some_and(|before| is_blank(before.end, span.start))
            || hidden.get(next).is_some_and(|after| after.start < span.end || is_blank(span.end, after.start))
    }

    /// The language most of the chunk is in, else the document's.
    fn language(&self, atoms: &[Atom]) -> Option<String> {
        let mut shares: BTreeMap<&str, u32> = BTreeMap::new();
        for atom in atoms {
            if let Some(language) = atom.language.as_deref() {
                *shares.entry(language).or_default() += atom.weight.tokens;
            }
        }
        let largest = shares.into_iter().max_by_key(|(_, share)| *share).map(|(language, _)| language.to_owned());
        largest.or_else(|| self.document.language.clone())
    }
}

/// What most tokens of the chunk belong to.
fn kind(atoms: &[Atom]) -> ChunkKind {
    let share =
        |kind: ChunkKind| atoms.iter().filter(|atom| atom.kind == kind).map(|atom| atom.weight.tokens).sum::<u32>();
    let kinds = [ChunkKind::List, ChunkKind::Code, ChunkKind::Table, ChunkKind::Text];
    kinds.into_iter().max_by_key(|&kind| share(kind)).unwrap_or(ChunkKind::Text)
}
