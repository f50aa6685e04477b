//! What every fuzz target asks of the parsers: no panic, no endless loop, no unbounded memory (libFuzzer's own limits
//! see to those), and whatever is read obeys the invariants of the document model.

mod docx_of;

pub use docx_of::docx_of;

use docmill_documents::{InProcess, OcrMode, ParseOptions, PdfEngine};
use std::path::Path;

/// Reads bytes of this declared type.
pub fn read(declared: Option<&str>, bytes: &[u8]) {
    check(&InProcess::default(), declared, bytes);
}

/// Reads a PDF; the library is loaded once.
pub fn read_pdf(pdfium: Option<&Path>, bytes: &[u8]) {
    thread_local! {
        static PDFIUM: std::cell::OnceCell<InProcess> = const { std::cell::OnceCell::new() };
    }
    PDFIUM.with(|reader| check(reader.get_or_init(|| InProcess::new(pdfium)), Some("application/pdf"), bytes));
}

fn check(reader: &InProcess, declared: Option<&str>, bytes: &[u8]) {
    let options = ParseOptions {
        declared_type: declared.map(str::to_owned),
        ocr: OcrMode::Off,
        pdf_engine: PdfEngine::Pdfium,
        ..ParseOptions::default()
    };
    if let Ok(document) = reader.parse(bytes, &options) {
        assert_eq!(document.violations(), Vec::<String>::new());
        assert!(!document.text.trim().is_empty(), "read and empty");
    }
}
