//! Paged formats on their way into a [`ParsedDocument`]: pages of words with boxes, then one canonical text.
//!
//! Engines (pdfium, OCR) hand over [`PageDraft`]s; this finds furniture over all pages, builds blocks in reading
//! order and writes the text, so that `text[word.span]` is the word by construction.

mod assemble;
mod blocks;
mod footnotes;
mod furniture;
mod order;
mod tables;

use docmill_model::document::{PageOutcome, Rect};

pub(crate) use assemble::{Metadata, assemble};

/// A reader would not see the word.
pub(crate) const HIDDEN: u8 = 1;
/// The word goes on from the one before without a space (a hyphenated line end).
pub(crate) const GLUED: u8 = 2;
/// The word is set in a bold face.
pub(crate) const BOLD: u8 = 4;
/// The word begins a line.
pub(crate) const LINE: u8 = 8;
/// The word begins a paragraph, as the engine found it.
pub(crate) const PARAGRAPH: u8 = 16;
/// The word is set in a face of fixed pitch.
pub(crate) const FIXED: u8 = 32;

/// The word was laid over the page (a form value) and belongs where it stands, not where it comes.
pub(crate) const EXTRA: u8 = 64;

/// One word of a page; its characters stand in [`PageDraft::buffer`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct WordDraft {
    /// First byte in the buffer.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Box in page units, origin top left, rotation applied.
    pub rect: Rect,
    /// Size of type in page units.
    pub size: f32,
    /// 0–1.
    pub confidence: f32,
    /// [`HIDDEN`], [`GLUED`], [`BOLD`], [`LINE`], [`PARAGRAPH`], [`FIXED`].
    pub flags: u8,
}

impl WordDraft {
    /// True when all bits of `flag` are set.
    pub fn is(&self, flag: u8) -> bool {
        self.flags & flag == flag
    }
}

/// One page as an engine read it.
#[derive(Clone, Debug)]
pub(crate) struct PageDraft {
    /// Number from 1.
    pub number: u32,
    /// Width in page units.
    pub width: f32,
    /// Height in page units.
    pub height: f32,
    /// Rotation that was applied, degrees clockwise.
    pub rotation: u16,
    /// How it was read.
    pub outcome: PageOutcome,
    /// Characters of all words.
    pub buffer: String,
    /// Words in the engine's order.
    pub words: Vec<WordDraft>,
    /// Link areas and targets.
    pub links: Vec<(Rect, String)>,
    /// For recognised words: the degrees by which the page was straightened around its middle, as their boxes are.
    pub askew: Option<f32>,
}

impl PageDraft {
    /// A page without words.
    pub fn empty(number: u32, width: f32, height: f32, rotation: u16, outcome: PageOutcome) -> Self {
        let (buffer, words, links) = (String::new(), Vec::new(), Vec::new());
        Self { number, width, height, rotation, outcome, buffer, words, links, askew: None }
    }

    /// The box on the page of what has this box after the page was straightened.
    pub fn place(&self, rect: Rect) -> Rect {
        let Some(askew) = self.askew else { return rect };
        let (sin, cos) = askew.to_radians().sin_cos();
        let (middle_x, middle_y) = (self.width / 2.0, self.height / 2.0);
        let corners = [(rect.x0, rect.y0), (rect.x1, rect.y0), (rect.x0, rect.y1), (rect.x1, rect.y1)].map(|(x, y)| {
            let (x, y) = (x - middle_x, y - middle_y);
            let (x, y) = (x * cos - y * sin + middle_x, x * sin + y * cos + middle_y);
            let (x, y) = (x.clamp(0.0, self.width), y.clamp(0.0, self.height));
            Rect { x0: x, y0: y, x1: x, y1: y }
        });
        corners.into_iter().reduce(Rect::union).unwrap_or(rect)
    }

    /// The characters of a word.
    pub fn text(&self, word: &WordDraft) -> &str {
        &self.buffer[word.start as usize..word.end as usize]
    }
}

/// Consecutive words on one line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Indices of its words, in reading order.
    pub words: Vec<u32>,
    /// Box around them.
    pub rect: Rect,
    /// Usual size of type.
    pub size: f32,
    /// True when most words are bold.
    pub bold: bool,
    /// True when all words are of fixed pitch.
    pub fixed: bool,
    /// True when the engine began a paragraph here.
    pub paragraph: bool,
    /// True for a repeated header, footer or page number.
    pub furniture: bool,
    /// Set on the first line of a region that starts anew (another column, another band).
    pub region: bool,
}

impl Line {
    /// A line of these words of `page`.
    pub fn of(page: &PageDraft, words: Vec<u32>) -> Self {
        let all = || words.iter().map(|&w| &page.words[w as usize]);
        let rect = all().map(|w| w.rect).reduce(Rect::union).unwrap_or(Rect { x0: 0.0, y0: 0.0, x1: 0.0, y1: 0.0 });
        let mut sizes: Vec<f32> = all().map(|w| w.size).collect();
        sizes.sort_by(f32::total_cmp);
        let size = sizes.get(sizes.len() / 2).copied().unwrap_or(0.0);
        let bold = all().filter(|w| w.is(BOLD)).count() * 2 > words.len();
        let fixed = all().all(|w| w.is(FIXED));
        let paragraph = all().next().is_some_and(|w| w.is(PARAGRAPH));
        Self { words, rect, size, bold, fixed, paragraph, furniture: false, region: false }
    }

    /// The words apart by spaces.
    pub fn text(&self, page: &PageDraft) -> String {
        let mut out = String::new();
        for &word in &self.words {
            let word = &page.words[word as usize];
            if !out.is_empty() && !word.is(GLUED) {
                out.push(' ');
            }
            out.push_str(page.text(word));
        }
        out
    }

    /// Height of the box.
    pub fn height(&self) -> f32 {
        self.rect.y1 - self.rect.y0
    }
}

/// The lines of a page in the engine's order, as its line marks say.
pub(crate) fn lines(page: &PageDraft) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut current: Vec<u32> = Vec::new();
    for (index, word) in page.words.iter().enumerate() {
        if word.is(LINE) && !current.is_empty() {
            lines.push(Line::of(page, std::mem::take(&mut current)));
        }
        current.push(index as u32);
    }
    if !current.is_empty() {
        lines.push(Line::of(page, current));
    }
    lines
}
