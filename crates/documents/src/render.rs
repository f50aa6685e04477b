//! A page as a picture with a citation marked in it, and for formats without pages an HTML excerpt.

use crate::frames::Render;
use crate::limits::Limits;
use crate::{detect, image, pdf};
use ::image::{ImageFormat, Rgb, RgbImage};
use docmill_model::document::{Format, ParsedDocument, Rect};
use docmill_model::{CanonicalText, Code, Failure, Span};
use std::io::Cursor;

/// Colour of a marker; what lies below shines through.
const MARKER: [u8; 3] = [255, 226, 89];
/// Characters around an excerpt.
const CONTEXT: u32 = 400;

/// A page as PNG, drawn in the calling (sandboxed) process.
///
/// # Errors
/// Those of the engine; `NOT_FOUND` for a page that does not exist, `TYPE_UNSUPPORTED` for formats without pages.
pub(crate) fn png(
    engine: Option<&pdf::Engine>,
    bytes: &[u8],
    render: &Render,
    limits: &Limits,
) -> Result<Vec<u8>, Failure> {
    let mut picture = match detect::detect(bytes, None, None)? {
        Format::Pdf => {
            let engine = engine.ok_or_else(|| Failure::new(Code::PartMissing, "pdfium is not installed"))?;
            pdf::render(engine, bytes, render, limits.pixels)?
        }
        Format::Image => image::render(bytes, render, limits)?,
        other => return Err(Failure::new(Code::TypeUnsupported, format!("{} has no pages to draw", other.as_str()))),
    };
    for &rect in &render.highlights {
        mark(&mut picture, rect, render.scale);
    }
    let mut out = Cursor::new(Vec::new());
    picture
        .write_to(&mut out, ImageFormat::Png)
        .map_err(|_| Failure::new(Code::Internal, "the picture cannot be encoded"))?;
    Ok(out.into_inner())
}

/// Multiplies the marker's colour into an area.
fn mark(picture: &mut RgbImage, rect: Rect, scale: f32) {
    let (width, height) = picture.dimensions();
    let clamp = |v: f32, most: u32| (v * scale).clamp(0.0, most as f32) as u32;
    for y in clamp(rect.y0 - 1.0, height)..clamp(rect.y1 + 1.0, height) {
        for x in clamp(rect.x0 - 1.0, width)..clamp(rect.x1 + 1.0, width) {
            let Rgb(shade) = picture.get_pixel_mut(x, y);
            for (part, marker) in shade.iter_mut().zip(MARKER) {
                *part = (u16::from(*part) * u16::from(marker) / 255) as u8;
            }
        }
    }
}

/// The passage around `span` as a piece of HTML, with the span marked and hidden text left out.
#[must_use]
pub fn excerpt_html(document: &ParsedDocument, span: Span) -> String {
    let text = CanonicalText::from_canonical(document.text.clone());
    let end = span.end.min(text.len());
    let span = Span::new(span.start.min(end), end);
    let around = Span::new(span.start.saturating_sub(CONTEXT), span.end.saturating_add(CONTEXT).min(text.len()));
    let piece = |from: u32, to: u32| {
        let mut out = String::new();
        let mut at = from;
        for hidden in document.hidden.iter().filter(|h| h.start < to && h.end > from) {
            out.push_str(text.slice(Span::new(at, hidden.start.max(at))).unwrap_or_default());
            at = hidden.end.min(to).max(at);
        }
        out.push_str(text.slice(Span::new(at, to.max(at))).unwrap_or_default());
        escape(&out)
    };
    let before = piece(around.start, span.start);
    let marked = piece(span.start, span.end);
    let after = piece(span.end, around.end);
    format!("<div class=\"excerpt\">{before}<mark>{marked}</mark>{after}</div>")
}

/// Text as HTML: nothing in it is markup, line breaks stay.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push_str("<br>"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::excerpt_html;
    use crate::{ParseOptions, parse_in_process};
    use docmill_model::Span;

    #[test]
    fn excerpts_are_escaped_and_leave_out_hidden_text() {
        let document = parse_in_process(
            b"<!doctype html><p>a &lt;b&gt; <span style='display:none'>obey</span> cited words</p>",
            &ParseOptions::default(),
        )
        .expect("parses");
        let start = document.text.find("cited").expect("there") as u32;
        let html = excerpt_html(&document, Span::new(start, start + 5));
        assert_eq!(html, "<div class=\"excerpt\">a &lt;b&gt;  <mark>cited</mark> words</div>");
    }
}
