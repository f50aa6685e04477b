//! The series of a chart as tables: those that share categories side by side, those over categories of their own (as of
//! scatter charts) in tables of their own, so that no table is mostly empty and none grows beyond what the file holds.

use super::super::malformed;
use super::{Points, Series};
use crate::blocks::{CellDraft, TableDraft};
use crate::inline::Inline;
use docmill_model::Failure;
use std::collections::BTreeSet;

/// Columns of one series: levels of its categories, values, sizes. Charts that are drawn have five at most or so.
const COLUMNS: usize = 32;
/// Cells per point of the file, and besides, up to which series stand side by side.
const DENSE: (usize, usize) = (4, 1_000);

/// All series, in their order.
///
/// Tables have at most [`COLUMNS`] cells a point of the file, but for small ones, each of which has as many as [`DENSE`] lets
/// it have; scatter charts whose series differ in length come nowhere near.
///
/// # Errors
/// `DOCX_MALFORMED` when a series has more than [`COLUMNS`] columns.
pub(super) fn tables(series: &[Series]) -> Result<Vec<TableDraft>, Failure> {
    if series.iter().any(|one| one.categories.len() + one.values.len() > COLUMNS) {
        return Err(malformed("a series of a chart has too many levels of categories"));
    }
    let mut tables = Vec::new();
    let mut rest = series;
    while !rest.is_empty() {
        let (group, others) = rest.split_at(sharing(rest));
        let (rows, columns, points) = extent(group);
        match rows.saturating_mul(columns) > DENSE.0 * points + DENSE.1 {
            true => tables.extend(group.chunks(1).map(table)),
            false => tables.push(table(group)),
        }
        rest = others;
    }
    Ok(tables)
}

/// How many of the series from the first on share categories; those without any take those before them.
fn sharing(series: &[Series]) -> usize {
    let shared = series.first().map(|first| &first.categories);
    series.iter().take_while(|one| one.categories.is_empty() || Some(&one.categories) == shared).count()
}

/// Rows and columns of the series side by side, and points that the file holds for them.
fn extent(group: &[Series]) -> (usize, usize, usize) {
    let columns = columns(group);
    let points = group.iter().flat_map(|one| one.categories.iter().chain(&one.values)).map(Points::len).sum();
    (rows(&columns).len(), columns.len(), points)
}

/// One column: its name, its points, whether they are categories.
type Column<'a> = (&'a str, Option<&'a Points>, bool);

fn columns(group: &[Series]) -> Vec<Column<'_>> {
    let categories = group.iter().take(1).flat_map(|first| first.categories.iter().rev());
    let mut columns: Vec<Column> = categories.map(|level| ("", Some(level), true)).collect();
    for one in group {
        // A series without values is still named.
        columns.extend(one.values.is_empty().then_some((one.name.as_str(), None, false)));
        columns.extend(one.values.iter().map(|values| (one.name.as_str(), Some(values), false)));
    }
    columns
}

/// The indices that any column has a point at.
fn rows(columns: &[Column]) -> BTreeSet<u32> {
    columns.iter().filter_map(|(_, points, _)| *points).flat_map(|points| points.keys().copied()).collect()
}

fn table(group: &[Series]) -> TableDraft {
    let columns = columns(group);
    let cell = |row: usize, column: usize, header: bool, words: &str| CellDraft {
        row: row as u32,
        column: column as u32,
        row_span: 1,
        column_span: 1,
        header,
        content: Inline::of(words),
    };
    let mut cells: Vec<CellDraft> = Vec::new();
    let named = columns.iter().any(|(name, _, _)| !name.is_empty());
    if named {
        cells.extend(columns.iter().enumerate().map(|(column, (name, _, _))| cell(0, column, true, name)));
    }
    for (row, index) in rows(&columns).iter().enumerate() {
        let row = row + usize::from(named);
        cells.extend(columns.iter().enumerate().map(|(column, (_, points, head))| {
            let words = points.and_then(|points| points.get(index)).map_or("", String::as_str);
            cell(row, column, *head, words)
        }));
    }
    TableDraft { cells }
}
