//! What every fuzz target asks of the parsers: no panic, no endless loop, no unbounded memory (libFuzzer's own limits
//! see to those), and whatever is read obeys the invariants of the document model.

use docmill_documents::{InProcess, OcrMode, ParseOptions, PdfEngine};
use std::io::{Cursor, Write};
use std::path::Path;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

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

/// The smallest DOCX whose body is these bytes.
#[must_use]
pub fn docx_of(body: &[u8]) -> Vec<u8> {
    const TYPES: &str = r#"<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"#;
    const RELATIONS: &str = r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>"#;
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let parts = [
        ("[Content_Types].xml", TYPES.as_bytes()),
        ("_rels/.rels", RELATIONS.as_bytes()),
        ("word/document.xml", body),
    ];
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in parts {
        archive.start_file(name, stored).expect("an entry can be started in memory");
        archive.write_all(bytes).expect("memory can be written");
    }
    archive.finish().expect("an archive in memory can be finished").into_inner()
}
