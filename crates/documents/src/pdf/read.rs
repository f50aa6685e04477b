//! One page: its words, its links, whether it needs OCR, and its image.

use super::{Engine, forms, hidden, words};
use crate::frames::Render;
use crate::ocr::Layer;
use crate::options::{OcrMode, ParseOptions};
use crate::paged::PageDraft;
use docmill_model::document::{PageOutcome, Rect};
use docmill_model::{Code, Failure};
use image::{GrayImage, RgbImage};
use pdfium_render::prelude::{
    PdfBitmapFormat, PdfPage, PdfPageObjectCommon, PdfPageObjectType, PdfPageObjectsCommon, PdfPageRenderRotation,
    PdfPoints, PdfRenderConfig,
};

/// Device pixels per point when the page's transformation is measured.
const PRECISION: f32 = 64.0;
/// Words below which a page with a large image is taken for a scan.
const FEW_WORDS: usize = 8;
/// Share of unreadable characters above which a text layer is broken.
const BROKEN: f32 = 0.25;
/// Share of a page that the image of a scan covers.
pub(super) const SCAN: f32 = 0.4;
/// Objects of a page that are looked at.
pub(super) const OBJECTS: usize = 5_000;

/// From user space to page units (origin top left, rotation applied).
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    a: f32,
    b: f32,
    c: f32,
    d: f32,
    e: f32,
    f: f32,
}

impl Placement {
    /// Measured from three points, so that crop boxes and rotation are those of the engine.
    fn of(page: &PdfPage) -> Self {
        let config = PdfRenderConfig::new().scale_page_by_factor(PRECISION);
        let at = |x: f32, y: f32| {
            let (x, y) = page.points_to_pixels(PdfPoints::new(x), PdfPoints::new(y), &config).unwrap_or((0, 0));
            (x as f32 / PRECISION, y as f32 / PRECISION)
        };
        let (origin, x, y) = (at(0.0, 0.0), at(1_000.0, 0.0), at(0.0, 1_000.0));
        Self {
            a: (x.0 - origin.0) / 1_000.0,
            b: (x.1 - origin.1) / 1_000.0,
            c: (y.0 - origin.0) / 1_000.0,
            d: (y.1 - origin.1) / 1_000.0,
            e: origin.0,
            f: origin.1,
        }
    }

    /// The box around a placed rectangle.
    pub fn rect(&self, left: f32, bottom: f32, right: f32, top: f32) -> Rect {
        let place = |x: f32, y: f32| (self.a * x + self.c * y + self.e, self.b * x + self.d * y + self.f);
        let (p, q) = (place(left, bottom), place(right, top));
        Rect { x0: p.0.min(q.0), y0: p.1.min(q.1), x1: p.0.max(q.0), y1: p.1.max(q.1) }
    }
}

/// Reads one page, and says whether its text must be recognised from its image. `layers_off` says that the document
/// has optional layers that are not drawn.
pub(super) fn page(page: &PdfPage, number: u32, options: &ParseOptions, layers_off: bool) -> (PageDraft, Layer) {
    let rotation = match page.rotation() {
        Ok(PdfPageRenderRotation::Degrees90) => 90,
        Ok(PdfPageRenderRotation::Degrees180) => 180,
        Ok(PdfPageRenderRotation::Degrees270) => 270,
        _ => 0,
    };
    let mut draft = PageDraft::empty(number, page.width().value, page.height().value, rotation, PageOutcome::Text);
    let placement = Placement::of(page);
    let Ok(text) = page.text() else {
        draft.outcome = PageOutcome::Failed {
            failure: Failure::new(Code::PdfMalformed, format!("the text of page {number} cannot be read")),
        };
        return (draft, Layer::Whole);
    };
    let layer = words::read(&text, &placement, &mut draft);
    let image_share =
        if layer.invisible * 2 > draft.words.len() || draft.words.len() < FEW_WORDS || layer.broken_share() > BROKEN {
            image_share(page)
        } else {
            None
        };
    let scan = image_share.is_some_and(|share| share > SCAN);
    // An invisible layer over a scan is the result of somebody's OCR, not a hiding place.
    let ocr_layer = scan && layer.invisible * 5 > draft.words.len() * 4;
    forms::read(page, &placement, &mut draft);
    hidden::mark(page, &placement, &mut draft, &hidden::Known { ocr_layer, layers_off });
    links(page, &placement, &mut draft);
    let anything = image_share.is_some();
    let missing = draft.words.len() < FEW_WORDS && (scan || (draft.words.is_empty() && anything));
    if draft.words.is_empty() && !anything {
        draft.outcome = PageOutcome::Blank;
    }
    let poor = missing || layer.broken_share() > BROKEN;
    if poor && options.ocr == OcrMode::Off {
        draft.outcome = PageOutcome::Failed {
            failure: Failure::new(Code::OcrUnavailable, "the page's text layer is missing or broken, and OCR is off"),
        };
    }
    (draft, if poor { Layer::Poor } else { Layer::Whole })
}

/// The share of the page that its largest image covers; `None` when nothing is drawn on the page.
pub(super) fn image_share(page: &PdfPage) -> Option<f32> {
    let area = (page.width().value * page.height().value).max(1.0);
    let mut largest = None;
    for object in page.objects().iter().take(OBJECTS) {
        let covered = match object.object_type() {
            PdfPageObjectType::Image | PdfPageObjectType::XObjectForm => object.bounds().map_or(0.0, |b| {
                ((b.right().value - b.left().value) * (b.top().value - b.bottom().value)).abs() / area
            }),
            _ => 0.0,
        };
        largest = Some(covered.max(largest.unwrap_or(0.0)));
    }
    largest
}

fn links(page: &PdfPage, placement: &Placement, draft: &mut PageDraft) {
    for link in page.links().iter().take(2_000) {
        let Ok(area) = link.rect() else { continue };
        let Some(target) = link.action().and_then(|action| action.as_uri_action().and_then(|uri| uri.uri().ok()))
        else {
            continue;
        };
        let target: String = target.chars().filter(|c| !c.is_control()).take(2_048).collect();
        if !target.is_empty() {
            let rect = placement.rect(area.left().value, area.bottom().value, area.right().value, area.top().value);
            draft.links.push((rect, target));
        }
    }
}

/// The page in shades of gray at `dpi`, or less where the pixel limit asks for it.
///
/// # Errors
/// `PIXEL_LIMIT` when even a coarse image has too many pixels, `OCR_FAILED` when the page cannot be drawn.
pub(super) fn gray(page: &PdfPage, dpi: u32, pixels: u64) -> Result<(GrayImage, f32), Failure> {
    let (width, height) = (page.width().value, page.height().value);
    let area = f64::from(width) * f64::from(height);
    // Recognition gains nothing from more; posters are drawn coarser.
    let most = pixels.min(16_000_000) as f64;
    let scale = (f64::from(dpi) / 72.0).min((most / area.max(1.0)).sqrt()) as f32;
    if !(area.is_finite() && scale * 72.0 >= 20.0 && width >= 1.0 && height >= 1.0) {
        return Err(Failure::limit(Code::PixelLimit, "the page is too large to be drawn", pixels, (area * 7.7) as u64));
    }
    // Not the engine's own gray bitmaps: their rows are padded, and some pages end the process while drawn on them.
    let config = PdfRenderConfig::new().scale_page_by_factor(scale).set_format(PdfBitmapFormat::BGRx);
    let undrawn = || Failure::new(Code::OcrFailed, "the page cannot be drawn");
    let bitmap = page.render_with_config(&config).map_err(|_| undrawn())?;
    let (width, height) = (u32::try_from(bitmap.width()).ok(), u32::try_from(bitmap.height()).ok());
    let shades = bitmap.as_raw_bytes().chunks_exact(4).map(|pixel| shade([pixel[2], pixel[1], pixel[0]])).collect();
    let image = width.zip(height).and_then(|(width, height)| GrayImage::from_raw(width, height, shades));
    Ok((image.ok_or_else(undrawn)?, scale))
}

/// The luma of red, green and blue (ITU-R BT.709).
fn shade([red, green, blue]: [u8; 3]) -> u8 {
    ((2_126 * u32::from(red) + 7_152 * u32::from(green) + 722 * u32::from(blue)) / 10_000) as u8
}

/// Draws a page in colour.
///
/// # Errors
/// Those of [`Engine::open`]; `NOT_FOUND` for a page that does not exist, `PIXEL_LIMIT`, `PDF_MALFORMED`.
pub(crate) fn render(engine: &Engine, bytes: &[u8], render: &Render, pixels: u64) -> Result<RgbImage, Failure> {
    let document = engine.open(bytes)?;
    let index = i32::try_from(render.page)
        .ok()
        .and_then(|page| page.checked_sub(1))
        .filter(|&page| page >= 0 && page < document.pages().len());
    let index = index.ok_or_else(|| Failure::new(Code::NotFound, "the document has no such page"))?;
    let page = document.pages().get(index).map_err(|_| Failure::new(Code::PdfMalformed, "the page cannot be read"))?;
    let measured = (page.width().value * page.height().value * render.scale * render.scale) as u64;
    if measured > pixels {
        return Err(Failure::limit(Code::PixelLimit, "the page image would have too many pixels", pixels, measured));
    }
    let config = PdfRenderConfig::new().scale_page_by_factor(render.scale);
    let drawn = page.render_with_config(&config).and_then(|bitmap| bitmap.as_image());
    Ok(drawn.map_err(|_| Failure::new(Code::PdfMalformed, "the page cannot be drawn"))?.into_rgb8())
}
