//! What lies under and over the text of a page, by the order in which its objects are drawn.
//!
//! This only suspects: text in the colour of the box it stands on or on a picture, text that a box or a picture was drawn
//! over, and all text where a form object stands, whose own objects are not looked at. Whether a reader sees it is then
//! judged by drawing the page.

use super::read::{OBJECTS, Placement};
use docmill_model::document::Rect;
use image::GrayImage;
use pdfium_render::prelude::{
    PdfColor, PdfPage, PdfPageObject, PdfPageObjectCommon, PdfPageObjectType, PdfPageObjectsCommon, PdfPathFillMode,
};

/// Boxes and pictures of a page that are looked at.
const GROUNDS: usize = 400;
/// Shortest side in points of a box that can hide a word.
const SHORTEST: f32 = 3.0;
/// Difference a channel up to which two colours are taken for one.
const ALIKE: u8 = 24;

/// A filled box or a picture.
struct Ground {
    order: usize,
    rect: Rect,
    /// None for a picture.
    fill: Option<PdfColor>,
}

/// Areas of text that is perhaps not seen.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Text in the colour of what it stands on, or on what has no single colour.
    pub alike: Vec<Rect>,
    /// Text that something was drawn over.
    pub covered: Vec<Rect>,
}

impl Suspects {
    /// Looks through the objects of a page.
    pub fn of(page: &PdfPage, placement: &Placement) -> Self {
        let mut found = Self::default();
        let grounds = grounds(page, placement, &mut found.alike);
        if grounds.is_empty() {
            return found;
        }
        for (order, object) in page.objects().iter().take(OBJECTS).enumerate() {
            if object.object_type() != PdfPageObjectType::Text {
                continue;
            }
            let Some(rect) = bounds(&object, placement) else { continue };
            let under = grounds.iter().rev().find(|ground| ground.order < order && holds_middle(ground.rect, rect));
            let is_alike = |fill: &PdfColor| object.fill_color().is_ok_and(|colour| alike(&colour, fill));
            if under.is_some_and(|ground| ground.fill.as_ref().is_none_or(is_alike)) {
                found.alike.push(rect);
            }
            let over = grounds.iter().filter(|ground| ground.order > order);
            found.covered.extend(over.filter_map(|ground| common(ground.rect, rect)));
        }
        found
    }
}

/// True when the middle of `inner` lies in `outer`.
pub(super) fn holds_middle(outer: Rect, inner: Rect) -> bool {
    let (x, y) = ((inner.x0 + inner.x1) / 2.0, (inner.y0 + inner.y1) / 2.0);
    outer.x0 <= x && x <= outer.x1 && outer.y0 <= y && y <= outer.y1
}

/// Draws the page without the text that stands on it.
pub(super) fn without_text<T>(page: &PdfPage, draw: impl FnOnce() -> T) -> T {
    let texts = || page.objects().iter().take(OBJECTS).filter(|o| o.object_type() == PdfPageObjectType::Text);
    let left_out: Vec<bool> = texts().map(|mut text| text.set_inactive().is_ok()).collect();
    let drawn = draw();
    for (mut text, _) in texts().zip(left_out).filter(|(_, left_out)| *left_out) {
        // What cannot be set active again was never drawn; the page is not drawn after this.
        let _ = text.set_active();
    }
    drawn
}

/// The least and the greatest of what `shade` says of the pixels of an area.
pub(super) fn extremes(image: &GrayImage, rect: Rect, scale: f32, shade: impl Fn(u32, u32) -> u8) -> (u8, u8) {
    let (width, height) = image.dimensions();
    let clamp = |v: f32, most: u32| ((v * scale).max(0.0) as u32).min(most.saturating_sub(1));
    let (x0, x1) = (clamp(rect.x0, width), clamp(rect.x1, width));
    let (y0, y1) = (clamp(rect.y0, height), clamp(rect.y1, height));
    let pixels = (y0..=y1).flat_map(|y| (x0..=x1).map(move |x| (x, y)));
    pixels.map(|(x, y)| shade(x, y)).fold((255, 0), |(low, high), shade| (low.min(shade), high.max(shade)))
}

/// Boxes and pictures; the places of form objects go to `forms`.
fn grounds(page: &PdfPage, placement: &Placement, forms: &mut Vec<Rect>) -> Vec<Ground> {
    let mut grounds = Vec::new();
    for (order, object) in page.objects().iter().take(OBJECTS).enumerate() {
        let fill = match &object {
            PdfPageObject::Path(path) => match path.fill_mode() {
                Ok(PdfPathFillMode::EvenOdd | PdfPathFillMode::Winding) => object.fill_color().ok(),
                _ => continue,
            },
            PdfPageObject::Image(_) => None,
            PdfPageObject::XObjectForm(_) if forms.len() < GROUNDS => {
                forms.extend(bounds(&object, placement));
                continue;
            }
            _ => continue,
        };
        let Some(rect) = bounds(&object, placement) else { continue };
        if (rect.x1 - rect.x0).min(rect.y1 - rect.y0) >= SHORTEST && !object.has_transparency() {
            grounds.push(Ground { order, rect, fill });
            if grounds.len() == GROUNDS {
                break;
            }
        }
    }
    grounds
}

fn bounds(object: &PdfPageObject, placement: &Placement) -> Option<Rect> {
    let quad = object.bounds().ok()?;
    let rect = placement.rect(quad.left().value, quad.bottom().value, quad.right().value, quad.top().value);
    [rect.x0, rect.y0, rect.x1, rect.y1].iter().all(|v| v.is_finite()).then_some(rect)
}

fn alike(a: &PdfColor, b: &PdfColor) -> bool {
    let near = |a: u8, b: u8| a.abs_diff(b) <= ALIKE;
    near(a.red(), b.red()) && near(a.green(), b.green()) && near(a.blue(), b.blue())
}

fn common(a: Rect, b: Rect) -> Option<Rect> {
    let rect = Rect { x0: a.x0.max(b.x0), y0: a.y0.max(b.y0), x1: a.x1.min(b.x1), y1: a.y1.min(b.y1) };
    (rect.x0 < rect.x1 && rect.y0 < rect.y1).then_some(rect)
}
