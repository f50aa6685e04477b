//! Organisations by their legal form, the parties a contract names, the place whose law governs.

use super::{captures, pattern};
use crate::extract::reading::Found;
use regex::Match;
use std::ops::Range;

/// Organisations that carry a legal form, and names between "between … and …", in order, without overlaps.
pub(in crate::extract) fn parties(text: &str) -> Vec<Found> {
    let mut found = between(text);
    found.extend(organisations(text));
    found.sort_by(|a, b| a.range.start.cmp(&b.range.start).then(b.confidence.total_cmp(&a.confidence)));
    let mut kept: Vec<Found> = Vec::with_capacity(found.len());
    for party in found {
        match kept.last_mut() {
            Some(last) if party.range.start < last.range.end => {
                if party.confidence > last.confidence {
                    *last = party;
                }
            }
            _ => kept.push(party),
        }
    }
    kept
}

/// `Acme Widgets, Inc.`, `Müller & Söhne GmbH`, `Fondation Example`.
fn organisations(text: &str) -> Vec<Found> {
    let expression = pattern!(
        r"(?x)
        (?: ^ | [^\p{L}\p{N}&.'’-] )
        (?P<name>
          (?: \p{Lu}[\p{L}\p{N}&.'’/-]* | \d{1,4}\p{L}* | & )
          (?: [\ \x{a0}]{1,2} (?: \p{Lu}[\p{L}\p{N}&.'’/-]* | & | of | and | the | for | und | für | et | de | du | des | y | e | \(\p{L}+\) ) ){0,7}
          ,? [\ \x{a0}\n]
          (?: Inc | INC | Incorporated | INCORPORATED | L\.?L\.?C | L\.?L\.?P | L\.?P | Ltd | LTD | Limited | LIMITED | Corp | CORP | Corporation | CORPORATION
            | Company | COMPANY | Co | CO | P\.?L\.?C | plc | GmbH(?:[\ ]&[\ ]Co\.?[\ ]KG)? | AG | KG | OHG | UG | e\.\ ?V | eG | SE | S\.A\.R\.L | SARL | SAS | S\.A\.S
            | S\.A | SA | N\.V | NV | B\.V | BV | S\.p\.A | SpA | S\.r\.l | Srl | S\.L | SL | Sp\.[\ ]z[\ ]o\.o | Oy | AB | ApS | A/S | AS | Pty[\ ]Ltd
            | Pte\.?[\ ]Ltd | PTY[\ ]LTD | SDN\.?[\ ]BHD | Sdn\.?[\ ]Bhd | Bank | BANK | Trust | Foundation | Association | Cooperative | University | Partners | Holdings | Group )
          \.?
        )
        (?: $ | [^\p{L}\p{N}] )"
    );
    captures(expression, text).filter_map(|groups| named(text, &groups.name("name")?, 0.85)).collect()
}

/// The names in "by and between X, a Delaware corporation ("…"), and Y …".
fn between(text: &str) -> Vec<Found> {
    let expression = pattern!(
        r"(?isx) \b(?:between|zwischen|entre|tra|fra)\b [:\s]+ (?:the\s+parties[:\s]+)?
        (?P<first> [^;]{3,500}? ) [,)\s]+ (?:and|und|et|y|e)\s+ (?P<second> \p{L}[^;]{2,200}? ) (?: \s*[,(;] | \.\s | \n\n | $ )"
    );
    let mut found = Vec::new();
    for groups in captures(expression, text) {
        for side in ["first", "second"] {
            let Some(side) = groups.name(side) else { continue };
            let end = side.as_str().find([',', '(', '\n', '"', '“', ';']).unwrap_or(side.len());
            let name = side.as_str()[..end].trim_end();
            let starts_name = name.chars().next().is_some_and(char::is_uppercase);
            let is_short = (1..=9).contains(&name.split_whitespace().count());
            let capitals = name.split_whitespace().filter(|word| word.starts_with(char::is_uppercase)).count();
            if starts_name && is_short && capitals * 2 >= name.split_whitespace().count() && !is_role(name) {
                let range = with_form(text, side.start()..side.start() + name.len());
                found.push(Found::new(range.clone(), tidy(&text[range]), 0.9));
            }
        }
    }
    found
}

/// Takes in a legal form that follows a comma: `Acme` → `Acme, Inc.`.
fn with_form(text: &str, range: Range<usize>) -> Range<usize> {
    let expression = pattern!(r"(?i)^,? ?(?:inc|llc|l\.l\.c|ltd|limited|corp|corporation|l\.?p|llp|plc|s\.a|n\.v|b\.v|co)\b\.?");
    let follows = expression.and_then(|expression| expression.find(&text[range.end..]));
    range.start..range.end + follows.map_or(0, |form| form.len())
}

fn named(text: &str, name: &Match<'_>, confidence: f32) -> Option<Found> {
    // Leading words that begin a sentence or a clause are not part of the name.
    const LEADS: [&str; 22] = [
        "The", "This", "Between", "By", "And", "To", "From", "For", "At", "In", "Of", "With", "Dear", "Die", "Der", "Das", "Zwischen", "Firma",
        "Le", "La", "Entre", "If",
    ];
    let mut start = name.start();
    loop {
        let rest = &text[start..name.end()];
        let Some((first, after)) = rest.split_once([' ', '\u{a0}', '\n']) else { return None };
        if LEADS.contains(&first) || ["of", "and", "the", "for", "&"].contains(&first) {
            start = name.end() - after.len();
        } else {
            break;
        }
    }
    let words = text[start..name.end()].split_whitespace().count();
    let normalized = tidy(&text[start..name.end()]);
    (words >= 2 && !is_role(&normalized)).then(|| Found::new(start..name.end(), normalized, confidence))
}

/// "the Company", "Disclosing Party": roles a contract defines, not names.
fn is_role(name: &str) -> bool {
    const ROLES: [&str; 30] = [
        "company", "corporation", "party", "parties", "recipient", "discloser", "receiving", "disclosing", "provider", "seller", "buyer", "tenant",
        "landlord", "lessor", "lessee", "employee", "employer", "consultant", "contractor", "holding", "partners", "group", "bank", "limited", "each",
        "such", "any", "other", "both", "trust",
    ];
    name.split_whitespace().all(|word| ROLES.contains(&word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase().as_str()))
}

fn tidy(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches([',', ';', ':']).to_owned()
}

/// The place in "governed by the laws of the State of New York".
pub(in crate::extract) fn jurisdictions(text: &str) -> Vec<Found> {
    let english = pattern!(
        r"(?x) (?i:\blaws?\s+(?:and\s+regulations\s+)?(?:of|in)\s+(?:the\s+)?(?:(?:State|Commonwealth|Province|Republic|Kingdom)\s+of\s+(?:the\s+)?)?)
        (?P<place> \p{Lu}[\p{L}.]+ (?: [\ \n] (?: of[\ ] )? \p{Lu}[\p{L}.]+ ){0,3} )"
    );
    let adjective = pattern!(r"(?i:\bgoverned\s+by\s+(?:and\s+construed\s+in\s+accordance\s+with\s+)?(?:the\s+)?)(?P<place>\p{Lu}\p{L}+(?: \p{Lu}\p{L}+)?)\s+(?i:law)");
    let court = pattern!(r"(?i:\bgerichtsstand\s+(?:für\s+[^.]{0,80}?\s)?ist\s+)(?P<place>\p{Lu}\p{L}+(?:[ -]\p{Lu}\p{L}+)?)");
    let mut found = Vec::new();
    for (expression, confidence) in [(english, 0.9), (adjective, 0.85), (court, 0.8)] {
        for groups in captures(expression, text) {
            let Some(place) = groups.name("place") else { continue };
            let words = place.as_str().trim_end_matches('.');
            let sentence = text[..place.start()].rfind(". ").map_or(0, |at| at + 2).max(place.start().saturating_sub(300));
            let sentence = text.get(sentence..place.start()).unwrap_or_default().to_lowercase();
            let governs = ["govern", "constru", "interpret", "subject to", "in accordance with", "gerichtsstand"].iter().any(|word| sentence.contains(word));
            if governs && words != "United" {
                found.push(Found::new(place.start()..place.start() + words.len(), tidy(words), confidence));
            }
        }
    }
    found.sort_by_key(|found| found.range.start);
    found
}

#[cfg(test)]
mod tests {
    use super::{jurisdictions, parties};

    fn names(text: &str) -> Vec<String> {
        parties(text).iter().map(|found| found.normalized.as_str().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn names_with_legal_forms() {
        assert_eq!(names("Invoice of Müller & Söhne GmbH to the Deepwell Divers Ltd. today"), ["Müller & Söhne GmbH", "Deepwell Divers Ltd."]);
        assert_eq!(names("shipped by Acme Widgets, Inc. on Monday"), ["Acme Widgets, Inc."]);
        assert!(names("The Company shall pay the Bank. This Limited licence").is_empty());
    }

    #[test]
    fn the_two_sides_of_a_contract() {
        let text = "This Agreement is made by and between Blue Heron Labs, Inc., a Delaware corporation (\"Discloser\"), and Jane Q. Public (the \"Recipient\").";
        assert_eq!(names(text), ["Blue Heron Labs, Inc.", "Jane Q. Public"]);
        assert_eq!(names("zwischen der Gemeinde\nund niemandem."), Vec::<String>::new());
    }

    #[test]
    fn governing_law() {
        let place = |text: &str| jurisdictions(text).iter().map(|f| f.normalized.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>();
        assert_eq!(place("shall be governed by the laws of the State of New York, without regard"), ["New York"]);
        assert_eq!(place("governed by and construed in accordance with the laws of England and nothing"), ["England"]);
        assert_eq!(place("Gerichtsstand ist Hamburg."), ["Hamburg"]);
        assert!(place("under the laws of Delaware corporations are formed").is_empty());
    }
}
