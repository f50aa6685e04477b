//! Charts (ECMA-376 part 1, 21.2, and the newer kinds of Office): their titles, and the data that the file keeps of what
//! they show, as tables of categories and series. The workbook behind a chart is not opened; labels of single points,
//! trend lines and series that were filtered out are not read.

mod classic;
mod extended;
mod grid;
mod values;

use super::malformed;
use crate::blocks::TableDraft;
use docmill_model::Failure;
use std::collections::BTreeMap;

pub(super) use classic::read;
pub(super) use extended::read as read_extended;

/// Points of one chart. Spreadsheets drew 256,000 at most for long; ten times as many would take the memory of a whole parse.
const POINTS: usize = 500_000;

/// What a chart says.
#[derive(Debug, Default)]
pub(super) struct Chart {
    /// Its title, then those of its axes.
    pub titles: Vec<String>,
    /// The series that share categories, each time: a row of their names, then a row a category.
    pub tables: Vec<TableDraft>,
}

/// Values by their index.
type Points = BTreeMap<u32, String>;

#[derive(Clone, Debug, Default)]
struct Series {
    name: String,
    /// Innermost level first.
    categories: Vec<Points>,
    /// The values, then their sizes or colours.
    values: Vec<Points>,
}

/// Refuses a chart of more points than are read.
fn check(points: usize) -> Result<(), Failure> {
    if points > POINTS {
        return Err(malformed(format!("a chart has more than {POINTS} points")));
    }
    Ok(())
}

/// The words of a title on one line.
fn one_line(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}
