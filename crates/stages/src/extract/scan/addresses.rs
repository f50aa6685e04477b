//! Postal addresses: a line with postcode and town, with the street line above it where there is one.

use super::{captures, pattern};
use crate::extract::reading::Found;

/// Addresses of two lines, or of one line with street, postcode and town.
pub(in crate::extract) fn addresses(text: &str) -> Vec<Found> {
    let town = pattern!(
        r"(?mx) ^ [^\n]{0,80}? (?:
            \b(?:[A-Z]{1,2}-)?\d{4,5}[\ ]\p{Lu}[\p{L}.'’-]+(?:[\ (][\p{L}.)'’-]+){0,3}
          | \b\p{Lu}[\p{L}.'’\ -]{1,40},?[\ ][A-Z]{2}[\ ]\d{5}(?:-\d{4})?
          | \b[A-Z]{1,2}\d{1,2}[A-Z]?[\ ]?\d[A-Z]{2}\b
          | \b\d{4}[\ ]?[A-Z]{2}[\ ]\p{Lu}\p{L}+ ) [^\n]{0,30} $"
    );
    let mut found = Vec::new();
    for groups in captures(town, text) {
        let Some(line) = groups.get(0) else { continue };
        let own = line.as_str().trim_end();
        let own_start = line.start() + own.len() - own.trim_start().len();
        let own_end = line.start() + own.len();
        let above = text[..line.start()].trim_end_matches('\n').rsplit('\n').next().unwrap_or_default();
        let adjoins = text[..line.start()].ends_with(&format!("{above}\n")) && !text[..line.start()].ends_with("\n\n");
        let start = if adjoins && is_street(above) {
            line.start() - 1 - above.trim_start().len()
        } else if is_street(own) && own.contains(',') {
            own_start
        } else {
            continue;
        };
        let normal: Vec<&str> = text[start..own_end].lines().map(str::trim).collect();
        found.push(Found::new(start..own_end, normal.join(", "), 0.8));
    }
    found
}

/// A house number at either end, or a box number.
fn is_street(line: &str) -> bool {
    let expression = pattern!(
        r"(?i)^\s*(?:\d{1,5}[a-z]?[ ,]+\p{L}|\p{L}[\p{L}.'’ -]{2,50} \d{1,5} ?[a-z]?\b|p\.? ?o\.? box|postfach)"
    );
    line.chars().count() <= 90 && expression.is_some_and(|expression| expression.is_match(line))
}

#[cfg(test)]
mod tests {
    use super::addresses;

    #[test]
    fn street_and_town() {
        let text = "Müller GmbH\nHafenstraße 12a\n20457 Hamburg\n\n42 Harbour Road\nSpringfield, IL 62701\nTel 5";
        let found: Vec<String> =
            addresses(text).iter().map(|f| f.normalized.as_str().unwrap_or_default().to_owned()).collect();
        assert_eq!(found, ["Hafenstraße 12a, 20457 Hamburg", "42 Harbour Road, Springfield, IL 62701"]);
        assert!(addresses("In 2024 Members voted.\nRoom 12345 Anything").is_empty());
    }
}
