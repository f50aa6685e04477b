//! Values of form fields and free texts that lie over a page: a reader sees them, the text layer does not hold them.

use super::read::Placement;
use crate::html;
use crate::paged::{EXTRA, LINE, PARAGRAPH, PageDraft, WordDraft};
use docmill_model::document::Rect;
use pdfium_render::prelude::{PdfPage, PdfPageAnnotation, PdfPageAnnotationCommon};

/// Annotations of a page that are looked at.
const ANNOTATIONS: usize = 2_000;
/// Bytes of one value.
const VALUE_BYTES: usize = 64 << 10;

/// Adds the values to the words of the page.
pub(super) fn read(page: &PdfPage, placement: &Placement, draft: &mut PageDraft) {
    for annotation in page.annotations().iter().take(ANNOTATIONS) {
        let Some(value) = value(&annotation).filter(|v| v.len() <= VALUE_BYTES && !v.trim().is_empty()) else {
            continue;
        };
        let Ok(area) = annotation.bounds() else { continue };
        let rect = placement.rect(area.left().value, area.bottom().value, area.right().value, area.top().value);
        if [rect.x0, rect.y0, rect.x1, rect.y1].iter().all(|v| v.is_finite()) {
            place(draft, &value, rect);
        }
    }
}

fn value(annotation: &PdfPageAnnotation) -> Option<String> {
    if let PdfPageAnnotation::FreeText(note) = annotation {
        return note.contents();
    }
    let field = annotation.as_form_field()?;
    let text = field.as_text_field().filter(|field| !field.is_password()).and_then(|field| field.value());
    let value = text
        .or_else(|| field.as_combo_box_field().and_then(|field| field.value()))
        .or_else(|| field.as_list_box_field().and_then(|field| field.value()))?;
    Some(if value.trim_start().starts_with('<') { html::fragment_text(&value) } else { value })
}

/// Spreads the words of a value over its area: lines down, words by their length.
fn place(draft: &mut PageDraft, value: &str, area: Rect) {
    let lines: Vec<&str> = value.split(['\r', '\n']).filter(|line| !line.trim().is_empty()).collect();
    let step = (area.y1 - area.y0) / lines.len().max(1) as f32;
    let size = (step * 0.7).clamp(4.0, 11.0);
    for (row, line) in lines.iter().enumerate() {
        let chars = line.chars().count().max(1) as f32;
        let per_char = ((area.x1 - area.x0) / chars).min(size * 0.55);
        let top = area.y0 + step * row as f32;
        let (mut at, mut flags) = (0.0, EXTRA | LINE | if row == 0 { PARAGRAPH } else { 0 });
        for word in line.split_whitespace() {
            let start = draft.buffer.len() as u32;
            draft.buffer.extend(word.chars().filter(|c| !c.is_control()));
            let end = draft.buffer.len() as u32;
            let length = word.chars().count() as f32;
            let (x0, x1) = (area.x0 + at * per_char, area.x0 + (at + length) * per_char);
            at += length + 1.0;
            if end > start {
                let rect = Rect { x0, y0: top, x1, y1: top + step };
                draft.words.push(WordDraft { start, end, rect, size, confidence: 1.0, flags });
                flags = EXTRA;
            }
        }
    }
}
