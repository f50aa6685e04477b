//! Whether a parsed document keeps the promises of the model, for tests and for the tools that read whole corpora.

use super::{ParsedDocument, Word};
use crate::{CanonicalText, Span};

impl ParsedDocument {
    /// True when every place lies within the text: all that may be relied on of a document that comes from outside.
    #[must_use]
    pub fn is_within_its_text(&self) -> bool {
        let end = self.text.chars().count();
        self.spans().all(|(_, span)| span.start <= span.end && span.end as usize <= end)
    }

    /// Every place, with what is there.
    fn spans(&self) -> impl Iterator<Item = (&'static str, Span)> {
        (self.blocks.iter().map(|b| ("block", b.span)))
            .chain(self.words.iter().map(|w| ("word", w.span)))
            .chain(self.pages.iter().map(|p| ("page", p.span)))
            .chain(self.links.iter().map(|l| ("link", l.span)))
            .chain(self.hidden.iter().map(|h| ("hidden", *h)))
            .chain(self.tables.iter().flat_map(|t| t.cells.iter().map(|c| ("cell", c.span))))
    }

    /// Every violation of the model's invariants, as short sentences without document text; empty when sound.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let text = CanonicalText::from_canonical(self.text.clone());
        let mut found = Vec::new();
        for (what, span) in self.spans().filter(|(_, span)| text.slice(*span).is_none()) {
            found.push(format!("{what} span {}..{} reaches past {}", span.start, span.end, text.len()));
        }
        for word in &self.words {
            let blank = text.slice(word.span).is_none_or(|w| w.is_empty() || w.contains(char::is_whitespace));
            if blank {
                found.push(format!("word span {}..{} is empty or holds whitespace", word.span.start, word.span.end));
            }
        }
        for pair in self.blocks.windows(2) {
            if pair[0].span.end > pair[1].span.start {
                found.push(format!("blocks overlap at {}", pair[1].span.start));
            }
        }
        for pair in self.words.windows(2) {
            if pair[0].span.end > pair[1].span.start {
                found.push(format!("words overlap or go back at {}", pair[1].span.start));
            }
        }
        let holds = |word: &&Word| {
            let at = self.blocks.partition_point(|b| b.span.end <= word.span.start);
            self.blocks.get(at).is_some_and(|b| b.span.contains(word.span))
        };
        if let Some(word) = self.words.iter().find(|word| !holds(word)) {
            found.push(format!("word span {}..{} lies in no block", word.span.start, word.span.end));
        }
        found.extend(self.words_between_blocks(&text));
        if crate::text::canonical_string(&self.text) != self.text {
            found.push("text is not canonical (NFC, \\n, no NUL)".to_owned());
        }
        found
    }

    /// Where something else than whitespace stands outside all blocks.
    fn words_between_blocks(&self, text: &CanonicalText) -> Vec<String> {
        let mut found = Vec::new();
        let mut end = 0;
        for start in self.blocks.iter().map(|b| Some(b.span)).chain([None]) {
            let begins = start.map_or(text.len(), |span| span.start);
            let between = text.slice(Span::new(end, begins.max(end))).unwrap_or_default();
            if !between.chars().all(char::is_whitespace) {
                found.push(format!("text outside all blocks at {end}..{begins}"));
            }
            end = start.map_or(end, |span| span.end);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use crate::Span;
    use crate::document::{Block, BlockKind, Format, ParsedDocument, Rect, Word};

    fn document(blocks: &[(u32, u32)], words: &[(u32, u32)]) -> ParsedDocument {
        let rect = Rect { x0: 0.0, y0: 0.0, x1: 1.0, y1: 1.0 };
        let block = |&(start, end): &(u32, u32)| Block {
            role: BlockKind::Paragraph,
            span: Span::new(start, end),
            page: None,
            rect: None,
            path: None,
            language: None,
        };
        let word = |&(start, end): &(u32, u32)| Word { span: Span::new(start, end), page: 1, rect, confidence: 1.0 };
        ParsedDocument {
            schema: ParsedDocument::SCHEMA,
            format: Format::Pdf,
            engine: "pdfium".to_owned(),
            text: "one two\n\nthree".to_owned(),
            pages: Vec::new(),
            blocks: blocks.iter().map(block).collect(),
            words: words.iter().map(word).collect(),
            tables: Vec::new(),
            links: Vec::new(),
            hidden: Vec::new(),
            language: None,
            metadata: Default::default(),
            failed_parts: Vec::new(),
        }
    }

    #[test]
    fn words_lie_in_blocks_in_order_and_nothing_lies_between() {
        let words = [(0, 3), (4, 7), (9, 14)];
        assert_eq!(document(&[(0, 7), (9, 14)], &words).violations(), Vec::<String>::new());
        for (blocks, words, violation) in [
            (vec![(0, 7), (9, 14)], vec![(4, 7), (0, 3)], "words overlap or go back at 0"),
            (vec![(0, 7), (9, 14)], vec![(0, 3), (2, 3)], "words overlap or go back at 2"),
            (vec![(0, 7)], vec![(0, 3)], "text outside all blocks at 7..14"),
            (vec![(0, 7), (9, 12)], vec![(0, 3)], "text outside all blocks at 12..14"),
            (vec![(4, 7), (9, 14)], vec![(4, 7)], "text outside all blocks at 0..4"),
            (vec![(0, 2), (2, 7), (9, 14)], vec![(0, 3)], "word span 0..3 lies in no block"),
        ] {
            assert_eq!(document(&blocks, &words).violations(), [violation]);
        }
    }
}
