//! Values that are only recognisable by where they stand: after a label, on a line of their own.

use super::{captures, pattern};
use crate::extract::reading::Found;
use regex::Regex;
use serde_json::json;
use std::ops::Range;

/// Longest value of a line, in characters.
const MAX_VALUE_CHARS: usize = 200;

/// `Label: value` lines and two-cell table rows as `{key, value}`; the place is the value's.
pub(in crate::extract) fn key_values(text: &str) -> Vec<Found> {
    let expression = pattern!(
        r"(?m)^[ \t•*-]*(?P<key>\p{L}[\p{L}\p{N} .()/&'’#-]{0,48}?)[ \t]*(?:[::][ \t]+|[ \t]\|[ \t])(?P<value>\S[^\n|]*?)[ \t]*$"
    );
    let one = |groups: regex::Captures<'_>| {
        let (key, value) = (groups.name("key")?, groups.name("value")?);
        let words = key.as_str().split_whitespace().count();
        let fits = words <= 6 && value.as_str().chars().count() <= MAX_VALUE_CHARS;
        fits.then(|| {
            Found::new(value.range(), json!({ "key": key.as_str().trim(), "value": tidy(value.as_str()) }), 0.8)
        })
    };
    captures(expression, text).filter_map(one).collect()
}

/// A number or code that starts within `after`, the rest of a labelled line or a line below it.
pub(in crate::extract) fn identifier(text: &str, after: Range<usize>, wanted: Option<&Regex>) -> Option<Found> {
    let expression = pattern!(
        r"^[\s:#№.=|-]*(?:(?:no|nr|num|number|nummer)\b[.:# ]*)?(?P<code>[\p{Lu}\p{Ll}\p{N}][\p{L}\p{N}./_-]{1,39}(?: \d[\d./-]*)?)"
    )?;
    let groups = expression.captures(&text[after.clone()])?;
    let code = groups.name("code")?;
    let mut words = code.as_str().trim_end_matches(['.', '/', '-', '_']);
    if let Some(wanted) = wanted {
        let first = words.split(' ').next().unwrap_or_default();
        words = [words, first].into_iter().find(|candidate| wanted.is_match(candidate))?;
    } else {
        let (first, second) = words.split_once(' ').unwrap_or((words, ""));
        // "INV 2024-17" belongs together; "4711 3" does not.
        let is_prefix = first.chars().all(char::is_uppercase) && first.len() <= 4 && !second.is_empty();
        words = if is_prefix { words } else { first };
        words.chars().any(|c| c.is_ascii_digit()).then_some(())?;
    }
    let start = after.start + code.start();
    Some(Found::new(start..start + words.len(), words, 0.95))
}

/// All words of the text that match a field's pattern as a whole.
pub(in crate::extract) fn matching(text: &str, wanted: &Regex) -> Vec<Found> {
    let words = pattern!(r"[\p{L}\p{N}][\p{L}\p{N}./_-]*");
    let one = |groups: regex::Captures<'_>| {
        let word = groups.get(0)?;
        let trimmed = word.as_str().trim_end_matches(['.', '/', '-', '_']);
        wanted.is_match(trimmed).then(|| Found::new(word.start()..word.start() + trimmed.len(), trimmed, 0.9))
    };
    captures(words, text).filter_map(one).collect()
}

/// The words from the start of `after` to the end of their line or cell.
pub(in crate::extract) fn rest_of_line(text: &str, after: Range<usize>) -> Option<Found> {
    let expression = pattern!(r"^[ \t]*[::=|.-]*[ \t]*(?P<value>[^\n|]+?)[ \t]*(?:\n|\||$)")?;
    let groups = expression.captures(&text[after.clone()])?;
    let value = groups.name("value")?;
    let fits = value.as_str().chars().any(char::is_alphanumeric) && value.as_str().chars().count() <= MAX_VALUE_CHARS;
    let start = after.start + value.start();
    fits.then(|| Found::new(start..start + value.len(), tidy(value.as_str()), 0.85))
}

/// The first line that could be a name: what stands at the head of a letter or receipt.
pub(in crate::extract) fn letterhead(text: &str) -> Option<Found> {
    const TITLES: [&str; 14] = [
        "invoice",
        "tax invoice",
        "receipt",
        "cash bill",
        "cash receipt",
        "official receipt",
        "bill",
        "rechnung",
        "quittung",
        "facture",
        "reçu",
        "factura",
        "fattura",
        "faktura",
    ];
    let mut start = 0;
    for line in text.split_inclusive('\n').take(12) {
        let words = line.trim();
        let letters = words.chars().filter(|c| c.is_alphabetic()).count();
        let marks = words.chars().filter(|c| !c.is_whitespace()).count();
        if letters >= 5
            && letters * 10 >= marks * 7
            && words.chars().count() <= 80
            && !TITLES.contains(&words.to_lowercase().as_str())
        {
            let from = start + line.len() - line.trim_start().len();
            return Some(Found::new(from..from + words.len(), tidy(words), 0.6));
        }
        start += line.len();
    }
    None
}

fn tidy(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{identifier, key_values, rest_of_line};

    #[test]
    fn lines_of_label_and_value() {
        let found =
            key_values("Order no: 4711\nA sentence with a colon in the middle of it: no.\nWeight | 3 kg\nhttp://x\n");
        let shown: Vec<String> = found.iter().map(|found| found.normalized.to_string()).collect();
        assert_eq!(shown, [r#"{"key":"Order no","value":"4711"}"#, r#"{"key":"Weight","value":"3 kg"}"#]);
    }

    #[test]
    fn codes_after_a_label() {
        let code = |text: &str| identifier(text, 0..text.len(), None).map(|found| found.normalized.to_string());
        assert_eq!(code(": INV-2024/17 of May").as_deref(), Some("\"INV-2024/17\""));
        assert_eq!(code(" # 000342").as_deref(), Some("\"000342\""));
        assert_eq!(code(" RE 2024-17").as_deref(), Some("\"RE 2024-17\""));
        assert_eq!(code(": pending"), None);
        assert_eq!(
            rest_of_line(": Jane Doe \n next", 0..17).map(|f| f.normalized.to_string()).as_deref(),
            Some("\"Jane Doe\"")
        );
    }
}
