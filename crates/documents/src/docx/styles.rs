//! What paragraph styles mean: headings, captions, code, tables of contents, list numbering.
//!
//! Word writes built-in style names in English whatever its language; other programs localise them, so that the
//! words for heading in the larger languages are known here.

use super::NAME_CHARS;
use super::story::is_paper;
use super::xml::{Tag, Token, walk};
use crate::limits::Limits;
use docmill_model::Failure;
use docmill_model::document::BlockKind;
use std::collections::HashMap;

/// Words that, followed by a number, name a heading style.
const HEADINGS: [&str; 21] = [
    "heading",
    "überschrift",
    "titre",
    "título",
    "titulo",
    "titolo",
    "kop",
    "rubrik",
    "overskrift",
    "otsikko",
    "nagłówek",
    "nadpis",
    "заголовок",
    "başlık",
    "标题",
    "標題",
    "見出し",
    "제목",
    "عنوان",
    "כותרת",
    "címsor",
];
/// Longest id of a style.
const ID_BYTES: usize = 1_000;
/// How far `basedOn` is followed.
const ANCESTRY: usize = 20;

#[derive(Clone, Debug, Default)]
struct Style {
    name: String,
    based_on: Option<String>,
    outline: Option<u32>,
    numbering: Option<(u32, u32)>,
    hidden: bool,
    shaded: bool,
}

/// All styles by id.
#[derive(Debug, Default)]
pub(super) struct Styles {
    styles: HashMap<String, Style>,
    default: Option<String>,
}

impl Styles {
    /// Reads the part of styles.
    ///
    /// # Errors
    /// Those of [`walk`].
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Failure> {
        let mut all = Self::default();
        let mut path: Vec<String> = Vec::new();
        let (mut id, mut style) = (String::new(), Style::default());
        let mut level = 0;
        walk(bytes, limits, |token| {
            match token {
                Token::Start(tag) => {
                    match tag.name() {
                        "style" => {
                            id = id_of(tag, "styleId").unwrap_or_default();
                            style = Style::default();
                            level = 0;
                            let paragraph = tag.attr("type").is_none_or(|kind| kind == "paragraph");
                            if paragraph && matches!(tag.attr("default").as_deref(), Some("1" | "true")) {
                                all.default = Some(id.clone());
                            }
                        }
                        "name" if path.last().is_some_and(|p| p == "style") => {
                            let name = tag.attr("val").unwrap_or_default();
                            style.name = name.chars().take(NAME_CHARS).collect::<String>().to_lowercase()
                        }
                        "basedOn" => style.based_on = id_of(tag, "val"),
                        "outlineLvl" => style.outline = tag.number(),
                        "ilvl" => level = tag.number().unwrap_or(0),
                        "numId" => style.numbering = tag.number().map(|number| (number, 0)),
                        "shd" => style.shaded |= !is_paper(tag),
                        "highlight" => style.shaded |= tag.attr("val").is_some_and(|colour| colour != "none"),
                        "vanish" if path.get(path.len().saturating_sub(2)).is_some_and(|p| p == "style") => {
                            style.hidden = tag.is_on()
                        }
                        _ => {}
                    }
                    path.push(tag.name().to_owned());
                }
                Token::End => {
                    if path.pop().as_deref() == Some("style") {
                        let mut done = std::mem::take(&mut style);
                        done.numbering = done.numbering.map(|(number, _)| (number, level));
                        all.styles.insert(std::mem::take(&mut id), done);
                    }
                }
                Token::Text(_) => {}
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// The role a style gives its paragraphs, if any.
    pub fn role(&self, id: Option<&str>) -> Option<BlockKind> {
        let mut lineage = self.lineage(id);
        lineage.find_map(|style| by_name(&style.name).or_else(|| style.outline.and_then(heading)))
    }

    /// The numbering `(numId, level)` a style gives its paragraphs.
    pub fn numbering(&self, id: Option<&str>) -> Option<(u32, u32)> {
        self.lineage(id).find_map(|style| style.numbering)
    }

    /// True when the style hides its text.
    pub fn is_hidden(&self, id: &str) -> bool {
        self.lineage(Some(id)).any(|style| style.hidden)
    }

    /// True when the style gives its text a ground of its own.
    pub fn is_shaded(&self, id: &str) -> bool {
        self.lineage(Some(id)).any(|style| style.shaded)
    }

    fn lineage<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = &'a Style> + 'a {
        let first = id.or(self.default.as_deref()).and_then(|id| self.styles.get(id));
        std::iter::successors(first, |style| self.styles.get(style.based_on.as_deref()?)).take(ANCESTRY)
    }
}

/// The id of a style in an attribute. It is looked up for each paragraph; those too long for Word are none.
fn id_of(tag: &Tag, name: &str) -> Option<String> {
    tag.attr(name).filter(|id| id.len() <= ID_BYTES)
}

/// Outline level 0–8 as a heading; 9 is body text.
pub(super) fn heading(outline: u32) -> Option<BlockKind> {
    (outline < 9).then(|| BlockKind::Heading { level: (outline as u8 + 1).min(6) })
}

fn by_name(name: &str) -> Option<BlockKind> {
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim();
    let number: Option<u32> = name[word.len()..].trim().parse().ok();
    match (word, number) {
        ("title", None) => Some(BlockKind::Heading { level: 1 }),
        ("subtitle", None) => Some(BlockKind::Heading { level: 2 }),
        ("caption", None) => Some(BlockKind::Caption),
        ("toc", Some(_)) => Some(BlockKind::Furniture),
        ("html preformatted" | "source code" | "code" | "plain code" | "macro text", None) => Some(BlockKind::Code),
        (word, Some(number @ 1..=9)) if HEADINGS.contains(&word) => heading(number - 1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::by_name;
    use docmill_model::document::BlockKind;

    #[test]
    fn heading_names_of_several_languages() {
        for (name, level) in [("heading 1", 1), ("überschrift 2", 2), ("标题 3", 3), ("titre4", 4), ("heading 9", 6)]
        {
            assert_eq!(by_name(name), Some(BlockKind::Heading { level }), "{name}");
        }
        assert_eq!(by_name("body text 2"), None);
        assert_eq!(by_name("toc 2"), Some(BlockKind::Furniture));
    }
}
