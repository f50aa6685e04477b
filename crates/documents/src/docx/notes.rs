//! Foot- and endnotes: numbered by their references in the body, read from parts of their own.

use super::story::{Piece, Resources, Story};
use super::xml::{Token, walk};
use crate::blocks::DocumentBuilder;
use crate::inline::Inline;
use crate::limits::Limits;
use docmill_model::Failure;
use docmill_model::document::Format;

/// Which notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// At the foot of the page.
    Footnote,
    /// At the end of the document.
    Endnote,
}

impl Kind {
    /// Element name of one note.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Footnote => "footnote",
            Kind::Endnote => "endnote",
        }
    }

    /// How the kind of relation ends.
    pub fn relation(self) -> &'static str {
        match self {
            Kind::Footnote => "/footnotes",
            Kind::Endnote => "/endnotes",
        }
    }
}

/// Note ids in the order in which the body refers to them.
#[derive(Debug, Default)]
pub(super) struct Notes {
    referred: Vec<(Kind, String)>,
}

impl Notes {
    /// Counts a reference and returns its number from 1; foot- and endnotes share one sequence.
    pub fn refer(&mut self, kind: Kind, id: &str) -> usize {
        if let Some(number) = self.number(kind, id) {
            return number;
        }
        self.referred.push((kind, id.to_owned()));
        self.referred.len()
    }

    fn number(&self, kind: Kind, id: &str) -> Option<usize> {
        self.referred.iter().position(|(k, i)| *k == kind && i == id).map(|at| at + 1)
    }
}

/// Number and text of every note of the part that the body refers to, in order of number.
///
/// # Errors
/// Those of [`walk`].
pub(super) fn collect(
    bytes: &[u8],
    kind: Kind,
    resources: &mut Resources,
    limits: &Limits,
) -> Result<Vec<(usize, Inline)>, Failure> {
    let mut found: Vec<(usize, Inline)> = Vec::new();
    let mut unused = DocumentBuilder::new(Format::Docx);
    let mut story = Story::new(resources, &mut unused, kind.name(), None);
    story.collect();
    let (mut depth, mut open) = (0usize, None::<(usize, String)>);
    walk(bytes, limits, |token| {
        match &token {
            Token::Start(tag) => {
                depth += 1;
                if tag.name() == kind.name() && open.is_none() {
                    open = tag.attr("id").map(|id| (depth, id));
                    story.take_collected();
                }
                story.token(token)?;
            }
            Token::End => {
                story.token(token)?;
                if let Some((_, id)) = open.take_if(|(at, _)| *at == depth) {
                    let pieces = story.take_collected();
                    if let Some(number) = story.resources().notes.number(kind, &id) {
                        found.push((number, Piece::join(pieces, number)));
                    }
                }
                depth = depth.saturating_sub(1);
            }
            Token::Text(_) => story.token(token)?,
        }
        Ok(())
    })?;
    found.sort_by_key(|(number, _)| *number);
    Ok(found)
}
