//! The sentences a summary may quote.

use crate::visible::{page_at, visible};
use docmill_model::document::{BlockKind, ParsedDocument};
use docmill_model::sentences::sentences;
use docmill_model::{CanonicalText, Sha256Hex, Span};

/// Bounds of a quotable sentence, in characters.
const MIN_CHARS: usize = 30;
const MAX_CHARS: usize = 600;
/// Lines that stand for a document without sentences, and the length each is cut to.
const FIRST_LINES: usize = 3;

/// One sentence and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The words, line breaks as spaces.
    pub text: String,
    /// Where in the canonical text.
    pub span: Span,
    /// Page from 1.
    pub page: Option<u32>,
    /// Place among all sentences of the document, 0 to 1.
    pub position: f32,
    /// True for the first sentence of its paragraph.
    pub opens_paragraph: bool,
}

/// Up to `most` sentences of running text in reading order; the first lines where there is none.
#[must_use]
pub fn candidates(document: &ParsedDocument, most: usize) -> Vec<Candidate> {
    let text = CanonicalText::from_canonical(document.text.clone());
    let prose = |role: BlockKind| matches!(role, BlockKind::Paragraph | BlockKind::ListItem);
    let mut found = gather(document, &text, prose, is_sentence);
    if found.is_empty() {
        let any = |role: BlockKind| role != BlockKind::Furniture;
        found = gather(document, &text, any, |words| {
            words.chars().any(char::is_alphanumeric) && words.chars().count() <= MAX_CHARS
        });
        found.truncate(FIRST_LINES);
    }
    let last = found.len().saturating_sub(1).max(1) as f32;
    for (index, candidate) in found.iter_mut().enumerate() {
        candidate.position = index as f32 / last;
    }
    sample(found, most)
}

fn gather(
    document: &ParsedDocument,
    text: &CanonicalText,
    takes: impl Fn(BlockKind) -> bool,
    is_quotable: impl Fn(&str) -> bool,
) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for block in document.blocks.iter().filter(|block| takes(block.role)) {
        let mut opens_paragraph = true;
        for part in visible(block.span, &document.hidden) {
            let (Some(words), Some(base)) = (text.slice(part), text.byte_of(part.start)) else { continue };
            for range in sentences(words) {
                let quoted = words[range.clone()].replace('\n', " ");
                if is_quotable(&quoted) && found.iter().rev().take(500).all(|other| other.text != quoted) {
                    let span = Span::new(text.char_of(base + range.start), text.char_of(base + range.end));
                    let page = block.page.or_else(|| page_at(&document.pages, span.start));
                    found.push(Candidate { text: quoted, span, page, position: 0.0, opens_paragraph });
                }
                opens_paragraph = false;
            }
        }
    }
    found
}

/// Long enough to say something, mostly letters, and ending like a sentence unless its script has no full stops.
fn is_sentence(words: &str) -> bool {
    let length = words.chars().count();
    let letters = words.chars().filter(|c| c.is_alphabetic()).count();
    let is_dense =
        words.chars().any(|c| ('\u{2e80}'..'\u{fb00}').contains(&c) || ('\u{0e00}'..'\u{0f00}').contains(&c));
    let min = if is_dense { MIN_CHARS / 3 } else { MIN_CHARS };
    let several_words = is_dense || words.split_whitespace().count() >= 5;
    let ends = words
        .trim_end_matches(['"', '\'', '”', '’', ')', ']', '»', '“'])
        .ends_with(['.', '!', '?', '…', ':', ';', '。', '!', '?', '؟', '।', '۔']);
    (min..=MAX_CHARS).contains(&length) && letters * 10 >= length * 6 && several_words && (ends || is_dense)
}

/// All over the document, openings of paragraphs first, in reading order.
fn sample(found: Vec<Candidate>, most: usize) -> Vec<Candidate> {
    if found.len() <= most {
        return found;
    }
    let (openings, others): (Vec<Candidate>, Vec<Candidate>) =
        found.into_iter().partition(|candidate| candidate.opens_paragraph);
    let mut kept = by_content(openings, most);
    let room = most - kept.len();
    kept.extend(by_content(others, room));
    kept.sort_by_key(|candidate| candidate.span.start);
    kept
}

/// Up to `most`, drawn by what they say and not by where they stand: an edit changes what is drawn by what was edited.
fn by_content(mut found: Vec<Candidate>, most: usize) -> Vec<Candidate> {
    if found.len() > most {
        found.sort_by_cached_key(|candidate| Sha256Hex::of(candidate.text.as_bytes()));
        found.truncate(most);
    }
    found
}
