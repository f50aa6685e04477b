//! Which words a reader would not see: invisible ink, no extent, outside the page, or paint that leaves no trace.
//!
//! Doubtful words are judged by drawing the page: pale ones, those in the colour of what they stand on, all of a
//! document with layers that are off, and those that something was drawn over. White on a dark ground is visible,
//! white on white is not.

use super::ground::{Suspects, extremes, holds_middle, without_text};
use super::read::{Placement, SCAN, gray, image_share};
use crate::paged::{EXTRA, HIDDEN, PageDraft, WordDraft};
use docmill_model::document::Rect;
use image::GrayImage;
use pdfium_render::prelude::{PdfPage, PdfPageTextChar, PdfPageTextRenderMode};

/// Height in points below which text cannot be read.
const TINY: f32 = 2.0;
/// A paint so pale that only the ground decides whether it is seen.
const PALE: u8 = 236;
/// Difference of shades from which on ink has left a trace.
const TRACE: u8 = 12;
/// Set, together with `HIDDEN`, on words to be judged by drawing; never leaves this module's callers.
const JUDGED: u8 = 128;

/// Flags by render mode and colour.
pub(super) fn by_paint(char: &PdfPageTextChar) -> u8 {
    if matches!(char.render_mode(), Ok(PdfPageTextRenderMode::Invisible | PdfPageTextRenderMode::InvisibleClipping)) {
        return HIDDEN;
    }
    match char.fill_color() {
        Ok(color) if color.alpha() == 0 => HIDDEN,
        Ok(color) if color.red().min(color.green()).min(color.blue()) >= PALE => JUDGED,
        _ => 0,
    }
}

/// What is known of a page before its words are judged.
pub(super) struct Known {
    /// Invisible words are a recognised text layer.
    pub ocr_layer: bool,
    /// Some layers of the document are off, so that every word is doubtful.
    pub layers_off: bool,
}

/// Finishes the flags of a page.
pub(super) fn mark(page: &PdfPage, placement: &Placement, draft: &mut PageDraft, known: &Known) {
    let (width, height) = (draft.width, draft.height);
    let suspects = if known.ocr_layer { Suspects::default() } else { Suspects::of(page, placement) };
    let within = |areas: &[Rect], word: &WordDraft| areas.iter().any(|&area| holds_middle(area, word.rect));
    let mut covered = Vec::new();
    for (at, word) in draft.words.iter_mut().enumerate() {
        // Dots and dashes leave too little ink to be missed.
        let written = draft.buffer[word.start as usize..word.end as usize].chars().any(char::is_alphanumeric);
        if word.is(EXTRA) || !written {
            continue;
        }
        if known.layers_off || within(&suspects.alike, word) {
            word.flags |= JUDGED;
        }
        if within(&suspects.covered, word) {
            covered.push(at);
        }
    }
    let judged = !covered.is_empty() || draft.words.iter().any(|w| w.is(JUDGED));
    let drawn = if judged { gray(page, 72, 4_000_000).ok() } else { None };
    let buffer = &draft.buffer;
    for word in &mut draft.words {
        if known.ocr_layer {
            word.flags &= !HIDDEN;
        }
        let rect = word.rect;
        let chars = buffer[word.start as usize..word.end as usize].chars().count().max(1) as f32;
        let (wide, high) = (rect.x1 - rect.x0, rect.y1 - rect.y0);
        let tiny = wide > 0.0 && high.max(wide / chars) < TINY;
        let outside = rect.x1 < 0.0 || rect.y1 < 0.0 || rect.x0 > width || rect.y0 > height;
        let traceless = word.is(JUDGED)
            && drawn.as_ref().is_some_and(|(image, scale)| {
                let (low, high) = extremes(image, rect, *scale, |x, y| image.get_pixel(x, y).0[0]);
                high - low.min(high) < TRACE
            });
        if tiny || outside || traceless {
            word.flags |= HIDDEN;
        }
        word.flags &= !JUDGED;
    }
    if let Some((image, scale)) = drawn.filter(|_| !covered.is_empty()) {
        hide_covered(page, draft, &covered, &image, scale);
    }
}

/// Hides those of the `covered` words without which the page looks the same.
fn hide_covered(page: &PdfPage, draft: &mut PageDraft, covered: &[usize], image: &GrayImage, scale: f32) {
    let Ok((bare, _)) = without_text(page, || gray(page, 72, 4_000_000)) else { return };
    if bare.dimensions() != image.dimensions() {
        return;
    }
    let changed = |x, y| image.get_pixel(x, y).0[0].abs_diff(bare.get_pixel(x, y).0[0]);
    // Lines above and below reach into the box of a word.
    let middle = |rect: Rect| {
        let edge = (rect.y1 - rect.y0) * 0.2;
        Rect { y0: rect.y0 + edge, y1: rect.y1 - edge, ..rect }
    };
    let unseen = |&&at: &&usize| extremes(image, middle(draft.words[at].rect), scale, changed).1 < TRACE;
    let unseen: Vec<usize> = covered.iter().filter(unseen).copied().collect();
    // Text that lies as a whole under the image of its page is somebody's OCR as well.
    if unseen.len() * 5 > draft.words.len() * 4 && image_share(page).is_some_and(|share| share > SCAN) {
        return;
    }
    for at in unseen {
        draft.words[at].flags |= HIDDEN;
    }
}
