//! The document model: what every format becomes.
//!
//! One canonical text; everything else points into it by [`Span`]. The invariant, property-tested over real
//! files: every span lies inside the text and `text[word.span]` is the word. Pages exist only for paged
//! formats (PDF, images); other formats locate blocks by an element path.

mod sound;

use crate::{CanonicalText, Failure, Span};
use std::collections::BTreeMap;

/// A rectangle in page units (points, origin top left, y down, after the page's rotation is applied).
#[derive(
    Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
pub struct Rect {
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

impl Rect {
    /// The smallest rectangle around both.
    #[must_use]
    pub fn union(self, other: Rect) -> Rect {
        Rect {
            x0: self.x0.min(other.x0),
            y0: self.y0.min(other.y0),
            x1: self.x1.max(other.x1),
            y1: self.y1.max(other.y1),
        }
    }
}

/// The input format, as detected from the bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Portable Document Format.
    Pdf,
    /// PNG, JPEG, TIFF, GIF, BMP, WebP or PNM.
    Image,
    /// Office Open XML word processing.
    Docx,
    /// HTML.
    Html,
    /// CommonMark with tables.
    Markdown,
    /// Plain text in any detected encoding.
    Text,
    /// Comma, semicolon, tab or pipe separated values.
    Csv,
}

impl Format {
    /// Lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Pdf => "pdf",
            Format::Image => "image",
            Format::Docx => "docx",
            Format::Html => "html",
            Format::Markdown => "markdown",
            Format::Text => "text",
            Format::Csv => "csv",
        }
    }
}

/// The role of a block in the reading order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum BlockKind {
    /// A heading.
    Heading {
        /// 1 (highest) to 6.
        level: u8,
    },
    /// Running text.
    Paragraph,
    /// One list item.
    ListItem,
    /// A table; `table` indexes [`ParsedDocument::tables`].
    Table {
        /// Index into the tables.
        table: u32,
    },
    /// Caption of a figure or table.
    Caption,
    /// Preformatted code.
    Code,
    /// Repeated page header, footer or page number: kept, but never chunked.
    Furniture,
    /// Footnote.
    Footnote,
}

/// One block of the reading order. Blocks are ordered, do not overlap, and are separated by whitespace only.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Block {
    /// The role.
    #[serde(flatten)]
    pub role: BlockKind,
    /// Where in the canonical text.
    pub span: Span,
    /// Page number from 1, for paged formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// Box on the page, for paged formats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rect: Option<Rect>,
    /// Element path (`html/body/div[2]/p[1]`, `body/p[14]`, `row[3]`), for formats without pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// ISO 639-3 language, where one was detected with confidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// One word with its place. `text[span]` is the word.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Word {
    /// Where in the canonical text.
    pub span: Span,
    /// Page number from 1.
    pub page: u32,
    /// Box on the page.
    pub rect: Rect,
    /// OCR confidence 0–1; 1.0 for a text layer.
    pub confidence: f32,
}

/// How a page got its text.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum PageOutcome {
    /// From the text layer.
    Text,
    /// By optical character recognition.
    Ocr {
        /// Mean word confidence 0–1.
        confidence: f32,
    },
    /// Nothing on it.
    Blank,
    /// The page failed; the rest of the document stands.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// One page of a paged format.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Page {
    /// Number from 1.
    pub number: u32,
    /// Width in points (1/72 inch) after rotation; pixels for images.
    pub width: f32,
    /// Height, same unit.
    pub height: f32,
    /// Rotation that was applied, degrees clockwise: 0, 90, 180 or 270.
    pub rotation: u16,
    /// The part of the canonical text on this page.
    pub span: Span,
    /// How it was read.
    #[serde(flatten)]
    pub outcome: PageOutcome,
}

/// One table with addressable cells.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Table {
    /// Number of rows.
    pub rows: u32,
    /// Number of columns.
    pub columns: u32,
    /// Cells in row-major order; merged cells appear once with their spans.
    pub cells: Vec<Cell>,
}

/// One table cell.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cell {
    /// Row from 0.
    pub row: u32,
    /// Column from 0.
    pub column: u32,
    /// Rows covered, at least 1.
    pub row_span: u32,
    /// Columns covered, at least 1.
    pub column_span: u32,
    /// True in a header row or column.
    pub header: bool,
    /// Where in the canonical text (empty for an empty cell).
    pub span: Span,
}

/// A link found in the document; it is never followed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Link {
    /// The linked words.
    pub span: Span,
    /// The target as written.
    pub target: String,
}

/// A part of a document without pages that could not be read: the rest of the document stands.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FailedPart {
    /// Where its words would stand: an element path, as that of [`Block::path`].
    pub path: String,
    /// Why.
    pub failure: Failure,
}

/// Everything one parse yields.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ParsedDocument {
    /// Version of this layout; readers refuse a newer one.
    pub schema: u16,
    /// The detected format.
    pub format: Format,
    /// Which engine read it: `pdfium`, `pdf-extract`, `tesseract`, `html`, `docx`, `markdown`, `text`, `csv`.
    pub engine: String,
    /// The canonical text.
    pub text: String,
    /// Pages, for paged formats.
    pub pages: Vec<Page>,
    /// Blocks in reading order.
    pub blocks: Vec<Block>,
    /// Words with boxes, for paged formats, in reading order.
    pub words: Vec<Word>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Links.
    pub links: Vec<Link>,
    /// Spans that a reader would not see (render mode 3, white or tiny text, `display:none`, Unicode tags).
    /// Kept for audit, never shown to a model.
    pub hidden: Vec<Span>,
    /// ISO 639-3 language of the whole document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Embedded metadata as found (title, author, encoding, …).
    pub metadata: BTreeMap<String, String>,
    /// Parts that could not be read while the rest stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_parts: Vec<FailedPart>,
}

impl ParsedDocument {
    /// The layout version this build writes.
    pub const SCHEMA: u16 = 1;

    /// The title a person would recognise: metadata first, else what a reader sees of the first heading.
    #[must_use]
    pub fn title(&self) -> Option<String> {
        let from_metadata = self.metadata.get("title").map(|t| t.trim()).filter(|t| !t.is_empty()).map(str::to_owned);
        from_metadata.or_else(|| {
            let text = CanonicalText::from_canonical(self.text.clone());
            let heading = self.blocks.iter().find(|b| matches!(b.role, BlockKind::Heading { .. }))?;
            let is_seen = |at: &u32| !self.hidden.iter().any(|span| span.start <= *at && *at < span.end);
            let seen = text.slice(heading.span)?.chars().zip(heading.span.start..).filter(|(_, at)| is_seen(at));
            Some(seen.map(|(c, _)| c).collect::<String>().trim().to_owned())
        })
    }

    /// True when at least one page or part failed while others stand.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.failed_parts.is_empty() || self.pages.iter().any(|p| matches!(p.outcome, PageOutcome::Failed { .. }))
    }

    /// Boxes of the words that overlap `span`, merged per line: `(page, rect)` in reading order.
    #[must_use]
    pub fn boxes(&self, span: Span) -> Vec<(u32, Rect)> {
        let mut lines: Vec<(u32, Rect)> = Vec::new();
        let first = self.words.partition_point(|w| w.span.end <= span.start);
        for word in self.words[first..].iter().take_while(|w| w.span.start < span.end) {
            match lines.last_mut() {
                Some((page, rect)) if *page == word.page && same_line(*rect, word.rect) => {
                    *rect = rect.union(word.rect)
                }
                _ => lines.push((word.page, word.rect)),
            }
        }
        lines
    }
}

fn same_line(a: Rect, b: Rect) -> bool {
    let overlap = a.y1.min(b.y1) - a.y0.max(b.y0);
    overlap > 0.5 * (a.y1 - a.y0).min(b.y1 - b.y0) && b.x0 >= a.x0
}
