//! Finds the element that holds the page's own text.
//!
//! Measures per element how much prose lies below (text blocks of some length with few links), then trusts, in this
//! order, what the author calls the story, `article` and `main`, and the density of paragraphs.

use super::dom::{Data, Dom};
use super::labels;

/// Weight below which a text block is no prose.
const PROSE: u32 = 60;
/// Share of the page's prose that a story must hold to be believed.
const SHARE: f64 = 0.35;

/// Text measures per node.
#[derive(Debug)]
pub(super) struct Measures {
    /// Weight of all words below.
    pub text: Vec<u32>,
    /// Weight of words inside links.
    pub linked: Vec<u32>,
    /// Weight of prose below.
    pub prose: Vec<u32>,
}

/// Elements whose text is never shown as such.
pub(super) fn is_dropped(name: &str) -> bool {
    matches!(
        name,
        "script"
            | "style"
            | "template"
            | "noscript"
            | "iframe"
            | "svg"
            | "math"
            | "canvas"
            | "object"
            | "embed"
            | "audio"
            | "video"
            | "head"
            | "textarea"
            | "input"
            | "datalist"
            | "map"
            | "frameset"
            | "noframes"
    )
}

/// Elements that begin a line of their own.
pub(super) fn is_block(name: &str) -> bool {
    matches!(
        name,
        "address"
            | "article"
            | "aside"
            | "blockquote"
            | "body"
            | "caption"
            | "center"
            | "dd"
            | "details"
            | "dialog"
            | "dir"
            | "div"
            | "dl"
            | "dt"
            | "fieldset"
            | "figcaption"
            | "figure"
            | "footer"
            | "form"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "header"
            | "hgroup"
            | "hr"
            | "html"
            | "legend"
            | "li"
            | "main"
            | "menu"
            | "nav"
            | "ol"
            | "optgroup"
            | "option"
            | "p"
            | "pre"
            | "search"
            | "section"
            | "summary"
            | "table"
            | "tbody"
            | "td"
            | "tfoot"
            | "th"
            | "thead"
            | "tr"
            | "ul"
            | "xmp"
            | "listing"
            | "plaintext"
    )
}

/// Weight of words: characters without whitespace, ideographs twice.
fn weight(text: &str) -> u32 {
    text.chars().filter(|c| !c.is_whitespace()).map(|c| if c >= '\u{2e80}' { 2 } else { 1 }).sum()
}

impl Measures {
    /// Measures the whole page; subtrees for which `skip` holds count nothing.
    pub fn of(dom: &Dom, skip: &[bool]) -> Self {
        let count = dom.len();
        let (mut text, mut linked, mut prose) = (vec![0u32; count], vec![0u32; count], vec![0u32; count]);
        let (mut own, mut own_linked) = (vec![0u32; count], vec![0u32; count]);
        let mut at = 0;
        let (mut block, mut link_end) = (vec![(0usize, count)], 0usize);
        while at < count {
            while block.last().is_some_and(|&(_, end)| end <= at) && block.len() > 1 {
                block.pop();
            }
            match dom.node(at).data {
                Data::Text(words) => {
                    let holder = block.last().map_or(0, |b| b.0);
                    let words = weight(words);
                    text[at] = words;
                    own[holder] += words;
                    if at < link_end {
                        linked[at] = words;
                        own_linked[holder] += words;
                    }
                }
                Data::Element(element) => {
                    if skip[at] || is_dropped(element.name()) {
                        at = dom.end(at);
                        continue;
                    }
                    if is_block(element.name()) {
                        block.push((at, dom.end(at)));
                    }
                    if element.name() == "a" {
                        link_end = link_end.max(dom.end(at));
                    }
                }
                Data::Root => {}
            }
            at += 1;
        }
        for at in (0..count).rev() {
            if own[at] >= PROSE && own_linked[at] * 2 < own[at] {
                prose[at] += own[at] - own_linked[at];
            }
            if let Some(parent) = dom.parent(at) {
                text[parent] += text[at];
                linked[parent] += linked[at];
                prose[parent] += prose[at];
            }
        }
        Self { text, linked, prose }
    }
}

/// The element that holds the story, or `None` when no element stands out.
pub(super) fn find(dom: &Dom, measures: &Measures) -> Option<usize> {
    let total = f64::from(measures.prose[0]);
    if total < 1.0 {
        return None;
    }
    let enough = |at: usize| f64::from(measures.prose[at]) >= SHARE * total;
    let heaviest = |wanted: &dyn Fn(usize) -> bool| -> Option<usize> {
        let found: Vec<usize> = (0..dom.len()).filter(|&at| dom.element(at).is_some() && wanted(at)).collect();
        let best = found.iter().copied().max_by_key(|&at| (measures.prose[at], at))?;
        let whole = outermost(dom, &found, best);
        enough(whole).then_some(whole)
    };
    let story = heaviest(&|at| labels::is_story(dom, at));
    let article = || heaviest(&|at| dom.name(at) == "article");
    let main = || heaviest(&|at| dom.name(at) == "main" || dom.attr(at, "role") == Some("main"));
    let start = story.or_else(article).or_else(main);
    let dense = densest(dom, measures, start.unwrap_or(0));
    match (start, dense) {
        (Some(start), Some(dense))
            if story.is_none() && f64::from(measures.prose[dense]) >= 0.8 * f64::from(measures.prose[start]) =>
        {
            Some(dense)
        }
        (Some(start), _) => Some(start),
        (None, dense) => dense,
    }
}

/// The parent of several parts of one story, when the heaviest part alone misses much.
fn outermost(dom: &Dom, found: &[usize], best: usize) -> usize {
    let Some(parent) = dom.parent(best) else { return best };
    let parts = found.iter().filter(|&&at| at != best && dom.parent(at) == Some(parent)).count();
    if parts > 0 && dom.name(best) != "article" { parent } else { best }
}

/// The element below `start` with the most paragraph points of its children and grandchildren.
fn densest(dom: &Dom, measures: &Measures, start: usize) -> Option<usize> {
    let mut points = vec![0f64; dom.len()];
    for at in start..dom.end(start) {
        let leaf =
            dom.element(at).is_some() && measures.prose[at] > 0 && !dom.children(at).any(|c| measures.prose[c] > 0);
        if !leaf {
            continue;
        }
        let value = 1.0 + f64::from(measures.prose[at].min(600)) / 100.0;
        let holder = if is_paragraph(dom.name(at)) { dom.parent(at) } else { Some(at) };
        for (level, up) in holder.into_iter().flat_map(|h| dom.lineage(h)).take(5).enumerate() {
            points[up] += value / [1.0, 2.0, 6.0, 9.0, 12.0][level];
        }
    }
    let clean = |at: usize| 1.0 - f64::from(measures.linked[at]) / f64::from(measures.text[at].max(1));
    let best = (start..dom.end(start))
        .filter(|&at| points[at] > 0.0)
        .max_by(|&a, &b| (points[a] * clean(a)).total_cmp(&(points[b] * clean(b))))?;
    Some(climb(dom, measures, start, best))
}

fn is_paragraph(name: &str) -> bool {
    matches!(name, "p" | "li" | "blockquote" | "pre" | "td" | "dd" | "dt" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6")
}

/// Goes up while a parent holds much more prose than the chosen element.
fn climb(dom: &Dom, measures: &Measures, start: usize, from: usize) -> usize {
    let mut chosen = from;
    for up in dom.lineage(from).skip(1) {
        if up < start || dom.name(up) == "body" || up == 0 {
            break;
        }
        if f64::from(measures.prose[up]) > 1.25 * f64::from(measures.prose[chosen]) {
            chosen = up;
        }
    }
    chosen
}
