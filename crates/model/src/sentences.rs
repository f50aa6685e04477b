//! Sentences of running text by UAX 29, corrected for abbreviations, initials, dates and wrapped lines: the one splitter,
//! so that chunks, summaries and answers agree on what a sentence is.
//!
//! Ranges are bytes of the given text, trimmed, in order, and together cover everything but whitespace. Pure.

use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;

/// The sentences of `text`; a line break inside a wrapped paragraph does not end one.
#[must_use]
pub fn sentences(text: &str) -> Vec<Range<usize>> {
    let flowing = flow(text);
    let mut found = Vec::new();
    let mut start = None;
    for (at, piece) in flowing.split_sentence_bound_indices() {
        let from = *start.get_or_insert(at);
        let end = at + piece.len();
        if !goes_on(&flowing[from..end], &flowing[end..]) {
            found.extend(trimmed(&flowing, from..end));
            start = None;
        }
    }
    if let Some(from) = start {
        found.extend(trimmed(&flowing, from..flowing.len()));
    }
    found
}

/// `text` with the line breaks inside wrapped paragraphs replaced by spaces, byte for byte: offsets stay valid.
#[must_use]
pub fn flow(text: &str) -> String {
    if !text.contains('\n') {
        return text.to_owned();
    }
    let lines: Vec<&str> = text.split('\n').collect();
    let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    let mut out = String::with_capacity(text.len());
    for (number, line) in lines.iter().enumerate() {
        out.push_str(line);
        let Some(next) = lines.get(number + 1) else { break };
        let is_full = longest >= 40 && line.chars().count() * 10 >= longest * 6;
        let goes_on =
            next.trim_start().chars().next().is_some_and(char::is_lowercase) && !line.trim_end().ends_with(['.', ':']);
        let is_wrapped = (is_full || goes_on) && !next.trim().is_empty() && !starts_item(next);
        out.push(if is_wrapped { ' ' } else { '\n' });
    }
    out
}

fn starts_item(line: &str) -> bool {
    let line = line.trim_start();
    let after_number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_numbered =
        after_number.len() < line.len() && line.len() - after_number.len() <= 3 && after_number.starts_with(['.', ')']);
    is_numbered || line.starts_with(['•', '*', '–', '◦', '▪', '‣']) || line.starts_with("- ")
}

/// `Dr.`, `No.`, `J.`, `z. B.`: the sentence goes on although UAX 29 breaks here.
fn goes_on(so_far: &str, rest: &str) -> bool {
    if so_far.ends_with('\n') || rest.is_empty() {
        return false;
    }
    let trimmed = so_far.trim_end();
    if !trimmed.ends_with('.') {
        return false;
    }
    let last = trimmed.split_whitespace().next_back().unwrap_or_default();
    let bare = last.trim_end_matches('.').trim_start_matches(['(', '"', '“', '„', '[', '\'']);
    let is_initial = bare.chars().count() == 1 && bare.chars().all(char::is_uppercase);
    // "Section 4. Term" ends a number; German ordinals ("3. Mai") are kept whole when a month follows.
    let is_ordinal =
        bare.len() <= 2 && !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit()) && starts_month(rest);
    is_initial || is_ordinal || ABBREVIATIONS.contains(&bare.to_lowercase().as_str())
}

fn starts_month(rest: &str) -> bool {
    const MONTHS: [&str; 12] = [
        "januar",
        "februar",
        "märz",
        "april",
        "mai",
        "juni",
        "juli",
        "august",
        "september",
        "oktober",
        "november",
        "dezember",
    ];
    let word = rest.split_whitespace().next().unwrap_or_default().to_lowercase();
    MONTHS.iter().any(|month| word.starts_with(month))
}

const ABBREVIATIONS: [&str; 62] = [
    "dr", "mr", "mrs", "ms", "prof", "st", "no", "nos", "nr", "vs", "inc", "ltd", "co", "corp", "fig", "figs", "eq",
    "eqs", "al", "approx", "jr", "sr", "gen", "col", "lt", "sgt", "rev", "hon", "bzw", "ca", "z.b", "z", "d.h", "e.g",
    "i.e", "u.s", "u.k", "art", "abs", "bd", "evtl", "ggf", "inkl", "usw", "str", "tel", "vgl", "sec", "ref", "refs",
    "cf", "ed", "eds", "vol", "pp", "p", "ch", "resp", "dept", "est", "sra", "mme",
];

fn trimmed(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let piece = &text[range.clone()];
    let words = piece.trim();
    if words.is_empty() {
        return None;
    }
    let start = range.start + (piece.len() - piece.trim_start().len());
    Some(start..start + words.len())
}

#[cfg(test)]
mod tests {
    use super::{flow, sentences};

    fn texts(text: &str) -> Vec<&str> {
        sentences(text).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn abbreviations_initials_and_ordinals_do_not_end_a_sentence() {
        let text =
            "Dr. A. Weber signed in St. Gallen on 3. Mai 2024. The fee is due, cf. Smith et al. Nothing else. Ende.";
        let expected = [
            "Dr. A. Weber signed in St. Gallen on 3. Mai 2024.",
            "The fee is due, cf. Smith et al. Nothing else.",
            "Ende.",
        ];
        assert_eq!(texts(text), expected);
        let german = "Das Getriebe wurde am 10. März 2026 getauscht. Am 22. April folgt die Abnahme.";
        assert_eq!(texts(german).len(), 2);
    }

    #[test]
    fn wrapped_lines_flow_and_short_ones_stand_alone() {
        let wrapped =
            "The fee, which the parties agreed upon before the\nmeeting took place, is due at once. It is final.";
        assert_eq!(texts(wrapped).len(), 2);
        assert_eq!(texts("Invoice: 77\nDue: 1 May"), ["Invoice: 77", "Due: 1 May"]);
        assert_eq!(flow(wrapped).len(), wrapped.len());
    }

    #[test]
    fn scripts_without_spaces_split_at_their_stops() {
        assert_eq!(texts("北京是首都。上海很大!"), ["北京是首都。", "上海很大!"]);
    }
}
