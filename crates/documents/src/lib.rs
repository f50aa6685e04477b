//! Documents to text with places: detection, formats, PDF, OCR, and the sandbox in which all of it runs.
//!
//! [`Parser`] is the only way in for services: bytes go to a locked child process, a
//! [`docmill_model::document::ParsedDocument`] or a typed failure comes back; never a crash, a hang or a silent skip.
//! The crate knows no database, no store and no pipeline. What it does *not* do: follow links, run scripts, open
//! embedded files.

mod blocks;
mod csv;
mod detect;
mod docx;
mod encoding;
mod frames;
mod html;
mod image;
mod inline;
mod inspect;
mod language;
mod limits;
mod markdown;
mod observed;
mod ocr;
mod options;
mod paged;
mod parse;
mod parser;
mod pdf;
mod recogniser;
mod render;
mod sandbox;
mod text;

pub use frames::Lockdown;
pub use inspect::{Inspection, failure_html, inspection_html};
pub use limits::Limits;
pub use observed::{Detected, Observed, Steps};
pub use options::{OcrMode, ParseOptions, PdfEngine};
pub use parse::{InProcess, parse_in_process};
pub use parser::{FailedParse, ParseRequest, Parsed, Parser, ParserConfig, READING};
pub use recogniser::TesseractConfig;
pub use render::excerpt_html;
pub use sandbox::child::child_main;
pub use sandbox::report::SandboxReport;
