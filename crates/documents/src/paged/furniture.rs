//! Repeated headers and footers, and page numbers: lines that say the same in the same place on several pages.

use super::{Line, PageDraft};
use std::collections::HashMap;

/// Share of the page's height at the top and at the bottom in which furniture stands.
const ZONE: f32 = 0.13;
/// Lines per zone that are looked at.
const LINES: usize = 4;
/// Longest line that is furniture, in characters.
const LENGTH: usize = 200;

/// Marks furniture in `pages`, each given with its lines.
pub(super) fn mark(pages: &mut [(PageDraft, Vec<Line>)]) {
    let total = pages.iter().filter(|(_, lines)| !lines.is_empty()).count();
    if total < 2 {
        pages.iter_mut().for_each(|(page, lines)| mark_page_number(page, lines));
        return;
    }
    let mut seen: HashMap<(bool, i32, String), u32> = HashMap::new();
    let candidates: Vec<Vec<(usize, bool, i32, String)>> =
        pages.iter().map(|(page, lines)| candidates(page, lines)).collect();
    for (_, top, slot, key) in candidates.iter().flatten() {
        *seen.entry((*top, *slot, key.clone())).or_default() += 1;
    }
    let needed = if total <= 5 { 2 } else { 3 };
    for ((_, lines), candidates) in pages.iter_mut().zip(candidates) {
        for (line, top, slot, key) in candidates {
            // The same place within a tolerance: neighbouring slots count too.
            let times: u32 =
                (slot - 1..=slot + 1).map(|s| seen.get(&(top, s, key.clone())).copied().unwrap_or(0)).sum();
            lines[line].furniture = times >= needed || is_page_number(&key);
        }
    }
}

/// Marks the page numbers of a page that has no others to be compared with, unless it holds nothing else.
fn mark_page_number(page: &PageDraft, lines: &mut [Line]) {
    let numbers: Vec<usize> =
        candidates(page, lines).into_iter().filter(|(.., key)| is_page_number(key)).map(|(line, ..)| line).collect();
    if numbers.len() < lines.len() {
        numbers.into_iter().for_each(|line| lines[line].furniture = true);
    }
}

/// Lines near an edge: index, whether at the top, vertical slot, and their text with digits made equal.
fn candidates(page: &PageDraft, lines: &[Line]) -> Vec<(usize, bool, i32, String)> {
    let mut by_height: Vec<usize> = (0..lines.len()).collect();
    by_height.sort_by(|&a, &b| lines[a].rect.y0.total_cmp(&lines[b].rect.y0));
    let (top, bottom) = (page.height * ZONE, page.height * (1.0 - ZONE));
    let above = by_height.iter().take(LINES).filter(|&&at| lines[at].rect.y1 <= top).map(|&at| (at, true));
    let below = by_height.iter().rev().take(LINES).filter(|&&at| lines[at].rect.y0 >= bottom).map(|&at| (at, false));
    above
        .chain(below)
        .filter_map(|(at, is_top)| {
            let text = lines[at].text(page);
            (text.len() <= LENGTH).then(|| (at, is_top, (lines[at].rect.y0 / 6.0) as i32, key(&text)))
        })
        .collect()
}

/// Text with runs of digits as `#`, lower case.
fn key(text: &str) -> String {
    let mut key = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_numeric() {
            key.extend(c.to_lowercase());
        } else if !key.ends_with('#') {
            key.push('#');
        }
    }
    key
}

/// `12`, `- 12 -`, `page 3 of 9`, `iv`.
fn is_page_number(key: &str) -> bool {
    let bare = key
        .trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '–' | '—' | '|' | '[' | ']' | '(' | ')' | '.'));
    let roman = (1..=6).contains(&bare.len()) && bare.chars().all(|c| matches!(c, 'i' | 'v' | 'x' | 'l'));
    let words = ["page", "seite", "página", "pagina", "p.", "pag.", "стр.", "of", "von", "/", "de", "di", "sur"];
    let counted = bare.contains('#') && bare.split_whitespace().all(|w| w == "#" || w == "#/#" || words.contains(&w));
    roman || counted
}

#[cfg(test)]
mod tests {
    use super::{is_page_number, key, mark};
    use crate::paged::{LINE, PageDraft, WordDraft, lines};
    use docmill_model::document::{PageOutcome, Rect};

    #[test]
    fn the_number_of_a_single_page_is_no_content() {
        let page = |words: &[(&str, f32)]| {
            let mut page = PageDraft::empty(1, 600.0, 800.0, 0, PageOutcome::Text);
            for &(text, y) in words {
                let start = page.buffer.len() as u32;
                page.buffer.push_str(text);
                let rect = Rect { x0: 300.0, y0: y, x1: 320.0, y1: y + 10.0 };
                let end = page.buffer.len() as u32;
                page.words.push(WordDraft { start, end, rect, size: 10.0, confidence: 1.0, flags: LINE });
            }
            page
        };
        for (words, furniture) in [
            (vec![("Words", 50.0), ("42", 400.0), ("7", 780.0)], vec![false, false, true]),
            (vec![("7", 780.0)], vec![false]),
        ] {
            let page = page(&words);
            let mut pages = [(page.clone(), lines(&page))];
            mark(&mut pages);
            assert_eq!(pages[0].1.iter().map(|l| l.furniture).collect::<Vec<_>>(), furniture);
        }
    }

    #[test]
    fn page_numbers_are_recognised() {
        for text in ["12", "- 7 -", "Page 3 of 10", "xii", "Seite 4 von 9", "3/10"] {
            assert!(is_page_number(&key(text)), "{text}");
        }
        for text in ["1. Introduction", "Figure 3", "2020 was", "mild"] {
            assert!(!is_page_number(&key(text)), "{text}");
        }
    }
}
