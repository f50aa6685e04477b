//! Email addresses, telephone numbers, web addresses, bank accounts.

use super::{captures, pattern};
use crate::extract::reading::Found;

/// Email addresses, domain in lower case.
pub(in crate::extract) fn emails(text: &str) -> Vec<Found> {
    let expression = pattern!(r"(?i)([a-z0-9][a-z0-9._%+-]{0,63})@([a-z0-9](?:[a-z0-9-]{0,62}\.)+[a-z]{2,24})\b");
    let one = |groups: regex::Captures<'_>| {
        let address = groups.get(0)?;
        Some(Found::new(address.range(), format!("{}@{}", &groups[1], groups[2].to_lowercase()), 0.99))
    };
    captures(expression, text).filter_map(one).collect()
}

/// Web addresses with a scheme or `www.`.
pub(in crate::extract) fn urls(text: &str) -> Vec<Found> {
    let expression = pattern!(r#"(?i)\b(?:https?://|www\.)[^\s<>"'|{}\\^`]+"#);
    let one = |groups: regex::Captures<'_>| {
        let whole = groups.get(0)?;
        let trimmed = whole.as_str().trim_end_matches(['.', ',', ';', ':', ')', ']', '!', '?', '’', '”']);
        let host = trimmed.split("//").last()?.split('/').next()?;
        if !host.contains('.') {
            return None;
        }
        let normal =
            if trimmed.to_lowercase().starts_with("www.") { format!("https://{trimmed}") } else { trimmed.to_owned() };
        Some(Found::new(whole.start()..whole.start() + trimmed.len(), normal, 0.97))
    };
    captures(expression, text).filter_map(one).collect()
}

/// Telephone numbers in E.164: written internationally, or nationally after a word that says so when `calling_code` is
/// known. Others have no certain normal form and are left out.
pub(in crate::extract) fn phones(text: &str, calling_code: Option<&str>) -> Vec<Found> {
    let international = pattern!(r"(?:^|[^\p{L}\d+])((?:\+|00)[1-9][\d \x{a0}()./-]{6,22}\d)(?:$|[^\d])");
    let mut found: Vec<Found> = Vec::new();
    for groups in captures(international, text) {
        let Some(number) = groups.get(1) else { continue };
        // "(0)" is dialled only inside the country.
        let written = number.as_str().replace("(0)", "");
        let digits: String = written.chars().filter(char::is_ascii_digit).collect();
        let digits = if written.starts_with("00") { &digits[2..] } else { &digits };
        if (8..=15).contains(&digits.len()) {
            found.push(Found::new(number.range(), format!("+{digits}"), 0.95));
        }
    }
    let Some(code) = calling_code else { return found };
    let labelled = pattern!(
        r"(?i)\b(?:tel(?:efon|ephone)?|phone|fax|mobile?|mobil|cell|handy|tél|fon)\.?(?: ?no\.?| number)?[ :.]*(\(?0?\d[\d ()./-]{5,18}\d)"
    );
    for groups in captures(labelled, text) {
        let Some(number) = groups.get(1).filter(|number| !number.as_str().starts_with("00")) else { continue };
        let digits: String = number.as_str().chars().filter(char::is_ascii_digit).collect();
        let national = digits.trim_start_matches('0');
        let overlaps = found.iter().any(|other| other.range.start < number.end() && number.start() < other.range.end);
        if !overlaps && (6..=12).contains(&national.len()) {
            found.push(Found::new(number.range(), format!("+{code}{national}"), 0.85));
        }
    }
    found
}

/// International bank account numbers (ISO 13616) whose length and checksum hold.
pub(in crate::extract) fn ibans(text: &str) -> Vec<Found> {
    let expression = pattern!(r"\b[A-Z]{2}\d{2}(?:[ \x{a0}]?[A-Z0-9]){11,30}");
    let mut found = Vec::new();
    for groups in captures(expression, text) {
        let Some(whole) = groups.get(0) else { continue };
        // Words may follow directly ("… 30 00 BIC …"): the country's length says where the number ends.
        let Some(length) = iban_length(&whole.as_str()[..2]) else { continue };
        let mut compact = String::new();
        let mut end = whole.start();
        for (at, c) in whole.as_str().char_indices() {
            if c.is_ascii_alphanumeric() && compact.len() < length {
                compact.push(c);
                end = whole.start() + at + 1;
            }
        }
        if compact.len() == length && checksum_holds(&compact) {
            found.push(Found::new(whole.start()..end, compact, 1.0));
        }
    }
    found
}

fn checksum_holds(iban: &str) -> bool {
    let mut rearranged = iban[4..].chars().chain(iban[..4].chars());
    let digit = |remainder: u32, c: char| {
        let value = c.to_digit(36)?;
        Some(if value < 10 { (remainder * 10 + value) % 97 } else { (remainder * 100 + value) % 97 })
    };
    rearranged.try_fold(0, digit) == Some(1)
}

fn iban_length(country: &str) -> Option<usize> {
    const LENGTHS: [(usize, &str); 15] = [
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI NL FO GL"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU XK"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
        (25, "PT ST"),
        (26, "IS TR"),
        (27, "FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HU LB PL SV"),
        (29, "BR EG PS QA UA"),
        (31, "MT SC"),
    ];
    LENGTHS.iter().find(|(_, countries)| countries.split(' ').any(|code| code == country)).map(|(length, _)| *length)
}

#[cfg(test)]
mod tests {
    use super::{emails, ibans, phones, urls};
    use crate::extract::reading::Found;

    fn normal(found: Vec<Found>) -> Vec<String> {
        found.iter().map(|found| found.normalized.as_str().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn addresses_on_the_net() {
        assert_eq!(normal(emails("Write to Jane.Doe@Example.ORG, or not@.")), ["Jane.Doe@example.org"]);
        assert_eq!(
            normal(urls("See (https://a.example/x?y=1). Or www.b.example, http://nodots")),
            ["https://a.example/x?y=1", "https://www.b.example"]
        );
    }

    #[test]
    fn telephone_numbers_become_e164() {
        assert_eq!(
            normal(phones("Tel. +49 (0)30 123 456-78, 0043 1 5330 100", None)),
            ["+493012345678", "+4315330100"]
        );
        assert_eq!(normal(phones("Telefon: 030 / 123456 78", Some("49"))), ["+493012345678"]);
        assert!(phones("Order 4711 0815 2342", Some("49")).is_empty());
    }

    #[test]
    fn accounts_are_checked() {
        assert_eq!(normal(ibans("IBAN: DE89 3704 0044 0532 0130 00 BIC X")), ["DE89370400440532013000"]);
        assert_eq!(normal(ibans("GB82WEST12345698765432")), ["GB82WEST12345698765432"]);
        assert!(ibans("DE88 3704 0044 0532 0130 00").is_empty(), "one digit off");
    }
}
