//! The charts of ECMA-376: each series brings its own copy of names, categories and values.

use super::super::malformed;
use super::super::xml::{Tag, Token, walk};
use super::values::{Calendar, shown};
use super::{Chart, Points, Series, grid, one_line};
use crate::limits::Limits;
use docmill_model::Failure;

/// Elements that show nothing, or nothing of the data.
const SKIPPED: [&str; 7] = ["extLst", "Fallback", "dLbls", "trendline", "errBars", "dTable", "txPr"];

/// Reads the part of a chart.
///
/// # Errors
/// Those of [`walk`]; `DOCX_MALFORMED` when the part is no chart, or a series has categories of absurdly many levels.
pub(in super::super) fn read(bytes: &[u8], limits: &Limits) -> Result<Chart, Failure> {
    let mut reader = Reader::default();
    walk(bytes, limits, |token| {
        match token {
            Token::Start(tag) if reader.skipped > 0 || SKIPPED.contains(&tag.name()) => reader.skipped += 1,
            Token::End if reader.skipped > 0 => reader.skipped -= 1,
            Token::Start(tag) => reader.start(tag),
            Token::End => reader.end(),
            Token::Text(words) if matches!(reader.parent(), "v" | "t" | "formatCode") => reader.words.push_str(words),
            Token::Text(_) => {}
        }
        Ok(())
    })?;
    if !reader.is_chart {
        return Err(malformed("a part that should be a chart is none"));
    }
    let titles = [reader.title].into_iter().chain(reader.axes).filter(|title| !title.is_empty()).collect();
    Ok(Chart { titles, tables: grid::tables(&reader.series)? })
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
    /// Number format of the open list of numbers; None in a list of words, in which a number is a word like others.
    format: Option<String>,
    /// That of the open point, where it has one of its own.
    point_format: Option<String>,
    calendar: Calendar,
}

impl Reader {
    fn start(&mut self, tag: &Tag) {
        let name = tag.name();
        match name {
            "chartSpace" => self.is_chart |= self.path.is_empty(),
            "ser" => self.series.push(Series::default()),
            "lvl" | "strCache" | "strLit" | "numCache" | "numLit" => {
                self.format = name.starts_with("num").then(String::new);
                let slot = self.slot().unwrap_or_default().to_owned();
                self.lists(&slot).into_iter().for_each(|lists| lists.push(Points::new()));
            }
            "pt" => {
                self.index = tag.attr("idx").and_then(|index| index.trim().parse().ok()).unwrap_or(0);
                self.point_format = tag.attr("formatCode");
            }
            "title" => self.open_title = Some(String::new()),
            "delete" if self.parent().ends_with("Ax") => self.axis_deleted = tag.is_on(),
            "date1904" if tag.is_on() => self.calendar = Calendar::From1904,
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
            "p" | "br" | "pt" => self.open_title.iter_mut().for_each(|title| title.push(' ')),
            "v" => self.value(words),
            "formatCode" => self.format = self.format.take().map(|_| words),
            "numCache" | "numLit" => self.format = None,
            "title" => {
                let title = one_line(&self.open_title.take().unwrap_or_default());
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

    /// Where a part of the open series keeps its points.
    fn lists(&mut self, slot: &str) -> Option<&mut Vec<Points>> {
        let series = self.series.last_mut()?;
        match slot {
            "cat" | "xVal" => Some(&mut series.categories),
            "val" | "yVal" | "bubbleSize" => Some(&mut series.values),
            _ => None,
        }
    }

    fn value(&mut self, words: String) {
        let format = self.format.as_ref().filter(|_| self.parent() == "pt");
        let shown = match format {
            Some(format) => shown(words, self.point_format.as_ref().unwrap_or(format), self.calendar),
            None => words,
        };
        let (slot, index) = (self.slot().unwrap_or_default().to_owned(), self.index);
        if let Some(points) = self.lists(&slot).and_then(|lists| lists.last_mut()) {
            points.insert(index, shown);
        } else if let Some(series) = self.series.last_mut().filter(|_| slot == "tx") {
            series.name.push_str(if series.name.is_empty() { "" } else { " " });
            series.name.push_str(&shown);
        }
    }
}
