//! What drawings refer to and readers read in them: charts, and the words of diagrams (SmartArt). Pictures are not read.

use super::chart::{self, Chart};
use super::package::{Package, Relations};
use super::table;
use super::xml::{Token, walk};
use super::{NAME_CHARS, malformed};
use crate::inline::Inline;
use crate::limits::Limits;
use docmill_model::Failure;
use std::collections::HashMap;

/// Something drawn that holds words.
#[derive(Debug)]
pub(super) enum Drawn {
    /// A chart.
    Chart(Chart),
    /// The texts of a diagram, in the order in which they were written.
    Diagram(Vec<String>),
}

/// What was drawn so far. A part is read when it is first drawn and placed once, however often it is referred to, so that a
/// short file cannot become a long text; twice, when it was hidden the first time.
#[derive(Debug, Default)]
pub(super) struct Drawings {
    /// Part names in lower case, and whether readers see them.
    placed: HashMap<String, bool>,
}

impl Drawings {
    /// What a drawing refers to by a relation id, or None when it stands in the text already.
    ///
    /// # Errors
    /// `DOCX_MALFORMED` when the relation leads to nothing that is read here; those of [`Package::required`] and
    /// [`walk`], with the name of the part. Each part fails once.
    pub fn draw(
        &mut self,
        package: &mut Package,
        relations: &Relations,
        id: &str,
        hidden: bool,
    ) -> Result<Option<Drawn>, Failure> {
        let Some((kind, part)) = relations.part(id) else {
            return Err(malformed("a drawing refers to a part that the document does not have"));
        };
        let key = part.to_ascii_lowercase();
        if self.placed.get(&key).is_some_and(|seen| *seen || hidden) {
            return Ok(None);
        }
        let drawn = match READERS.iter().find(|(ending, _)| kind.ends_with(ending)) {
            Some((_, read)) => package.required(part).and_then(|bytes| read(&bytes, package.limits())),
            None => Err(malformed("a drawing refers to a part of a kind that is not read")),
        };
        self.placed.insert(key, !hidden || drawn.is_err());
        drawn.map(Some).map_err(|failure| named(failure, part))
    }
}

type Reader = fn(&[u8], &Limits) -> Result<Drawn, Failure>;

/// How kinds of relations end, and what reads the parts behind them.
const READERS: [(&str, Reader); 3] = [
    ("/chart", |bytes, limits| chart::read(bytes, limits).map(Drawn::Chart)),
    ("/chartEx", |bytes, limits| chart::read_extended(bytes, limits).map(Drawn::Chart)),
    ("/diagramData", |bytes, limits| diagram(bytes, limits).map(Drawn::Diagram)),
];

/// A failure that says which part failed. Names are those of the file: cut, and without anything but signs of ASCII.
fn named(failure: Failure, part: &str) -> Failure {
    let name: String = part.chars().take(NAME_CHARS).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    Failure { message: format!("{} (part {name})", failure.message), ..failure }
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
