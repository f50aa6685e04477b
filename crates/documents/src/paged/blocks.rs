//! Lines to blocks: paragraphs, headings, list items, code, captions.
//!
//! Decided by distance, size of type and the beginnings of lines; the words themselves are not interpreted.

use super::footnotes;
use super::tables::{self, Grid};
use super::{Line, PageDraft};
use docmill_model::document::{BlockKind, Rect};

/// Lines of one block, by their indices.
#[derive(Clone, Debug)]
pub(super) struct BlockDraft {
    /// The role.
    pub role: BlockKind,
    /// First line.
    pub start: usize,
    /// One past the last line.
    pub end: usize,
    /// The cells, when the block is a table.
    pub grid: Option<Grid>,
}

/// Longest heading in characters.
const HEADING_CHARS: usize = 200;

/// The size of type of running text: the one most characters have.
pub(super) fn body_size(pages: &[(PageDraft, Vec<Line>)]) -> f32 {
    let mut weights: std::collections::BTreeMap<i32, usize> = std::collections::BTreeMap::new();
    for (page, lines) in pages {
        for line in lines.iter().filter(|l| !l.furniture) {
            let chars: usize = line.words.iter().map(|&w| page.text(&page.words[w as usize]).len()).sum();
            *weights.entry((line.size * 4.0).round() as i32).or_default() += chars;
        }
    }
    weights.into_iter().max_by_key(|&(_, weight)| weight).map_or(10.0, |(size, _)| size as f32 / 4.0)
}

/// Cuts the lines of a page into blocks. `body` is the size of running text, `sizes` those of headings, largest first.
pub(super) fn cut(page: &PageDraft, lines: &[Line], body: f32, sizes: &[f32]) -> Vec<BlockDraft> {
    let mut blocks: Vec<BlockDraft> = Vec::new();
    let spacing = usual_spacing(lines);
    let mut grids = tables::find(page, lines).into_iter().peekable();
    let mut start = 0;
    while start < lines.len() {
        if let Some(grid) = grids.next_if(|grid| grid.start == start) {
            let end = grid.end;
            blocks.push(BlockDraft { role: BlockKind::Table { table: 0 }, start, end, grid: Some(grid) });
            start = end;
            continue;
        }
        let most = grids.peek().map_or(lines.len(), |grid| grid.start);
        let mut end = start + 1;
        while end < most && continues(page, &lines[start..end], &lines[end], spacing) {
            end += 1;
        }
        let role = role(page, &lines[start..end], body, sizes);
        blocks.push(BlockDraft { role, start, end, grid: None });
        start = end;
    }
    footnotes::mark(page, lines, body, &mut blocks);
    blocks
}

/// The usual distance between the tops of consecutive lines, in units of their height.
fn usual_spacing(lines: &[Line]) -> f32 {
    let mut steps: Vec<f32> = (lines.windows(2))
        .filter(|pair| same_column(pair[0].rect, pair[1].rect) && pair[1].rect.y0 > pair[0].rect.y0)
        .map(|pair| (pair[1].rect.y0 - pair[0].rect.y0) / pair[0].height().max(1.0))
        .filter(|step| (0.5..2.5).contains(step))
        .collect();
    steps.sort_by(f32::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or(1.2)
}

fn same_column(a: Rect, b: Rect) -> bool {
    a.x1.min(b.x1) - a.x0.max(b.x0) > 0.0
}

/// True when `next` belongs to the block of `lines`.
fn continues(page: &PageDraft, lines: &[Line], next: &Line, spacing: f32) -> bool {
    let (first, last) = (&lines[0], &lines[lines.len() - 1]);
    if next.furniture != last.furniture || next.region {
        return false;
    }
    if next.paragraph {
        return false;
    }
    let step = next.rect.y0 - last.rect.y0;
    let height = last.height().max(next.height()).max(1.0);
    // Another place on the same line (a form's columns) or upwards: not the same paragraph.
    if step < 0.3 * height {
        return step.abs() < 0.5 * height
            && next.rect.x0 >= last.rect.x1 - 1.0
            && next.rect.x0 - last.rect.x1 < 1.5 * height;
    }
    if step > (spacing + 0.35) * height || !same_column(last.rect, next.rect) {
        return false;
    }
    let ratio = next.size / last.size.max(0.1);
    if !(0.88..1.14).contains(&ratio) || next.fixed != last.fixed {
        return false;
    }
    if is_list_start(&next.text(page)) {
        return false;
    }
    if next.bold != last.bold && (ends_sentence(page, last) || short(last, next) || first.bold) {
        return false;
    }
    // An indented line after a short one begins a paragraph.
    let indented = next.rect.x0 > first.rect.x0.min(last.rect.x0) + 0.8 * height;
    let item = is_list_start(&first.text(page));
    !(indented && !item && lines.len() > 1 && ends_sentence(page, last))
}

fn ends_sentence(page: &PageDraft, line: &Line) -> bool {
    line.words
        .last()
        .is_some_and(|&w| page.text(&page.words[w as usize]).ends_with(['.', '!', '?', ':', '。', '”', '"']))
}

fn short(line: &Line, next: &Line) -> bool {
    line.rect.x1 - line.rect.x0 < 0.7 * (next.rect.x1 - next.rect.x0)
}

fn role(page: &PageDraft, lines: &[Line], body: f32, sizes: &[f32]) -> BlockKind {
    let first = &lines[0];
    if first.furniture {
        return BlockKind::Furniture;
    }
    let text = first.text(page);
    let chars: usize = lines.iter().map(|l| l.text(page).chars().count()).sum();
    let lettered = text.chars().filter(|c| c.is_alphabetic()).count() >= 2;
    if lines.iter().all(|l| l.fixed) && lines.len() > 1 {
        return BlockKind::Code;
    }
    if lettered && chars <= HEADING_CHARS && lines.len() <= 4 {
        if first.size > body * 1.13 {
            let level = sizes.iter().position(|&size| first.size >= size * 0.97).unwrap_or(sizes.len());
            return BlockKind::Heading { level: (level as u8 + 1).min(6) };
        }
        if first.bold
            && first.size >= body * 0.97
            && lines.len() <= 2
            && chars <= 120
            && !text.ends_with(['.', ',', ';', ':'])
        {
            return BlockKind::Heading { level: (sizes.len() as u8 + 1).clamp(2, 6) };
        }
    }
    if is_list_start(&text) {
        return BlockKind::ListItem;
    }
    if is_caption(&text) {
        return BlockKind::Caption;
    }
    BlockKind::Paragraph
}

/// `Figure 3:`, `Table 1.`, in a few languages.
fn is_caption(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let (Some(label), Some(number)) = (words.next(), words.next()) else { return false };
    let known = [
        "figure",
        "fig.",
        "table",
        "tab.",
        "abbildung",
        "abb.",
        "tabelle",
        "figura",
        "tabla",
        "tableau",
        "рис.",
        "таблица",
    ];
    let digits = number.trim_end_matches([':', '.', ')']);
    known.contains(&label.to_lowercase().as_str())
        && !digits.is_empty()
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '-')
        && number.len() > digits.len()
}

/// The sign before a list item.
pub(super) fn is_bullet(word: &str) -> bool {
    let private_use = ["\u{f0b7}", "\u{f0a7}"];
    ["•", "◦", "▪", "■", "●", "○", "‣", "–", "-", "*", "·", "➢", "✓"].contains(&word) || private_use.contains(&word)
}

/// A bullet or a short label, then more.
pub(super) fn is_list_start(text: &str) -> bool {
    let mut words = text.split(' ');
    let (Some(label), Some(_)) = (words.next(), words.next()) else { return false };
    if is_bullet(label) {
        return true;
    }
    let inner = label.strip_prefix('(').unwrap_or(label);
    let Some(inner) = inner.strip_suffix([')', '.']) else { return false };
    let digits = (1..=3).contains(&inner.len()) && inner.bytes().all(|b| b.is_ascii_digit());
    let letter = inner.len() == 1 && inner.bytes().all(|b| b.is_ascii_alphabetic());
    let roman = (1..=5).contains(&inner.len()) && inner.bytes().all(|b| matches!(b, b'i' | b'v' | b'x'));
    digits || roman || (letter && (label.ends_with(')') || inner.bytes().all(|b| b.is_ascii_lowercase())))
}
