//! A look inside containers: which Office or other format a ZIP archive or compound file holds.
//!
//! Only names are read, nothing is unpacked but the short `mimetype` entry.

use super::{Kind, find};
use docmill_model::document::Format;
use docmill_model::{Code, Failure};
use std::io::{Cursor, Read};
use zip::ZipArchive;

/// What a ZIP archive holds. `pdf` tells that a PDF header stands in the first bytes too.
///
/// # Errors
/// `TYPE_AMBIGUOUS` for an archive that is also a PDF.
pub(super) fn zip(bytes: &[u8], pdf: bool) -> Result<Kind, Failure> {
    let other = |label: &str| Ok(Kind::Other(label.to_owned()));
    let Ok(mut archive) = ZipArchive::new(Cursor::new(bytes)) else {
        // A truncated DOCX is still best described by its own parser.
        let word = find(&bytes[..bytes.len().min(65_536)], b"word/").is_some();
        return if word { Ok(Kind::Known(Format::Docx)) } else { other("application/zip") };
    };
    let names: Vec<String> =
        archive.file_names().take(10_001).flatten().map(|name| name.to_ascii_lowercase()).collect();
    let has = |name: &str| names.iter().any(|n| n == name);
    let below = |folder: &str| names.iter().any(|n| n.starts_with(folder));
    if has("[content_types].xml") || below("word/") {
        if pdf && find(&bytes[bytes.len().saturating_sub(2_048)..], b"%%EOF").is_some() {
            return Err(Failure::new(Code::TypeAmbiguous, "the bytes are both a ZIP archive and a PDF"));
        }
        if below("xl/") {
            return other("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet");
        }
        if below("ppt/") {
            return other("application/vnd.openxmlformats-officedocument.presentationml.presentation");
        }
        if below("visio/") {
            return other("application/vnd.ms-visio.drawing");
        }
        if below("word/") || has("_rels/.rels") {
            return Ok(Kind::Known(Format::Docx));
        }
    }
    if let Some(kind) = mimetype(&mut archive) {
        return Ok(Kind::Other(kind));
    }
    if below("index/") || has("index.xml") || has("index.apxl") || has("preview.jpg") {
        return other("application/vnd.apple.iwork");
    }
    other("application/zip")
}

/// The content of the `mimetype` entry that OpenDocument and EPUB begin with.
fn mimetype(archive: &mut ZipArchive<Cursor<&[u8]>>) -> Option<String> {
    let entry = archive.by_name("mimetype").ok()?;
    let mut kind = String::new();
    entry.take(100).read_to_string(&mut kind).ok()?;
    let kind = kind.trim();
    let plain = kind.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'+'));
    (plain && kind.contains('/')).then(|| kind.to_owned())
}

/// True when the bytes end with a ZIP directory whose first entry stands where the directory says.
pub(super) fn ends_as_zip(bytes: &[u8]) -> bool {
    const END: usize = 22;
    let from = bytes.len().saturating_sub(END + 65_535);
    let Some(at) = bytes[from..].windows(4).rposition(|w| w == b"PK\x05\x06").map(|at| from + at) else { return false };
    let record = &bytes[at..];
    if record.len() < END {
        return false;
    }
    let short = |offset: usize| usize::from(u16::from_le_bytes([record[offset], record[offset + 1]]));
    let long = |offset: usize| {
        u32::from_le_bytes([record[offset], record[offset + 1], record[offset + 2], record[offset + 3]]) as usize
    };
    let (entries, size) = (short(10), long(12));
    // The directory ends where this record begins, wherever the archive starts.
    let directory = at.checked_sub(size).map(|start| &bytes[start..]);
    entries > 0 && directory.is_some_and(|d| d.starts_with(b"PK\x01\x02"))
}

/// True for a tar archive, also of the first version, which has no magic number: the checksum of its header tells.
pub(super) fn is_tar(bytes: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    let Some(header) = bytes.get(..512) else { return false };
    if &header[257..262] == b"ustar" {
        return true;
    }
    let digits = String::from_utf8_lossy(&header[CHECKSUM]);
    let stated = u32::from_str_radix(digits.trim_matches([' ', '\0']), 8);
    let sum = |range: &[u8]| range.iter().map(|&b| u32::from(b)).sum::<u32>();
    // The checksum itself counts as spaces.
    let measured = sum(header) - sum(&header[CHECKSUM]) + 8 * u32::from(b' ');
    header[0] != 0 && stated == Ok(measured)
}

/// What a compound file (older Office, or an encrypted package) holds.
///
/// # Errors
/// `ARCHIVE_ENCRYPTED` for a package with a password.
pub(super) fn compound(bytes: &[u8]) -> Result<Kind, Failure> {
    let has = |name: &str| {
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        find(bytes, &wide).is_some()
    };
    if has("EncryptedPackage") {
        return Err(Failure::new(Code::ArchiveEncrypted, "the document is encrypted with a password"));
    }
    // Presentations hold sheets more often than sheets hold presentations.
    let label = if has("PowerPoint Document") {
        "application/vnd.ms-powerpoint"
    } else if has("WordDocument") {
        "application/msword"
    } else if has("Workbook") || has("Book") {
        "application/vnd.ms-excel"
    } else if has("__properties_version1.0") {
        "application/vnd.ms-outlook"
    } else {
        "application/x-ole-storage"
    };
    Ok(Kind::Other(label.to_owned()))
}
