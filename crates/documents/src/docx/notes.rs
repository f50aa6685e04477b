//! Foot- and endnotes: numbered by their references in the body, read from parts of their own.

use super::story::{Piece, Resources, SKIPPED, Story};
use super::xml::{Token, walk_past};
use crate::blocks::DocumentBuilder;
use crate::inline::Inline;
use crate::limits::Limits;
use docmill_model::Failure;
use docmill_model::document::Format;
use std::collections::HashMap;

/// Which notes.
#[derive(Clone, Copy, Debug)]
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

/// A note that the body refers to.
#[derive(Debug)]
struct Referred {
    /// All its references are hidden, and with them the note.
    hidden: bool,
}

/// Note ids in the order in which the body refers to them.
#[derive(Debug, Default)]
pub(super) struct Notes {
    referred: Vec<Referred>,
    /// Where those of each kind are, by their ids.
    positions: [HashMap<String, usize>; 2],
}

impl Notes {
    /// Counts a reference, hidden from readers or not, and returns its number from 1; foot- and endnotes share one sequence.
    pub fn refer(&mut self, kind: Kind, id: &str, hidden: bool) -> usize {
        if let Some(at) = self.position(kind, id) {
            self.referred[at].hidden &= hidden;
            return at + 1;
        }
        self.positions[kind as usize].insert(id.to_owned(), self.referred.len());
        self.referred.push(Referred { hidden });
        self.referred.len()
    }

    fn position(&self, kind: Kind, id: &str) -> Option<usize> {
        self.positions[kind as usize].get(id).copied()
    }
}

/// Number and text of every note of the part that the body refers to, in order of number.
///
/// # Errors
/// Those of [`walk_past`].
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
    walk_past(&SKIPPED, bytes, limits, |token| {
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
                    let notes = &story.resources().notes;
                    if let Some(at) = notes.position(kind, &id) {
                        let mut words = Piece::join(pieces, at + 1);
                        if notes.referred[at].hidden {
                            words.hide(0);
                        }
                        found.push((at + 1, words));
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
