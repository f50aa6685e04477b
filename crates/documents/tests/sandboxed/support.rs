//! Parsers over the real child binary, and where the corpora are on this machine.

use docmill_documents::{ParseOptions, ParseRequest, Parser, ParserConfig, TesseractConfig};
use std::io::Write;
use std::path::{Path, PathBuf};

/// OCR as the test kit provides it.
pub fn tesseract() -> Option<TesseractConfig> {
    docmill_testkit::engines().tesseract.clone().map(|found| TesseractConfig {
        binary: found.binary,
        tessdata: found.tessdata,
        libraries: found.libraries,
    })
}

/// A parser over this crate's own child binary.
pub fn parser() -> Parser {
    parser_with(tesseract())
}

/// A parser with this recogniser, or without any.
pub fn parser_with(tesseract: Option<TesseractConfig>) -> Parser {
    Parser::new(ParserConfig {
        child: PathBuf::from(env!("CARGO_BIN_EXE_docmill-parse-child")),
        child_args: Vec::new(),
        pdfium: Some(docmill_testkit::engines().parts.pdfium.clone()),
        tesseract,
        slots: 2,
        landlock_required: false,
        options: ParseOptions::default(),
    })
}

/// A folder of the corpora, or `None` after saying that it is absent.
pub fn corpora(folder: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora");
    let root = std::env::var_os("DOCMILL_CORPORA").map_or_else(beside, PathBuf::from);
    let found = root.join(folder);
    if found.is_dir() {
        return Some(found);
    }
    let _ = writeln!(std::io::stderr(), "skipped: no {folder} (set DOCMILL_CORPORA)");
    None
}

/// A request for these bytes with a name and the default options.
pub fn request(bytes: impl Into<bytes::Bytes>, name: &str) -> ParseRequest {
    ParseRequest { bytes: bytes.into(), declared: None, name: Some(name.to_owned()), options: ParseOptions::default() }
}
