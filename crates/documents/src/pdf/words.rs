//! Characters of the text layer to words with boxes, in the engine's order and with its line breaks.
//!
//! The characters are those that `FPDFText_GetText` gives: spaces and line ends that the layout implies are among
//! them, and a hyphen at a line end comes as a mark of its own.

use super::read::Placement;
use crate::paged::{BOLD, FIXED, GLUED, LINE, PageDraft, WordDraft};
use docmill_model::document::Rect;
use pdfium_render::prelude::{PdfFontWeight, PdfPageText, PdfPageTextChar};

/// What a text layer looks like as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layer {
    /// Words whose render mode is invisible.
    pub invisible: usize,
    chars: usize,
    broken: usize,
}

impl Layer {
    /// Share of characters that stand for nothing: replacement, private use, control.
    pub fn broken_share(&self) -> f32 {
        if self.chars == 0 { 0.0 } else { self.broken as f32 / self.chars as f32 }
    }
}

/// Marks that pdfium puts where a line ends with a hyphen.
const HYPHENS: [u32; 2] = [0x2, 0xfffe];

struct Open {
    start: u32,
    first: usize,
    last: usize,
    flags: u8,
}

/// Reads the words of a page into `draft`.
pub(super) fn read(text: &PdfPageText, placement: &Placement, draft: &mut PageDraft) -> Layer {
    let chars = text.chars();
    let mut layer = Layer::default();
    let mut open: Option<Open> = None;
    let (mut line, mut hyphen, mut high) = (true, false, None::<u32>);
    for (index, char) in chars.iter().enumerate() {
        let code = char.unicode_value();
        if HYPHENS.contains(&code) || code == 0xad {
            close(&chars_at(&chars), placement, draft, &mut open);
            hyphen = true;
            continue;
        }
        let c = match joined(code, &mut high) {
            Some(c) => c,
            None => continue,
        };
        if c.is_whitespace() || c.is_control() {
            close(&chars_at(&chars), placement, draft, &mut open);
            line |= matches!(c, '\n' | '\r' | '\u{c}');
            hyphen &= c != ' ';
            continue;
        }
        layer.chars += 1;
        layer.broken += usize::from(matches!(c, '\u{fffd}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{fffc}'));
        let flags = if std::mem::take(&mut hyphen) { hyphenated(draft, c) } else { 0 };
        let word = open.get_or_insert_with(|| {
            let begins = if line || flags != 0 { LINE } else { 0 };
            Open { start: draft.buffer.len() as u32, first: index, last: index, flags: begins | flags }
        });
        word.last = index;
        line = false;
        draft.buffer.push(c);
    }
    close(&chars_at(&chars), placement, draft, &mut open);
    layer.invisible = draft.words.iter().filter(|w| w.is(crate::paged::HIDDEN)).count();
    layer
}

fn chars_at<'a>(
    chars: &'a pdfium_render::prelude::PdfPageTextChars<'a>,
) -> impl Fn(usize) -> Option<PdfPageTextChar<'a>> + 'a {
    |index| chars.get(index as _).ok()
}

/// Joins surrogate pairs; lone halves and impossible values become the replacement character.
fn joined(code: u32, high: &mut Option<u32>) -> Option<char> {
    match (code, high.take()) {
        (0, _) => None,
        (0xd800..=0xdbff, _) => {
            *high = Some(code);
            None
        }
        (0xdc00..=0xdfff, Some(first)) => char::from_u32(0x10000 + ((first - 0xd800) << 10) + (code - 0xdc00)),
        (code, _) => Some(char::from_u32(code).unwrap_or('\u{fffd}')),
    }
}

/// A word that goes on after a hyphen at a line end: the hyphen goes when a small letter follows.
fn hyphenated(draft: &mut PageDraft, next: char) -> u8 {
    let Some(before) = draft.words.last_mut().filter(|w| w.end as usize == draft.buffer.len()) else { return LINE };
    if !next.is_lowercase() {
        draft.buffer.push('-');
        before.end += 1;
    }
    if next.is_alphanumeric() { GLUED | LINE } else { LINE }
}

fn close<'a>(
    at: &impl Fn(usize) -> Option<PdfPageTextChar<'a>>,
    placement: &Placement,
    draft: &mut PageDraft,
    open: &mut Option<Open>,
) {
    let Some(word) = open.take() else { return };
    let Some(first) = at(word.first) else { return };
    let rect = bounds(&first, placement);
    let last = if word.last > word.first { at(word.last).and_then(|last| bounds(&last, placement)) } else { None };
    let rect = match (rect, last) {
        (Some(a), Some(b)) => a.union(b),
        (Some(a), None) | (None, Some(a)) => a,
        (None, None) => Rect { x0: 0.0, y0: 0.0, x1: 0.0, y1: 0.0 },
    };
    let mut flags = word.flags | super::hidden::by_paint(&first);
    if matches!(
        first.font_weight(),
        Some(PdfFontWeight::Weight700Bold | PdfFontWeight::Weight800 | PdfFontWeight::Weight900)
    ) {
        flags |= BOLD;
    }
    if first.font_is_fixed_pitch() {
        flags |= FIXED;
    }
    let size = first.scaled_font_size().value.abs();
    // Type 3 and scaled text report nonsense; the box is then the better measure.
    let height = (rect.y1 - rect.y0).min(rect.x1 - rect.x0 + 1_000.0 * f32::from(u8::from(word.last > word.first)));
    let size = if size.is_finite() && size > 0.5 && size < 4.0 * height.max(1.0) { size } else { height * 0.8 };
    draft.words.push(WordDraft {
        start: word.start,
        end: draft.buffer.len() as u32,
        rect,
        size,
        confidence: 1.0,
        flags,
    });
}

fn bounds(char: &PdfPageTextChar, placement: &Placement) -> Option<Rect> {
    let bounds = char.loose_bounds().or_else(|_| char.tight_bounds()).ok()?;
    let rect = placement.rect(bounds.left().value, bounds.bottom().value, bounds.right().value, bounds.top().value);
    let sound = [rect.x0, rect.y0, rect.x1, rect.y1].iter().all(|v| v.is_finite());
    sound.then_some(rect)
}
