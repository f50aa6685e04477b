//! Walks the flattened tree once and cuts it into blocks.
//!
//! A block ends where an element begins or ends a line of its own, and where content turns into furniture. Links
//! and hidden parts that reach over several blocks are marked in each.

use super::dom::{Data, Dom};
use super::draft::{Content, Draft};
use super::root::{is_block, is_dropped};
use super::{style, table};
use crate::inline::Inline;
use docmill_model::document::BlockKind;

/// The blocks of the page in document order; `furniture` is per node.
pub(super) fn drafts(dom: &Dom, furniture: &[bool]) -> Vec<Draft> {
    let mut walker = Walker {
        dom,
        drafts: Vec::new(),
        inline: Inline::default(),
        linked: 0,
        holder: 0,
        furniture: false,
        open: Vec::new(),
        links: Vec::new(),
        hidden: None,
        preformatted: 0,
    };
    let mut at = 0;
    while at < dom.len() {
        walker.close_until(at);
        at = walker.visit(at, furniture[at]);
    }
    walker.close_until(usize::MAX);
    walker.flush();
    walker.drafts
}

struct Walker<'a> {
    dom: &'a Dom<'a>,
    drafts: Vec<Draft>,
    inline: Inline,
    /// Characters of the current block inside links.
    linked: usize,
    /// The innermost element with a line of its own.
    holder: usize,
    furniture: bool,
    /// Open elements with a line of their own, with their ends and the role they give.
    open: Vec<(usize, usize, BlockKind)>,
    /// Open links: end, mark, target.
    links: Vec<(usize, usize, &'a str)>,
    /// The outermost open hidden element: end and mark.
    hidden: Option<(usize, usize)>,
    /// End of the outermost `pre`.
    preformatted: usize,
}

impl<'a> Walker<'a> {
    /// Visits one node and returns the next index.
    fn visit(&mut self, at: usize, furniture: bool) -> usize {
        match self.dom.node(at).data {
            Data::Root => {}
            Data::Text(words) => self.words(at, words, furniture),
            Data::Element(element) => {
                let name = element.name();
                if is_dropped(name) {
                    return self.dom.end(at);
                }
                if name == "table" && table::is_data(self.dom, at) {
                    self.flush();
                    self.table(at, furniture);
                    return self.dom.end(at);
                }
                self.element(at, name);
            }
        }
        at + 1
    }

    fn words(&mut self, at: usize, words: &str, furniture: bool) {
        if furniture != self.furniture && !words.trim().is_empty() {
            self.flush();
            self.furniture = furniture;
        }
        let before = self.inline.mark();
        if at < self.preformatted {
            self.inline.push(words);
        } else {
            self.inline.push_collapsed(words);
        }
        if !self.links.is_empty() {
            self.linked += self.inline.as_str()[before..].chars().count();
        }
    }

    fn element(&mut self, at: usize, name: &str) {
        let end = self.dom.end(at);
        if is_block(name) {
            self.flush();
            let outer = self.open.last().map_or(BlockKind::Paragraph, |open| open.2);
            self.open.push((at, end, role_of(name, outer)));
            self.holder = at;
        }
        match name {
            "br" => self.inline.line_break(),
            "pre" | "listing" | "xmp" | "plaintext" => self.preformatted = self.preformatted.max(end),
            "a" => {
                if let Some(target) = self.dom.attr(at, "href") {
                    self.links.push((end, self.inline.mark(), target));
                }
            }
            _ => {}
        }
        if self.hidden.is_none() && visibility_hidden(self.dom, at) {
            self.hidden = Some((end, self.inline.mark()));
        }
    }

    fn table(&mut self, at: usize, furniture: bool) {
        let mut content = table::read(self.dom, at);
        let hidden = self.hidden.is_some() || visibility_hidden(self.dom, at);
        if hidden {
            for cell in &mut content.cells {
                cell.content.hide(0);
            }
        }
        for caption in self.dom.children(at).filter(|&c| self.dom.name(c) == "caption") {
            let mut inline = table::words(self.dom, caption);
            if hidden {
                inline.hide(0);
            }
            let content = Content::Words(inline);
            self.drafts.push(Draft { node: caption, role: BlockKind::Caption, furniture, linked: 0, content });
        }
        let role = BlockKind::Table { table: 0 };
        self.drafts.push(Draft { node: at, role, furniture, linked: 0, content: Content::Table(content) });
    }

    /// Closes everything that ends at or before `at`.
    fn close_until(&mut self, at: usize) {
        while let Some((_, start, target)) = self.links.pop_if(|open| open.0 <= at) {
            self.inline.link(start, target);
        }
        if let Some((_, start)) = self.hidden.filter(|open| open.0 <= at) {
            self.inline.hide(start);
            self.hidden = None;
        }
        while self.open.pop_if(|open| open.1 <= at).is_some() {
            // The role is still needed for what was read inside.
            self.flush_as_popped();
        }
    }

    fn flush_as_popped(&mut self) {
        self.flush();
        self.holder = self.open.last().map_or(0, |open| open.0);
    }

    fn flush(&mut self) {
        let mut inline = std::mem::take(&mut self.inline);
        let linked = std::mem::take(&mut self.linked);
        for (_, start, target) in &mut self.links {
            inline.link(*start, target);
            *start = 0;
        }
        if let Some((_, start)) = &mut self.hidden {
            inline.hide(*start);
            *start = 0;
        }
        if inline.is_blank() {
            return;
        }
        let outer = self.open.last().map_or(BlockKind::Paragraph, |open| open.2);
        let role = if self.holder == self.open.last().map_or(0, |o| o.0) {
            outer
        } else {
            role_of(self.dom.name(self.holder), outer)
        };
        let (node, furniture) = (self.holder, self.furniture);
        self.drafts.push(Draft { node, role, furniture, linked, content: Content::Words(inline) });
    }
}

/// The role an element gives its text, inside one that gives `outer`.
fn role_of(name: &str, outer: BlockKind) -> BlockKind {
    match name {
        "h1" => BlockKind::Heading { level: 1 },
        "h2" => BlockKind::Heading { level: 2 },
        "h3" => BlockKind::Heading { level: 3 },
        "h4" => BlockKind::Heading { level: 4 },
        "h5" => BlockKind::Heading { level: 5 },
        "h6" => BlockKind::Heading { level: 6 },
        "li" | "dt" | "dd" => BlockKind::ListItem,
        "pre" | "listing" | "xmp" | "plaintext" => BlockKind::Code,
        "figcaption" | "caption" | "legend" => BlockKind::Caption,
        "td" | "th" | "body" | "article" | "section" | "table" => BlockKind::Paragraph,
        _ => outer,
    }
}

/// True where the markup itself hides an element from readers. `aria-hidden` speaks to screen readers only: what it
/// marks is seen.
pub(super) fn visibility_hidden(dom: &Dom, at: usize) -> bool {
    let Some(element) = dom.element(at) else { return false };
    if matches!(element.name(), "html" | "body") {
        return false;
    }
    element.attr("style").is_some_and(style::hides) || element.attr("hidden").is_some()
}
