//! Repeated headers and footers, and page numbers: lines that say the same in the same place on several pages.

use super::{Line, PageDraft};
use std::collections::HashMap;

/// Share of the page's height at the top and at the bottom in which furniture stands.
const ZONE: f32 = 0.13;
/// Lines per zone that are looked at.
const LINES: usize = 4;
/// Longest line that is furniture, in characters.
const LENGTH: usize = 200;

/// A line near an edge of its page.
struct Candidate {
    /// Its index among the page's lines.
    line: usize,
    /// At the top, not at the bottom.
    top: bool,
    /// How far down it stands, in steps of six points.
    slot: i32,
    text: String,
    /// The text with digits made equal.
    key: String,
}

/// Marks furniture in `pages`, each given with its lines.
///
/// A page whose every line would be furniture keeps those that differ in their numbers from what the other pages say: on
/// slides and forms they are the content. A document of which nothing would be left keeps everything.
pub(super) fn mark(pages: &mut [(PageDraft, Vec<Line>)]) {
    let total = pages.iter().filter(|(_, lines)| !lines.is_empty()).count();
    let needed = match total {
        0 | 1 => u32::MAX,
        2..=5 => 2,
        _ => 3,
    };
    let candidates: Vec<Vec<Candidate>> = pages.iter().map(|(page, lines)| candidates(page, lines)).collect();
    let (mut keys, mut texts) = (HashMap::new(), HashMap::new());
    for candidate in candidates.iter().flatten() {
        let Candidate { top, slot, text, key, .. } = candidate;
        *keys.entry((*top, *slot, key.as_str())).or_insert(0) += 1;
        *texts.entry((*top, *slot, text.as_str())).or_insert(0) += 1;
    }
    let furniture: Vec<Vec<usize>> = (pages.iter().zip(&candidates))
        .map(|((_, lines), candidates)| {
            let repeated = |seen: &HashMap<(bool, i32, &str), u32>, c: &Candidate, words: &str| {
                // The same place within a tolerance: neighbouring slots count too.
                let times = (c.slot - 1..=c.slot + 1).filter_map(|slot| seen.get(&(c.top, slot, words)));
                times.sum::<u32>() >= needed
            };
            let marked = |seen, words: fn(&Candidate) -> &str| -> Vec<usize> {
                let found = candidates.iter().filter(|c| is_page_number(&c.key) || repeated(seen, c, words(c)));
                found.map(|c| c.line).collect()
            };
            let alike = marked(&keys, |c| &c.key);
            if alike.len() < lines.len() { alike } else { marked(&texts, |c| &c.text) }
        })
        .collect();
    if pages.iter().zip(&furniture).all(|((_, lines), furniture)| furniture.len() == lines.len()) {
        return;
    }
    for ((_, lines), furniture) in pages.iter_mut().zip(furniture) {
        furniture.into_iter().for_each(|line| lines[line].furniture = true);
    }
}

/// The lines near an edge.
fn candidates(page: &PageDraft, lines: &[Line]) -> Vec<Candidate> {
    let mut by_height: Vec<usize> = (0..lines.len()).collect();
    by_height.sort_by(|&a, &b| lines[a].rect.y0.total_cmp(&lines[b].rect.y0));
    let (above, below) = (page.height * ZONE, page.height * (1.0 - ZONE));
    let first = by_height.iter().take(LINES).filter(|&&at| lines[at].rect.y1 <= above).map(|&at| (at, true));
    let last = by_height.iter().rev().take(LINES).filter(|&&at| lines[at].rect.y0 >= below).map(|&at| (at, false));
    first
        .chain(last)
        .filter_map(|(line, top)| {
            let text = lines[line].text(page);
            let (slot, key) = ((lines[line].rect.y0 / 6.0) as i32, key(&text));
            (text.len() <= LENGTH).then_some(Candidate { line, top, slot, text, key })
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

    /// Which lines are furniture, page by page; each line with the height it stands at.
    fn furniture(pages: &[&[(&str, f32)]]) -> Vec<Vec<bool>> {
        let page = |words: &&[(&str, f32)]| {
            let mut page = PageDraft::empty(1, 600.0, 800.0, 0, PageOutcome::Text);
            for &(text, y) in *words {
                let start = page.buffer.len() as u32;
                page.buffer.push_str(text);
                let rect = Rect { x0: 300.0, y0: y, x1: 320.0, y1: y + 10.0 };
                let end = page.buffer.len() as u32;
                page.words.push(WordDraft { start, end, rect, size: 10.0, confidence: 1.0, flags: LINE });
            }
            let lines = lines(&page);
            (page, lines)
        };
        let mut pages: Vec<_> = pages.iter().map(page).collect();
        mark(&mut pages);
        pages.iter().map(|(_, lines)| lines.iter().map(|line| line.furniture).collect()).collect()
    }

    #[test]
    fn the_number_of_a_single_page_is_no_content() {
        assert_eq!(furniture(&[&[("Words", 50.0), ("42", 400.0), ("7", 780.0)]]), [[false, false, true]]);
        assert_eq!(furniture(&[&[("7", 780.0)]]), [[false]]);
    }

    #[test]
    fn a_page_is_not_all_furniture_when_its_numbers_are_what_it_says() {
        let body: &[(&str, f32)] = &[("Report 3", 20.0), ("Words", 400.0)];
        assert_eq!(furniture(&[body, body]), [[true, false], [true, false]]);
        let slides = furniture(&[&[("Invoice 1000 paid", 20.0)], &[("Invoice 1001 paid", 20.0)], body, body]);
        assert_eq!(slides, [vec![false], vec![false], vec![true, false], vec![true, false]]);
        let blank: &[(&str, f32)] = &[("Report 3", 20.0), ("2", 780.0)];
        assert_eq!(furniture(&[body, body, blank]), [[true, false], [true, false], [true, true]]);
        assert_eq!(furniture(&[&[("Draft", 20.0)], &[("Draft", 20.0)]]), [[false], [false]]);
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
