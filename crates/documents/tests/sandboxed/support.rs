//! Parsers over the real child binary, and where the corpora, pdfium and tesseract are on this machine.

use docmill_documents::{ParseOptions, ParseRequest, Parser, ParserConfig, TesseractConfig};
use std::path::{Path, PathBuf};

/// pdfium by `DOCMILL_PDFIUM`, or where `docmill setup` puts it.
pub fn pdfium() -> Option<PathBuf> {
    let named = std::env::var_os("DOCMILL_PDFIUM").map(PathBuf::from);
    let homes =
        [Some(PathBuf::from("/var/lib/docmill")), std::env::home_dir().map(|home| home.join(".local/share/docmill"))];
    let installed = || {
        let parts = homes
            .into_iter()
            .flatten()
            .flat_map(|home| std::fs::read_dir(home.join("parts")).into_iter().flatten().flatten());
        parts.map(|part| part.path().join("pypdfium2_raw/libpdfium.so")).find(|library| library.is_file())
    };
    named.filter(|library| library.is_file()).or_else(installed)
}

/// An installed tesseract.
pub fn tesseract() -> Option<TesseractConfig> {
    let (binary, tessdata) =
        (PathBuf::from("/usr/bin/tesseract"), PathBuf::from("/usr/share/tesseract-ocr/5/tessdata"));
    (binary.is_file() && tessdata.is_dir()).then_some(TesseractConfig { binary, tessdata, libraries: None })
}

/// A parser over this crate's own child binary.
pub fn parser() -> Parser {
    Parser::new(ParserConfig {
        child: PathBuf::from(env!("CARGO_BIN_EXE_docmill-parse-child")),
        child_args: Vec::new(),
        pdfium: pdfium(),
        tesseract: tesseract(),
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
    println!("skipped: no {folder} (set DOCMILL_CORPORA)");
    None
}

/// A request for these bytes with a name and the default options.
pub fn request(bytes: impl Into<bytes::Bytes>, name: &str) -> ParseRequest {
    ParseRequest { bytes: bytes.into(), declared: None, name: Some(name.to_owned()), options: ParseOptions::default() }
}
