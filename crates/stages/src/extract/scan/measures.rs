//! Percentages and lengths of time.

use super::{captures, pattern};
use crate::extract::reading::Found;

/// Percentages as decimal strings.
pub(in crate::extract) fn percentages(text: &str) -> Vec<Found> {
    let expression = pattern!(
        r"(?i)(?:^|[^\p{L}\d.,])(-?\d{1,4}(?:[.,]\d{1,4})?)[ \x{a0}]?(?:%|percent\b|per cent\b|prozent\b|pour cent\b|por ciento\b)"
    );
    let one = |groups: regex::Captures<'_>| {
        let (number, whole) = (groups.get(1)?, groups.get(0)?);
        let value = decimal_or_plain(number.as_str());
        Some(Found::new(number.start()..whole.end(), value, 0.98))
    };
    captures(expression, text).filter_map(one).collect()
}

fn decimal_or_plain(number: &str) -> String {
    number.replace(',', ".")
}

/// Lengths of time as ISO 8601 durations: `two (2) years`, `30 days`, `sechs Monate`.
pub(in crate::extract) fn durations(text: &str) -> Vec<Found> {
    let expression = pattern!(
        r"(?ix) (?:^|[^\p{L}\d.,/-])
        ( (?: (?P<word> \p{L}+(?:-\p{L}+)?) [\s-]* )?? (?: \(\s*(?P<paren> \d{1,4})\s*\) | (?P<digits> \d{1,4}) | (?P<only> \p{L}+(?:-\p{L}+)?) )
          [\s\x{a0}-]* (?:full|calendar|business|consecutive|volle|whole)?\s*
          (?P<unit> years?|yrs?|months?|weeks?|days?|hours?|jahren?|jahre?s?|monate?n?|wochen?|tagen?|tage?s?|stunden?|ans?|années?|mois|semaines?|jours?|años?|mes(?:es)?|semanas?|días?|anni|mesi|giorni|jaar|maanden|weken|dagen) )
        (?:$|[^\p{L}])"
    );
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(groups) = expression.and_then(|expression| expression.captures_at(text, from)) {
        let Some(whole) = groups.get(1) else { break };
        from = whole.end();
        let count = match (groups.name("paren").or(groups.name("digits")), groups.name("only")) {
            (Some(digits), _) => digits.as_str().parse().ok(),
            (None, Some(word)) => spelled(word.as_str()),
            _ => None,
        };
        let (Some(count), Some(unit)) = (count, groups.name("unit").and_then(|unit| designator(unit.as_str()))) else {
            continue;
        };
        // The spelled-out number before "(2)" belongs to the value; another word does not.
        let number = match (groups.name("paren"), groups.name("digits"), groups.name("only")) {
            (Some(digits), _, _) => text[..digits.start()].rfind('(').unwrap_or(digits.start()),
            (_, Some(digits), _) => digits.start(),
            (_, _, only) => only.map_or(whole.start(), |word| word.start()),
        };
        let start =
            groups.name("word").filter(|word| spelled(word.as_str()).is_some()).map_or(number, |word| word.start());
        let time = if unit == 'H' { "T" } else { "" };
        found.push(Found::new(start..whole.end(), format!("P{time}{count}{unit}"), 0.95));
    }
    found.extend(anniversaries(text));
    found.sort_by_key(|found| found.range.start);
    found
}

/// `until the third anniversary` is three years long.
fn anniversaries(text: &str) -> impl Iterator<Item = Found> {
    const ORDINALS: [&str; 10] =
        ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"];
    let expression = pattern!(r"(?i)\b(\p{L}{5,7})\s+anniversary\b");
    captures(expression, text).filter_map(|groups| {
        let years = ORDINALS.iter().position(|ordinal| groups[1].eq_ignore_ascii_case(ordinal))? + 1;
        Some(Found::new(groups.get(0)?.range(), format!("P{years}Y"), 0.8))
    })
}

fn designator(unit: &str) -> Option<char> {
    let unit = unit.to_lowercase();
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| unit.starts_with(prefix));
    Some(match () {
        () if starts(&["year", "yr", "jahr", "an", "año", "jaar"]) => 'Y',
        () if starts(&["month", "monat", "mois", "mes", "maand"]) => 'M',
        () if starts(&["week", "woche", "sem", "weken"]) => 'W',
        () if starts(&["day", "tag", "jour", "día", "giorn", "dag"]) => 'D',
        () if starts(&["hour", "stund"]) => 'H',
        () => return None,
    })
}

fn spelled(word: &str) -> Option<u32> {
    const NUMBERS: [(&str, u32); 57] = [
        ("one", 1),
        ("two", 2),
        ("three", 3),
        ("four", 4),
        ("five", 5),
        ("six", 6),
        ("seven", 7),
        ("eight", 8),
        ("nine", 9),
        ("ten", 10),
        ("eleven", 11),
        ("twelve", 12),
        ("fifteen", 15),
        ("eighteen", 18),
        ("twenty", 20),
        ("twenty-four", 24),
        ("thirty", 30),
        ("thirty-six", 36),
        ("forty-five", 45),
        ("sixty", 60),
        ("ninety", 90),
        ("ein", 1),
        ("eine", 1),
        ("einem", 1),
        ("einen", 1),
        ("einer", 1),
        ("zwei", 2),
        ("drei", 3),
        ("vier", 4),
        ("fünf", 5),
        ("sechs", 6),
        ("sieben", 7),
        ("acht", 8),
        ("neun", 9),
        ("zehn", 10),
        ("zwölf", 12),
        ("vierzehn", 14),
        ("dreißig", 30),
        ("un", 1),
        ("une", 1),
        ("deux", 2),
        ("trois", 3),
        ("quatre", 4),
        ("cinq", 5),
        ("dix", 10),
        ("douze", 12),
        ("trente", 30),
        ("dos", 2),
        ("tres", 3),
        ("cuatro", 4),
        ("cinco", 5),
        ("seis", 6),
        ("diez", 10),
        ("doce", 12),
        ("treinta", 30),
        ("due", 2),
        ("tre", 3),
    ];
    let word = word.to_lowercase();
    NUMBERS.iter().find(|(name, _)| *name == word).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::{durations, percentages};

    fn durations_in(text: &str) -> Vec<(String, &str)> {
        let show = |found: &super::Found| {
            (found.normalized.as_str().unwrap_or_default().to_owned(), &text[found.range.clone()])
        };
        durations(text).iter().map(show).collect()
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(durations_in("a period of two (2) years from"), [("P2Y".to_owned(), "two (2) years")]);
        assert_eq!(
            durations_in("within 30 days, or 12-months"),
            [("P30D".to_owned(), "30 days"), ("P12M".to_owned(), "12-months")]
        );
        assert_eq!(durations_in("Frist von sechs Monaten"), [("P6M".to_owned(), "sechs Monaten")]);
        assert_eq!(durations_in("term of 5 years."), [("P5Y".to_owned(), "5 years")]);
        assert!(durations_in("in years past, those days").is_empty());
    }

    #[test]
    fn shares() {
        let found: Vec<String> =
            percentages("19 % VAT, 2,5% p.a. and 7.25 percent").iter().map(|f| f.normalized.to_string()).collect();
        assert_eq!(found, ["\"19\"", "\"2.5\"", "\"7.25\""]);
    }
}
