//! A table while it is being read: cells on a grid with merges in both directions.

use crate::blocks::{CellDraft, TableDraft};
use crate::inline::Inline;
use docmill_model::Span;
use docmill_model::document::Cell;
use std::collections::HashMap;

/// Widest grid; wider declarations are cut.
const COLUMNS: u32 = 4_096;

/// What a cell says about itself before its words come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CellShape {
    /// Grid columns covered.
    pub columns: u32,
    /// True when the cell continues the one above.
    pub continues: bool,
}

/// An open table.
#[derive(Debug, Default)]
pub(super) struct TableState {
    cells: Vec<CellDraft>,
    /// The last cell that begins in each column, which the next row may continue.
    last: HashMap<u32, usize>,
    row: u32,
    column: u32,
    rows_seen: u32,
    header: bool,
    /// The open row is not shown.
    hidden: bool,
    /// Its cells have grounds of their own, by its style or its properties.
    pub shaded: bool,
    /// The ground that the open cell says it has: coloured, or that of paper.
    pub cell_ground: Option<bool>,
    /// The open cell: its shape and its words so far.
    open: Option<(CellShape, Inline)>,
}

impl TableState {
    /// A row begins.
    pub fn begin_row(&mut self) {
        self.row = self.rows_seen;
        self.rows_seen += 1;
        self.column = 0;
        self.header = false;
        self.hidden = false;
    }

    /// The open row repeats on every page: a header.
    pub fn mark_header(&mut self) {
        self.header = true;
    }

    /// The open row is not shown.
    pub fn hide_row(&mut self) {
        self.hidden = true;
    }

    /// The row leaves out `columns` grid columns.
    pub fn skip(&mut self, columns: u32) {
        self.column = self.column.saturating_add(columns).min(COLUMNS);
    }

    /// Whether the open cell has a coloured ground; None when nothing says what it has.
    pub fn is_coloured(&self) -> Option<bool> {
        self.cell_ground.or(self.shaded.then_some(true))
    }

    /// A cell begins.
    pub fn begin_cell(&mut self) {
        self.cell_ground = None;
        self.open = Some((CellShape { columns: 1, continues: false }, Inline::default()));
    }

    /// The shape of the open cell.
    pub fn shape(&mut self) -> Option<&mut CellShape> {
        self.open.as_mut().map(|open| &mut open.0)
    }

    /// Adds a paragraph to the open cell.
    pub fn paragraph(&mut self, words: Inline) {
        if let Some((_, content)) = &mut self.open {
            if !content.is_blank() && !words.is_blank() {
                content.push("\n");
            }
            content.append(words);
        }
    }

    /// The open cell ends.
    pub fn end_cell(&mut self) {
        let Some((shape, mut content)) = self.open.take() else { return };
        if self.hidden {
            content.hide(0);
        }
        let span = shape.columns.clamp(1, COLUMNS);
        let column = self.column;
        self.skip(span);
        if shape.continues
            && let Some(above) = self.last.get(&column).map(|&at| &mut self.cells[at])
            && above.row + above.row_span == self.row
        {
            above.row_span += 1;
            if !content.is_blank() {
                above.content.push("\n");
                above.content.append(content);
            }
            return;
        }
        let header = self.header;
        self.last.insert(column, self.cells.len());
        self.cells.push(CellDraft { row: self.row, column, row_span: 1, column_span: span, header, content });
    }

    /// The finished table.
    pub fn finish(self) -> TableDraft {
        TableDraft { cells: self.cells }
    }
}

/// The words of a table inside a cell or a note: rows on lines, cells apart by bars, and still cells of a table.
pub(super) fn flat(table: TableDraft) -> Inline {
    let mut out = Inline::default();
    let mut cells = Vec::with_capacity(table.cells.len());
    let (blank, mut row) = (table.is_blank(), None);
    for mut cell in table.cells {
        match row {
            None => {}
            Some(last) if last == cell.row => out.push(" | "),
            Some(_) => out.push("\n"),
        }
        row = Some(cell.row);
        cell.content.flatten();
        let start = out.mark();
        out.append(cell.content);
        let CellDraft { row, column, row_span, column_span, header, .. } = cell;
        cells.push((Cell { row, column, row_span, column_span, header, span: Span::new(0, 0) }, start, out.mark()));
    }
    if !blank {
        out.nest(cells);
    }
    out
}
