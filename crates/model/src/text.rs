//! Canonical text and spans: the coordinates every stored position uses.
//!
//! Canonical text is Unicode NFC with `\n` line ends and without NUL. Offsets outside Rust (API, database,
//! citations) are counts of Unicode scalar values; bytes stay inside this module.

use unicode_normalization::UnicodeNormalization;

/// A half-open range `[start, end)` of Unicode scalar values in one canonical text.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
    utoipa::ToSchema,
)]
pub struct Span {
    /// First character, counted from 0.
    pub start: u32,
    /// One past the last character.
    pub end: u32,
}

impl Span {
    /// A span; `end` is raised to `start` when it is smaller.
    #[must_use]
    pub fn new(start: u32, end: u32) -> Self {
        Self { start, end: end.max(start) }
    }

    /// Length in characters.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.end - self.start
    }

    /// True when no character is covered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// True when `other` lies wholly inside.
    #[must_use]
    pub fn contains(&self, other: Span) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// True when at least one character is shared.
    #[must_use]
    pub fn overlaps(&self, other: Span) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// Immutable text in canonical form with constant-time-ish slicing by [`Span`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalText {
    text: String,
    /// Byte offset of every 64th character, so that a lookup scans at most 63 characters.
    marks: Vec<u32>,
    chars: u32,
}

const STRIDE: u32 = 64;

impl CanonicalText {
    /// Brings any text into canonical form: CRLF and CR become `\n`, NUL is dropped, NFC is applied.
    #[must_use]
    pub fn normalise(raw: &str) -> Self {
        Self::from_canonical(canonical_string(raw))
    }

    /// Wraps text that already is canonical (as read back from an artifact).
    #[must_use]
    pub fn from_canonical(text: String) -> Self {
        let mut marks = Vec::with_capacity(text.len() / STRIDE as usize + 1);
        let mut chars = 0u32;
        for (byte, _) in text.char_indices() {
            if chars.is_multiple_of(STRIDE) {
                marks.push(byte as u32);
            }
            chars += 1;
        }
        Self { text, marks, chars }
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Length in characters.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.chars
    }

    /// True when there is no character.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chars == 0
    }

    /// The text of `span`, or `None` when it reaches past the end or ends before it begins.
    #[must_use]
    pub fn slice(&self, span: Span) -> Option<&str> {
        self.text.get(self.byte_of(span.start)?..self.byte_of(span.end)?)
    }

    /// The byte offset of character `index` (`len()` gives the end), or `None` past the end.
    #[must_use]
    pub fn byte_of(&self, index: u32) -> Option<usize> {
        if index == self.chars {
            return Some(self.text.len());
        }
        let base = *self.marks.get((index / STRIDE) as usize)? as usize;
        self.text[base..].char_indices().nth((index % STRIDE) as usize).map(|(offset, _)| base + offset)
    }

    /// The character index of byte offset `byte` (which must lie on a character boundary).
    #[must_use]
    pub fn char_of(&self, byte: usize) -> u32 {
        let slot = self.marks.partition_point(|&mark| mark as usize <= byte).saturating_sub(1);
        let base = self.marks.get(slot).map_or(0, |&mark| mark as usize);
        slot as u32 * STRIDE + self.text[base..byte].chars().count() as u32
    }
}

/// NFC, `\n` line ends, no NUL. Idempotent.
#[must_use]
pub fn canonical_string(raw: &str) -> String {
    let unified = raw.replace("\r\n", "\n").replace('\r', "\n");
    unified.chars().filter(|&c| c != '\0').nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::{CanonicalText, Span};

    #[test]
    fn offsets_count_scalar_values_over_nfc_text() {
        let text = CanonicalText::normalise("e\u{301}t\u{e9}\r\n\u{1f600}x\0");
        assert_eq!(text.as_str(), "\u{e9}t\u{e9}\n\u{1f600}x");
        assert_eq!(text.len(), 6);
        assert_eq!(text.slice(Span::new(4, 6)), Some("\u{1f600}x"));
        assert_eq!(text.slice(Span::new(6, 6)), Some(""));
        assert_eq!(text.slice(Span::new(0, 7)), None);
    }

    #[test]
    fn byte_and_char_offsets_are_inverse_across_marks() {
        let text = CanonicalText::normalise(&"\u{1f600}ab\u{e9}".repeat(100));
        for index in 0..=text.len() {
            let byte = text.byte_of(index).expect("inside");
            assert_eq!(text.char_of(byte), index);
        }
    }
}
