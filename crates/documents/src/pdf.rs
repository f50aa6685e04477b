//! PDF: words with boxes from the text layer, and images of the pages that have none.
//!
//! pdfium reads first; pdf-extract is the second engine and gives text without boxes. Nothing in the file is executed
//! or fetched: scripts, launch actions and forms' programs are not run, embedded files are not opened.

mod expansion;
mod forms;
mod ground;
mod hidden;
mod layers;
mod plain;
mod read;
mod words;

use crate::ocr::{self, Layer, Recognise};
use crate::options::{OcrMode, ParseOptions};
use crate::paged::{self, Metadata, PageDraft};
use docmill_model::document::{Format, PageOutcome, ParsedDocument};
use docmill_model::{Code, Failure};
use pdfium_render::prelude::{PdfDocument, PdfDocumentMetadataTagType, Pdfium, PdfiumError, PdfiumInternalError};
use std::path::Path;

pub(crate) use expansion::measure;
pub(crate) use plain::parse as parse_plain;
pub(crate) use read::render;

/// What ends a stream.
const ENDSTREAM: &[u8] = b"endstream";

/// pdfium, loaded.
pub(crate) struct Engine(Pdfium);

impl Engine {
    /// Loads the library.
    ///
    /// # Errors
    /// `PART_MISSING` when it cannot be loaded.
    pub fn load(library: &Path) -> Result<Self, Failure> {
        let bindings =
            Pdfium::bind_to_library(library).map_err(|_| Failure::new(Code::PartMissing, "pdfium cannot be loaded"))?;
        Ok(Self(Pdfium::new(bindings)))
    }

    /// Opens a document.
    ///
    /// # Errors
    /// `PDF_ENCRYPTED` when it needs a password, `PDF_MALFORMED`, `PDF_NESTING_LIMIT`.
    pub fn open<'a>(&'a self, bytes: &'a [u8]) -> Result<PdfDocument<'a>, Failure> {
        self.0.load_pdf_from_byte_slice(bytes, None).map_err(|error| match error {
            PdfiumError::PdfiumLibraryInternalError(PdfiumInternalError::PasswordError) => {
                Failure::new(Code::PdfEncrypted, "the PDF opens only with a password")
            }
            PdfiumError::PdfiumLibraryInternalError(PdfiumInternalError::SecurityError) => {
                Failure::new(Code::PdfEncrypted, "the PDF is protected by an unknown method")
            }
            _ => Failure::new(Code::PdfMalformed, "the PDF cannot be opened"),
        })
    }
}

/// Reads a PDF with pdfium.
///
/// # Errors
/// `PDF_ENCRYPTED`, `PDF_MALFORMED`, `PDF_NESTING_LIMIT`, `PAGE_LIMIT`, `EMPTY_TEXT`, `OCR_EMPTY`, `OCR_UNAVAILABLE`.
pub(crate) fn parse(
    engine: &Engine,
    bytes: &[u8],
    options: &ParseOptions,
    ocr: &mut dyn Recognise,
) -> Result<ParsedDocument, Failure> {
    check_nesting(bytes, options.limits.pdf_depth)?;
    let document = engine.open(bytes)?;
    let pages = document.pages();
    let count = u64::try_from(pages.len()).unwrap_or(0);
    if count == 0 {
        return Err(Failure::new(Code::PdfMalformed, "the PDF has no pages"));
    }
    if count > options.limits.pages {
        return Err(Failure::limit(Code::PageLimit, "the PDF has too many pages", options.limits.pages, count));
    }
    let layers_off = layers::some_off(bytes);
    let mut drafts: Vec<PageDraft> = Vec::new();
    let mut queue = ocr::Queue::new(options);
    for index in 0..pages.len() {
        let number = index as u32 + 1;
        if let Some(failure) = ocr.begin(number) {
            drafts.push(failed(number, failure));
            continue;
        }
        let draft = match pages.get(index) {
            Ok(page) => {
                let (mut draft, layer) = read::page(&page, number, options, layers_off);
                if options.ocr == OcrMode::Force || (options.ocr == OcrMode::Auto && layer == Layer::Poor) {
                    let draw = |dpi| read::gray(&page, dpi, options.limits.pixels);
                    queue.add(drafts.len(), &mut draft, layer, ocr, draw);
                }
                draft
            }
            Err(_) => failed(number, Failure::new(Code::PdfMalformed, format!("page {number} cannot be read"))),
        };
        drafts.push(draft);
        queue.settle(&mut drafts, ocr, false);
    }
    queue.settle(&mut drafts, ocr, true);
    ocr.begin(0);
    let engine = if queue.recognised() && drafts.iter().all(|d| !matches!(d.outcome, PageOutcome::Text)) {
        "tesseract"
    } else {
        "pdfium"
    };
    let mut metadata = metadata(&document);
    queue.describe(ocr.packs(), &mut metadata);
    paged::assemble(drafts, Format::Pdf, engine, metadata)
}

fn failed(number: u32, failure: Failure) -> PageDraft {
    PageDraft::empty(number, 612.0, 792.0, 0, PageOutcome::Failed { failure })
}

fn metadata(document: &PdfDocument) -> Metadata {
    let mut metadata = Metadata::new();
    let keys = [
        (PdfDocumentMetadataTagType::Title, "title"),
        (PdfDocumentMetadataTagType::Author, "author"),
        (PdfDocumentMetadataTagType::Subject, "subject"),
        (PdfDocumentMetadataTagType::Keywords, "keywords"),
        (PdfDocumentMetadataTagType::Creator, "creator"),
        (PdfDocumentMetadataTagType::Producer, "producer"),
        (PdfDocumentMetadataTagType::CreationDate, "date"),
        (PdfDocumentMetadataTagType::ModificationDate, "modified"),
    ];
    for (tag, key) in keys {
        let value = document.metadata().get(tag).map(|tag| docmill_model::text::canonical_string(tag.value().trim()));
        if let Some(value) = value.filter(|v| !v.is_empty() && v.len() <= 4_096) {
            metadata.insert(key.to_owned(), value);
        }
    }
    metadata.insert("page_count".to_owned(), document.pages().len().to_string());
    let embedded = document.attachments().len();
    if embedded > 0 {
        metadata.insert("embedded_files".to_owned(), embedded.to_string());
    }
    metadata
}

/// Refuses arrays and dictionaries that nest too deeply, which overflow the stack of many readers.
///
/// Brackets are counted as they open and close within an object, and what stands in streams is left out: binary data
/// holds brackets of its own.
fn check_nesting(bytes: &[u8], limit: u64) -> Result<(), Failure> {
    let (mut depth, mut deepest, mut at) = (0u64, 0u64, 0usize);
    while let Some(&b) = bytes.get(at) {
        at += 1;
        match b {
            b'[' | b'<' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'>' => depth = depth.saturating_sub(1),
            b'j' if bytes[..at].ends_with(b"obj") => depth = 0,
            b'm' if bytes[..at].ends_with(b"stream") => {
                let Some(length) = bytes[at..].windows(ENDSTREAM.len()).position(|w| w == ENDSTREAM) else { break };
                at += length + ENDSTREAM.len();
            }
            _ => {}
        }
    }
    // A dictionary opens with two characters, and single brackets may stand in strings: a generous factor.
    if deepest > limit * 2 {
        return Err(Failure::limit(Code::PdfNestingLimit, "objects of the PDF nest too deeply", limit, deepest));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_nesting;

    #[test]
    fn nesting_is_counted_through_values_and_not_through_streams() {
        for piece in ["[", "[ ", "[1 ", "<</A ", "<</A 1/B["] {
            assert!(check_nesting(piece.repeat(1_001).as_bytes(), 500).is_err(), "{piece}");
        }
        for (start, piece, end) in [("", "[1 2]", ""), ("1 0 obj stream\n", "[", "\nendstream"), ("", "1 0 obj[", "")] {
            let bytes = [start, &piece.repeat(5_000), end].concat();
            assert!(check_nesting(bytes.as_bytes(), 500).is_ok(), "{piece}");
        }
    }
}
