//! Pages to one document: the text is written word by word, and every span is taken while it is written.

use super::blocks::{self, BlockDraft};
use super::tables::Grid;
use super::{GLUED, HIDDEN, Line, PageDraft, furniture, lines, order};
use crate::blocks::{merge, tag_characters};
use crate::inline::joins_nothing_before;
use crate::language;
use docmill_model::document::{
    Block, BlockKind, Cell, Format, Link, Page, PageOutcome, ParsedDocument, Rect, Table, Word,
};
use docmill_model::{Code, Failure, Span};
use std::collections::BTreeMap;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Embedded metadata.
pub(crate) type Metadata = BTreeMap<String, String>;

/// Builds the document.
///
/// # Errors
/// The first page's failure when all pages failed; `OCR_EMPTY` or `EMPTY_TEXT` when no page has a word.
pub(crate) fn assemble(
    drafts: Vec<PageDraft>,
    format: Format,
    engine: &str,
    metadata: Metadata,
) -> Result<ParsedDocument, Failure> {
    let mut pages: Vec<(PageDraft, Vec<Line>)> = drafts
        .into_iter()
        .map(|page| {
            let lines = order::arrange(&page, lines(&page));
            (page, lines)
        })
        .collect();
    furniture::mark(&mut pages);
    let body = blocks::body_size(&pages);
    let sizes = heading_sizes(&pages, body);
    let mut writer = Writer::default();
    for (page, lines) in &pages {
        let blocks = blocks::cut(page, lines, body, &sizes);
        writer.page(page, lines, &blocks);
    }
    writer.finish(&pages, format, engine, metadata)
}

/// Sizes of type above that of running text, largest first, at most five.
fn heading_sizes(pages: &[(PageDraft, Vec<Line>)], body: f32) -> Vec<f32> {
    let mut sizes: Vec<f32> = (pages.iter().flat_map(|(_, lines)| lines))
        .filter(|l| !l.furniture && l.size > body * 1.13)
        .map(|l| l.size)
        .collect();
    sizes.sort_by(|a, b| b.total_cmp(a));
    sizes.dedup_by(|next, kept| *next >= *kept * 0.95);
    sizes.truncate(5);
    sizes
}

#[derive(Default)]
struct Writer {
    text: String,
    chars: u32,
    pages: Vec<Page>,
    blocks: Vec<Block>,
    words: Vec<Word>,
    links: Vec<Link>,
    hidden: Vec<Span>,
    tables: Vec<Table>,
}

impl Writer {
    fn page(&mut self, page: &PageDraft, lines: &[Line], blocks: &[BlockDraft]) {
        let (start, first_word) = (self.chars, self.words.len());
        for block in blocks {
            let lines = &lines[block.start..block.end];
            match &block.grid {
                Some(grid) => self.table(page, lines, grid),
                None => self.block(page, lines, block.role),
            }
        }
        // The page's own text begins after the separator from the page before.
        let begin = self.words.get(first_word).map_or(start, |w| w.span.start);
        let span = Span::new(begin, self.chars.max(begin));
        self.links(page, first_word);
        let outcome = page.outcome.clone();
        let (number, width, height, rotation) = (page.number, page.width, page.height, page.rotation);
        self.pages.push(Page { number, width, height, rotation, span, outcome });
    }

    fn block(&mut self, page: &PageDraft, lines: &[Line], role: BlockKind) {
        let Some(rect) = lines.iter().map(|l| l.rect).reduce(Rect::union) else { return };
        if !self.text.is_empty() {
            self.raw("\n\n");
        }
        let start = self.chars;
        let first_word = self.words.len();
        for (index, line) in lines.iter().enumerate() {
            for (at, &word) in line.words.iter().enumerate() {
                let separator = match (index, at) {
                    (0, 0) => "",
                    (_, 0) => line_end(&lines[index - 1], rect, role),
                    _ => " ",
                };
                self.word(page, word as usize, separator);
            }
        }
        let role = if self.is_seen(start, first_word) { role } else { BlockKind::Furniture };
        self.push_block(role, start, page, rect);
    }

    /// True when a reader sees at least one of the words since `first_word`, which begin at `start`.
    fn is_seen(&self, start: u32, first_word: usize) -> bool {
        let hidden = |w: &Word| self.hidden.iter().rev().take_while(|h| h.end > start).any(|h| h.contains(w.span));
        !self.words[first_word..].iter().all(hidden)
    }

    fn push_block(&mut self, role: BlockKind, start: u32, page: &PageDraft, rect: Rect) {
        let (span, rect) = (Span::new(start, self.chars), page.place(rect));
        self.blocks.push(Block { role, span, page: Some(page.number), rect: Some(rect), path: None, language: None });
    }

    /// A line per row, cells apart by bars.
    fn table(&mut self, page: &PageDraft, lines: &[Line], grid: &Grid) {
        let Some(rect) = lines.iter().map(|l| l.rect).reduce(Rect::union) else { return };
        if !self.text.is_empty() {
            self.raw("\n\n");
        }
        let (start, first_word) = (self.chars, self.words.len());
        let head = has_head(page, grid);
        let mut cells: Vec<Cell> = Vec::with_capacity(grid.cells.len());
        for (row, column, words) in &grid.cells {
            match cells.last() {
                None => {}
                Some(last) if last.row == *row => self.raw(" | "),
                Some(_) => self.raw("\n"),
            }
            let begin = self.chars;
            for (at, &word) in words.iter().enumerate() {
                self.word(page, word as usize, if at == 0 { "" } else { " " });
            }
            let (span, header) = (Span::new(begin, self.chars), head && *row == 0);
            cells.push(Cell { row: *row, column: *column, row_span: 1, column_span: 1, header, span });
        }
        if self.is_seen(start, first_word) {
            let table = self.tables.len() as u32;
            self.tables.push(Table { rows: grid.rows, columns: grid.columns, cells });
            self.push_block(BlockKind::Table { table }, start, page, rect);
        } else {
            self.push_block(BlockKind::Furniture, start, page, rect);
        }
    }

    fn word(&mut self, page: &PageDraft, index: usize, separator: &str) {
        let draft = &page.words[index];
        let raw = page.text(draft);
        let normal: String;
        let text = if is_nfc(raw) {
            raw
        } else {
            normal = raw.nfc().collect();
            &normal
        };
        let first = text.chars().next();
        let free = first.is_some_and(joins_nothing_before);
        let ideographs = separator == " "
            && is_ideograph(self.text.chars().next_back())
            && is_ideograph(first)
            && draft.is(super::LINE);
        if !((draft.is(GLUED) || ideographs) && free) {
            self.raw(separator);
        }
        let start = self.chars;
        self.text.push_str(text);
        self.chars += text.chars().count() as u32;
        let span = Span::new(start, self.chars);
        if draft.is(HIDDEN) {
            self.hidden.push(span);
        }
        let rect = page.place(draft.rect);
        self.words.push(Word { span, page: page.number, rect, confidence: draft.confidence });
    }

    fn raw(&mut self, ascii: &str) {
        self.text.push_str(ascii);
        self.chars += ascii.len() as u32;
    }

    /// Gives each link area the words whose middle lies inside.
    fn links(&mut self, page: &PageDraft, first_word: usize) {
        for (area, target) in &page.links {
            let inside = |w: &&Word| {
                let (x, y) = ((w.rect.x0 + w.rect.x1) / 2.0, (w.rect.y0 + w.rect.y1) / 2.0);
                area.x0 <= x && x <= area.x1 && area.y0 <= y && y <= area.y1
            };
            let mut covered = self.words[first_word..].iter().filter(inside);
            if let Some(first) = covered.next() {
                // Words of another column may lie between in reading order: the run ends at the first gap.
                let mut end = first.span.end;
                for word in covered {
                    if word.span.start > end + 2 {
                        break;
                    }
                    end = word.span.end;
                }
                self.links.push(Link { span: Span::new(first.span.start, end), target: target.clone() });
            }
        }
    }

    fn finish(
        mut self,
        pages: &[(PageDraft, Vec<Line>)],
        format: Format,
        engine: &str,
        metadata: Metadata,
    ) -> Result<ParsedDocument, Failure> {
        if self.words.is_empty() {
            return Err(nothing(pages));
        }
        self.hidden.extend(tag_characters(&self.text));
        self.hidden.sort_unstable();
        self.links.sort_by_key(|link| link.span);
        let mut document = ParsedDocument {
            schema: ParsedDocument::SCHEMA,
            format,
            engine: engine.to_owned(),
            text: self.text,
            pages: self.pages,
            blocks: self.blocks,
            words: self.words,
            tables: self.tables,
            links: self.links,
            hidden: merge(self.hidden),
            language: None,
            metadata,
            failed_parts: Vec::new(),
        };
        language::annotate(&mut document);
        Ok(document)
    }
}

/// True when the first row names every column without digits, and a later row has digits.
fn has_head(page: &PageDraft, grid: &Grid) -> bool {
    let digits = |words: &[u32]| {
        words.iter().any(|&w| page.text(&page.words[w as usize]).contains(|c: char| c.is_ascii_digit()))
    };
    let first = grid.cells.iter().filter(|cell| cell.0 == 0);
    let named =
        first.clone().count() as u32 >= grid.columns.saturating_sub(1) && !first.clone().any(|cell| digits(&cell.2));
    named && grid.cells.iter().any(|cell| cell.0 > 0 && digits(&cell.2))
}

/// Why a document without a word has none.
fn nothing(pages: &[(PageDraft, Vec<Line>)]) -> Failure {
    let failures = pages.iter().filter_map(|(page, _)| match &page.outcome {
        PageOutcome::Failed { failure } => Some(failure.clone()),
        _ => None,
    });
    if let Some(failure) = failures.into_iter().next() {
        return failure;
    }
    let recognised = pages.iter().any(|(page, _)| matches!(page.outcome, PageOutcome::Ocr { .. }));
    match recognised {
        true => Failure::new(Code::OcrEmpty, "no text was recognised on any page"),
        false => Failure::new(Code::EmptyText, "no page has text"),
    }
}

/// What stands between two lines of a block: a space where the first one is full, else a line break.
fn line_end(line: &Line, block: Rect, role: BlockKind) -> &'static str {
    let full = line.rect.x1 > block.x0 + 0.72 * (block.x1 - block.x0);
    match role {
        BlockKind::Code | BlockKind::Furniture => "\n",
        _ if full => " ",
        BlockKind::Heading { .. } => " ",
        _ => "\n",
    }
}

/// Scripts written without spaces between words.
fn is_ideograph(c: Option<char>) -> bool {
    c.is_some_and(|c| {
        ('\u{2e80}'..='\u{9fff}').contains(&c) || ('\u{f900}'..='\u{ffef}').contains(&c) || c >= '\u{20000}'
    })
}

#[cfg(test)]
mod tests {
    use super::{Metadata, assemble};
    use crate::paged::{BOLD, FIXED, GLUED, HIDDEN, LINE, PARAGRAPH, PageDraft, WordDraft};
    use docmill_model::document::{Format, PageOutcome, Rect};
    use docmill_model::{CanonicalText, text::canonical_string};
    use proptest::prelude::*;

    /// Words that normalisation changes, joins to what stands before, or that make tables, lists and captions.
    const WORDS: [&str; 16] = [
        "word",
        "caf\u{65}\u{301}",
        "\u{301}lone",
        "\u{212b}",
        "\u{1112}\u{1161}\u{11ab}",
        "\u{11a8}",
        "12",
        "3,400",
        "\u{2022}",
        "1.",
        "Figure",
        "\u{6f22}",
        "e",
        "\u{1f469}\u{200d}\u{1f680}",
        "\u{e0041}",
        "end.",
    ];

    /// One word: which, its column and row, its flags and whether it stands in its column or beside it.
    type Placed = (usize, u8, u8, u8, bool);

    fn page(number: u32, placed: &[Placed]) -> PageDraft {
        let mut page = PageDraft::empty(number, 600.0, 800.0, 0, PageOutcome::Text);
        for (index, &(word, column, row, flags, aside)) in placed.iter().enumerate() {
            let start = page.buffer.len() as u32;
            page.buffer.push_str(WORDS[word]);
            let end = page.buffer.len() as u32;
            // The last digits tell the words apart when they come back.
            let x = 40.0 + 130.0 * f32::from(column) + if aside { 37.0 } else { 0.0 } + index as f32 / 64.0;
            let y = 30.0 + 14.0 * f32::from(row);
            let rect = Rect { x0: x, y0: y, x1: x + 30.0, y1: y + 10.0 };
            let flags = flags & (HIDDEN | GLUED | BOLD | LINE | PARAGRAPH | FIXED);
            page.words.push(WordDraft { start, end, rect, size: 10.0, confidence: 1.0, flags });
        }
        page
    }

    proptest! {
        #[test]
        fn every_word_is_the_slice_of_its_span(
            pages in prop::collection::vec(
                prop::collection::vec((0..WORDS.len(), 0u8..4, 0u8..54, any::<u8>(), any::<bool>()), 0..60),
                1..4,
            ),
            sorted in any::<bool>(),
        ) {
            let drafts: Vec<PageDraft> = (pages.into_iter().enumerate())
                .map(|(at, mut placed)| {
                    if sorted {
                        placed.sort_by_key(|&(_, column, row, ..)| (row, column));
                    }
                    page(at as u32 + 1, &placed)
                })
                .collect();
            let Ok(document) = assemble(drafts.clone(), Format::Pdf, "pdfium", Metadata::new()) else {
                prop_assert!(drafts.iter().all(|draft| draft.words.is_empty()));
                return Ok(());
            };
            prop_assert_eq!(document.violations(), Vec::<String>::new());
            prop_assert_eq!(document.words.len(), drafts.iter().map(|draft| draft.words.len()).sum::<usize>());
            let text = CanonicalText::from_canonical(document.text.clone());
            for word in &document.words {
                let draft = &drafts[word.page as usize - 1];
                let origin = draft.words.iter().find(|w| w.rect == word.rect).expect("a word of the draft");
                let expected = canonical_string(draft.text(origin));
                prop_assert_eq!(text.slice(word.span), Some(expected.as_str()));
                let hidden = document.hidden.iter().any(|span| span.contains(word.span));
                prop_assert!(hidden || !origin.is(HIDDEN));
            }
        }
    }
}
