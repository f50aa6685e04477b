//! Raw HTML that hides Markdown: an element may begin in one piece of HTML and end in another, with Markdown between.

use crate::html::{self, Edge};
use crate::inline::Inline;

/// The outermost open element that hides what stands in it.
struct Element {
    name: String,
    /// Elements of its name that are open in it, itself included.
    depth: usize,
    /// It began among words, so that it ends with their block at the latest.
    among_words: bool,
    /// Where in the open block it begins.
    from: usize,
}

/// Whether readers see the place that is being read.
#[derive(Default)]
pub(super) struct Unseen(Option<Element>);

impl Unseen {
    /// Takes the tags of a piece of raw HTML that stands at the end of `block`.
    pub fn read(&mut self, markup: &str, among_words: bool, block: &mut Inline) {
        for (name, edge) in html::elements(markup) {
            match (&mut self.0, edge) {
                (None, Edge::Hidden) => self.0 = Some(Element { name, depth: 1, among_words, from: block.mark() }),
                (Some(open), Edge::End) if open.name == name => {
                    open.depth -= 1;
                    if open.depth == 0 {
                        block.hide(open.from);
                        self.0 = None;
                    }
                }
                (Some(open), Edge::Seen | Edge::Hidden) if open.name == name => open.depth += 1,
                _ => {}
            }
        }
    }

    /// The block ends: the rest of it is hidden, and so is the next one if the element reaches over blocks.
    pub fn end_block(&mut self, block: &mut Inline) {
        if let Some(mut open) = self.0.take() {
            block.hide(open.from);
            open.from = 0;
            self.0 = Some(open).filter(|open| !open.among_words);
        }
    }
}
