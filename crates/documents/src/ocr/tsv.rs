//! Tesseract's table of words (`tsv` output) to the words of a page.
//!
//! The table comes from a process that read untrusted pixels: every number is checked and no row is believed more
//! than its columns say.

use crate::paged::{GLUED, LINE, PARAGRAPH, PageDraft, WordDraft};
use docmill_model::document::{PageOutcome, Rect};

/// Confidence below which a word is noise rather than text.
const NOISE: f32 = 0.10;
/// Most words of one page.
const WORDS: usize = 100_000;

/// What was recognised on one image.
#[derive(Debug, Default)]
pub(super) struct Recognised {
    buffer: String,
    /// The words, in page units.
    pub words: Vec<WordDraft>,
    /// Mean confidence, weighted by length.
    pub confidence: f32,
    /// Degrees by which the page was straightened.
    pub askew: f32,
}

/// Reads the table; `scale` is pixels per page unit, `margin` the pixels to the left of the page and above it.
pub(super) fn read(table: &str, scale: f32, margin: (f32, f32)) -> Recognised {
    let mut page = Recognised::default();
    let (mut line, mut paragraph) = (("", "", ""), ("", ""));
    let mut height = 0.0f32;
    let (mut weight, mut sum) = (0.0f32, 0.0f32);
    for row in table.lines().skip(1) {
        let columns: Vec<&str> = row.splitn(12, '\t').collect();
        let &[level, _, block, par, number, _, left, top, width, tall, confidence, text] = columns.as_slice() else {
            continue;
        };
        let value = |text: &str| text.parse::<f32>().unwrap_or(0.0).clamp(0.0, 1e6);
        let place = |text: &str, margin: f32| (value(text) - margin) / scale;
        let numbers = [place(left, margin.0), place(top, margin.1), value(width) / scale, value(tall) / scale];
        if level == "4" {
            height = numbers[3];
        }
        let confidence = confidence.parse::<f32>().unwrap_or(-1.0) / 100.0;
        let text = text.trim();
        if level != "5" || text.is_empty() || confidence < NOISE || page.words.len() >= WORDS {
            continue;
        }
        let mut flags = 0;
        if std::mem::replace(&mut line, (block, par, number)) != (block, par, number) {
            flags |= LINE;
        }
        if std::mem::replace(&mut paragraph, (block, par)) != (block, par) {
            flags |= LINE | PARAGRAPH;
        }
        let [x, y, w, h] = numbers;
        let rect = Rect { x0: x, y0: y, x1: x + w, y1: y + h };
        let size = if height > 0.0 { height.min(h * 2.0) } else { h };
        if flags == LINE && text.starts_with(char::is_lowercase) && page.drop_hyphen() {
            flags |= GLUED;
        }
        for piece in text.split_whitespace() {
            let start = page.buffer.len() as u32;
            page.buffer.extend(piece.chars().filter(|c| !c.is_control()));
            let end = page.buffer.len() as u32;
            if end > start {
                page.words.push(WordDraft { start, end, rect, size, confidence: confidence.min(1.0), flags });
                flags = 0;
            }
        }
        weight += text.len() as f32;
        sum += text.len() as f32 * confidence;
    }
    page.confidence = if weight > 0.0 { sum / weight } else { 0.0 };
    level_sizes(&mut page.words);
    page
}

/// Heights of recognised lines vary with their letters: what is near the usual size has the usual size.
fn level_sizes(words: &mut [WordDraft]) {
    let mut sizes: Vec<f32> = words.iter().map(|w| w.size).collect();
    sizes.sort_by(f32::total_cmp);
    let Some(&usual) = sizes.get(sizes.len() / 2) else { return };
    for word in words {
        if (0.55..1.6).contains(&(word.size / usual.max(0.1))) {
            word.size = usual;
        }
    }
}

impl Recognised {
    /// Maps boxes of an image that was turned clockwise by `turn` degrees back to the original of that size.
    pub fn turn_back(&mut self, turn: u16, width: f32, height: f32) {
        for word in &mut self.words {
            let r = word.rect;
            word.rect = match turn {
                90 => Rect { x0: r.y0, y0: height - r.x1, x1: r.y1, y1: height - r.x0 },
                180 => Rect { x0: width - r.x1, y0: height - r.y1, x1: width - r.x0, y1: height - r.y0 },
                _ => Rect { x0: width - r.y1, y0: r.x0, x1: width - r.y0, y1: r.x1 },
            };
        }
    }

    /// Takes the hyphen from the last word, where it has one behind a letter; the word then goes on in the next line, as
    /// in a text layer.
    fn drop_hyphen(&mut self) -> bool {
        let Some(word) = self.words.last_mut().filter(|word| word.end as usize == self.buffer.len()) else {
            return false;
        };
        let text = &self.buffer[word.start as usize..];
        let broken = text.strip_suffix('-').is_some_and(|stem| stem.ends_with(char::is_alphabetic));
        if broken {
            self.buffer.pop();
            word.end -= 1;
        }
        broken
    }

    /// Trusted words, to compare readings of one page.
    pub fn weight(&self) -> f32 {
        self.confidence * self.words.len() as f32
    }

    /// Keeps the words of at least this confidence.
    pub fn keep(&mut self, confidence: f32) {
        self.words.retain(|word| word.confidence >= confidence);
        let sum: f32 = self.words.iter().map(|word| word.confidence).sum();
        self.confidence = sum / self.words.len().max(1) as f32;
    }

    /// Makes these the words of the page.
    pub fn apply(self, draft: &mut PageDraft) {
        draft.askew = Some(self.askew);
        draft.outcome = PageOutcome::Ocr { confidence: self.confidence.clamp(0.0, 1.0) };
        draft.buffer = self.buffer;
        draft.words = self.words;
    }
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::paged::{GLUED, LINE, PARAGRAPH};

    const TABLE: &str = concat!(
        "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n",
        "4\t1\t1\t1\t1\t0\t10\t20\t200\t30\t-1\t\n",
        "5\t1\t1\t1\t1\t1\t10\t20\t80\t30\t96.5\tHello\n",
        "5\t1\t1\t1\t1\t2\t100\t20\t80\t30\t91\tthere\n",
        "5\t1\t1\t2\t1\t1\t10\t90\t80\t30\t3\tnoise\n",
        "5\t1\t1\t2\t1\t2\tx\t90\t80\t30\t80\tNew\n",
        "broken row\n"
    );

    #[test]
    fn words_broken_at_line_ends_are_joined() {
        let row =
            |line: u32, number: u32, text: &str| format!("5\t1\t1\t1\t{line}\t{number}\t10\t20\t80\t30\t90\t{text}\n");
        let table = [
            "head\n".to_owned(),
            row(1, 1, "con-"),
            row(2, 1, "fidence"),
            row(2, 2, "5-"),
            row(3, 1, "a-"),
            row(4, 1, "B"),
        ];
        let page = read(&table.concat(), 1.0, (0.0, 0.0));
        let words: Vec<(&str, bool)> =
            (page.words.iter()).map(|w| (&page.buffer[w.start as usize..w.end as usize], w.is(GLUED))).collect();
        assert_eq!(words, [("con", false), ("fidence", true), ("5-", false), ("a-", false), ("B", false)]);
    }

    #[test]
    fn rows_become_words_in_page_units() {
        let page = read(TABLE, 2.0, (0.0, 0.0));
        let words: Vec<&str> = page.words.iter().map(|w| &page.buffer[w.start as usize..w.end as usize]).collect();
        assert_eq!(words, ["Hello", "there", "New"]);
        assert_eq!((page.words[0].rect.x0, page.words[0].rect.y1), (5.0, 25.0));
        assert_eq!(page.words.iter().map(|w| w.flags).collect::<Vec<_>>(), [LINE | PARAGRAPH, 0, LINE | PARAGRAPH]);
    }
}
