//! What drawings refer to and readers read in them: charts, and the words of diagrams (SmartArt). Pictures are not read.

use super::chart::{self, Chart};
use super::package::{Package, Relations};
use super::table;
use super::xml::{Token, walk};
use crate::inline::Inline;
use crate::limits::Limits;
use docmill_model::{Code, Failure};
use std::collections::HashMap;

/// Something drawn that holds words.
#[derive(Debug)]
pub(super) enum Drawn {
    /// A chart.
    Chart(Chart),
    /// The texts of a diagram, in the order in which they were written.
    Diagram(Vec<String>),
}

/// What the drawings of a part refer to, by relation id: each until it was placed, or why it cannot be read.
pub(super) type Drawings = HashMap<String, Option<Result<Drawn, Failure>>>;

/// Reads all that drawings of a part can refer to.
///
/// # Errors
/// Those of [`Package::required`] and [`walk`], but for `DOCX_MALFORMED`, which costs the one drawing.
pub(super) fn read(package: &mut Package, relations: &Relations, limits: &Limits) -> Result<Drawings, Failure> {
    let mut all = Drawings::new();
    for (id, kind, target) in relations.parts(&["/chart", "/diagramData"]) {
        let read = package.required(target).and_then(|bytes| match kind.ends_with("/chart") {
            true => chart::read(&bytes, limits).map(Drawn::Chart),
            false => diagram(&bytes, limits).map(Drawn::Diagram),
        });
        match read {
            Err(failure) if failure.code != Code::DocxMalformed => return Err(failure),
            read => drop(all.insert(id.to_owned(), Some(read))),
        }
    }
    Ok(all)
}

impl Drawn {
    /// What it is called in paths.
    pub fn name(&self) -> &'static str {
        match self {
            Drawn::Chart(_) => "chart",
            Drawn::Diagram(_) => "diagram",
        }
    }

    /// Titles and data on lines of their own, as cells and notes hold it.
    pub fn flat(self) -> Inline {
        let (lines, tables) = match self {
            Drawn::Chart(chart) => (chart.titles, chart.tables),
            Drawn::Diagram(texts) => (texts, Vec::new()),
        };
        let mut out = Inline::of(&lines.join("\n"));
        for table in tables.into_iter().filter(|table| !table.is_blank()) {
            out.line_break();
            out.append(table::flat(table));
        }
        out
    }
}

/// The texts of the points of a diagram, less those that only ask for words.
fn diagram(bytes: &[u8], limits: &Limits) -> Result<Vec<String>, Failure> {
    let mut texts: Vec<String> = Vec::new();
    let (mut path, mut words, mut asks) = (Vec::<String>::new(), String::new(), false);
    walk(bytes, limits, |token| {
        match token {
            Token::Start(tag) => {
                match tag.name() {
                    "pt" => (asks, words) = (false, String::new()),
                    "prSet" => asks |= matches!(tag.attr("phldr").as_deref(), Some("1" | "true" | "on")),
                    _ => {}
                }
                path.push(tag.name().to_owned());
            }
            Token::Text(text) if matches!(path.as_slice(), [.., run, t] if run == "r" && t == "t") => {
                words.push_str(text)
            }
            Token::Text(_) => {}
            Token::End => match path.pop().as_deref() {
                Some("p" | "br") => words.push(' '),
                Some("pt") => {
                    let text = words.split_whitespace().collect::<Vec<_>>().join(" ");
                    texts.extend(Some(text).filter(|text| !text.is_empty() && !asks));
                }
                _ => {}
            },
        }
        Ok(())
    })?;
    Ok(texts)
}
