//! HTML: the words in reading order with their roles, and which of them are the page's own content.
//!
//! Scripts, styles and templates are dropped; menus, banners, teasers and comments stay in the text as furniture;
//! what a reader would not see is flagged. Nothing is fetched and no recursion follows the nesting of the input.

mod charset;
mod depth;
mod dom;
mod draft;
mod furniture;
mod labels;
mod metadata;
mod root;
mod style;
mod table;
mod tags;
mod walk;

use crate::ParseOptions;
use crate::blocks::DocumentBuilder;
use crate::encoding;
use crate::inline::Inline;
use crate::text::record_charset;
use docmill_model::Failure;
use docmill_model::document::{BlockKind, Format, ParsedDocument};
use dom::Dom;
use draft::Content;
use scraper::Html;

/// Reads an HTML document.
///
/// # Errors
/// `ENCODING_UNKNOWN`, `DEPTH_LIMIT`, `EMPTY_TEXT`.
pub(crate) fn parse(bytes: &[u8], options: &ParseOptions) -> Result<ParsedDocument, Failure> {
    let decoded = encoding::decode(bytes, charset::declared(bytes).as_deref())?;
    depth::check(&decoded.text, options.limits.depth)?;
    let html = Html::parse_document(&decoded.text);
    let dom = Dom::build(&html, options.limits.depth)?;
    let mut builder = DocumentBuilder::new(Format::Html);
    metadata::read(&dom, &mut builder);
    record_charset(&mut builder, decoded.charset, decoded.replacements);
    let marks = furniture::mark(&dom);
    let mut drafts = walk::drafts(&dom, &marks);
    furniture::refine(&mut drafts);
    for draft in drafts {
        let path = dom.path(draft.node);
        match draft.content {
            Content::Words(inline) => {
                let role = if draft.furniture { BlockKind::Furniture } else { draft.role };
                builder.block(role, path, &inline);
            }
            Content::Table(table) => {
                builder.table(table, path, draft.furniture);
            }
        }
    }
    builder.finish()
}

/// The visible words of a piece of HTML, as [`fragment`] reads it.
pub(crate) fn fragment_text(markup: &str) -> String {
    fragment(markup).seen()
}

/// The words of a piece of HTML, blocks on lines of their own, hidden ones flagged; what nests too deeply is left out.
pub(crate) fn fragment(markup: &str) -> Inline {
    /// Deep enough for markup written by hand.
    const DEPTH: u64 = 64;
    if depth::check(markup, DEPTH).is_err() {
        return Inline::default();
    }
    let html = Html::parse_fragment(markup);
    let Ok(dom) = Dom::build(&html, DEPTH) else { return Inline::default() };
    let marks = vec![false; dom.len()];
    let mut words = Inline::default();
    for draft in walk::drafts(&dom, &marks) {
        words.line_break();
        match draft.content {
            Content::Words(inline) => words.append(inline),
            Content::Table(table) => {
                for (number, cell) in table.cells.into_iter().enumerate() {
                    words.push(if number > 0 { " | " } else { "" });
                    words.append(cell.content);
                }
            }
        }
    }
    words
}

/// The elements that a piece of markup opens and closes, in order: name, and whether it closes it, or opens it for readers
/// or out of their sight.
pub(crate) fn elements(markup: &str) -> impl Iterator<Item = (String, Edge)> {
    tags::tags(markup).map(|tag| {
        let edge = match tag.closing {
            true => Edge::End,
            false if hides(tag.inner) => Edge::Hidden,
            false => Edge::Seen,
        };
        (tag.name, edge)
    })
}

/// One end of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// It begins and is seen.
    Seen,
    /// It begins and is hidden from readers.
    Hidden,
    /// It ends.
    End,
}

/// True for a start tag of an element that readers do not see.
fn hides(inner: &str) -> bool {
    // Most tags have no attributes, or none that hides.
    if !["hidden", "style"].iter().any(|word| inner.to_ascii_lowercase().contains(word)) {
        return false;
    }
    let html = Html::parse_fragment(&format!("<{inner}>"));
    Dom::build(&html, 8).is_ok_and(|dom| (0..dom.len()).any(|at| walk::visibility_hidden(&dom, at)))
}

#[cfg(test)]
mod tests;
