//! Whether a document has optional layers that are off. pdfium reads their text like any other and does not draw it.

use flate2::{Decompress, FlushDecompress};

/// Bytes of unpacked object streams that are searched.
const SEARCHED: usize = 4 << 20;

/// True when the document declares layers and says of some that they are off.
pub(super) fn some_off(bytes: &[u8]) -> bool {
    let mut found = Found::default();
    found.search(bytes);
    let (mut at, mut left) = (0, SEARCHED);
    while !found.both() && left > 0 {
        let Some(mark) = position(&bytes[at..], b"/ObjStm") else { break };
        at += mark + 7;
        let Some(start) = position(&bytes[at..], b"stream") else { break };
        at += start + 6;
        let data = &bytes[at..];
        let data = data.strip_prefix(b"\r\n").or_else(|| data.strip_prefix(b"\n")).unwrap_or(data);
        let mut objects = Vec::with_capacity(left.min(256 << 10));
        while objects.len() < left {
            let mut state = Decompress::new(true);
            objects.clear();
            // Damaged streams give what they gave before the damage.
            let ended = state.decompress_vec(data, &mut objects, FlushDecompress::Finish);
            if objects.len() < objects.capacity() || ended.is_err() || objects.capacity() >= left {
                break;
            }
            objects.reserve(left.min(objects.capacity() * 4));
        }
        left = left.saturating_sub(objects.len().max(1));
        found.search(&objects);
    }
    found.both()
}

#[derive(Default)]
struct Found {
    layers: bool,
    off: bool,
}

impl Found {
    fn both(&self) -> bool {
        self.layers && self.off
    }

    fn search(&mut self, bytes: &[u8]) {
        self.layers |= position(bytes, b"/OCProperties").is_some();
        let mut at = 0;
        while let Some(mark) = position(&bytes[at..], b"/OFF").filter(|_| !self.off) {
            at += mark + 4;
            let mut rest = bytes[at..].iter().filter(|b| !b.is_ascii_whitespace());
            // An empty list of layers that are off says nothing.
            self.off = (rest.next(), rest.next()) != (Some(&b'['), Some(&b']'));
        }
    }
}

fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|&b| b == first)?;
        if bytes[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::some_off;
    use std::io::Write;

    #[test]
    fn layers_are_found_in_plain_and_packed_objects() {
        let off = "<</OCProperties<</OCGs[5 0 R]/D<</OFF [5 0 R]>>>>>>";
        let packed = |objects: &str| {
            let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            zlib.write_all(objects.as_bytes()).expect("packs");
            [b"1 0 obj <</Type/ObjStm>>stream\r\n".as_slice(), &zlib.finish().expect("packs"), b"\nendstream"].concat()
        };
        let far = format!("{}{off}", " ".repeat(600_000));
        for with in [off.as_bytes().to_vec(), packed(off), packed(&far)] {
            assert!(some_off(&with));
        }
        let on = "<</OCProperties<</OCGs[5 0 R]/D<</ON[5 0 R]/OFF[ ]>>>>>>";
        for without in [on.as_bytes().to_vec(), packed(on), b"/OFF[1]".to_vec(), b"/ObjStm stream".to_vec(), Vec::new()]
        {
            assert!(!some_off(&without));
        }
    }
}
