//! Bytes to document, in the calling process: what the locked child runs, and what tests and fuzzing call directly.

use crate::ocr::{Nobody, Recognise};
use crate::options::{OcrMode, ParseOptions, PdfEngine};
use crate::{csv, detect, docx, html, image, markdown, pdf, text};
use docmill_model::document::{Format, ParsedDocument};
use docmill_model::{Code, Failure};
use std::path::Path;

/// Parses with the engines that are given.
///
/// # Errors
/// Every code of a bad input.
pub(crate) fn in_process(
    engine: Option<&pdf::Engine>,
    bytes: &[u8],
    options: &ParseOptions,
    ocr: &mut dyn Recognise,
) -> Result<ParsedDocument, Failure> {
    let (detected, format) = detect::look(bytes, options.declared_type.as_deref(), options.name.as_deref());
    if let Some(detected) = &detected {
        ocr.detected(detected);
    }
    match format? {
        Format::Pdf => match (options.pdf_engine, engine) {
            (PdfEngine::PdfExtract, _) | (PdfEngine::Auto, None) => pdf::parse_plain(bytes, options),
            (PdfEngine::Pdfium, None) => Err(Failure::new(Code::PartMissing, "pdfium is not installed")),
            (_, Some(engine)) => pdf::parse(engine, bytes, options, ocr),
        },
        Format::Image => image::parse(bytes, options, ocr),
        Format::Docx => docx::parse(bytes, options),
        Format::Html => html::parse(bytes, options),
        Format::Markdown => markdown::parse(bytes, options),
        Format::Text => text::parse(bytes, options),
        Format::Csv => csv::parse(bytes, options),
    }
}

/// Parses in this process, without sandbox, pdfium and OCR: PDF is not read at all. For tests; services call
/// [`crate::Parser`].
///
/// # Errors
/// Every code of a bad input; `PART_MISSING` for PDF, `OCR_UNAVAILABLE` for images.
pub fn parse_in_process(bytes: &[u8], options: &ParseOptions) -> Result<ParsedDocument, Failure> {
    let options = ParseOptions { pdf_engine: PdfEngine::Pdfium, ocr: OcrMode::Auto, ..options.clone() };
    in_process(None, bytes, &options, &mut Nobody)
}

/// A reader in the calling process, without sandbox and OCR, for fuzzing.
#[derive(Default)]
pub struct InProcess {
    engine: Option<pdf::Engine>,
}

impl InProcess {
    /// Loads pdfium from this library; without one, or when it cannot be loaded, PDF ends `PART_MISSING`. A process
    /// can do this once.
    #[must_use]
    pub fn new(pdfium: Option<&Path>) -> Self {
        Self { engine: pdfium.and_then(|library| pdf::Engine::load(library).ok()) }
    }

    /// Reads one file.
    ///
    /// # Errors
    /// Every code of a bad input.
    pub fn parse(&self, bytes: &[u8], options: &ParseOptions) -> Result<ParsedDocument, Failure> {
        in_process(self.engine.as_ref(), bytes, options, &mut Nobody)
    }
}
