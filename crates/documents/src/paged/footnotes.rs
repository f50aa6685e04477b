//! Footnotes of a page: small blocks below everything else that begin with the mark they are referred to by.

use super::blocks::BlockDraft;
use super::{Line, PageDraft};
use docmill_model::document::{BlockKind, Rect};

/// Size of a footnote's type, relative to that of running text, above which it is none.
const SMALL: f32 = 0.92;

/// Marks the footnotes among the blocks of a page, whose running text has the size `body`.
pub(super) fn mark(page: &PageDraft, lines: &[Line], body: f32, blocks: &mut [BlockDraft]) {
    let small = |block: &BlockDraft| lines[block.start..block.end].iter().all(|l| l.size < body * SMALL);
    let rects: Vec<Option<Rect>> =
        (blocks.iter()).map(|block| lines[block.start..block.end].iter().map(|l| l.rect).reduce(Rect::union)).collect();
    // What ends a column's footnotes from below: furniture aside, something that is not small.
    let large: Vec<Rect> = (blocks.iter().zip(&rects))
        .filter(|(block, _)| block.role != BlockKind::Furniture && !small(block))
        .filter_map(|(_, rect)| *rect)
        .collect();
    for (block, rect) in blocks.iter_mut().zip(&rects) {
        let Some(rect) = rect else { continue };
        let below = |other: &Rect| other.y0 >= rect.y1 - 1.0 && other.x1.min(rect.x1) > other.x0.max(rect.x0);
        let candidate = matches!(block.role, BlockKind::Paragraph | BlockKind::ListItem)
            && rect.y0 > page.height / 2.0
            && small(block)
            && has_mark(&lines[block.start].text(page));
        if candidate && !large.iter().any(below) {
            block.role = BlockKind::Footnote;
        }
    }
}

/// `1 See`, `12See`, `3. See`, `* See`, `†See`; not `10.5 million`, `1,000` or `12/2020`.
fn has_mark(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = match digits {
        0 => match text.strip_prefix(['*', '†', '‡']) {
            Some(rest) => rest,
            None => return false,
        },
        1 | 2 => text[digits..].strip_prefix(['.', ')']).unwrap_or(&text[digits..]),
        _ => return false,
    };
    rest.trim_start().starts_with(|c: char| c.is_alphabetic() || matches!(c, '"' | '“' | '„' | '«' | '(' | '§'))
}

#[cfg(test)]
mod tests {
    use super::{has_mark, mark};
    use crate::paged::blocks::cut;
    use crate::paged::{LINE, PARAGRAPH, PageDraft, WordDraft, lines};
    use docmill_model::document::{BlockKind, PageOutcome, Rect};

    #[test]
    fn marks_are_told_from_numbers() {
        for text in ["1 See the annex.", "12See", "3. See", "* Estimated", "†Died", "2 “Quoted”"] {
            assert!(has_mark(text), "{text}");
        }
        for text in ["10.5 million", "1,000 tonnes", "12/2020", "2020 was", "See 1", "1", "*"] {
            assert!(!has_mark(text), "{text}");
        }
    }

    #[test]
    fn small_marked_blocks_below_the_text_are_footnotes() {
        let mut page = PageDraft::empty(1, 600.0, 800.0, 0, PageOutcome::Text);
        for (text, y, size) in [
            ("1 small above", 420.0, 8.0),
            ("Running text.", 500.0, 10.0),
            ("2 A note.", 700.0, 8.0),
            ("* More.", 720.0, 8.0),
        ] {
            for (at, word) in text.split(' ').enumerate() {
                let start = page.buffer.len() as u32;
                page.buffer.push_str(word);
                let (end, x) = (page.buffer.len() as u32, 50.0 + 40.0 * at as f32);
                let rect = Rect { x0: x, y0: y, x1: x + 38.0, y1: y + size };
                let flags = if at == 0 { LINE | PARAGRAPH } else { 0 };
                page.words.push(WordDraft { start, end, rect, size, confidence: 1.0, flags });
            }
        }
        let lines = lines(&page);
        let mut blocks = cut(&page, &lines, 10.0, &[]);
        mark(&page, &lines, 10.0, &mut blocks);
        let roles: Vec<BlockKind> = blocks.iter().map(|b| b.role).collect();
        let expected = [BlockKind::Paragraph, BlockKind::Paragraph, BlockKind::Footnote, BlockKind::Footnote];
        assert_eq!(roles, expected);
    }
}
