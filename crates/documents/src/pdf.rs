//! PDF: words with boxes from the text layer, and images of the pages that have none.
//!
//! pdfium reads first; pdf-extract is the second engine and gives text without boxes. Nothing in the file is executed
//! or fetched: scripts, launch actions and forms' programs are not run, embedded files are not opened.

mod expansion;
mod forms;
mod hidden;
mod plain;
mod read;
mod words;

use crate::ocr::{self, Recognise};
use crate::options::{OcrMode, ParseOptions};
use crate::paged::{self, Metadata, PageDraft};
use docmill_model::document::{Format, PageOutcome, ParsedDocument};
use docmill_model::{Code, Failure};
use pdfium_render::prelude::{PdfDocument, PdfDocumentMetadataTagType, Pdfium, PdfiumError, PdfiumInternalError};
use std::path::Path;

pub(crate) use expansion::measure;
pub(crate) use plain::parse as parse_plain;
pub(crate) use read::render;

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
                let (mut draft, needs_ocr) = read::page(&page, number, options);
                if needs_ocr && options.ocr != OcrMode::Off {
                    queue.add(drafts.len(), &mut draft, ocr, |dpi| read::gray(&page, dpi, options.limits.pixels));
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
    paged::assemble(drafts, Format::Pdf, engine, metadata(&document))
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
/// Only runs of opening brackets are counted; a closing one ends the run's depth.
fn check_nesting(bytes: &[u8], limit: u64) -> Result<(), Failure> {
    let (mut depth, mut deepest) = (0u64, 0u64);
    for &b in bytes {
        match b {
            b'[' | b'<' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b' ' | b'\n' | b'\r' | b'\t' => {}
            // Binary data holds single brackets; only unbroken nesting counts.
            _ => depth = 0,
        }
    }
    // A dictionary opens with two characters, and strings of `<` may stand in data: a generous factor.
    if deepest > limit * 2 {
        return Err(Failure::limit(Code::PdfNestingLimit, "objects of the PDF nest too deeply", limit, deepest));
    }
    Ok(())
}
