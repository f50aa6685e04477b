//! Bytes to document, in the calling process: what the locked child runs, and what tests and fuzzing call directly.

use crate::frames::{OcrRequest, Request, Task};
use crate::ocr::{Nobody, Recognise};
use crate::options::{OcrMode, ParseOptions, PdfEngine};
use crate::parser::document_of;
use crate::sandbox::parent;
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

/// A reader in the calling process, without sandbox and tesseract, for fuzzing.
#[derive(Default)]
pub struct InProcess {
    engine: Option<pdf::Engine>,
}

/// A recogniser that gives every image the same answer.
struct Answering<'a>(&'a str, Vec<String>);

impl Recognise for Answering<'_> {
    fn packs(&self) -> &[String] {
        &self.1
    }

    fn submit(&mut self, _: &OcrRequest, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn wait(&mut self, _: u32) -> Result<String, Failure> {
        Ok(self.0.to_owned())
    }
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

    /// Reads one file, of whose images a recogniser says what is given here.
    ///
    /// # Errors
    /// Every code of a bad input.
    pub fn parse_recognised(
        &self,
        bytes: &[u8],
        options: &ParseOptions,
        answer: &str,
    ) -> Result<ParsedDocument, Failure> {
        let mut recogniser = Answering(answer, vec!["eng".to_owned(), "osd".to_owned()]);
        in_process(self.engine.as_ref(), bytes, options, &mut recogniser)
    }

    /// What the service makes of the frames that a parsing child wrote.
    ///
    /// # Errors
    /// What the frames report, `PARSER_CRASHED` for broken ones, `OUTPUT_LIMIT`.
    pub async fn hear(&self, frames: &[u8], options: &ParseOptions) -> Result<ParsedDocument, Failure> {
        let request = Request {
            task: Task::Parse,
            options: options.clone(),
            ocr_packs: Vec::new(),
            bad_pages: Vec::new(),
            size_bytes: 0,
        };
        document_of(&parent::hear(frames, &request).await?)
    }
}
