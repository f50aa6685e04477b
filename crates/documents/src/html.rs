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
mod walk;

use crate::ParseOptions;
use crate::blocks::DocumentBuilder;
use crate::encoding;
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

/// The visible words of a piece of HTML, blocks on lines of their own; what nests too deeply is left out.
pub(crate) fn fragment_text(fragment: &str) -> String {
    /// Deep enough for markup written by hand.
    const DEPTH: u64 = 64;
    if depth::check(fragment, DEPTH).is_err() {
        return String::new();
    }
    let html = Html::parse_fragment(fragment);
    let Ok(dom) = Dom::build(&html, DEPTH) else { return String::new() };
    let marks = vec![false; dom.len()];
    let blocks = walk::drafts(&dom, &marks).into_iter().map(|draft| match draft.content {
        Content::Words(inline) => inline.canonical().text,
        Content::Table(table) => table.cells.iter().map(|c| c.content.canonical().text).collect::<Vec<_>>().join(" | "),
    });
    blocks.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
