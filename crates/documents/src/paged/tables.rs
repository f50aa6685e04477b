//! Tables by alignment: consecutive rows whose short cells stand below each other with free space between columns.
//!
//! Rules drawn on the page are not looked at. Prose in columns is no table: its cells are too long.

use super::blocks::is_bullet;
use super::{Line, PageDraft};

/// A table found among the lines of a page.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    /// First line.
    pub start: usize,
    /// One past the last line.
    pub end: usize,
    /// Number of columns.
    pub columns: u32,
    /// Number of rows.
    pub rows: u32,
    /// Row, column and words of every filled cell, in row-major order.
    pub cells: Vec<(u32, u32, Vec<u32>)>,
}

/// Gap between words, in sizes of type, from which they are of different cells.
const CELL_GAP: f32 = 1.05;
/// Rows of the smallest table.
const ROWS: usize = 3;
/// Mean number of words above which cells are prose.
const WORDS: f32 = 9.0;

/// A row of the page: its lines and their pieces from left to right.
struct Row {
    start: usize,
    end: usize,
    pieces: Vec<Vec<u32>>,
}

/// All tables, in order.
pub(super) fn find(page: &PageDraft, lines: &[Line]) -> Vec<Grid> {
    let rows = rows(page, lines);
    let mut found = Vec::new();
    let mut at = 0;
    while at < rows.len() {
        let length = run(page, lines, &rows[at..]);
        match (length >= ROWS).then(|| grid(page, &rows[at..at + length])).flatten() {
            Some(grid) => {
                found.push(grid);
                at += length;
            }
            None => at += length.max(1),
        }
    }
    found
}

/// Lines that stand beside each other are one row.
fn rows(page: &PageDraft, lines: &[Line]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let mut end = at + 1;
        let middle = |l: &Line| (l.rect.y0 + l.rect.y1) / 2.0;
        while end < lines.len()
            && !lines[end].furniture
            && (middle(&lines[end]) - middle(&lines[at])).abs() < 0.4 * lines[at].height().min(lines[end].height())
            && lines[end].rect.x0 >= lines[end - 1].rect.x1 - 1.0
        {
            end += 1;
        }
        let pieces = lines[at..end].iter().flat_map(|line| pieces(page, line)).collect();
        rows.push(Row { start: at, end, pieces });
        at = end;
    }
    rows
}

/// The words of a line, cut at wide gaps; not behind the bullet of a list item, which is all that the line holds.
fn pieces(page: &PageDraft, line: &Line) -> Vec<Vec<u32>> {
    let mut pieces: Vec<Vec<u32>> = Vec::new();
    let mut right = f32::NEG_INFINITY;
    for &word in &line.words {
        let rect = page.words[word as usize].rect;
        match pieces.last_mut() {
            Some(piece)
                if rect.x0 - right < CELL_GAP * line.size.max(4.0) && rect.x0 >= right - 2.0 * line.size.max(4.0) =>
            {
                piece.push(word)
            }
            _ => pieces.push(vec![word]),
        }
        right = rect.x1;
    }
    match &pieces[..] {
        [first, _] if first.len() == 1 && is_bullet(page.text(&page.words[first[0] as usize])) => vec![pieces.concat()],
        _ => pieces,
    }
}

/// How many rows from here on may be one table: near each other, with at least two pieces nearly always.
fn run(page: &PageDraft, lines: &[Line], rows: &[Row]) -> usize {
    let mut length = 0;
    let mut single = 0;
    for (index, row) in rows.iter().enumerate() {
        let first = &lines[row.start];
        if first.furniture {
            break;
        }
        if index > 0 {
            let above = &lines[rows[index - 1].start];
            let step = first.rect.y0 - above.rect.y0;
            if step < 0.3 * above.height() || step > 3.2 * above.height().max(first.height()) {
                break;
            }
        }
        if row.pieces.len() >= 2 {
            length = index + 1;
            single = 0;
        } else {
            single += 1;
            // A wrapped cell takes a line of its own; running text takes more.
            if index == 0 || single > 2 || words(page, row) > 12 {
                break;
            }
        }
    }
    length
}

fn words(_page: &PageDraft, row: &Row) -> usize {
    row.pieces.iter().map(Vec::len).sum()
}

/// The grid of a run of rows, when its pieces fall into columns.
fn grid(page: &PageDraft, rows: &[Row]) -> Option<Grid> {
    let extent = |piece: &[u32]| {
        let rects = piece.iter().map(|&w| page.words[w as usize].rect);
        rects.reduce(docmill_model::document::Rect::union).map_or((0.0, 0.0), |r| (r.x0, r.x1))
    };
    let full = rows.iter().filter(|r| r.pieces.len() >= 2).flat_map(|r| &r.pieces);
    let mut spans: Vec<(f32, f32)> = full.map(|piece| extent(piece)).collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut columns: Vec<(f32, f32)> = Vec::new();
    for span in spans {
        match columns.last_mut() {
            Some(last) if span.0 <= last.1 + 1.0 => last.1 = last.1.max(span.1),
            _ => columns.push(span),
        }
    }
    if !(2..=40).contains(&columns.len()) {
        return None;
    }
    let column_of = |piece: &[u32]| {
        let (x0, x1) = extent(piece);
        let middle = (x0 + x1) / 2.0;
        columns.iter().position(|c| c.0 - 1.0 <= middle && middle <= c.1 + 1.0).unwrap_or(0) as u32
    };
    let mut cells: Vec<(u32, u32, Vec<u32>)> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        for piece in &row.pieces {
            let (row, column) = (index as u32, column_of(piece));
            match cells.last_mut() {
                Some(last) if (last.0, last.1) == (row, column) => last.2.extend_from_slice(piece),
                // A piece left of the one before: the row is no row.
                Some(last) if last.0 == row && last.1 > column => return None,
                _ => cells.push((row, column, piece.clone())),
            }
        }
    }
    let filled = cells.len() as f32 / (columns.len() * rows.len()) as f32;
    let mean = cells.iter().map(|c| c.2.len()).sum::<usize>() as f32 / cells.len().max(1) as f32;
    let wide = rows.iter().filter(|r| r.pieces.len() >= 2).count();
    // A list of labels and texts has two columns as well; tables have more, or short cells.
    let most = if columns.len() == 2 { WORDS * 0.6 } else { WORDS };
    if filled < 0.45 || mean > most || wide < ROWS || wide * 3 < rows.len() * 2 {
        return None;
    }
    let (start, end) = (rows.first()?.start, rows.last()?.end);
    Some(Grid { start, end, columns: columns.len() as u32, rows: rows.len() as u32, cells })
}

#[cfg(test)]
mod tests {
    use super::find;
    use crate::paged::{LINE, PageDraft, WordDraft, lines};
    use docmill_model::document::{PageOutcome, Rect};

    #[test]
    fn aligned_cells_are_a_table_and_prose_and_lists_are_none() {
        let mut page = PageDraft::empty(1, 600.0, 800.0, 0, PageOutcome::Text);
        let mut add = |text: &str, x0: f32, y0: f32, flags: u8| {
            let start = page.buffer.len() as u32;
            page.buffer.push_str(text);
            let rect = Rect { x0, y0, x1: x0 + 5.0 * text.len() as f32, y1: y0 + 12.0 };
            page.words.push(WordDraft {
                start,
                end: page.buffer.len() as u32,
                rect,
                size: 10.0,
                confidence: 1.0,
                flags,
            });
        };
        for (row, (name, price)) in [("Item", "Cost"), ("Tea", "3.10"), ("Coffee", "4.20")].iter().enumerate() {
            add(name, 50.0, 100.0 + 14.0 * row as f32, LINE);
            add(price, 200.0, 100.0 + 14.0 * row as f32, 0);
        }
        for row in 0..4 {
            for column in 0..10 {
                add(
                    "prose",
                    50.0 + 28.0 * column as f32,
                    200.0 + 14.0 * row as f32,
                    if column == 0 { LINE } else { 0 },
                );
            }
        }
        for row in 0..4 {
            add("•", 50.0, 300.0 + 14.0 * row as f32, LINE);
            add("item", 80.0, 300.0 + 14.0 * row as f32, 0);
        }
        let found = find(&page, &lines(&page));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].rows, found[0].columns, found[0].cells.len(), found[0].end), (3, 2, 6, 3));
    }
}
