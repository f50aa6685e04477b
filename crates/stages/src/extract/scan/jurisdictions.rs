//! The place whose law governs an agreement.

use super::parties::tidy;
use super::{captures, pattern};
use crate::extract::reading::Found;
use docmill_model::sentences::flow;
use regex::Match;

/// The place in "governed by the laws of the State of New York".
pub(in crate::extract) fn jurisdictions(text: &str) -> Vec<Found> {
    let text = &flow(text);
    let simple = pattern!(
        r"(?x) (?i:\blaws?\s+(?:and\s+regulations\s+)?(?:of|in)\s+(?:the\s+)?(?:(?:state|commonwealth|province|republic|kingdom)\s+of\s+(?:the\s+)?)?)
        (?P<place> \p{Lu}\p{L}+ (?: [\ \n] (?: of[\ ] )? \p{Lu}\p{L}+ ){0,3} )"
    );
    let distant = pattern!(
        r"(?x) (?i:\blaws?\b [^.;]{0,80}? \b(?:of|in)\s+(?:the\s+)?(?:state|commonwealth|province|republic|kingdom)\s+of\s+(?:the\s+)?)
        (?P<place> \p{Lu}\p{L}+ (?: [\ \n] \p{Lu}\p{L}+ ){0,3} )"
    );
    let adjective = pattern!(
        r"(?i:\bgoverned\s+by\s+(?:and\s+construed\s+in\s+accordance\s+with\s+)?(?:the\s+)?)(?P<place>\p{Lu}\p{L}+(?: \p{Lu}\p{L}+)?)\s+(?i:law)"
    );
    let court =
        pattern!(r"(?i:\bgerichtsstand\s+(?:für\s+[^.]{0,80}?\s)?ist\s+)(?P<place>\p{Lu}\p{L}+(?:[ -]\p{Lu}\p{L}+)?)");
    let mut found: Vec<Found> = Vec::new();
    for (expression, confidence) in [(simple, 0.9), (distant, 0.85), (adjective, 0.85), (court, 0.8)] {
        for groups in captures(expression, text) {
            let (Some(whole), Some(place)) = (groups.get(0), groups.name("place")) else { continue };
            let words = place_name(place.as_str());
            let is_known = found.iter().any(|other| other.range.start == place.start());
            if !words.is_empty() && !is_known && governs(text, &whole) {
                found.push(Found::new(place.start()..place.start() + words.len(), capitalised(words), confidence));
            }
        }
    }
    found.sort_by_key(|found| found.range.start);
    found
}

/// The words of a place name; in capitals throughout, what follows it looks alike and is cut off.
fn place_name(words: &str) -> &str {
    const FIRST_OF_TWO: [&str; 10] =
        ["NEW", "NORTH", "SOUTH", "WEST", "RHODE", "UNITED", "BRITISH", "HONG", "NOVA", "PUERTO"];
    const AFTER: [&str; 12] =
        ["without", "applicable", "and", "the", "if", "unless", "except", "state", "as", "to", "in", "law"];
    let mut end = 0;
    for (number, word) in words.split([' ', '\n']).enumerate() {
        let first = words.split([' ', '\n']).next().unwrap_or_default();
        let is_shouted = first.chars().all(char::is_uppercase);
        let is_more = !is_shouted || number == 0 || (number == 1 && FIRST_OF_TWO.contains(&first));
        if AFTER.contains(&word.to_lowercase().as_str()) || !is_more {
            break;
        }
        end += word.len() + usize::from(number > 0);
    }
    &words[..end]
}

/// True when the sentence is about which law applies.
fn governs(text: &str, whole: &Match<'_>) -> bool {
    let mut from = text[..whole.start()].rfind(". ").map_or(0, |at| at + 2).max(whole.start().saturating_sub(300));
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let before = text[from..whole.end()].to_lowercase();
    let after = text[whole.end()..].chars().take(60).collect::<String>().to_lowercase();
    let signs =
        ["govern", "constru", "interpret", "subject to", "in accordance with", "gerichtsstand", "choice of law"];
    signs.iter().any(|sign| before.contains(sign))
        || after.contains("applies")
        || after.contains("shall apply")
        || after.contains("govern")
}

/// `NEW YORK` as `New York`; other spellings stay.
fn capitalised(words: &str) -> String {
    let tidied = tidy(words);
    if tidied.chars().any(char::is_lowercase) {
        return tidied;
    }
    let word =
        |word: &str| word.chars().take(1).chain(word.chars().skip(1).flat_map(char::to_lowercase)).collect::<String>();
    tidied.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::jurisdictions;

    #[test]
    fn governing_law() {
        let place = |text: &str| {
            jurisdictions(text).iter().map(|f| f.normalized.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(place("shall be governed by the laws of the State of New York, without regard"), ["New York"]);
        assert_eq!(place("governed by and construed in accordance with the laws of England and nothing"), ["England"]);
        assert_eq!(place("Gerichtsstand ist Hamburg."), ["Hamburg"]);
        assert!(place("under the laws of Delaware corporations are formed").is_empty());
    }
}
