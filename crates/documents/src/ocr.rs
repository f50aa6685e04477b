//! Recognition of text on page images: what is asked of the recogniser and what becomes of its answer.
//!
//! The parsing child may not execute anything, so it hands images to its parent through [`Recognise`]; the parent runs
//! tesseract in a sandbox of its own and sends the words back. A page whose recognition fails is a failed page; the
//! rest of the document stands.

mod skew;
mod tsv;

use crate::frames::{OcrRequest, Reading};
use crate::observed::Detected;
use crate::options::ParseOptions;
use crate::paged::{Metadata, PageDraft};
use docmill_model::document::PageOutcome;
use docmill_model::{Code, Failure};
use image::GrayImage;
use std::collections::VecDeque;

/// Somebody who recognises text.
pub(crate) trait Recognise {
    /// Installed language packs; none means that there is no recogniser.
    fn packs(&self) -> &[String];
    /// Hands over an image.
    ///
    /// # Errors
    /// `OCR_FAILED` when it cannot be handed over.
    fn submit(&mut self, request: &OcrRequest, pixels: &[u8]) -> Result<(), Failure>;
    /// Waits for the answer.
    ///
    /// # Errors
    /// What the recogniser failed with.
    fn wait(&mut self, id: u32) -> Result<String, Failure>;
    /// Tells that work on a page begins (0: on none any more), so that whoever watches knows which page it was that
    /// ended the process. Answers with a failure when the page did so in an earlier try and is to be left out.
    fn begin(&mut self, _page: u32) -> Option<Failure> {
        None
    }
    /// Tells what the bytes are.
    fn detected(&mut self, _: &Detected) {}
}

/// A recogniser that is not there.
pub(crate) struct Nobody;

impl Recognise for Nobody {
    fn packs(&self) -> &[String] {
        &[]
    }

    fn submit(&mut self, _: &OcrRequest, _: &[u8]) -> Result<(), Failure> {
        Err(unavailable())
    }

    fn wait(&mut self, _: u32) -> Result<String, Failure> {
        Err(unavailable())
    }
}

fn unavailable() -> Failure {
    Failure::new(Code::OcrUnavailable, "the page needs OCR, and tesseract is not installed")
}

/// Images in flight: while one is recognised, the next page is drawn.
const WINDOW: usize = 2;
/// Mean confidence below which a page may stand on its side or head.
const DOUBTFUL: f32 = 0.55;
/// Confidence of the orientation below which it is not believed.
const ORIENTED: f32 = 1.0;
/// Confidence that a word needs which stands alone somewhere on a page where no lines were found.
const SURE: f32 = 0.8;

/// Pixels of ground around every image that is handed over: letters that touch the edge are not recognised.
const FRAME: u32 = 20;

/// The usual shade of an image's edge.
fn ground(image: &GrayImage) -> u8 {
    let (width, height) = image.dimensions();
    let rows = (0..width).flat_map(|x| [(x, 0), (x, height.saturating_sub(1))]);
    let columns = (0..height).flat_map(|y| [(0, y), (width.saturating_sub(1), y)]);
    let mut edge: Vec<u8> = rows.chain(columns).map(|(x, y)| image.get_pixel(x, y).0[0]).collect();
    edge.sort_unstable();
    edge.get(edge.len() / 2).copied().unwrap_or(u8::MAX)
}

/// The image within a frame of its own ground.
fn framed(image: &GrayImage, ground: u8) -> GrayImage {
    let (width, height) = image.dimensions();
    let mut framed = GrayImage::from_pixel(width + 2 * FRAME, height + 2 * FRAME, image::Luma([ground]));
    image::imageops::replace(&mut framed, image, i64::from(FRAME), i64::from(FRAME));
    framed
}

/// An image that was handed over.
struct Handed {
    id: u32,
    /// Degrees by which it was straightened.
    askew: f32,
    /// Pixels that were added to its left and top.
    margin: (f32, f32),
}

/// What a page's own text layer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// It is the page's text; recognition is an extra.
    Whole,
    /// It is missing, broken, or a few words over a scan: without recognition the page was not read.
    Poor,
}

struct Pending {
    /// Index of the draft.
    draft: usize,
    layer: Layer,
    handed: Handed,
    image: GrayImage,
    scale: f32,
}

/// Pages of one document that are being recognised.
pub(crate) struct Queue {
    languages: Vec<String>,
    dpi: u32,
    limit: u64,
    pending: VecDeque<Pending>,
    next: u32,
    added: u64,
    recognised: bool,
}

impl Queue {
    /// An empty queue.
    pub fn new(options: &ParseOptions) -> Self {
        let dpi = options.ocr_dpi.clamp(72, 400);
        let (languages, limit) = (options.ocr_languages.clone(), options.limits.ocr_pages);
        Self { languages, dpi, limit, pending: VecDeque::new(), next: 0, added: 0, recognised: false }
    }

    /// True when at least one page was recognised.
    pub fn recognised(&self) -> bool {
        self.recognised
    }

    /// Draws and submits the page of `draft`, which is about to become number `at` of the drafts. A page that
    /// cannot be recognised keeps its words, and has failed where they are not its text.
    pub fn add(
        &mut self,
        at: usize,
        draft: &mut PageDraft,
        layer: Layer,
        ocr: &mut dyn Recognise,
        draw: impl FnOnce(u32) -> Result<(GrayImage, f32), Failure>,
    ) {
        let submitted = self.submit_page(at, layer, ocr, draw);
        if let Err(failure) = submitted {
            unread(draft, layer, failure);
        }
    }

    /// Notes the languages in which pages were recognised, and those that were wanted and are not installed.
    pub fn describe(&self, packs: &[String], metadata: &mut Metadata) {
        if self.added == 0 || packs.is_empty() {
            return;
        }
        metadata.insert("ocr_languages".to_owned(), self.installed(packs));
        let missing: Vec<&str> = self.languages.iter().filter(|l| !packs.contains(l)).map(String::as_str).collect();
        if !missing.is_empty() {
            metadata.insert("ocr_languages_missing".to_owned(), missing.join("+"));
        }
    }

    fn submit_page(
        &mut self,
        at: usize,
        layer: Layer,
        ocr: &mut dyn Recognise,
        draw: impl FnOnce(u32) -> Result<(GrayImage, f32), Failure>,
    ) -> Result<(), Failure> {
        if ocr.packs().is_empty() {
            return Err(unavailable());
        }
        self.added += 1;
        if self.added > self.limit {
            return Err(Failure::limit(Code::PageLimit, "too many pages need OCR", self.limit, self.added));
        }
        let (image, scale) = draw(self.dpi)?;
        let handed = self.submit(ocr, &image, Reading::Page)?;
        self.pending.push_back(Pending { draft: at, layer, handed, image, scale });
        Ok(())
    }

    /// Takes answers until few enough images are in flight, or none when `all`.
    pub fn settle(&mut self, drafts: &mut [PageDraft], ocr: &mut dyn Recognise, all: bool) {
        let keep = if all { 0 } else { WINDOW - 1 };
        while self.pending.len() > keep {
            let Some(pending) = self.pending.pop_front() else { return };
            let answer = self.read(&pending, ocr);
            let Some(draft) = drafts.get_mut(pending.draft) else { continue };
            match answer {
                Ok(page) if page.words.len() * 2 >= draft.words.len() => {
                    self.recognised = true;
                    page.apply(draft);
                }
                // The text layer, poor as it is, says more.
                Ok(_) => {}
                Err(failure) => unread(draft, pending.layer, failure),
            }
        }
    }

    /// The words of a page. A doubtful page is turned as its orientation says and read again; one without any lines is
    /// searched for single words, as drawings have them.
    fn read(&mut self, pending: &Pending, ocr: &mut dyn Recognise) -> Result<tsv::Recognised, Failure> {
        let upright = answer(&pending.handed, pending.scale, ocr)?;
        if upright.confidence >= DOUBTFUL && upright.words.len() >= 3 {
            return Ok(upright);
        }
        let turned = self.read_turned(pending, ocr)?.filter(|turned| turned.weight() > upright.weight());
        let best = turned.unwrap_or(upright);
        if !best.words.is_empty() {
            return Ok(best);
        }
        let handed = self.submit(ocr, &pending.image, Reading::Sparse)?;
        let mut single = answer(&handed, pending.scale, ocr)?;
        single.keep(SURE);
        Ok(single)
    }

    /// The words of a page that stands on its side or head, or `None` when it does not.
    fn read_turned(&mut self, pending: &Pending, ocr: &mut dyn Recognise) -> Result<Option<tsv::Recognised>, Failure> {
        let Some(turn) = self.orientation(&pending.image, ocr) else { return Ok(None) };
        let turned = match turn {
            90 => image::imageops::rotate90(&pending.image),
            180 => image::imageops::rotate180(&pending.image),
            _ => image::imageops::rotate270(&pending.image),
        };
        let handed = self.submit(ocr, &turned, Reading::Page)?;
        let mut page = answer(&handed, pending.scale, ocr)?;
        let (width, height) = pending.image.dimensions();
        page.turn_back(turn, width as f32 / pending.scale, height as f32 / pending.scale);
        Ok(Some(page))
    }

    /// Degrees clockwise by which the image must be turned: 90, 180, 270, or `None`.
    fn orientation(&mut self, image: &GrayImage, ocr: &mut dyn Recognise) -> Option<u16> {
        if !ocr.packs().iter().any(|pack| pack == "osd") {
            return None;
        }
        let handed = self.submit(ocr, image, Reading::Orientation).ok()?;
        let answer = ocr.wait(handed.id).ok()?;
        let value = |key: &str| answer.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<f32>().ok());
        let turn = value("Rotate:")? as u16;
        (value("Orientation confidence:")? >= ORIENTED && matches!(turn, 90 | 180 | 270)).then_some(turn)
    }

    fn submit(&mut self, ocr: &mut dyn Recognise, image: &GrayImage, reading: Reading) -> Result<Handed, Failure> {
        self.next += 1;
        let ground = ground(image);
        let askew = if reading == Reading::Page { skew::degrees(image) } else { 0.0 };
        let straight = (askew != 0.0).then(|| skew::straighten(image, askew, ground));
        let canvas = framed(straight.as_ref().unwrap_or(image), ground);
        let (width, height) = canvas.dimensions();
        let margin = |canvas: u32, image: u32| (canvas as f32 - image as f32) / 2.0;
        let margin = (margin(width, image.width()), margin(height, image.height()));
        let languages = self.installed(ocr.packs());
        let request = OcrRequest { id: self.next, width, height, dpi: self.dpi, reading, languages };
        ocr.submit(&request, canvas.as_raw())?;
        Ok(Handed { id: self.next, askew, margin })
    }

    /// The wanted packs that are installed, or whatever is.
    fn installed(&self, packs: &[String]) -> String {
        let wanted: Vec<&str> =
            self.languages.iter().map(String::as_str).filter(|l| packs.iter().any(|p| p == l)).collect();
        if !wanted.is_empty() {
            return wanted.join("+");
        }
        let fallback = packs.iter().find(|p| *p == "eng").or_else(|| packs.iter().find(|p| *p != "osd"));
        fallback.cloned().unwrap_or_default()
    }
}

/// A page that was not recognised: it has failed, unless its text layer is its text. Its words stay either way.
fn unread(draft: &mut PageDraft, layer: Layer, failure: Failure) {
    if layer == Layer::Poor || draft.words.is_empty() {
        draft.outcome = PageOutcome::Failed { failure };
    }
}

fn answer(handed: &Handed, scale: f32, ocr: &mut dyn Recognise) -> Result<tsv::Recognised, Failure> {
    let mut page = tsv::read(&ocr.wait(handed.id)?, scale, handed.margin);
    page.askew = handed.askew;
    Ok(page)
}
