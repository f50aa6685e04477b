//! Data tables: cells on a grid with the spans that the markup declares.
//!
//! A table that only arranges a page (nested tables, blocks of text, one column) is none; its cells are read as
//! ordinary blocks.

use super::dom::{Data, Dom};
use super::root::{is_block, is_dropped};
use super::walk::visibility_hidden;
use crate::blocks::{CellDraft, TableDraft};
use crate::inline::Inline;

/// Widest grid; wider declarations are cut.
const COLUMNS: u32 = 4_096;

/// True for a table of data: at least two columns and two rows, and no cell with a page inside.
pub(super) fn is_data(dom: &Dom, at: usize) -> bool {
    if dom.attr(at, "role").is_some_and(|role| matches!(role, "presentation" | "none")) {
        return false;
    }
    let (mut rows, mut cells, mut heads, mut longest) = (0, 0, 0, 0);
    let mut below = at + 1;
    while below < dom.end(at) {
        match dom.name(below) {
            "table" | "form" | "h1" | "h2" | "article" | "section" | "nav" | "header" | "footer" => return false,
            "tr" => rows += 1,
            "td" => {
                cells += 1;
                longest = longest.max(dom.text(below).len());
            }
            "th" => heads += 1,
            name if is_dropped(name) => {
                below = dom.end(below);
                continue;
            }
            _ => {}
        }
        below += 1;
    }
    let columns = (cells + heads) / rows.max(1);
    (heads > 0 && columns >= 1) || (columns >= 2 && (rows >= 2 || longest < 200) && longest < 1_500)
}

/// Reads a data table; what is hidden in it, or with its row, is flagged.
pub(super) fn read(dom: &Dom, at: usize) -> TableDraft {
    let mut cells: Vec<CellDraft> = Vec::new();
    // Rows that a cell from above still covers, per column.
    let mut covered: Vec<u32> = Vec::new();
    let mut rows: Vec<(usize, bool, bool)> = Vec::new();
    for below in at + 1..dom.end(at) {
        if dom.name(below) == "tr" {
            let within = || dom.lineage(below).take_while(|&up| up != at);
            let head = within().any(|up| dom.name(up) == "thead");
            rows.push((below, head, within().any(|up| visibility_hidden(dom, up))));
        }
    }
    for (row, &(tr, head, hidden)) in rows.iter().enumerate() {
        let mut column = 0usize;
        for cell in dom.children(tr).filter(|&c| matches!(dom.name(c), "td" | "th")) {
            while covered.get(column).is_some_and(|&left| left > 0) {
                column += 1;
            }
            let span = |name: &str, most: u32| number(dom.attr(cell, name)).clamp(1, most);
            let column_span = if column as u32 >= COLUMNS { 1 } else { span("colspan", COLUMNS.min(1_000)) };
            let row_span = span("rowspan", (rows.len() - row) as u32);
            if covered.len() < column + column_span as usize {
                covered.resize(column + column_span as usize, 0);
            }
            covered[column..column + column_span as usize].fill(row_span);
            let mut content = words(dom, cell);
            if hidden {
                content.hide(0);
            }
            let header = head || dom.name(cell) == "th";
            cells.push(CellDraft { row: row as u32, column: column as u32, row_span, column_span, header, content });
            column += column_span as usize;
        }
        for left in &mut covered {
            *left = left.saturating_sub(1);
        }
    }
    TableDraft { cells }
}

fn number(value: Option<&str>) -> u32 {
    value.and_then(|v| v.trim().parse().ok()).unwrap_or(1)
}

/// The words of a cell or caption on one line, with links and hidden parts.
pub(super) fn words(dom: &Dom, cell: usize) -> Inline {
    let mut inline = Inline::default();
    let mut links: Vec<(usize, usize, &str)> = Vec::new();
    let mut hidden: Vec<(usize, usize)> = Vec::new();
    let mut at = cell;
    while at < dom.end(cell) {
        while let Some((_, start, target)) = links.pop_if(|open| open.0 <= at) {
            inline.link(start, target);
        }
        while let Some((_, start)) = hidden.pop_if(|open| open.0 <= at) {
            inline.hide(start);
        }
        match dom.node(at).data {
            Data::Text(words) => inline.push_collapsed(words),
            Data::Element(element) => {
                let name = element.name();
                if is_dropped(name) {
                    at = dom.end(at);
                    continue;
                }
                if is_block(name) || name == "br" {
                    inline.push_collapsed(" ");
                }
                if let Some(target) = element.attr("href").filter(|_| name == "a") {
                    links.push((dom.end(at), inline.mark(), target));
                }
                if visibility_hidden(dom, at) {
                    hidden.push((dom.end(at), inline.mark()));
                }
            }
            Data::Root => {}
        }
        at += 1;
    }
    for (_, start, target) in links {
        inline.link(start, target);
    }
    for (_, start) in hidden {
        inline.hide(start);
    }
    inline
}
