//! Bytes to text: byte order marks, UTF-8, UTF-16 and UTF-32 with or without a mark, and guessed legacy charsets.
//!
//! Promises the charset that was used and how many characters were replaced, or `ENCODING_UNKNOWN` for bytes that
//! are no text. NUL is dropped. It does not look for a declaration inside the text: callers pass it as a hint.

mod legacy;

use docmill_model::{Code, Failure};
use encoding_rs::Encoding;

/// Decoded text and how it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// The text, without byte order mark and NUL.
    pub text: String,
    /// Name of the charset, as in the WHATWG registry where it is there.
    pub charset: &'static str,
    /// Characters that could not be read and became U+FFFD.
    pub replacements: u64,
}

/// Share of control characters (per mille) above which bytes are taken for binary.
const CONTROL_PER_MILLE: usize = 20;
/// Share of unreadable characters (per mille) above which a charset is given up.
const REPLACED_PER_MILLE: u64 = 100;

/// Decodes `bytes`; `hint` is the label a document declares for itself.
///
/// # Errors
/// [`Code::EncodingUnknown`] when no charset gives text.
pub(crate) fn decode(bytes: &[u8], hint: Option<&str>) -> Result<Decoded, Failure> {
    if let Some(decoded) = marked(bytes).or_else(|| wide_without_mark(bytes)) {
        return accept(decoded);
    }
    let owned: Vec<u8>;
    let mut bytes = bytes;
    if bytes.contains(&0) {
        owned = bytes.iter().copied().filter(|&b| b != 0).collect();
        if owned.len() * 2 < bytes.len() {
            return Err(unknown("more than half of the bytes are NUL"));
        }
        bytes = &owned;
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if controls(text.bytes()) * 1_000 > text.len() * CONTROL_PER_MILLE {
            return Err(unknown("the bytes hold control codes instead of text"));
        }
        return Ok(Decoded { text: text.to_owned(), charset: "UTF-8", replacements: 0 });
    }
    if controls(bytes.iter().copied()) * 1_000 > bytes.len() * CONTROL_PER_MILLE || looks_like_ebcdic(bytes) {
        return Err(unknown("the bytes hold control codes instead of text"));
    }
    if mostly_utf8(bytes) {
        return accept(standard(encoding_rs::UTF_8, bytes));
    }
    let declared = hint.and_then(|label| Encoding::for_label(label.trim().as_bytes()));
    if let Some(encoding) = declared.filter(|e| e.is_ascii_compatible() && *e != encoding_rs::UTF_8) {
        let decoded = standard(encoding, bytes);
        if decoded.replacements * 1_000 <= bytes.len() as u64 {
            return accept(decoded);
        }
    }
    accept(legacy::guess(bytes))
}

fn unknown(message: &str) -> Failure {
    Failure::new(Code::EncodingUnknown, message)
}

fn accept(decoded: Decoded) -> Result<Decoded, Failure> {
    let chars = decoded.text.chars().count() as u64;
    if decoded.replacements * 1_000 > chars * REPLACED_PER_MILLE {
        let message = format!("{} of {chars} characters cannot be read as {}", decoded.replacements, decoded.charset);
        return Err(unknown(&message));
    }
    if controls(decoded.text.bytes()) * 1_000 > decoded.text.len() * CONTROL_PER_MILLE {
        return Err(unknown("the bytes hold control codes instead of text"));
    }
    Ok(decoded)
}

fn controls(bytes: impl Iterator<Item = u8>) -> usize {
    bytes.filter(|&b| (b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b)) || b == 0x7f).count()
}

/// Decodes with a WHATWG encoding and counts what it had to replace.
fn standard(encoding: &'static Encoding, bytes: &[u8]) -> Decoded {
    let (text, had_errors) = encoding.decode_without_bom_handling(bytes);
    let replacements = if had_errors { text.chars().filter(|&c| c == '\u{fffd}').count() as u64 } else { 0 };
    Decoded { text: text.replace('\0', ""), charset: encoding.name(), replacements }
}

fn marked(bytes: &[u8]) -> Option<Decoded> {
    if let Some(rest) = bytes.strip_prefix(&[0xff, 0xfe, 0, 0]).filter(|rest| rest.len() % 4 == 0) {
        return Some(utf32(rest, u32::from_le_bytes, "UTF-32LE"));
    }
    if let Some(rest) = bytes.strip_prefix(&[0, 0, 0xfe, 0xff]) {
        return Some(utf32(rest, u32::from_be_bytes, "UTF-32BE"));
    }
    let (encoding, length) = Encoding::for_bom(bytes)?;
    Some(standard(encoding, &bytes[length..]))
}

fn utf32(bytes: &[u8], number: fn([u8; 4]) -> u32, charset: &'static str) -> Decoded {
    let mut replacements = 0;
    let mut text = String::with_capacity(bytes.len() / 4);
    let chunks = bytes.chunks_exact(4);
    if !chunks.remainder().is_empty() {
        replacements += 1;
    }
    for quad in chunks {
        match char::from_u32(number([quad[0], quad[1], quad[2], quad[3]])) {
            Some('\0') => {}
            Some(c) => text.push(c),
            None => {
                replacements += 1;
                text.push('\u{fffd}');
            }
        }
    }
    Decoded { text, charset, replacements }
}

/// UTF-16 and UTF-32 without a mark betray themselves by NUL bytes: spaces, line ends and digits have them.
fn wide_without_mark(bytes: &[u8]) -> Option<Decoded> {
    let sample = &bytes[..bytes.len().min(65_536) & !3];
    if !sample.contains(&0) || bytes.len() < 4 {
        return None;
    }
    // A few stray NULs in plain text are not every other byte of wide text.
    let stray = sample.iter().filter(|&&b| b == 0).count() * 4 < sample.len();
    if stray && std::str::from_utf8(&bytes.iter().copied().filter(|&b| b != 0).collect::<Vec<u8>>()).is_ok() {
        return None;
    }
    let zeros = |step: usize, at: usize| sample.iter().skip(at).step_by(step).filter(|&&b| b == 0).count();
    let quads = (sample.len() / 4).max(1);
    if bytes.len().is_multiple_of(4) && zeros(4, 3) == quads && zeros(4, 2) * 10 > quads * 9 && zeros(4, 0) < quads / 10
    {
        return readable(utf32(bytes, u32::from_le_bytes, "UTF-32LE"));
    }
    if bytes.len().is_multiple_of(4) && zeros(4, 0) == quads && zeros(4, 1) * 10 > quads * 9 && zeros(4, 3) < quads / 10
    {
        return readable(utf32(bytes, u32::from_be_bytes, "UTF-32BE"));
    }
    let (even, odd) = (zeros(2, 0), zeros(2, 1));
    let encoding = match (even, odd) {
        (low, high) if high > 8 * low => encoding_rs::UTF_16LE,
        (high, low) if high > 8 * low => encoding_rs::UTF_16BE,
        _ => return None,
    };
    readable(standard(encoding, bytes))
}

/// Keeps a guess only when what it gives is text: few replacements, controls and private characters.
fn readable(decoded: Decoded) -> Option<Decoded> {
    let total = decoded.text.chars().take(20_000).count();
    let odd = |c: char| {
        (c.is_control() && !c.is_whitespace())
            || matches!(c, '\u{fffd}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}')
    };
    let strange = decoded.text.chars().take(20_000).filter(|&c| odd(c)).count();
    (total > 0 && strange * 50 <= total).then_some(decoded)
}

/// True for UTF-8 with a few damaged places: at least ten good sequences for each bad one.
fn mostly_utf8(bytes: &[u8]) -> bool {
    let (mut good, mut bad) = (0usize, 0usize);
    for chunk in bytes.utf8_chunks() {
        good += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        bad += usize::from(!chunk.invalid().is_empty());
    }
    good >= 10 * bad
}

/// EBCDIC text has its space at 0x40 and neither the ASCII space nor ASCII line ends.
fn looks_like_ebcdic(bytes: &[u8]) -> bool {
    let at_signs = bytes.iter().filter(|&&b| b == 0x40).count();
    at_signs * 20 > bytes.len() && !bytes.iter().any(|&b| matches!(b, b' ' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::decode;
    use docmill_model::Code;

    const TEXT: &str = "Größe und Übermaß\nstehen hier 12 mal.";

    fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    }

    #[test]
    fn wide_encodings_with_and_without_mark() {
        for (order, name) in [(u16::to_le_bytes as fn(u16) -> [u8; 2], "UTF-16LE"), (u16::to_be_bytes, "UTF-16BE")] {
            for text in [TEXT.to_owned(), format!("\u{feff}{TEXT}")] {
                let decoded = decode(&utf16(&text, order), None).expect("text");
                assert_eq!((decoded.text.as_str(), decoded.charset), (TEXT, name));
            }
        }
        let quads: Vec<u8> = TEXT.chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
        assert_eq!(decode(&quads, None).expect("text").text, TEXT);
    }

    #[test]
    fn a_damaged_place_is_counted_and_binary_is_refused() {
        let mut bytes = "über ".repeat(40).into_bytes();
        bytes[0] = 0xff;
        let decoded = decode(&bytes, None).expect("text");
        assert_eq!((decoded.charset, decoded.replacements), ("UTF-8", 2));
        let binary: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(decode(&binary, None).map_err(|f| f.code), Err(Code::EncodingUnknown));
    }

    #[test]
    fn nul_is_dropped_and_a_hint_decides_legacy_bytes() {
        assert_eq!(decode(b"text\0with\0nul", None).expect("text").text, "textwithnul");
        let (bytes, _, _) = encoding_rs::SHIFT_JIS.encode("これは日本語の文章です。");
        let decoded = decode(&bytes, Some("shift_jis")).expect("text");
        assert_eq!((decoded.text.as_str(), decoded.charset), ("これは日本語の文章です。", "Shift_JIS"));
        assert_eq!(decode(&bytes.repeat(8), None).expect("text").charset, "Shift_JIS");
    }
}
