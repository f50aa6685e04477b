//! A passage cut into the units an answer quotes: sentences of running text, rows of tables, items of lists.
//!
//! Offsets are characters within the passage, so `passage[start..end] == text` always. Pure.

use docmill_model::sentences::sentences;

/// Longest unit, in characters; longer ones are cut at spaces.
const MAX_CHARS: usize = 700;

/// One unit of a passage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sentence {
    /// The words, without surrounding whitespace.
    pub text: String,
    /// First character within the passage.
    pub start: u32,
}

/// Cuts a passage of `kind` (`text`, `table`, `code`, `list`).
pub(crate) fn split(passage: &str, kind: &str) -> Vec<Sentence> {
    let mut out = Vec::new();
    let (mut byte, mut start) = (0, 0);
    let mut add = |piece: &str, at: usize| {
        start += passage[byte..at].chars().count() as u32;
        byte = at;
        push(piece, start, &mut out);
    };
    if kind == "text" {
        sentences(passage).into_iter().for_each(|range| add(&passage[range.clone()], range.start));
    } else {
        let mut at = 0;
        for line in passage.split_inclusive('\n') {
            add(line, at);
            at += line.len();
        }
    }
    out
}

fn push(piece: &str, start: u32, out: &mut Vec<Sentence>) {
    let characters: Vec<char> = piece.chars().collect();
    let mut from = 0;
    while from < characters.len() {
        let mut to = characters.len().min(from + MAX_CHARS);
        if to < characters.len()
            && let Some(space) = characters[from..to].iter().rposition(|c| c.is_whitespace())
            && space > 0
        {
            to = from + space;
        }
        let part = &characters[from..to];
        let lead = part.iter().take_while(|c| c.is_whitespace()).count();
        let text: String = part.iter().collect::<String>().trim().to_owned();
        if text.chars().any(char::is_alphanumeric) {
            out.push(Sentence { text, start: start + (from + lead) as u32 });
        }
        from = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(passage: &str, kind: &str) -> Vec<String> {
        let sentences = split(passage, kind);
        for sentence in &sentences {
            let found: String =
                passage.chars().skip(sentence.start as usize).take(sentence.text.chars().count()).collect();
            assert_eq!(found, sentence.text, "offsets are exact");
        }
        sentences.into_iter().map(|sentence| sentence.text).collect()
    }

    #[test]
    fn sentences_survive_abbreviations_and_wrapped_lines() {
        let passage = "Dr. A. Weber signed in St. Gallen on 3 May. The fee, which the parties agreed upon before the\nmeeting, is due at once. Ende.";
        let expected = [
            "Dr. A. Weber signed in St. Gallen on 3 May.",
            "The fee, which the parties agreed upon before the\nmeeting, is due at once.",
            "Ende.",
        ];
        assert_eq!(texts(passage, "text"), expected);
    }

    #[test]
    fn rows_and_short_lines_stand_alone() {
        assert_eq!(texts("Item | Price\nLamp | 30.00\n", "table"), ["Item | Price", "Lamp | 30.00"]);
        assert_eq!(texts("Invoice: 77\nDue: 1 May", "text"), ["Invoice: 77", "Due: 1 May"]);
    }

    #[test]
    fn scripts_without_spaces_split_at_their_stops() {
        assert_eq!(texts("北京是首都。上海很大!", "text"), ["北京是首都。", "上海很大!"]);
    }

    #[test]
    fn endless_text_is_cut() {
        let cut = texts(&"word ".repeat(1_000), "text");
        assert!(cut.len() > 6 && cut.iter().all(|text| text.chars().count() <= MAX_CHARS));
    }
}
