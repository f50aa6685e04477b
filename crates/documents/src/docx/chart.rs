//! Charts (ECMA-376 part 1, 21.2): their titles, and the data that the file keeps of what they show, as a table of
//! categories and series. The workbook behind a chart is not opened; labels of single points, trend lines and series that
//! were filtered out are not read.

use super::malformed;
use super::xml::{Tag, Token, walk};
use crate::blocks::{CellDraft, TableDraft};
use crate::inline::Inline;
use crate::limits::Limits;
use docmill_model::Failure;
use std::collections::{BTreeMap, BTreeSet};

/// Elements that show nothing, or nothing of the data.
const SKIPPED: [&str; 6] = ["extLst", "Fallback", "dLbls", "trendline", "errBars", "dTable"];
/// Julian day of day 0 of the two calendars of workbooks.
const DAY_0_OF_1900: i32 = 2_415_019;
const DAY_0_OF_1904: i32 = 2_416_481;
/// Digits of a number that readers of a chart can be shown; what is beyond is noise of binary fractions.
const DIGITS: usize = 15;

/// What a chart says.
#[derive(Debug, Default)]
pub(super) struct Chart {
    /// Its title, then those of its axes.
    pub titles: Vec<String>,
    /// A row of the names of the series, then a row a category.
    pub data: TableDraft,
}

/// Values by their index.
type Points = BTreeMap<u32, String>;

#[derive(Debug, Default)]
struct Series {
    name: String,
    /// Innermost level first.
    categories: Vec<Points>,
    values: Points,
    sizes: Points,
}

/// Reads the part of a chart.
///
/// # Errors
/// Those of [`walk`]; `DOCX_MALFORMED` when the part is no chart, or scatters few points over many rows and columns.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Chart, Failure> {
    let mut reader = Reader::default();
    walk(bytes, limits, |token| {
        match token {
            Token::Start(tag) if reader.skipped > 0 || SKIPPED.contains(&tag.name()) => reader.skipped += 1,
            Token::End if reader.skipped > 0 => reader.skipped -= 1,
            Token::Start(tag) => reader.start(tag),
            Token::End => reader.end(),
            Token::Text(words) if matches!(reader.path.last().map(String::as_str), Some("v" | "t" | "formatCode")) => {
                reader.words.push_str(words);
            }
            Token::Text(_) => {}
        }
        Ok(())
    })?;
    if !reader.is_chart {
        return Err(malformed("a part that should be a chart is none"));
    }
    let titles = [reader.title].into_iter().chain(reader.axes).filter(|title| !title.is_empty()).collect();
    Ok(Chart { titles, data: table(&reader.series)? })
}

#[derive(Default)]
struct Reader {
    is_chart: bool,
    /// Names of the open elements.
    path: Vec<String>,
    skipped: usize,
    /// Characters of the open element.
    words: String,
    /// Words of the open title.
    open_title: Option<String>,
    title: String,
    axes: Vec<String>,
    /// The open axis is not shown.
    axis_deleted: bool,
    series: Vec<Series>,
    index: u32,
    format: String,
    counts_from_1904: bool,
}

impl Reader {
    fn start(&mut self, tag: &Tag) {
        let name = tag.name();
        match name {
            "chartSpace" => self.is_chart |= self.path.is_empty(),
            "ser" => self.series.push(Series::default()),
            "lvl" | "strCache" | "strLit" | "numCache" | "numLit" => {
                self.format.clear();
                if matches!(self.slot(), Some("cat" | "xVal"))
                    && let Some(series) = self.series.last_mut()
                {
                    series.categories.push(Points::new());
                }
            }
            "pt" => {
                self.index = tag.attr("idx").and_then(|index| index.trim().parse().ok()).unwrap_or(0);
                if let Some(format) = tag.attr("formatCode") {
                    self.format = format;
                }
            }
            "title" => self.open_title = Some(String::new()),
            "delete" if self.parent().ends_with("Ax") => self.axis_deleted = tag.is_on(),
            "date1904" => self.counts_from_1904 = tag.is_on(),
            name if name.ends_with("Ax") => self.axis_deleted = false,
            _ => {}
        }
        self.words.clear();
        self.path.push(name.to_owned());
    }

    fn end(&mut self) {
        let Some(name) = self.path.pop() else { return };
        let words = std::mem::take(&mut self.words);
        match name.as_str() {
            "t" | "v" if self.open_title.is_some() => {
                self.open_title.iter_mut().for_each(|title| title.push_str(&words))
            }
            "p" | "br" => self.open_title.iter_mut().for_each(|title| title.push(' ')),
            "v" => self.value(words),
            "formatCode" => self.format = words,
            "title" => {
                let title = self.open_title.take().unwrap_or_default();
                let title = title.split_whitespace().collect::<Vec<_>>().join(" ");
                match self.parent() {
                    "chart" => self.title = title,
                    parent if parent.ends_with("Ax") && !self.axis_deleted => self.axes.push(title),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn parent(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// Which part of the open series is being read.
    fn slot(&self) -> Option<&str> {
        let series = self.path.iter().rposition(|name| name == "ser")?;
        self.path.get(series + 1).map(String::as_str)
    }

    fn value(&mut self, words: String) {
        let shown = shown(words, &self.format, if self.counts_from_1904 { DAY_0_OF_1904 } else { DAY_0_OF_1900 });
        let (slot, index) = (self.slot().unwrap_or_default().to_owned(), self.index);
        let Some(series) = self.series.last_mut() else { return };
        match slot.as_str() {
            "tx" => {
                series.name.push_str(if series.name.is_empty() { "" } else { " " });
                series.name.push_str(&shown);
            }
            "cat" | "xVal" => series.categories.last_mut().into_iter().for_each(|level| {
                level.insert(index, shown.clone());
            }),
            "val" | "yVal" => drop(series.values.insert(index, shown)),
            "bubbleSize" => drop(series.sizes.insert(index, shown)),
            _ => {}
        }
    }
}

/// A number as a reader is shown it: a date where its format is one, without the noise of binary fractions.
fn shown(words: String, format: &str, day_0: i32) -> String {
    let Some(number) = words.trim().parse::<f64>().ok().filter(|number| number.is_finite()) else { return words };
    if is_date(format) && (0.0..3_000_000.0).contains(&number) {
        let date = time::Date::from_julian_day(day_0 + number as i32).ok();
        return date.map_or(words, |date| date.to_string());
    }
    if words.trim().len() <= DIGITS {
        return words;
    }
    let rounded = format!("{number:.*e}", DIGITS - 1).parse::<f64>();
    rounded.map_or(words, |rounded| rounded.to_string())
}

/// True for number formats that show a day or a year: outside of quotes and brackets, `d` or `y`.
fn is_date(format: &str) -> bool {
    let (mut quoted, mut bracketed, mut escaped) = (false, false, false);
    format.chars().any(|c| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        match c {
            '"' => quoted = !quoted,
            '[' if !quoted => bracketed = true,
            ']' if !quoted => bracketed = false,
            '\\' => escaped = true,
            'd' | 'D' | 'y' | 'Y' => return !quoted && !bracketed,
            _ => {}
        }
        false
    })
}

/// Categories and series side by side; series over categories of their own bring them along.
fn table(series: &[Series]) -> Result<TableDraft, Failure> {
    let mut columns: Vec<(&str, &Points, bool)> = Vec::new();
    let mut before: Option<&Vec<Points>> = None;
    for one in series {
        if !one.categories.is_empty() && before != Some(&one.categories) {
            columns.extend(one.categories.iter().rev().map(|level| ("", level, true)));
            before = Some(&one.categories);
        }
        columns.push((&one.name, &one.values, false));
        if !one.sizes.is_empty() {
            columns.push((&one.name, &one.sizes, false));
        }
    }
    let rows: BTreeSet<u32> = columns.iter().flat_map(|(_, points, _)| points.keys().copied()).collect();
    let points: usize = columns.iter().map(|(_, points, _)| points.len()).sum();
    if rows.len().saturating_mul(columns.len()) > 4 * points + 1_000 {
        return Err(malformed("the points of a chart are scattered over too many rows and columns"));
    }
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
    for (row, index) in rows.iter().enumerate() {
        let words = |points: &'_ Points| points.get(index).cloned().unwrap_or_default();
        let row = row + usize::from(named);
        cells.extend(
            columns.iter().enumerate().map(|(column, (_, points, head))| cell(row, column, *head, &words(points))),
        );
    }
    Ok(TableDraft { cells })
}

#[cfg(test)]
mod tests {
    use super::{DAY_0_OF_1900, DAY_0_OF_1904, read, shown};
    use crate::limits::Limits;
    use docmill_model::Code;

    #[test]
    fn numbers_are_shown_as_in_the_chart() {
        for (written, format, expected) in [
            ("4.4000000000000004", "General", "4.4"),
            ("0.1", "0%", "0.1"),
            ("45292", "d\\-mmm\\-yy", "2024-01-01"),
            ("45292", "[Red]0\" days\"", "45292"),
            ("45292.75", "yyyy", "2024-01-01"),
            ("Q1", "yyyy", "Q1"),
            ("123456789012345678", "0", "123456789012346000"),
        ] {
            assert_eq!(shown(written.to_owned(), format, DAY_0_OF_1900), expected, "{format}");
        }
        assert_eq!(shown("43830".to_owned(), "dd/mm/yyyy", DAY_0_OF_1904), "2024-01-01");
    }

    #[test]
    fn few_points_over_many_rows_and_columns_are_refused() {
        let series = |index: usize| {
            format!("<c:ser><c:val><c:numLit><c:pt idx='{index}'><c:v>1</c:v></c:pt></c:numLit></c:val></c:ser>")
        };
        let chart =
            |count: usize| format!("<c:chartSpace>{}</c:chartSpace>", (0..count).map(series).collect::<String>());
        let limits = Limits::default();
        assert_eq!(read(chart(30).as_bytes(), &limits).map(|chart| chart.data.cells.len()), Ok(900));
        assert_eq!(read(chart(300).as_bytes(), &limits).map(|_| ()).map_err(|f| f.code), Err(Code::DocxMalformed));
    }
}
