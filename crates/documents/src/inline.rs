//! Text of one block while it is being read: raw characters plus the places that matter (links, hidden parts, cells).
//!
//! Positions here are bytes of the raw buffer; [`Inline::canonical`] turns them into character positions of
//! canonical text (NFC, `\n`, no NUL) in one pass. Nothing here knows about blocks or documents.

use docmill_model::Span;
use docmill_model::document::Cell;
use unicode_normalization::{IsNormalized, UnicodeNormalization, char::canonical_combining_class, is_nfc_quick};

/// Growing text with marked ranges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inline {
    raw: String,
    /// Something other than whitespace is in `raw`.
    inked: bool,
    links: Vec<(usize, usize, String)>,
    /// Ascending and apart.
    hidden: Vec<(usize, usize)>,
    tables: Vec<Vec<Nested>>,
}

/// A cell of a table within the text, whose span is not known yet, and the range of its words.
pub(crate) type Nested = (Cell, usize, usize);

/// Canonical text with character positions relative to its start.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Canonical {
    pub text: String,
    pub chars: u32,
    pub links: Vec<(u32, u32, String)>,
    pub hidden: Vec<(u32, u32)>,
    /// Cells of the tables within the text, outer tables before those in their cells.
    pub tables: Vec<Vec<Cell>>,
}

impl Inline {
    /// Text as it stands, without any mark.
    pub fn of(text: &str) -> Self {
        let mut inline = Self::default();
        inline.push(text);
        inline
    }

    /// Appends text and keeps its whitespace; carriage returns become line feeds, NUL is dropped.
    pub fn push(&mut self, text: &str) {
        self.inked = self.inked || text.contains(|c: char| !c.is_whitespace() && c != '\0');
        if !text.contains(['\r', '\0']) {
            self.raw.push_str(text);
            return;
        }
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\0' => {}
                '\r' if chars.peek() == Some(&'\n') => {}
                '\r' => self.raw.push('\n'),
                other => self.raw.push(other),
            }
        }
    }

    /// Appends text with every run of whitespace as one space, none at the start of a line.
    pub fn push_collapsed(&mut self, text: &str) {
        for c in text.chars() {
            if matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}') {
                if !self.raw.is_empty() && !self.raw.ends_with([' ', '\n', '\t']) {
                    self.raw.push(' ');
                }
            } else if c != '\0' {
                self.inked = self.inked || !c.is_whitespace();
                self.raw.push(c);
            }
        }
    }

    /// Starts a new line, without a trailing space on the old one; nothing at the very start.
    pub fn line_break(&mut self) {
        if self.raw.ends_with(' ') {
            self.raw.pop();
        }
        if !self.raw.is_empty() {
            self.raw.push('\n');
        }
    }

    /// The current end, to be given to [`Inline::link`] or [`Inline::hide`] later.
    pub fn mark(&self) -> usize {
        self.raw.len()
    }

    /// Makes everything since `start` a link.
    pub fn link(&mut self, start: usize, target: &str) {
        if start < self.raw.len() && !target.is_empty() {
            self.links.push((start, self.raw.len(), target.chars().filter(|&c| c != '\0').collect()));
        }
    }

    /// Marks everything since `start` as invisible to a reader.
    pub fn hide(&mut self, mut start: usize) {
        if start < self.raw.len() {
            while let Some((earlier, _)) = self.hidden.pop_if(|last| last.1 > start) {
                start = start.min(earlier);
            }
            self.hidden.push((start, self.raw.len()));
        }
    }

    /// Makes parts of the text the cells of a table, which may have tables in its cells.
    pub fn nest(&mut self, cells: Vec<Nested>) {
        self.tables.insert(0, cells);
    }

    /// True when no visible character is there.
    pub fn is_blank(&self) -> bool {
        !self.inked
    }

    /// True when nothing but whitespace lies outside the hidden ranges.
    pub fn is_all_hidden(&self) -> bool {
        !self.hidden.is_empty() && self.raw.char_indices().all(|(at, c)| c.is_whitespace() || self.is_hidden(at))
    }

    /// The raw text outside the hidden ranges.
    pub fn seen(&self) -> String {
        self.raw.char_indices().filter(|&(at, _)| !self.is_hidden(at)).map(|(_, c)| c).collect()
    }

    fn is_hidden(&self, at: usize) -> bool {
        self.hidden.get(self.hidden.partition_point(|range| range.1 <= at)).is_some_and(|range| range.0 <= at)
    }

    /// The raw text so far.
    pub fn as_str(&self) -> &str {
        &self.raw
    }

    /// Appends another piece with its marks.
    pub fn append(&mut self, other: Inline) {
        let base = self.raw.len();
        self.inked |= other.inked;
        self.raw.push_str(&other.raw);
        self.links.extend(other.links.into_iter().map(|(start, end, target)| (start + base, end + base, target)));
        self.hidden.extend(other.hidden.into_iter().map(|(start, end)| (start + base, end + base)));
        let moved = |(cell, start, end): Nested| (cell, start + base, end + base);
        self.tables.extend(other.tables.into_iter().map(|cells| cells.into_iter().map(moved).collect()));
    }

    /// Puts everything on one line, as table cells need it.
    pub fn flatten(&mut self) {
        if self.raw.contains(['\n', '\t']) {
            self.raw = self.raw.replace(['\n', '\t'], " ");
        }
    }

    /// Canonical text without surrounding whitespace, and where the marks went.
    pub fn canonical(&self) -> Canonical {
        let trimmed = self.raw.trim();
        let offset = self.raw.len() - self.raw.trim_start().len();
        let inside = |at: usize| at.saturating_sub(offset).min(trimmed.len());
        let cells = self.tables.iter().flatten().map(|(_, start, end)| (*start, *end));
        let ranges = self.links.iter().map(|l| (l.0, l.1)).chain(self.hidden.iter().copied()).chain(cells);
        let ranges: Vec<(usize, usize)> =
            ranges.map(|(start, end)| tighten(trimmed, inside(start), inside(end))).collect();
        let mut marks: Vec<usize> = ranges.iter().flat_map(|&(start, end)| [start, end]).collect();
        marks.sort_unstable();
        marks.dedup();
        let (text, chars, positions) = canonical_with_marks(trimmed, &marks);
        let place = |byte: usize| marks.binary_search(&byte).map_or(0, |slot| positions[slot]);
        let mut places = ranges.iter().map(|&(start, end)| (place(start), place(end)));
        let links = (self.links.iter().zip(places.by_ref().take(self.links.len())))
            .filter(|(_, (start, end))| start < end)
            .map(|(link, (start, end))| (start, end, link.2.clone()))
            .collect();
        let hidden = places.by_ref().take(self.hidden.len()).filter(|(start, end)| start < end).collect();
        let mut placed = |cell: &Cell| {
            let (start, end) = places.next().unwrap_or_default();
            Cell { span: Span::new(start, end), ..cell.clone() }
        };
        let tables = self.tables.iter().map(|cells| cells.iter().map(|(cell, _, _)| placed(cell)).collect()).collect();
        Canonical { text, chars, links, hidden, tables }
    }
}

/// The range without whitespace at its edges.
fn tighten(text: &str, start: usize, end: usize) -> (usize, usize) {
    let inner = &text[start..end.max(start)];
    let lead = inner.len() - inner.trim_start().len();
    (start + lead, start + lead + inner.trim().len())
}

/// NFC of `raw` (which holds neither CR nor NUL), its length, and the character position of each byte mark.
///
/// `marks` ascend and lie on character boundaries. Text is cut before characters that normalisation never joins to what
/// precedes them, so that the pieces are normalised independently. A mark within a piece stands as many characters from
/// its start as it did before, at most at its end. The time is linear in the text and the marks.
fn canonical_with_marks(raw: &str, marks: &[usize]) -> (String, u32, Vec<u32>) {
    let mut positions = Vec::with_capacity(marks.len());
    if raw.is_ascii() || is_nfc_quick(raw.chars()) == IsNormalized::Yes {
        let (mut chars, mut start) = (0, 0);
        for &mark in marks {
            chars += raw[start..mark].chars().count() as u32;
            positions.push(chars);
            start = mark;
        }
        return (raw.to_owned(), chars + raw[start..].chars().count() as u32, positions);
    }
    let mut out = String::with_capacity(raw.len());
    let (mut chars, mut start) = (0u32, 0);
    let mut ahead = marks.iter().copied().peekable();
    while start < raw.len() {
        let end = piece_end(raw, start);
        let written = out.len();
        out.extend(raw[start..end].nfc());
        let length = out[written..].chars().count() as u32;
        let (mut within, mut counted) = (0u32, start);
        while let Some(mark) = ahead.next_if(|&mark| mark < end) {
            within += raw[counted..mark].chars().count() as u32;
            counted = mark;
            positions.push(chars + within.min(length));
        }
        chars += length;
        start = end;
    }
    positions.resize(marks.len(), chars);
    (out, chars, positions)
}

fn piece_end(raw: &str, start: usize) -> usize {
    let mut rest = raw[start..].char_indices();
    rest.next();
    rest.find(|&(_, c)| joins_nothing_before(c)).map_or(raw.len(), |(at, _)| start + at)
}

/// True for characters that normalisation never joins to what precedes them.
pub(crate) fn joins_nothing_before(c: char) -> bool {
    c.is_ascii() || (canonical_combining_class(c) == 0 && is_nfc_quick(std::iter::once(c)) == IsNormalized::Yes)
}

#[cfg(test)]
mod tests {
    use super::{Inline, canonical_with_marks};
    use docmill_model::text::canonical_string;
    use proptest::prelude::*;

    #[test]
    fn marks_survive_composition_and_trimming() {
        let mut inline = Inline::default();
        inline.push("  cafe\u{301} ");
        let start = inline.mark();
        inline.push(" me\u{301}nu \r\n");
        inline.link(start, "http://x/");
        let canonical = inline.canonical();
        assert_eq!(canonical.text, "caf\u{e9}  m\u{e9}nu");
        assert_eq!(canonical.links, vec![(6, 10, "http://x/".to_owned())]);
    }

    #[test]
    fn collapsing_joins_across_pushes() {
        let mut inline = Inline::default();
        for piece in [" a ", " b", "\n", "c "] {
            inline.push_collapsed(piece);
        }
        assert_eq!(inline.canonical().text, "a b c");
    }

    proptest! {
        #[test]
        fn pieces_give_the_same_text_as_the_whole(text in "[a-c \u{300}-\u{310}\u{323}\u{1100}-\u{1112}\u{1161}-\u{1170}\u{11a8}-\u{11b0}\u{958}\u{212b}\u{e9}]{0,40}", at in 0usize..40) {
            let mark = text.char_indices().map(|(i, _)| i).nth(at).unwrap_or(text.len());
            let (out, chars, positions) = canonical_with_marks(&text, &[mark]);
            prop_assert_eq!(&out, &canonical_string(&text));
            prop_assert_eq!(chars as usize, out.chars().count());
            prop_assert!(positions[0] <= chars);
        }
    }
}
