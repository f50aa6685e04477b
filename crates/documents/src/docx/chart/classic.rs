//! The charts of ECMA-376: each series brings its own copy of names, categories and values.

use super::super::malformed;
use super::super::xml::{Tag, Token, walk_past};
use super::values::{Calendar, Format};
use super::{Chart, Points, Series, check, grid, one_line};
use crate::limits::Limits;
use docmill_model::Failure;

/// Elements that show nothing, or nothing of the data.
const SKIPPED: [&str; 7] = ["extLst", "Fallback", "dLbls", "trendline", "errBars", "dTable", "txPr"];

/// Reads the part of a chart.
///
/// # Errors
/// Those of [`walk_past`]; `DOCX_MALFORMED` when the part is no chart, has too many points, or
/// a series has categories of absurdly many levels.
pub(in super::super) fn read(bytes: &[u8], limits: &Limits) -> Result<Chart, Failure> {
    let mut reader = Reader::default();
    walk_past(&SKIPPED, bytes, limits, |token| {
        match token {
            Token::Start(tag) => reader.start(tag),
            Token::End => reader.end(),
            Token::Text(words) if matches!(reader.parent(), "v" | "t" | "formatCode") => reader.words.push_str(words),
            Token::Text(_) => {}
        }
        check(reader.points)
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
    /// Points so far.
    points: usize,
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
    format: Option<Format>,
    /// That of the open point, where it has one of its own.
    point_format: Option<Format>,
    calendar: Calendar,
}

impl Reader {
    fn start(&mut self, tag: &Tag) {
        let name = tag.name();
        match name {
            "chartSpace" => self.is_chart |= self.path.is_empty(),
            "ser" => self.series.push(Series::default()),
            "lvl" | "strCache" | "strLit" | "numCache" | "numLit" => {
                self.format = name.starts_with("num").then(Format::default);
                self.lists().into_iter().for_each(|lists| lists.push(Points::new()));
            }
            "pt" => {
                self.points += 1;
                self.index = tag.attr("idx").and_then(|index| index.trim().parse().ok()).unwrap_or(0);
                self.point_format = tag.attr("formatCode").map(|code| Format::of(&code));
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
            "formatCode" => self.format = self.format.map(|_| Format::of(&words)),
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
    fn slot(&self) -> &str {
        let series = self.path.iter().rposition(|name| name == "ser");
        series.and_then(|at| self.path.get(at + 1)).map_or("", String::as_str)
    }

    /// Where the open part of the open series keeps its points.
    fn lists(&mut self) -> Option<&mut Vec<Points>> {
        let categories = match self.slot() {
            "cat" | "xVal" => true,
            "val" | "yVal" | "bubbleSize" => false,
            _ => return None,
        };
        self.series.last_mut().map(|series| if categories { &mut series.categories } else { &mut series.values })
    }

    fn value(&mut self, words: String) {
        let shown = match self.format.filter(|_| self.parent() == "pt") {
            Some(format) => self.point_format.unwrap_or(format).shown(words, self.calendar),
            None => words,
        };
        let (index, names) = (self.index, self.slot() == "tx");
        if let Some(points) = self.lists().and_then(|lists| lists.last_mut()) {
            points.insert(index, shown);
        } else if let Some(series) = self.series.last_mut().filter(|_| names) {
            series.name.push_str(if series.name.is_empty() { "" } else { " " });
            series.name.push_str(&shown);
        }
    }
}
