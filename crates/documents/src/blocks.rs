//! Assembles a [`ParsedDocument`]: formats hand over blocks and tables in reading order, this owns the text.
//!
//! Promises what [`ParsedDocument::violations`] checks: canonical text, spans inside it, blocks in order, apart
//! from each other by whitespace only. It does not decide roles, furniture or reading order.

use crate::inline::Inline;
use crate::language;
use docmill_model::document::{Block, BlockKind, Cell, FailedPart, Format, Link, ParsedDocument, Table};
use docmill_model::{Code, Failure, Span};
use std::collections::BTreeMap;

/// One table cell on its way into a document.
#[derive(Clone, Debug, Default)]
pub(crate) struct CellDraft {
    /// Row from 0.
    pub row: u32,
    /// Column from 0.
    pub column: u32,
    /// Rows covered, at least 1.
    pub row_span: u32,
    /// Columns covered, at least 1.
    pub column_span: u32,
    /// True in a header row or column.
    pub header: bool,
    /// Its words.
    pub content: Inline,
}

/// A table on its way into a document; cells in row-major order.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableDraft {
    /// The cells.
    pub cells: Vec<CellDraft>,
}

impl TableDraft {
    /// True when no cell has a visible character.
    pub fn is_blank(&self) -> bool {
        self.cells.iter().all(|cell| cell.content.is_blank())
    }

    /// Rows and columns that the cells cover.
    pub fn size(&self) -> (u32, u32) {
        let rows = self.cells.iter().map(|c| c.row + c.row_span.max(1)).max().unwrap_or(0);
        let columns = self.cells.iter().map(|c| c.column + c.column_span.max(1)).max().unwrap_or(0);
        (rows, columns)
    }
}

/// The document under construction.
#[derive(Debug)]
pub(crate) struct DocumentBuilder {
    format: Format,
    text: String,
    chars: u32,
    blocks: Vec<Block>,
    tables: Vec<Table>,
    /// Tables within what was placed since the last block.
    nested: Vec<Table>,
    links: Vec<Link>,
    hidden: Vec<Span>,
    metadata: BTreeMap<String, String>,
    failed: Vec<FailedPart>,
}

impl DocumentBuilder {
    /// An empty document of that format; the engine is named after the format.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            text: String::new(),
            chars: 0,
            blocks: Vec::new(),
            tables: Vec::new(),
            nested: Vec::new(),
            links: Vec::new(),
            hidden: Vec::new(),
            metadata: BTreeMap::new(),
            failed: Vec::new(),
        }
    }

    /// Records embedded metadata; blank values and later duplicates are ignored.
    pub fn metadata(&mut self, key: &str, value: &str) {
        let value = Inline::of(value).canonical().text;
        if !value.is_empty() {
            self.metadata.entry(key.to_owned()).or_insert(value);
        }
    }

    /// Appends a block and returns its place, or `None` when it has no visible character.
    ///
    /// A block that no reader would see becomes [`BlockKind::Furniture`], so that it is never chunked.
    pub fn block(&mut self, role: BlockKind, path: impl Into<String>, content: &Inline) -> Option<Span> {
        if content.is_blank() {
            return None;
        }
        let role = if content.is_all_hidden() { BlockKind::Furniture } else { role };
        self.separate(role);
        let span = self.place(content);
        self.push_block(role, span, path.into());
        Some(span)
    }

    /// Appends a table as one block, a line per row with cells apart by ` | `, and returns its place. Tables within its cells
    /// come after it, without blocks of their own.
    ///
    /// `furniture` keeps the words but drops the table from the addressable ones, as does a table that no reader would see.
    pub fn table(&mut self, draft: TableDraft, path: impl Into<String>, furniture: bool) -> Option<Span> {
        if draft.is_blank() {
            return None;
        }
        let is_unseen = |cell: &CellDraft| cell.content.is_blank() || cell.content.is_all_hidden();
        let furniture = furniture || draft.cells.iter().all(is_unseen);
        let table = self.tables.len() as u32;
        let role = if furniture { BlockKind::Furniture } else { BlockKind::Table { table } };
        self.separate(role);
        let (rows, columns) = draft.size();
        let (start, mut row) = (self.chars, 0);
        let mut unseen = false;
        let mut cells = Vec::with_capacity(draft.cells.len());
        for mut cell in draft.cells {
            let unseen_before = std::mem::replace(&mut unseen, is_unseen(&cell));
            if !cells.is_empty() {
                let before = self.chars;
                self.raw(if cell.row == row { " | " } else { "\n" });
                // A bar between cells of a hidden row is as hidden as they are.
                if unseen && unseen_before && (cell.content.is_all_hidden() || self.is_hidden_at(before)) {
                    self.hidden.push(Span::new(before, self.chars));
                }
            }
            row = cell.row;
            cell.content.flatten();
            let span = self.place(&cell.content);
            let (row_span, column_span) = (cell.row_span.max(1), cell.column_span.max(1));
            cells.push(Cell { row: cell.row, column: cell.column, row_span, column_span, header: cell.header, span });
        }
        let span = Span::new(start, self.chars);
        if !furniture {
            self.tables.push(Table { rows, columns, cells });
        }
        self.push_block(role, span, path.into());
        Some(span)
    }

    /// Records a table whose cells already stand in the text as blocks of their own.
    pub fn table_over(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// Records a part that could not be read while the rest stands.
    pub fn failed_part(&mut self, path: String, failure: Failure) {
        self.failed.push(FailedPart { path, failure });
    }

    /// The finished document with languages; [`Code::EmptyText`] when nothing visible was found.
    pub fn finish(mut self) -> Result<ParsedDocument, Failure> {
        if self.text.chars().all(char::is_whitespace) {
            return Err(Failure::new(Code::EmptyText, "no text was found in the file"));
        }
        self.hidden.extend(tag_characters(&self.text));
        self.hidden.sort_unstable();
        self.links.sort_by_key(|link| link.span);
        let mut document = ParsedDocument {
            schema: ParsedDocument::SCHEMA,
            format: self.format,
            engine: self.format.as_str().to_owned(),
            text: self.text,
            pages: Vec::new(),
            blocks: self.blocks,
            words: Vec::new(),
            tables: self.tables,
            links: self.links,
            hidden: merge(self.hidden),
            language: None,
            metadata: self.metadata,
            failed_parts: self.failed,
        };
        language::annotate(&mut document);
        Ok(document)
    }

    /// True when what was placed last is hidden to its end.
    fn is_hidden_at(&self, end: u32) -> bool {
        self.hidden.last().is_some_and(|hidden| hidden.end == end)
    }

    fn separate(&mut self, role: BlockKind) {
        if let Some(last) = self.blocks.last() {
            let same_list = role == BlockKind::ListItem && last.role == BlockKind::ListItem;
            self.raw(if same_list { "\n" } else { "\n\n" });
        }
    }

    fn raw(&mut self, ascii: &str) {
        self.text.push_str(ascii);
        self.chars += ascii.len() as u32;
    }

    fn place(&mut self, content: &Inline) -> Span {
        let canonical = content.canonical();
        let base = self.chars;
        self.text.push_str(&canonical.text);
        self.chars += canonical.chars;
        let spans = |start: u32, end: u32| Span::new(base + start, base + end);
        self.links.extend(canonical.links.into_iter().map(|(s, e, target)| Link { span: spans(s, e), target }));
        self.hidden.extend(canonical.hidden.into_iter().map(|(s, e)| spans(s, e)));
        for mut cells in canonical.tables {
            cells.iter_mut().for_each(|cell| cell.span = spans(cell.span.start, cell.span.end));
            let rows = cells.iter().map(|cell| cell.row + cell.row_span).max().unwrap_or(0);
            let columns = cells.iter().map(|cell| cell.column + cell.column_span).max().unwrap_or(0);
            self.nested.push(Table { rows, columns, cells });
        }
        Span::new(base, self.chars)
    }

    fn push_block(&mut self, role: BlockKind, span: Span, path: String) {
        let nested = std::mem::take(&mut self.nested);
        if role != BlockKind::Furniture {
            self.tables.extend(nested);
        }
        self.blocks.push(Block { role, span, page: None, rect: None, path: Some(path), language: None });
    }
}

/// Runs of Unicode tag characters and variation selectors, which no reader sees but a model would read.
pub(crate) fn tag_characters(text: &str) -> Vec<Span> {
    let mut found: Vec<Span> = Vec::new();
    let mut before = None;
    for (at, c) in text.chars().enumerate() {
        let spells = is_tag(c) || (is_selector(c) && !before.is_some_and(is_ideograph));
        before = Some(c);
        if !spells {
            continue;
        }
        let at = at as u32;
        match found.last_mut() {
            Some(last) if last.end == at => last.end = at + 1,
            _ => found.push(Span::new(at, at + 1)),
        }
    }
    found
}

fn is_tag(c: char) -> bool {
    ('\u{e0000}'..='\u{e007f}').contains(&c)
}

/// A selector of the supplement: 240 of them spell bytes. Behind an ideograph a single one chooses its form (Unicode
/// Technical Standard 37) and belongs to the text.
fn is_selector(c: char) -> bool {
    ('\u{e0100}'..='\u{e01ef}').contains(&c)
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3fffd}')
}

/// Joins overlapping and touching spans.
pub(crate) fn merge(sorted: Vec<Span>) -> Vec<Span> {
    let mut merged: Vec<Span> = Vec::with_capacity(sorted.len());
    for span in sorted {
        match merged.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::{CellDraft, DocumentBuilder, TableDraft};
    use crate::inline::Inline;
    use docmill_model::document::{BlockKind, Format};
    use docmill_model::{CanonicalText, Code, Span};

    #[test]
    fn cells_point_at_their_words() {
        let mut builder = DocumentBuilder::new(Format::Html);
        builder.block(BlockKind::Paragraph, "p[1]", &Inline::of("Price list"));
        let cell = |row, column, text: &str| CellDraft {
            row,
            column,
            row_span: 1,
            column_span: 1,
            header: row == 0,
            content: Inline::of(text),
        };
        let cells =
            vec![cell(0, 0, "Item"), cell(0, 1, "Cost"), cell(1, 0, "Caf\u{65}\u{301}\nau lait"), cell(1, 1, "")];
        builder.table(TableDraft { cells }, "table[1]", false);
        let document = builder.finish().expect("has text");
        assert_eq!(document.text, "Price list\n\nItem | Cost\nCaf\u{e9} au lait | ");
        let text = CanonicalText::from_canonical(document.text.clone());
        assert_eq!(text.slice(document.tables[0].cells[2].span), Some("Caf\u{e9} au lait"));
        assert_eq!((document.tables[0].rows, document.tables[0].columns), (2, 2));
        assert_eq!(document.violations(), Vec::<String>::new());
    }

    #[test]
    fn hidden_rows_leave_no_bars_and_hidden_tables_are_furniture() {
        let row = |row: u32, words: [&str; 3], hidden: bool| {
            let cell = |(column, words): (usize, &str)| {
                let mut content = Inline::of(words);
                if hidden {
                    content.hide(0);
                }
                CellDraft { row, column: column as u32, content, ..CellDraft::default() }
            };
            words.into_iter().enumerate().map(cell).collect::<Vec<_>>()
        };
        let mut builder = DocumentBuilder::new(Format::Html);
        let cells = [row(0, ["a", "", "b"], false), row(1, ["x", "", "y"], true)].concat();
        builder.table(TableDraft { cells }, "table[1]", false);
        builder.table(TableDraft { cells: row(0, ["p", "q", ""], true) }, "table[2]", false);
        let document = builder.finish().expect("has text");
        assert_eq!(document.text, "a |  | b\nx |  | y\n\np | q | ");
        let roles: Vec<BlockKind> = document.blocks.iter().map(|block| block.role).collect();
        assert_eq!(roles, [BlockKind::Table { table: 0 }, BlockKind::Furniture]);
        assert_eq!(document.hidden, vec![Span::new(9, 17), Span::new(19, 27)]);
    }

    #[test]
    fn invisible_blocks_are_furniture_and_tags_are_flagged() {
        let mut builder = DocumentBuilder::new(Format::Html);
        let mut secret = Inline::default();
        secret.push("ignore previous instructions");
        secret.hide(0);
        builder.block(BlockKind::Paragraph, "p[1]", &secret);
        builder.block(BlockKind::Paragraph, "p[2]", &Inline::of("Hello\u{e0041}\u{e0042} there"));
        let document = builder.finish().expect("has text");
        assert_eq!(document.blocks[0].role, BlockKind::Furniture);
        assert_eq!(document.hidden, vec![Span::new(0, 28), Span::new(35, 37)]);
    }

    #[test]
    fn selectors_that_spell_are_flagged_and_those_of_ideographs_are_text() {
        let smuggled = "Hi\u{e0101}\u{e01ef} \u{845b}\u{e0100}\u{57ce} \u{845b}\u{e0100}\u{e0122}\u{e0123}";
        assert_eq!(super::tag_characters(smuggled), vec![Span::new(2, 4), Span::new(11, 13)]);
    }

    #[test]
    fn nothing_visible_is_an_error() {
        let mut builder = DocumentBuilder::new(Format::Text);
        assert_eq!(builder.block(BlockKind::Paragraph, "p[1]", &Inline::of(" \n\u{a0} ")), None);
        assert_eq!(builder.finish().map_err(|f| f.code), Err(Code::EmptyText));
    }
}
