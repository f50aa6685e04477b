//! What a caller may ask of one parse.

use crate::limits::Limits;

/// Which engine reads PDF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PdfEngine {
    /// pdfium; pdf-extract when pdfium is missing or fails.
    #[default]
    Auto,
    /// pdfium only.
    Pdfium,
    /// pdf-extract only: text without word boxes.
    PdfExtract,
}

/// When pages are read by optical character recognition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OcrMode {
    /// Images, and PDF pages whose text layer is missing or broken.
    #[default]
    Auto,
    /// Never; such pages fail with `OCR_UNAVAILABLE`.
    Off,
    /// Every page.
    Force,
}

/// Options of one parse.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ParseOptions {
    /// What the parse may cost.
    pub limits: Limits,
    /// File name as uploaded; only its extension is looked at, and only where the bytes leave a choice.
    pub name: Option<String>,
    /// Media type as declared; a contradiction to the bytes is `TYPE_MISMATCH`.
    pub declared_type: Option<String>,
    /// Engine for PDF.
    pub pdf_engine: PdfEngine,
    /// When to use OCR.
    pub ocr: OcrMode,
    /// Tesseract language packs, the likeliest first; packs that are not installed are left out. Default: `eng`.
    pub ocr_languages: Vec<String>,
    /// Resolution at which PDF pages are rendered for OCR, in dots per inch: 200.
    pub ocr_dpi: u32,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            name: None,
            declared_type: None,
            pdf_engine: PdfEngine::default(),
            ocr: OcrMode::default(),
            ocr_languages: vec!["eng".to_owned()],
            ocr_dpi: 200,
        }
    }
}
