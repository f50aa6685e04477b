//! A passage cut into the units an answer quotes: sentences of running text, rows of tables, items of lists.
//!
//! Offsets are characters within the passage, so `passage[start..end] == text` always. Pure.

use unicode_segmentation::UnicodeSegmentation;

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
    let flowing = if kind == "text" { join_wrapped_lines(passage) } else { passage.to_owned() };
    let mut bounds: Vec<&str> = Vec::new();
    for line in flowing.split_inclusive('\n') {
        if kind == "text" { bounds.extend(line.split_sentence_bounds()) } else { bounds.push(line) }
    }
    let mut out = Vec::new();
    let mut pending = String::new();
    let mut offset = 0u32;
    let mut pending_start = 0u32;
    for (number, piece) in bounds.iter().enumerate() {
        if pending.is_empty() {
            pending_start = offset;
        }
        pending.push_str(piece);
        offset += piece.chars().count() as u32;
        let next = bounds.get(number + 1).copied().unwrap_or_default();
        if !ends_in_abbreviation(&pending) && !is_within_date(&pending, next) {
            push(passage, pending_start, pending.chars().count() as u32, &mut out);
            pending.clear();
        }
    }
    if !pending.is_empty() {
        push(passage, pending_start, pending.chars().count() as u32, &mut out);
    }
    out
}

/// Line breaks inside a paragraph become spaces, character for character; breaks that end a paragraph, a short line or
/// precede an item stay.
fn join_wrapped_lines(passage: &str) -> String {
    let lines: Vec<&str> = passage.split('\n').collect();
    let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let mut out = String::with_capacity(passage.len());
    for (number, line) in lines.iter().enumerate() {
        out.push_str(line);
        let Some(next) = lines.get(number + 1) else { break };
        let is_wrapped =
            line.chars().count() * 10 >= longest * 6 && longest >= 40 && !next.trim().is_empty() && !is_item(next);
        out.push(if is_wrapped { ' ' } else { '\n' });
    }
    out
}

fn is_item(line: &str) -> bool {
    let line = line.trim_start();
    let numbered = line.trim_start_matches(|c: char| c.is_ascii_digit());
    line.starts_with(['•', '-', '*', '–', '◦', '▪'])
        || (numbered.len() < line.len() && numbered.starts_with(['.', ')']))
}

/// `Dr.`, `No.`, `J.`: the sentence goes on although a capital follows.
fn ends_in_abbreviation(text: &str) -> bool {
    let trimmed = text.trim_end();
    if text.ends_with('\n') || !trimmed.ends_with('.') {
        return false;
    }
    let last = trimmed.split_whitespace().next_back().unwrap_or_default();
    let bare = last.trim_end_matches('.').trim_start_matches(['(', '"', '“', '[']);
    let is_initial = bare.chars().count() == 1 && bare.chars().all(char::is_uppercase);
    const KNOWN: [&str; 32] = [
        "dr", "mr", "mrs", "ms", "prof", "st", "no", "nr", "vs", "inc", "ltd", "co", "corp", "fig", "eq", "al",
        "approx", "jr", "sr", "gen", "col", "lt", "sgt", "rev", "hon", "bzw", "ca", "z.b", "d.h", "e.g", "i.e", "u.s",
    ];
    is_initial || KNOWN.contains(&bare.to_lowercase().as_str())
}

/// `am 10.` before `März`: German writes the day of a date as an ordinal number.
fn is_within_date(text: &str, next: &str) -> bool {
    const MONTHS: [&str; 12] = [
        "Januar",
        "Februar",
        "März",
        "April",
        "Mai",
        "Juni",
        "Juli",
        "August",
        "September",
        "Oktober",
        "November",
        "Dezember",
    ];
    let last = text.split_whitespace().next_back().unwrap_or_default();
    let is_day =
        last.strip_suffix('.').and_then(|day| day.parse::<u8>().ok()).is_some_and(|day| (1..=31).contains(&day));
    let word: String = next.chars().take_while(|c| c.is_alphabetic()).collect();
    is_day && !text.ends_with('\n') && MONTHS.contains(&word.as_str())
}

fn push(passage: &str, start: u32, length: u32, out: &mut Vec<Sentence>) {
    let characters: Vec<char> = passage.chars().skip(start as usize).take(length as usize).collect();
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

    #[test]
    fn a_german_date_stays_in_its_sentence() {
        let found = split("Das Getriebe wurde am 10. März 2026 getauscht. Am 22. April folgt die Abnahme.", "text");
        let texts: Vec<&str> = found.iter().map(|sentence| sentence.text.as_str()).collect();
        assert_eq!(texts, ["Das Getriebe wurde am 10. März 2026 getauscht.", "Am 22. April folgt die Abnahme."]);
    }

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
