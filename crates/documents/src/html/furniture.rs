//! Tells a page's own text from what surrounds it.
//!
//! [`mark`] decides by elements before blocks exist: labels that the covered text does not contradict, and
//! everything outside the story. [`refine`] then looks at blocks in their order: link lists, lone teasers.

use super::dom::Dom;
use super::draft::{Content, Draft};
use super::labels::{Label, label};
use super::root::{Measures, find};
use docmill_model::document::BlockKind;

/// Share of the page's prose above which a furniture label is not believed.
const BELIEVED: f64 = 0.4;
/// The same for comments, which may outweigh the article.
const COMMENTS_BELIEVED: f64 = 0.9;
/// Weight of prose below which a page is too short to have parts.
const SHORT_PAGE: u32 = 400;

/// For every node, whether it is furniture.
pub(super) fn mark(dom: &Dom) -> Vec<bool> {
    let none = vec![false; dom.len()];
    let all = Measures::of(dom, &none);
    let labelled = believed_labels(dom, &all);
    let measures = Measures::of(dom, &labelled);
    let root = if measures.prose[0] >= SHORT_PAGE { find(dom, &measures) } else { None };
    let mut marks = spread(dom, &labelled);
    if let Some(root) = root {
        let (start, end) = (root, dom.end(root));
        let kept = heading_before(dom, &marks, start);
        for (at, mark) in marks.iter_mut().enumerate() {
            let outside = (at < start || at >= end) && !kept.is_some_and(|h| (h..dom.end(h)).contains(&at));
            *mark = *mark || outside;
        }
    }
    marks
}

/// Elements whose label stands against the text that they cover.
fn believed_labels(dom: &Dom, all: &Measures) -> Vec<bool> {
    let total = f64::from(all.prose[0].max(1));
    let mut labelled = vec![false; dom.len()];
    for (at, labelled) in labelled.iter_mut().enumerate() {
        if dom.element(at).is_none() {
            continue;
        }
        let share = f64::from(all.prose[at]) / total;
        *labelled = match label(dom, at) {
            Label::Furniture => share < BELIEVED,
            Label::Comments => share < COMMENTS_BELIEVED,
            Label::None => is_page_header(dom, at) && share < BELIEVED,
        };
    }
    labelled
}

/// A `header` of the page rather than of an article: no first-level heading in it.
fn is_page_header(dom: &Dom, at: usize) -> bool {
    dom.name(at) == "header" && !(at..dom.end(at)).any(|below| matches!(dom.name(below), "h1" | "h2"))
}

/// The headline before the story: the last first-level heading that is not inside a menu.
fn heading_before(dom: &Dom, marks: &[bool], start: usize) -> Option<usize> {
    (0..start).rev().find(|&at| dom.name(at) == "h1" && !marks[at])
}

fn spread(dom: &Dom, roots: &[bool]) -> Vec<bool> {
    let mut marks = vec![false; dom.len()];
    let mut until = 0;
    for at in 0..dom.len() {
        if roots[at] {
            until = until.max(dom.end(at));
        }
        marks[at] = at < until;
    }
    marks
}

/// Turns blocks that are mostly links, and headings left without text, into furniture.
pub(super) fn refine(drafts: &mut [Draft]) {
    let content: usize = drafts.iter().filter(|d| !d.furniture).map(Draft::length).sum();
    if content < SHORT_PAGE as usize {
        return;
    }
    for draft in drafts.iter_mut().filter(|d| !d.furniture) {
        let length = draft.length();
        let links = draft.linked * 10 >= length * 8 && length < 200;
        let heading = matches!(draft.role, BlockKind::Heading { .. });
        draft.furniture = links && !heading && matches!(draft.content, Content::Words(_));
    }
    let mut text_follows = false;
    for draft in drafts.iter_mut().rev() {
        if draft.furniture {
            continue;
        }
        match draft.role {
            BlockKind::Heading { level } if level > 1 => draft.furniture = !text_follows,
            _ => text_follows = true,
        }
    }
}
