//! Which words a reader would not see: invisible ink, no extent, outside the page, or paint that leaves no trace.
//!
//! Pale words are judged by drawing the page: white on a dark ground is visible, white on white is not.

use super::read::gray;
use crate::paged::{HIDDEN, PageDraft};
use pdfium_render::prelude::{PdfPage, PdfPageTextChar, PdfPageTextRenderMode};

/// Height in points below which text cannot be read.
const TINY: f32 = 2.0;
/// A paint so pale that only the ground decides whether it is seen.
const PALE: u8 = 236;
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

/// Finishes the flags of a page. `ocr_layer` says that invisible words are a recognised text layer.
pub(super) fn mark(page: &PdfPage, draft: &mut PageDraft, ocr_layer: bool) {
    let (width, height) = (draft.width, draft.height);
    let judged = draft.words.iter().any(|w| w.is(JUDGED));
    let drawn = if judged { gray(page, 72, 4_000_000).ok() } else { None };
    let buffer = &draft.buffer;
    for word in &mut draft.words {
        if ocr_layer {
            word.flags &= !HIDDEN;
        }
        let rect = word.rect;
        let chars = buffer[word.start as usize..word.end as usize].chars().count().max(1) as f32;
        let (wide, high) = (rect.x1 - rect.x0, rect.y1 - rect.y0);
        let tiny = wide > 0.0 && high.max(wide / chars) < TINY;
        let outside = rect.x1 < 0.0 || rect.y1 < 0.0 || rect.x0 > width || rect.y0 > height;
        let traceless = word.is(JUDGED) && drawn.as_ref().is_some_and(|(image, scale)| is_even(image, rect, *scale));
        if tiny || outside || traceless {
            word.flags |= HIDDEN;
        }
        word.flags &= !JUDGED;
    }
}

/// True when all pixels of the area have nearly the same shade.
fn is_even(image: &image::GrayImage, rect: docmill_model::document::Rect, scale: f32) -> bool {
    let (width, height) = image.dimensions();
    let clamp = |v: f32, most: u32| ((v * scale).max(0.0) as u32).min(most.saturating_sub(1));
    let (x0, x1) = (clamp(rect.x0, width), clamp(rect.x1, width));
    let (y0, y1) = (clamp(rect.y0, height), clamp(rect.y1, height));
    let (mut low, mut high) = (255, 0);
    for y in y0..=y1 {
        for x in x0..=x1 {
            let shade = image.get_pixel(x, y).0[0];
            low = low.min(shade);
            high = high.max(shade);
        }
    }
    high - low.min(high) < 12
}
