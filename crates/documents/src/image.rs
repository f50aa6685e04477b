//! Images: decoded within pixel limits, turned as their metadata says, and recognised as pages.
//!
//! A page unit is a pixel of the upright image. Several images in one TIFF are several pages; of an animation the
//! first picture is read.

use crate::frames::Render;
use crate::limits::Limits;
use crate::ocr::{Layer, Queue, Recognise};
use crate::options::{OcrMode, ParseOptions};
use crate::paged::{self, Metadata, PageDraft};
use docmill_model::document::{Format, PageOutcome, ParsedDocument};
use docmill_model::{Code, Failure};
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
use std::io::Cursor;

mod tiff;

/// Side in pixels below which an image is enlarged before it is recognised.
const SMALL: u32 = 1_100;
/// Side in pixels above which it is reduced.
const LARGE: u32 = 4_500;

/// Reads an image.
///
/// # Errors
/// `IMAGE_MALFORMED`, `PIXEL_LIMIT`, `PAGE_LIMIT`, `OCR_UNAVAILABLE`, `OCR_EMPTY`.
pub(crate) fn parse(bytes: &[u8], options: &ParseOptions, ocr: &mut dyn Recognise) -> Result<ParsedDocument, Failure> {
    let frames = tiff::Frames::of(bytes, options.limits.pages)?;
    let mut drafts: Vec<PageDraft> = Vec::new();
    let mut queue = Queue::new(options);
    for index in 0..frames.len() {
        let number = index as u32 + 1;
        match decode(&frames.get(index), options.limits.pixels) {
            Err(failure) if frames.len() == 1 => return Err(failure),
            Err(failure) => drafts.push(PageDraft::empty(number, 1.0, 1.0, 0, PageOutcome::Failed { failure })),
            Ok((picture, rotation)) => {
                let (width, height) = (picture.width() as f32, picture.height() as f32);
                let mut draft = PageDraft::empty(number, width, height, rotation, PageOutcome::Ocr { confidence: 0.0 });
                match options.ocr {
                    OcrMode::Off => {
                        let failure =
                            Failure::new(Code::OcrUnavailable, "the image holds its text as pixels, and OCR is off");
                        draft.outcome = PageOutcome::Failed { failure };
                    }
                    _ => queue.add(drafts.len(), &mut draft, Layer::Poor, ocr, |_| Ok(prepare(picture))),
                }
                drafts.push(draft);
            }
        }
        queue.settle(&mut drafts, ocr, false);
    }
    queue.settle(&mut drafts, ocr, true);
    let mut metadata = Metadata::new();
    queue.describe(ocr.packs(), &mut metadata);
    paged::assemble(drafts, Format::Image, "tesseract", metadata)
}

/// Draws a page in colour.
///
/// # Errors
/// `NOT_FOUND` for a page that does not exist, and those of decoding.
pub(crate) fn render(bytes: &[u8], render: &Render, limits: &Limits) -> Result<RgbImage, Failure> {
    let frames = tiff::Frames::of(bytes, limits.pages)?;
    let index = (render.page as usize).checked_sub(1).filter(|&index| index < frames.len());
    let index = index.ok_or_else(|| Failure::new(Code::NotFound, "the image has no such page"))?;
    let picture = decode(&frames.get(index), limits.pixels)?.0.into_rgb8();
    let size = |side: u32| ((side as f32 * render.scale) as u32).max(1);
    let (width, height) = (size(picture.width()), size(picture.height()));
    let measured = u64::from(width) * u64::from(height);
    if measured > limits.pixels {
        return Err(Failure::limit(
            Code::PixelLimit,
            "the page image would have too many pixels",
            limits.pixels,
            measured,
        ));
    }
    Ok(image::imageops::resize(&picture, width, height, image::imageops::FilterType::Triangle))
}

/// Decodes one image upright; the rotation is the clockwise turn that was applied.
///
/// # Errors
/// `PIXEL_LIMIT` before anything is unpacked, `IMAGE_MALFORMED`.
pub(crate) fn decode(bytes: &[u8], pixels: u64) -> Result<(DynamicImage, u16), Failure> {
    let malformed = || Failure::new(Code::ImageMalformed, "the image cannot be decoded");
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|_| malformed())?;
    let jpeg = reader.format() == Some(ImageFormat::Jpeg);
    let mut decoder = reader.into_decoder().map_err(|error| limit_or(&error, pixels).unwrap_or_else(malformed))?;
    let (width, height) = decoder.dimensions();
    let measured = u64::from(width) * u64::from(height);
    if measured > pixels {
        return Err(Failure::limit(Code::PixelLimit, "the image has too many pixels", pixels, measured));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = match DynamicImage::from_decoder(decoder) {
        Ok(picture) => picture,
        // A truncated JPEG still has its upper part, but not for this decoder.
        Err(error) => {
            return Err(limit_or(&error, pixels).unwrap_or_else(|| {
                let what = if jpeg { "the JPEG is damaged" } else { "the image is damaged" };
                Failure::new(Code::ImageMalformed, what)
            }));
        }
    };
    picture.apply_orientation(orientation);
    let rotation = match orientation {
        Orientation::Rotate90 | Orientation::Rotate90FlipH => 90,
        Orientation::Rotate180 => 180,
        Orientation::Rotate270 | Orientation::Rotate270FlipH => 270,
        _ => 0,
    };
    Ok((picture, rotation))
}

fn limit_or(error: &image::ImageError, pixels: u64) -> Option<Failure> {
    matches!(error, image::ImageError::Limits(_)).then(|| Failure {
        code: Code::PixelLimit,
        message: "the image needs more memory than an image may".to_owned(),
        limit: Some(pixels),
        measured: None,
    })
}

/// Shades of gray on white, at a size that suits the recogniser; the number is pixels per original pixel.
fn prepare(picture: DynamicImage) -> (GrayImage, f32) {
    let gray = if picture.color().has_alpha() { flatten(&picture) } else { picture.into_luma8() };
    let (width, height) = gray.dimensions();
    let (short, long) = (width.min(height).max(1), width.max(height));
    let scale = if long > LARGE {
        LARGE as f32 / long as f32
    } else if short < SMALL {
        (SMALL as f32 * 1.5 / short as f32).min(2.0).min((LARGE as f32 / long as f32).max(1.0))
    } else {
        1.0
    };
    if (scale - 1.0).abs() < 0.05 {
        return (gray, 1.0);
    }
    let (w, h) = (((width as f32 * scale) as u32).max(1), ((height as f32 * scale) as u32).max(1));
    (image::imageops::resize(&gray, w, h, image::imageops::FilterType::CatmullRom), scale)
}

/// Lays a transparent picture on white paper.
fn flatten(picture: &DynamicImage) -> GrayImage {
    let source = picture.to_luma_alpha8();
    GrayImage::from_fn(source.width(), source.height(), |x, y| {
        let [shade, alpha] = source.get_pixel(x, y).0;
        let (shade, alpha) = (u32::from(shade), u32::from(alpha));
        image::Luma([((shade * alpha + 255 * (255 - alpha)) / 255) as u8])
    })
}
