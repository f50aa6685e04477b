//! What every fuzz target asks of the parsers: no panic, no endless loop, no unbounded memory (libFuzzer's own limits
//! see to those), and whatever is read obeys the invariants of the document model.

mod docx_of;

pub use docx_of::{Part, docx_of};

use docmill_documents::{InProcess, Limits, OcrMode, ParseOptions, PdfEngine};
use docmill_model::document::ParsedDocument;
use std::panic::{Location, catch_unwind};
use std::path::Path;
use std::sync::Once;

/// Folders of crates that others wrote, and of the standard library.
const OTHERS: [&str; 2] = ["/registry/src/", "/rustc/"];
/// An image of which a recogniser says what a fuzzer thinks of.
const IMAGE: &[u8] = include_bytes!("../corpus/image/gray.png");

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

/// Reads a PDF as pdf-extract sees it.
pub fn read_pdf_plain(bytes: &[u8]) {
    static HOOK: Once = Once::new();
    let options = ParseOptions {
        declared_type: Some("application/pdf".to_owned()),
        ocr: OcrMode::Off,
        pdf_engine: PdfEngine::PdfExtract,
        ..ParseOptions::default()
    };
    // It panics on broken files, which ends a child and no more: what is looked for are panics of what is written here.
    HOOK.call_once(|| {
        let fatal = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let theirs = |at: &Location| OTHERS.iter().any(|folder| at.file().contains(folder));
            if !panic.location().is_some_and(theirs) {
                fatal(panic);
            }
        }));
    });
    let read = catch_unwind(|| InProcess::default().parse(bytes, &options));
    if let Ok(Ok(document)) = read {
        sound(&document);
    }
}

/// Reads an image of which a recogniser says this.
pub fn read_recognised(answer: &[u8]) {
    let options = ParseOptions { ocr: OcrMode::Force, ..ParseOptions::default() };
    let answer = String::from_utf8_lossy(answer);
    if let Ok(document) = InProcess::default().parse_recognised(IMAGE, &options, &answer) {
        sound(&document);
    }
}

/// Hears what a child wrote. A document it makes up need not be sound, but lies within its text.
pub fn hear(frames: &[u8]) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    let limits = Limits { output_bytes: 1 << 20, pixels: 1 << 20, ..Limits::default() };
    let options = ParseOptions { limits, ..ParseOptions::default() };
    let heard = RUNTIME.with(|runtime| runtime.block_on(InProcess::default().hear(frames, &options)));
    if let Ok(document) = heard {
        assert!(document.is_within_its_text());
        let _ = document.violations();
    }
}

fn sound(document: &ParsedDocument) {
    assert_eq!(document.violations(), Vec::<String>::new());
    assert!(!document.text.trim().is_empty(), "read and empty");
}

fn check(reader: &InProcess, declared: Option<&str>, bytes: &[u8]) {
    let options = ParseOptions {
        declared_type: declared.map(str::to_owned),
        ocr: OcrMode::Off,
        pdf_engine: PdfEngine::Pdfium,
        ..ParseOptions::default()
    };
    if let Ok(document) = reader.parse(bytes, &options) {
        sound(&document);
    }
}
