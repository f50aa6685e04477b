//! What the bytes are, whatever they are called: magic numbers, a look inside containers, then text.
//!
//! A declared media type (or, without one, the file's extension) that contradicts the bytes is refused, because one
//! of the two is a lie. Among texts the declaration decides: bytes cannot tell Markdown or CSV from prose.

mod container;
mod declared;

use crate::encoding;
use crate::observed::Detected;
use crate::options::ParseOptions;
use docmill_model::document::Format;
use docmill_model::{Code, Failure};

/// Bytes in which a PDF's header must begin (as readers accept it).
const PDF_WINDOW: usize = 1_024;
/// Bytes of text that are looked at for markup.
const TEXT_WINDOW: usize = 4_096;

/// What the bytes turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A format that is read.
    Known(Format),
    /// Text of some kind.
    Text,
    /// Something with a name that is not read.
    Other(String),
}

/// The format of `bytes`.
///
/// # Errors
/// `EMPTY_FILE`, `TYPE_AMBIGUOUS`, `TYPE_MISMATCH` (naming both), `TYPE_UNSUPPORTED` (naming the detected type),
/// `ARCHIVE_ENCRYPTED` for Office files with a password.
pub(crate) fn detect(bytes: &[u8], declared: Option<&str>, name: Option<&str>) -> Result<Format, Failure> {
    look(bytes, declared, name).1
}

/// What the options say that the bytes are: the media type, or else the name's extension.
pub(crate) fn declared(options: &ParseOptions) -> Option<String> {
    declared::wanted(options.declared_type.as_deref(), options.name.as_deref()).map(|wanted| wanted.label().to_owned())
}

/// What the bytes are, as far as that can be said, and the answer of [`detect`].
pub(crate) fn look(
    bytes: &[u8],
    declared: Option<&str>,
    name: Option<&str>,
) -> (Option<Detected>, Result<Format, Failure>) {
    if bytes.is_empty() {
        return (None, Err(Failure::new(Code::EmptyFile, "the file has no bytes")));
    }
    let kind = match kind(bytes) {
        Ok(kind) => kind,
        Err(failure) => return (None, Err(failure)),
    };
    let format = decide(&kind, bytes, declared::wanted(declared, name));
    let media_type = match &format {
        Ok(Format::Markdown) => "text/markdown",
        Ok(Format::Csv) => "text/csv",
        Ok(Format::Text) => "text/plain",
        _ => kind.label(bytes),
    };
    (Some(Detected { media_type: media_type.to_owned(), format: format.as_ref().ok().copied() }), format)
}

fn decide(kind: &Kind, bytes: &[u8], wanted: Option<declared::Wanted>) -> Result<Format, Failure> {
    if let Some(wanted) = &wanted
        && !wanted.fits(kind)
    {
        let message = format!("declared {}, detected {}", wanted.label(), kind.label(bytes));
        return Err(Failure::new(Code::TypeMismatch, message));
    }
    match kind {
        Kind::Known(format) => Ok(*format),
        Kind::Text if looks_like_html(bytes) => Ok(Format::Html),
        Kind::Text => wanted.map_or(Ok(Format::Text), |wanted| wanted.text_format()),
        Kind::Other(label) if label == "application/xml" && find(bytes, b"<!ENTITY").is_some() => {
            Err(Failure::new(Code::XmlDtdForbidden, "the XML declares entities"))
        }
        Kind::Other(label) => {
            Err(Failure::new(Code::TypeUnsupported, format!("files of type {label} are not read yet")))
        }
    }
}

impl Kind {
    fn label<'a>(&'a self, bytes: &[u8]) -> &'a str {
        match self {
            Kind::Known(Format::Pdf) => "application/pdf",
            Kind::Known(Format::Docx) => declared::DOCX,
            Kind::Known(Format::Image) => infer::get(bytes).map_or("image/x-portable-anymap", |kind| kind.mime_type()),
            Kind::Known(Format::Html) => "text/html",
            Kind::Text if looks_like_html(bytes) => "text/html",
            Kind::Text if encoding::decode(bytes, None).is_err() => "unknown binary data",
            Kind::Known(_) | Kind::Text => "text",
            Kind::Other(label) => label,
        }
    }
}

fn kind(bytes: &[u8]) -> Result<Kind, Failure> {
    let pdf = find(&bytes[..bytes.len().min(PDF_WINDOW)], b"%PDF-").is_some();
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return container::zip(bytes, pdf);
    }
    if pdf {
        if container::ends_as_zip(bytes) {
            return Err(Failure::new(Code::TypeAmbiguous, "the bytes are both a PDF and a ZIP archive"));
        }
        return Ok(Kind::Known(Format::Pdf));
    }
    if is_image(bytes) {
        return Ok(Kind::Known(Format::Image));
    }
    if bytes.starts_with(&[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1]) {
        return container::compound(bytes);
    }
    Ok(other(bytes).unwrap_or(Kind::Text))
}

/// Binary formats that are recognised in order to be named.
fn other(bytes: &[u8]) -> Option<Kind> {
    let named = |label: &str| Some(Kind::Other(label.to_owned()));
    if bytes.starts_with(b"{\\rtf") {
        return named("application/rtf");
    }
    if container::is_tar(bytes) {
        return named("application/x-tar");
    }
    if is_xml(bytes) {
        return named("application/xml");
    }
    let guess = infer::get(bytes)?;
    let text = matches!(guess.matcher_type(), infer::MatcherType::Text) || guess.mime_type().starts_with("text/");
    // Short marks inside prose ("BM", "MZ") are no evidence unless control codes follow.
    let binary =
        bytes[..bytes.len().min(TEXT_WINDOW)].iter().any(|&b| b < 9 || (14..27).contains(&b) || (28..32).contains(&b));
    if text || !binary { None } else { named(guess.mime_type()) }
}

fn is_image(bytes: &[u8]) -> bool {
    let pnm = bytes.len() > 8
        && bytes[0] == b'P'
        && (b'1'..=b'7').contains(&bytes[1])
        && bytes[2].is_ascii_whitespace()
        && bytes[3..8].iter().all(|b| b.is_ascii_digit() || b.is_ascii_whitespace() || *b == b'#');
    let bmp = bytes.starts_with(b"BM")
        && bytes.len() > 26
        && bytes.get(6..10) == Some(&[0; 4])
        && bytes[14] >= 12
        && bytes[15..18] == [0; 3];
    bytes.starts_with(b"\x89PNG\r\n\x1a\n")
        || bytes.starts_with(&[0xff, 0xd8, 0xff])
        || bytes.starts_with(b"GIF87a")
        || bytes.starts_with(b"GIF89a")
        || bytes.starts_with(b"II*\0")
        || bytes.starts_with(b"MM\0*")
        || (bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP"))
        || bmp
        || pnm
}

/// The beginning of the bytes as lower-case text without byte order mark, white space and comments.
fn head(bytes: &[u8]) -> String {
    let window = &bytes[..bytes.len().min(TEXT_WINDOW)];
    let text = match encoding_rs::Encoding::for_bom(window) {
        Some((encoding, length)) => encoding.decode_without_bom_handling(&window[length..]).0.into_owned(),
        None => String::from_utf8_lossy(window).replace('\0', ""),
    };
    let mut rest = text.trim_start().to_ascii_lowercase();
    while let Some(comment) = rest.strip_prefix("<!--") {
        let Some(end) = comment.find("-->") else { break };
        rest = comment[end + 3..].trim_start().to_owned();
    }
    rest
}

fn looks_like_html(bytes: &[u8]) -> bool {
    let head = head(bytes);
    let tags =
        ["<!doctype html", "<html", "<head", "<body", "<title", "<meta ", "<script", "<table", "<div", "<h1", "<p>"];
    tags.iter().any(|tag| head.starts_with(tag)) || (head.starts_with("<?xml") && is_xhtml(&head))
}

fn is_xhtml(head: &str) -> bool {
    head.contains("<html") || head.contains("<!doctype html")
}

/// XML that is no XHTML.
fn is_xml(bytes: &[u8]) -> bool {
    let head = head(bytes);
    head.starts_with("<?xml") && !is_xhtml(&head)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::detect;
    use docmill_model::Code;
    use docmill_model::document::Format;

    #[test]
    fn bytes_decide_and_declarations_are_checked() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR";
        let pdf = b"%PDF-1.4\n1 0 obj";
        let tar = old_tar(b"Words in a file.\n");
        for (bytes, declared, name, expected) in [
            (&pdf[..], Some("application/pdf"), None, Ok(Format::Pdf)),
            (pdf, Some("application/octet-stream"), None, Ok(Format::Pdf)),
            (pdf, None, None, Ok(Format::Pdf)),
            (pdf, Some("image/png"), None, Err(Code::TypeMismatch)),
            (png, Some("application/pdf"), None, Err(Code::TypeMismatch)),
            (png, None, Some("notes.txt"), Err(Code::TypeMismatch)),
            (png, Some("application/octet-stream"), Some("a.png"), Ok(Format::Image)),
            (b"# Title\n\ntext", None, Some("README.md"), Ok(Format::Markdown)),
            (b"a,b\n1,2\n", Some("text/csv; charset=utf-8"), None, Ok(Format::Csv)),
            (b"<!-- x --><!DOCTYPE html><p>Hi", Some("application/pdf"), None, Err(Code::TypeMismatch)),
            (b"<!-- x --><!DOCTYPE html><p>Hi", None, Some("page.htm"), Ok(Format::Html)),
            (b"MZ is how this sentence begins", None, None, Ok(Format::Text)),
            (b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0", Some("application/pdf"), None, Err(Code::TypeMismatch)),
            (b"{\\rtf1 x}", Some("application/rtf"), None, Err(Code::TypeUnsupported)),
            (&tar, Some("application/x-tar"), None, Err(Code::TypeUnsupported)),
            (&tar, Some("text/plain"), None, Err(Code::TypeMismatch)),
            (b"\x1f\x8b\x08\0\0\0\0\0", None, None, Err(Code::TypeUnsupported)),
            (b"7z\xbc\xaf\x27\x1c\0\x04", None, None, Err(Code::TypeUnsupported)),
            (b"Rar!\x1a\x07\x01\0", None, None, Err(Code::TypeUnsupported)),
            (b"\xfd7zXZ\0\0\x04", None, None, Err(Code::TypeUnsupported)),
            (b"BZh91AY&SY\x01\x02", None, None, Err(Code::TypeUnsupported)),
            (b"\x28\xb5\x2f\xfd\x04\0\x01\0", None, None, Err(Code::TypeUnsupported)),
            (b"", Some("application/pdf"), None, Err(Code::EmptyFile)),
            (b"<?xml version='1.0'?><!DOCTYPE x []><x/>", Some("text/xml"), None, Err(Code::TypeUnsupported)),
        ] {
            let found = detect(bytes, declared, name).map_err(|f| f.code);
            assert_eq!(
                found,
                expected,
                "{declared:?} {name:?} {}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(12)])
            );
        }
    }

    /// A tar archive as it was before the format had a magic number.
    fn old_tar(content: &[u8]) -> Vec<u8> {
        let mut block = vec![0; 512];
        block[..5].copy_from_slice(b"a.txt");
        block[100..108].copy_from_slice(b"0000644\0");
        block[124..136].copy_from_slice(format!("{:011o} ", content.len()).as_bytes());
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.extend_from_slice(content);
        block.resize(2_048, 0);
        block
    }

    #[test]
    fn a_pdf_that_ends_as_an_archive_is_ambiguous() {
        let mut both = b"%PDF-1.4\n%%EOF\n".to_vec();
        let start = both.len() as u32;
        both.extend(b"PK\x01\x02");
        both.extend([0; 42]);
        both.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        both.extend(46u32.to_le_bytes());
        both.extend(start.to_le_bytes());
        both.extend([0, 0]);
        assert_eq!(detect(&both, None, None).map_err(|f| f.code), Err(Code::TypeAmbiguous));
    }
}
