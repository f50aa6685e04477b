//! Cuts a TIFF with several images into files of one image each, by pointing its header at one directory after the
//! other; of an image in the obsolete JPEG compression, the JPEG inside is taken. Other formats pass through.

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
        if let Some(jpeg) = self.directories.get(index).and_then(|&directory| self.jpeg(directory as usize)) {
            return Cow::Borrowed(jpeg);
        }
        if self.directories.len() <= 1 {
            return Cow::Borrowed(self.bytes);
        }
        let offset = self.directories[index];
        let mut copy = self.bytes.to_vec();
        copy[4..8].copy_from_slice(&if self.little { offset.to_le_bytes() } else { offset.to_be_bytes() });
        Cow::Owned(copy)
    }

    /// The JPEG file that an image of compression 6 points to (TIFF 6.0, section 22), if it is a whole one.
    fn jpeg(&self, directory: usize) -> Option<&'a [u8]> {
        const COMPRESSION: u16 = 259;
        const OLD_JPEG: u16 = 6;
        const INTERCHANGE_FORMAT: u16 = 513;
        let entries = usize::from(short(self.bytes, self.little, directory)?);
        let value = |tag: u16| {
            let mut fields = (0..entries).map(|entry| directory + 2 + 12 * entry);
            fields.find(|&at| short(self.bytes, self.little, at) == Some(tag)).map(|at| at + 8)
        };
        if short(self.bytes, self.little, value(COMPRESSION)?)? != OLD_JPEG {
            return None;
        }
        let start = long(self.bytes, self.little, value(INTERCHANGE_FORMAT)?)? as usize;
        self.bytes.get(start..).filter(|jpeg| jpeg.starts_with(&[0xff, 0xd8, 0xff]))
    }
}

fn short(bytes: &[u8], little: bool, at: usize) -> Option<u16> {
    let b = bytes.get(at..)?.first_chunk()?;
    Some(if little { u16::from_le_bytes(*b) } else { u16::from_be_bytes(*b) })
}

fn long(bytes: &[u8], little: bool, at: usize) -> Option<u32> {
    let b = bytes.get(at..)?.first_chunk()?;
    Some(if little { u32::from_le_bytes(*b) } else { u32::from_be_bytes(*b) })
}

/// Offsets of the chained directories that lie inside the file, each once.
fn directories(bytes: &[u8], little: bool, limit: u64) -> Result<Vec<u32>, Failure> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut next = long(bytes, little, 4).unwrap_or(0);
    while next != 0 && seen.insert(next) {
        let Some(entries) = short(bytes, little, next as usize) else { break };
        found.push(next);
        if found.len() as u64 > limit {
            return Err(Failure::limit(
                Code::PageLimit,
                "the image file has too many images",
                limit,
                found.len() as u64,
            ));
        }
        next = long(bytes, little, next as usize + 2 + 12 * usize::from(entries)).unwrap_or(0);
    }
    Ok(found)
}
