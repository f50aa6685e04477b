//! The smallest pieces that stay whole: sentences, table rows, list items, lines of code; words only where a sentence is
//! longer than a chunk may be.
//!
//! `text-splitter` cuts each block by its semantic levels with one sentence as capacity. Blocks come in runs: inside a
//! run there is only whitespace between atoms, so any stretch of it is a contiguous span of canonical text.

use super::boundaries::{Seam, Weight};
use super::headings::Headings;
use crate::visible::visible;
use docmill_model::chunk::ChunkKind;
use docmill_model::document::{Block, BlockKind, ParsedDocument, Table};
use docmill_model::sentences::{flow, sentences};
use docmill_model::{CanonicalText, Span};
use docmill_platform::tokens::TokenCounter;
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::sync::Arc;
use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};

/// One atom with what its chunk will say about it.
#[derive(Clone, Debug)]
pub(super) struct Atom {
    pub span: Span,
    pub weight: Weight,
    pub kind: ChunkKind,
    /// Headings above, and the header of the table when the row is not that header itself.
    pub path: Arc<Vec<String>>,
    /// Language of its block.
    pub language: Option<Arc<str>>,
}

/// The visible, non-furniture text of a document as runs of atoms; no atom has more than `max_tokens`.
pub(super) fn runs(
    document: &ParsedDocument,
    text: &CanonicalText,
    tokens: &TokenCounter,
    max_tokens: u32,
) -> Vec<Vec<Atom>> {
    let mut walk =
        Walk { document, text, tokens, max_tokens, runs: Vec::new(), headings: Headings::default(), last: None };
    let mut covered = 0;
    for block in &document.blocks {
        walk.uncovered(Span::new(covered, block.span.start));
        covered = covered.max(block.span.end);
        walk.block(block);
    }
    walk.uncovered(Span::new(covered, text.len()));
    walk.runs
}

struct Walk<'a> {
    document: &'a ParsedDocument,
    text: &'a CanonicalText,
    tokens: &'a TokenCounter,
    max_tokens: u32,
    runs: Vec<Vec<Atom>>,
    headings: Headings,
    /// Role of the last block that had an atom.
    last: Option<BlockKind>,
}

impl Walk<'_> {
    /// Text that no block claims, if any, is a paragraph.
    fn uncovered(&mut self, span: Span) {
        if self.text.slice(span).is_some_and(|words| !words.trim().is_empty()) {
            let role = BlockKind::Paragraph;
            self.block(&Block { role, span, page: None, rect: None, path: None, language: None });
        }
    }

    fn block(&mut self, block: &Block) {
        if block.role == BlockKind::Furniture {
            return;
        }
        let seam = self.seam_before(block.role);
        let above = self.enter(block);
        let table = match block.role {
            BlockKind::Table { table } => self.document.tables.get(table as usize),
            _ => None,
        };
        let mut first = true;
        for visible in visible(block.span, &self.document.hidden) {
            let Some(words) = self.text.slice(visible) else { continue };
            let base = self.text.byte_of(visible.start).unwrap_or_default();
            for (range, inner) in cut(words, block.role, self.tokens, self.max_tokens) {
                let span = Span::new(self.text.char_of(base + range.start), self.text.char_of(base + range.end));
                let path = match self.header_of(table, span) {
                    Some(header) => Arc::new(above.iter().cloned().chain([header]).collect()),
                    None => above.clone(),
                };
                let seam = if std::mem::take(&mut first) { seam } else { inner };
                self.push(span, &words[range], seam, block, path);
            }
        }
        if !first {
            self.last = Some(block.role);
        }
    }

    fn enter(&mut self, block: &Block) -> Arc<Vec<String>> {
        let BlockKind::Heading { level } = block.role else { return Arc::new(self.headings.path()) };
        let above = self.headings.above(level);
        self.headings.enter(level, &self.seen(block.span));
        Arc::new(above)
    }

    /// The words of the table's header row when `row` is a row below it.
    fn header_of(&self, table: Option<&Table>, row: Span) -> Option<String> {
        let cells = table?.cells.iter().take_while(|cell| cell.row == 0 && cell.header);
        let header: Vec<Span> = cells.map(|cell| cell.span).filter(|span| !span.is_empty()).collect();
        (header.last()?.end <= row.start).then(|| {
            let words = header.iter().map(|span| self.seen(*span));
            words.filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" | ")
        })
    }

    /// The words of a span that a reader sees, on one line.
    fn seen(&self, span: Span) -> String {
        let parts = visible(span, &self.document.hidden).filter_map(|part| self.text.slice(part));
        parts.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
    }

    fn seam_before(&self, role: BlockKind) -> Seam {
        match (self.last, role) {
            (Some(BlockKind::Heading { .. }), _) => Seam::AfterHeading,
            (_, BlockKind::Heading { .. }) => Seam::Heading,
            (Some(BlockKind::ListItem), BlockKind::ListItem) => Seam::Sentence,
            (Some(last), role) if kind_of(last) == kind_of(role) => Seam::Block,
            _ => Seam::Kind,
        }
    }

    fn push(&mut self, span: Span, words: &str, seam: Seam, block: &Block, path: Arc<Vec<String>>) {
        let digest = Sha256::digest(words.as_bytes());
        let hash = u64::from_be_bytes([
            digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7],
        ]);
        let weight = Weight { tokens: own_tokens(words, self.tokens), seam, hash };
        let language = block.language.as_deref().map(Arc::from);
        let atom = Atom { span, weight, kind: kind_of(block.role), path, language };
        let adjoins = |run: &Vec<Atom>| {
            let between = run.last().map(|last| Span::new(last.span.end, span.start));
            between.and_then(|gap| self.text.slice(gap)).is_some_and(|gap| gap.chars().all(char::is_whitespace))
        };
        match self.runs.last_mut() {
            Some(run) if adjoins(run) => run.push(atom),
            _ => self.runs.push(vec![atom]),
        }
    }
}

/// Tokens without the special ones, which a chunk pays once.
fn own_tokens(words: &str, tokens: &TokenCounter) -> u32 {
    tokens.count(words).saturating_sub(tokens.count("")).max(1) as u32
}

fn kind_of(role: BlockKind) -> ChunkKind {
    match role {
        BlockKind::Table { .. } => ChunkKind::Table,
        BlockKind::Code => ChunkKind::Code,
        BlockKind::ListItem => ChunkKind::List,
        _ => ChunkKind::Text,
    }
}

/// Byte ranges of the atoms of one visible stretch of a block, each with the seam before it.
fn cut(words: &str, role: BlockKind, tokens: &TokenCounter, max_tokens: u32) -> Vec<(Range<usize>, Seam)> {
    let whole = match role {
        BlockKind::Table { .. } | BlockKind::Code => lines(words),
        BlockKind::Heading { .. } => trimmed(words, 0..words.len()).into_iter().collect(),
        _ => by_sentence(words),
    };
    let mut out = Vec::with_capacity(whole.len());
    for range in whole {
        if own_tokens(&words[range.clone()], tokens) <= max_tokens / 2 {
            out.push((range, Seam::Sentence));
            continue;
        }
        let start = range.start;
        for (number, word) in short_words(&words[range]).into_iter().enumerate() {
            let seam = if number == 0 { Seam::Sentence } else { Seam::Word };
            out.push((start + word.start..start + word.end, seam));
        }
    }
    out
}

fn lines(words: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut out = Vec::new();
    for line in words.split_inclusive('\n') {
        out.extend(trimmed(words, start..start + line.len()));
        start += line.len();
    }
    out
}

fn trimmed(words: &str, range: Range<usize>) -> Option<Range<usize>> {
    let piece = &words[range.clone()];
    let start = range.start + piece.len() - piece.trim_start().len();
    let length = piece.trim().len();
    (length > 0).then_some(start..start + length)
}

/// One sentence fills an atom.
struct OneSentence;

impl ChunkSizer for OneSentence {
    fn size(&self, chunk: &str) -> usize {
        sentences(chunk).len().min(2)
    }
}

fn by_sentence(words: &str) -> Vec<Range<usize>> {
    let flowing = flow(words);
    let splitter = TextSplitter::new(ChunkConfig::new(1).with_sizer(OneSentence).with_trim(true));
    splitter.chunk_indices(&flowing).map(|(start, piece)| start..start + piece.len()).collect()
}

/// Characters of the pieces that a word without any space is cut into.
const PIECE_CHARS: usize = 32;

/// Words, and pieces of words that are long themselves (encoded data, scripts without spaces).
fn short_words(sentence: &str) -> Vec<Range<usize>> {
    let splitter = TextSplitter::new(ChunkConfig::new(PIECE_CHARS).with_trim(true));
    let mut out = Vec::new();
    let mut start = 0;
    for word in sentence.split_inclusive(char::is_whitespace) {
        if let Some(range) = trimmed(sentence, start..start + word.len()) {
            let base = range.start;
            if range.len() <= PIECE_CHARS {
                out.push(range);
            } else {
                out.extend(
                    splitter.chunk_indices(&sentence[range]).map(|(at, piece)| base + at..base + at + piece.len()),
                );
            }
        }
        start += word.len();
    }
    out
}
