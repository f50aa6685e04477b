//! What an uploader says a file is: its media type, or else the extension of its name.

use super::Kind;
use docmill_model::document::Format;
use docmill_model::{Code, Failure};

/// Media type of DOCX.
pub(super) const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";

/// A declaration that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    label: String,
    class: Class,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Pdf,
    Docx,
    Image,
    /// Text; the format it is read as unless it is HTML.
    Text(Format),
    /// A container or unknown type: nothing is contradicted by it.
    Any,
}

/// Types that browsers and tools send when they do not know.
const GENERIC: [&str; 8] = [
    "",
    "*/*",
    "application/octet-stream",
    "binary/octet-stream",
    "application/unknown",
    "application/x-download",
    "application/force-download",
    "application/binary",
];

/// The declaration, or `None` when nothing was said.
pub(super) fn wanted(declared: Option<&str>, name: Option<&str>) -> Option<Wanted> {
    let kind = declared.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let extension = name.and_then(|name| Some(name.rsplit_once('.')?.1.to_ascii_lowercase())).unwrap_or_default();
    if GENERIC.contains(&kind.as_str()) {
        let class = by_extension(&extension)?;
        return Some(Wanted { label: format!("a name ending in .{extension}"), class });
    }
    let mut class = by_type(&kind);
    // "text/plain" is also what tools say about the other texts: the extension is more exact.
    if class == Class::Text(Format::Text)
        && let Some(Class::Text(format)) = by_extension(&extension)
    {
        class = Class::Text(format);
    }
    Some(Wanted { label: kind, class })
}

fn by_type(kind: &str) -> Class {
    match kind {
        "application/pdf" | "application/x-pdf" => Class::Pdf,
        "application/zip" | "application/x-zip-compressed" | "application/encrypted" => Class::Any,
        _ if kind == DOCX || kind.contains("wordprocessingml") || kind.starts_with("application/vnd.ms-word.") => {
            Class::Docx
        }
        "text/html" | "application/xhtml+xml" => Class::Text(Format::Html),
        "text/markdown" | "text/x-markdown" => Class::Text(Format::Markdown),
        "text/csv" | "text/tab-separated-values" | "application/csv" => Class::Text(Format::Csv),
        "text/xml" | "application/xml" | "text/rtf" => Class::Any,
        _ if kind.starts_with("text/") || kind == "application/json" => Class::Text(Format::Text),
        _ if kind.starts_with("image/") && !kind.contains("svg") => Class::Image,
        _ => Class::Any,
    }
}

fn by_extension(extension: &str) -> Option<Class> {
    Some(match extension {
        "pdf" => Class::Pdf,
        "docx" | "docm" | "dotx" | "dotm" => Class::Docx,
        "html" | "htm" | "xhtml" => Class::Text(Format::Html),
        "md" | "markdown" => Class::Text(Format::Markdown),
        "csv" | "tsv" => Class::Text(Format::Csv),
        "txt" | "text" | "log" => Class::Text(Format::Text),
        "png" | "jpg" | "jpeg" | "tif" | "tiff" | "gif" | "bmp" | "webp" | "ppm" | "pgm" | "pbm" | "pnm" => {
            Class::Image
        }
        _ => return None,
    })
}

impl Wanted {
    /// As written, for the message.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// False when the bytes contradict the declaration.
    pub fn fits(&self, kind: &Kind) -> bool {
        match self.class {
            Class::Any => true,
            Class::Pdf => *kind == Kind::Known(Format::Pdf),
            Class::Docx => {
                *kind == Kind::Known(Format::Docx)
                    || matches!(kind, Kind::Other(label) if label.contains("officedocument"))
            }
            // Image types that are not read are still images.
            Class::Image => {
                *kind == Kind::Known(Format::Image) || matches!(kind, Kind::Other(label) if label.starts_with("image/"))
            }
            Class::Text(_) => match kind {
                Kind::Text => true,
                Kind::Known(format) => matches!(format, Format::Html),
                Kind::Other(label) => matches!(label.as_str(), "application/xml" | "application/rtf"),
            },
        }
    }

    /// The format in which a text is read.
    pub fn text_format(&self) -> Result<Format, Failure> {
        match self.class {
            Class::Text(format) => Ok(format),
            Class::Any
                if matches!(
                    self.label.as_str(),
                    "application/zip" | "application/x-zip-compressed" | "application/encrypted"
                ) =>
            {
                Err(Failure::new(Code::TypeMismatch, format!("declared {}, detected text", self.label)))
            }
            _ => Ok(Format::Text),
        }
    }
}
