//! The ZIP container, read with suspicion: names, encryption and sizes are checked before anything is unpacked, and
//! the bytes that really come out are counted, whatever the directory claims.

use super::malformed;
use crate::limits::Limits;
use docmill_model::{Code, Failure};
use std::collections::HashMap;
use std::io::{Cursor, Read};
use zip::ZipArchive;

/// What compound files of older Office versions (and encrypted packages) begin with.
const COMPOUND: &[u8] = &[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];

/// An opened container.
pub(super) struct Archive<'a> {
    zip: ZipArchive<Cursor<&'a [u8]>>,
    /// Entry index by lower-case name without leading slash.
    names: HashMap<String, usize>,
    limits: &'a Limits,
    expanded: u64,
}

impl<'a> Archive<'a> {
    /// Opens the container and checks its directory.
    ///
    /// # Errors
    /// `ARCHIVE_ENCRYPTED`, `ARCHIVE_UNSAFE_PATH`, `ENTRY_LIMIT`, `EXPANSION_LIMIT`, `TYPE_MISMATCH`, `DOCX_MALFORMED`.
    pub fn open(bytes: &'a [u8], limits: &'a Limits) -> Result<Self, Failure> {
        if bytes.starts_with(COMPOUND) {
            return Err(compound(bytes));
        }
        if !bytes.starts_with(b"PK") {
            return Err(Failure::new(Code::TypeMismatch, "the bytes are no ZIP container, as a DOCX is"));
        }
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|_| malformed("the ZIP directory cannot be read"))?;
        let entries = zip.len() as u64;
        if entries > limits.entries {
            return Err(Failure::limit(Code::EntryLimit, "the archive has too many entries", limits.entries, entries));
        }
        let mut names = HashMap::new();
        let mut declared = 0u64;
        for index in 0..zip.len() {
            let entry =
                zip.by_index_data(index).map_err(|_| malformed("an entry of the ZIP directory cannot be read"))?;
            let name = entry.name().map_err(|_| malformed("the name of an entry cannot be read"))?.into_owned();
            if entry.encrypted() {
                return Err(Failure::new(Code::ArchiveEncrypted, "an entry of the archive is encrypted"));
            }
            if is_unsafe(&name) || entry.is_symlink() {
                return Err(Failure::new(Code::ArchiveUnsafePath, "an entry leads out of the archive"));
            }
            declared = declared.saturating_add(entry.size());
            names.insert(name.to_ascii_lowercase(), index);
        }
        if declared > limits.expanded_bytes {
            let message = "the archive declares more bytes than the limit";
            return Err(Failure::limit(Code::ExpansionLimit, message, limits.expanded_bytes, declared));
        }
        Ok(Self { zip, names, limits, expanded: 0 })
    }

    /// True when an entry of that name exists (case does not matter, as in the packaging standard).
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(&key(name))
    }

    /// Unpacks an entry, or `None` when there is none of that name.
    ///
    /// # Errors
    /// `EXPANSION_LIMIT` by the bytes that come out, `DOCX_MALFORMED` for damaged data.
    pub fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let Some(&index) = self.names.get(&key(name)) else { return Ok(None) };
        let entry = self.zip.by_index(index).map_err(|_| malformed("an entry cannot be unpacked"))?;
        let packed = entry.compressed_size().max(1);
        let left = self.limits.expanded_bytes.saturating_sub(self.expanded);
        // A ratio this high is only possible for padding; small parts may have it.
        let by_ratio = packed.saturating_mul(self.limits.expansion_ratio).max(self.limits.ratio_free_bytes);
        let most = left.min(by_ratio);
        let mut bytes = Vec::new();
        entry.take(most + 1).read_to_end(&mut bytes).map_err(|_| malformed("an entry is damaged"))?;
        let measured = bytes.len() as u64;
        // Also of a part that is refused: others may still be read.
        self.expanded += measured;
        if measured > most {
            let message = "an entry unpacks to more bytes than the limit";
            return Err(Failure::limit(Code::ExpansionLimit, message, most, measured));
        }
        Ok(Some(bytes))
    }
}

fn key(name: &str) -> String {
    name.trim_start_matches('/').to_ascii_lowercase()
}

/// Names that would leave a folder on any system: absolute, with a drive, a backslash, NUL or `..`.
fn is_unsafe(name: &str) -> bool {
    let drive = name.as_bytes().get(1) == Some(&b':');
    name.starts_with('/') || drive || name.contains(['\\', '\0']) || name.split('/').any(|part| part == "..")
}

fn compound(bytes: &[u8]) -> Failure {
    let wide: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
    if bytes.windows(wide.len()).any(|window| window == wide) {
        return Failure::new(Code::ArchiveEncrypted, "the document is encrypted with a password");
    }
    Failure::new(Code::TypeMismatch, "the file is of an older Office format, not DOCX")
}

#[cfg(test)]
mod tests {
    use super::is_unsafe;

    #[test]
    fn names_that_leave_the_archive() {
        for name in ["/etc/passwd", "../x", "a/../../x", "C:/x", "a\\..\\x", "a\0b"] {
            assert!(is_unsafe(name), "{name:?}");
        }
        for name in ["word/document.xml", "[Content_Types].xml", "a..b/c"] {
            assert!(!is_unsafe(name), "{name:?}");
        }
    }
}
