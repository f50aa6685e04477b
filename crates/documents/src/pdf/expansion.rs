//! What the streams of a PDF unpack to: asked only when a parse ran out of memory or time, to name the cause.
//!
//! Streams are found by their keywords, whatever the object tables say; deflate is undone up to two layers deep.

use crate::frames::Expansion;
use flate2::{Decompress, FlushDecompress, Status};

/// Layers of deflate that are undone.
const LAYERS: usize = 2;

/// Measures until `limit` is passed.
pub(crate) fn measure(bytes: &[u8], limit: u64) -> Expansion {
    let mut total = 0u64;
    let mut at = 0;
    while let Some(found) = find(&bytes[at..], b"stream") {
        at += found + 6;
        let data = &bytes[at..];
        let data = data.strip_prefix(b"\r\n").or_else(|| data.strip_prefix(b"\n")).unwrap_or(data);
        // `endstream` also ends in the keyword; what follows it is no deflate data and costs nothing.
        total += inflate(data, limit.saturating_sub(total), LAYERS);
        if total > limit {
            return Expansion { expanded_bytes: total, over: true };
        }
    }
    Expansion { expanded_bytes: total, over: false }
}

/// Bytes that `data` inflates to, over all layers, at most a little above `limit`.
fn inflate(data: &[u8], limit: u64, layers: usize) -> u64 {
    let zlib =
        data.len() > 2 && data[0] & 0x0f == 8 && (u16::from(data[0]) << 8 | u16::from(data[1])).is_multiple_of(31);
    if !zlib {
        return 0;
    }
    let mut inner = (layers > 1).then(|| Layer { state: Decompress::new(true), started: None });
    let mut state = Decompress::new(true);
    let mut out = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let (read, before) = (state.total_in() as usize, state.total_out());
        let status = state.decompress(&data[read.min(data.len())..], &mut out, FlushDecompress::None);
        let written = (state.total_out() - before) as usize;
        total += written as u64;
        if let Some(layer) = &mut inner {
            total += layer.feed(&out[..written], limit.saturating_sub(total));
        }
        let stalled = written == 0 && state.total_in() as usize == read;
        if total > limit || stalled || !matches!(status, Ok(Status::Ok)) {
            return total;
        }
    }
}

/// A second layer of deflate, fed piece by piece.
struct Layer {
    state: Decompress,
    /// Whether the first bytes are a deflate header, once seen.
    started: Option<bool>,
}

impl Layer {
    fn feed(&mut self, mut data: &[u8], limit: u64) -> u64 {
        if self.started.is_none() && data.len() > 2 {
            let zlib = data[0] & 0x0f == 8 && (u16::from(data[0]) << 8 | u16::from(data[1])).is_multiple_of(31);
            self.started = Some(zlib);
        }
        if self.started != Some(true) {
            return 0;
        }
        let mut out = vec![0; 64 << 10];
        let mut total = 0;
        while total <= limit {
            let (read, before) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(data, &mut out, FlushDecompress::None);
            let (read, written) = ((self.state.total_in() - read) as usize, self.state.total_out() - before);
            total += written;
            data = &data[read..];
            if !matches!(status, Ok(Status::Ok)) {
                self.started = Some(false);
                break;
            }
            if read == 0 && written == 0 {
                break;
            }
        }
        total
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
