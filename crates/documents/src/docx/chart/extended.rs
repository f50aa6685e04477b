//! The newer kinds of charts (waterfall, treemap, sunburst, histogram, box plot, funnel, map): their series refer to data that
//! stands apart from them ([MS-ODRAWXML] 2.24.3).

use super::super::malformed;
use super::super::xml::{Tag, Token, walk_past};
use super::values::{Calendar, Format};
use super::{Chart, Points, Series, check, grid, one_line};
use crate::limits::Limits;
use docmill_model::Failure;
use std::collections::HashMap;

/// Elements that show nothing, or nothing of the data. Properties of text repeat the words of titles.
const SKIPPED: [&str; 5] = ["extLst", "Fallback", "dataLabels", "txPr", "fmtOvrs"];

/// Reads the part of a chart of a newer kind.
///
/// # Errors
/// Those of [`walk_past`]; `DOCX_MALFORMED` when the part is no chart, has too many points, or
/// data have categories of absurdly many levels.
pub(in super::super) fn read(bytes: &[u8], limits: &Limits) -> Result<Chart, Failure> {
    let mut reader = Reader::default();
    walk_past(&SKIPPED, bytes, limits, |token| {
        match token {
            Token::Start(tag) => reader.start(tag),
            Token::End => reader.end(),
            Token::Text(words) if matches!(reader.parent(), "v" | "t" | "pt") => reader.words.push_str(words),
            Token::Text(_) => {}
        }
        check(reader.points)
    })?;
    if !reader.is_chart {
        return Err(malformed("a part that should be a chart is none"));
    }
    let Reader { title, axes, series, data, .. } = reader;
    let mut data: HashMap<String, Series> = data.into_iter().collect();
    let titles = [title].into_iter().chain(axes).filter(|title| !title.is_empty()).collect();
    // Series over the same data (a Pareto line over its bars) show them once.
    let seen = series.into_iter().filter(|series| !series.hidden);
    let series: Vec<Series> =
        seen.filter_map(|one| data.remove(&one.data).map(|data| Series { name: one.name, ..data })).collect();
    Ok(Chart { titles, tables: grid::tables(&series)? })
}

/// A series, whose data may come before or after it.
#[derive(Debug, Default)]
struct Reference {
    name: String,
    data: String,
    hidden: bool,
}

/// What a dimension holds.
#[derive(Clone, Copy, Debug, Default)]
enum Dimension {
    /// Ids, of places on a map.
    #[default]
    Unseen,
    /// Categories, or the values that others are drawn over.
    Categories,
    /// Values, sizes and colours.
    Values,
}

impl Dimension {
    fn of(tag: &Tag) -> Self {
        match tag.attr("type").as_deref() {
            Some("entityId") => Dimension::Unseen,
            Some("cat" | "x") => Dimension::Categories,
            _ => Dimension::Values,
        }
    }
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
    axis_hidden: bool,
    series: Vec<Reference>,
    /// Data by their ids, without names.
    data: Vec<(String, Series)>,
    dimension: Dimension,
    /// Number format of the open level; None in a dimension of words.
    format: Option<Format>,
    index: u32,
}

impl Reader {
    fn start(&mut self, tag: &Tag) {
        let name = tag.name();
        let is_on = |name: &str| matches!(tag.attr(name).as_deref(), Some("1" | "true"));
        match name {
            "chartSpace" => self.is_chart |= self.path.is_empty(),
            "data" => self.data.push((tag.attr("id").unwrap_or_default(), Series::default())),
            "strDim" | "numDim" => self.dimension = Dimension::of(tag),
            "lvl" => {
                let format = || tag.attr("formatCode").map(|code| Format::of(&code)).unwrap_or_default();
                self.format = (self.parent() == "numDim").then(format);
                self.lists().into_iter().for_each(|lists| lists.push(Points::new()));
            }
            "pt" => {
                self.points += 1;
                self.index = tag.attr("idx").and_then(|index| index.trim().parse().ok()).unwrap_or(0);
            }
            "series" => self.series.push(Reference { hidden: is_on("hidden"), ..Reference::default() }),
            "dataId" => {
                let id = tag.attr("val").unwrap_or_default();
                self.series.last_mut().into_iter().for_each(|series| series.data.clone_from(&id));
            }
            "axis" => self.axis_hidden = is_on("hidden"),
            "title" => self.open_title = Some(String::new()),
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
            "v" if self.path.iter().any(|name| name == "series") => {
                self.series.last_mut().into_iter().for_each(|series| series.name.push_str(&words));
            }
            "pt" => {
                let shown = match self.format {
                    Some(format) => format.shown(words, Calendar::default()),
                    None => words,
                };
                let index = self.index;
                if let Some(points) = self.lists().and_then(|lists| lists.last_mut()) {
                    points.insert(index, shown);
                }
            }
            "title" => {
                let title = one_line(&self.open_title.take().unwrap_or_default());
                match self.parent() {
                    "chart" => self.title = title,
                    "axis" if !self.axis_hidden => self.axes.push(title),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn parent(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// Where the open dimension keeps its points, level by level.
    fn lists(&mut self) -> Option<&mut Vec<Points>> {
        let (_, data) = self.data.last_mut()?;
        match self.dimension {
            Dimension::Unseen => None,
            Dimension::Categories => Some(&mut data.categories),
            Dimension::Values => Some(&mut data.values),
        }
    }
}
