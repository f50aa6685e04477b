//! Cuts a TIFF with several images into files of one image each, by pointing its header at one directory after the
//! other. Other formats pass through.

use docmill_model::{Code, Failure};
use std::borrow::Cow;
use std::collections::HashSet;

/// The images of a file; each is made when it is asked for.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    little: bool,
    directories: Vec<u32>,
}

impl<'a> Frames<'a> {
    /// Finds the images.
    ///
    /// # Errors
    /// `PAGE_LIMIT` when there are more than `limit`.
    pub fn of(bytes: &'a [u8], limit: u64) -> Result<Self, Failure> {
        let little = bytes.starts_with(b"II*\0");
        let tiff = little || bytes.starts_with(b"MM\0*");
        let directories = if tiff { directories(bytes, little, limit)? } else { Vec::new() };
        Ok(Self { bytes, little, directories })
    }

    /// Number of images, at least 1.
    pub fn len(&self) -> usize {
        self.directories.len().max(1)
    }

    /// A file that holds only image `index`.
    pub fn get(&self, index: usize) -> Cow<'a, [u8]> {
        if self.directories.len() <= 1 {
            return Cow::Borrowed(self.bytes);
        }
        let offset = self.directories[index];
        let mut copy = self.bytes.to_vec();
        copy[4..8].copy_from_slice(&if self.little { offset.to_le_bytes() } else { offset.to_be_bytes() });
        Cow::Owned(copy)
    }
}

/// Offsets of the chained directories that lie inside the file, each once.
fn directories(bytes: &[u8], little: bool, limit: u64) -> Result<Vec<u32>, Failure> {
    let short = |at: usize| {
        bytes
            .get(at..at + 2)
            .map(|b| if little { u16::from_le_bytes([b[0], b[1]]) } else { u16::from_be_bytes([b[0], b[1]]) })
    };
    let long = |at: usize| {
        let b = bytes.get(at..at + 4)?;
        let b = [b[0], b[1], b[2], b[3]];
        Some(if little { u32::from_le_bytes(b) } else { u32::from_be_bytes(b) })
    };
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut next = long(4).unwrap_or(0);
    while next != 0 && seen.insert(next) {
        let Some(entries) = short(next as usize) else { break };
        found.push(next);
        if found.len() as u64 > limit {
            return Err(Failure::limit(
                Code::PageLimit,
                "the image file has too many images",
                limit,
                found.len() as u64,
            ));
        }
        next = long(next as usize + 2 + 12 * usize::from(entries)).unwrap_or(0);
    }
    Ok(found)
}
