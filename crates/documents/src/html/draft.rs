//! A block before it is decided whether it is content.

use crate::blocks::TableDraft;
use crate::inline::Inline;
use docmill_model::document::BlockKind;

/// What a draft holds.
#[derive(Debug)]
pub(super) enum Content {
    /// Running words.
    Words(Inline),
    /// A data table.
    Table(TableDraft),
}

/// A block in reading order.
#[derive(Debug)]
pub(super) struct Draft {
    /// The element that holds it.
    pub node: usize,
    /// Its role, were it content.
    pub role: BlockKind,
    /// True for menus, banners, teasers, comments.
    pub furniture: bool,
    /// Characters inside links.
    pub linked: usize,
    /// The words.
    pub content: Content,
}

impl Draft {
    /// Characters of a block of words; tables count as long.
    pub fn length(&self) -> usize {
        match &self.content {
            Content::Words(inline) => inline.as_str().trim().chars().count(),
            Content::Table(table) => table.cells.iter().map(|c| c.content.as_str().chars().count()).sum(),
        }
    }
}
