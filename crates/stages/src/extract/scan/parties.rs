//! Organisations by their legal form, and the sides an agreement names.
//!
//! Names may run over a wrapped line: the text is read with such breaks as spaces, byte for byte.

use super::{captures, pattern};
use crate::extract::reading::Found;
use docmill_model::sentences::flow;
use regex::Match;
use std::ops::Range;

/// Organisations that carry a legal form and the sides of agreements, in order, without overlaps.
pub(in crate::extract) fn parties(text: &str) -> Vec<Found> {
    let text = &flow(text);
    let mut found = between(text);
    found.extend(organisations(text));
    without_parts(apart(found))
}

/// The sides of the agreement a document is: those its opening names, else the first organisations it mentions.
pub(in crate::extract) fn sides(text: &str) -> Vec<Found> {
    let text = &flow(text);
    let mut found = between(text);
    let opening = found.first().map_or(0, |first| first.range.start + OPENING);
    found.retain(|side| side.range.start < opening);
    let mut found = without_parts(apart(found));
    if found.len() < 2 {
        let mentioned = without_parts(apart(organisations(text)));
        let known = |name: &Found| found.iter().any(|side| shares_name(side, name));
        let missing: Vec<Found> =
            mentioned.into_iter().filter(|name| name.range.start < OPENING && !known(name)).collect();
        let room = 2 - found.len();
        found.extend(missing.into_iter().take(room));
    }
    found
}

/// How far the opening of an agreement reaches, in bytes.
const OPENING: usize = 4_000;

fn apart(mut found: Vec<Found>) -> Vec<Found> {
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

/// Drops names that are part of a longer one: `Coulter, Inc.` beside `Beckman Coulter, Inc.`.
fn without_parts(found: Vec<Found>) -> Vec<Found> {
    let letters = |party: &Found| compact(party.normalized.as_str().unwrap_or_default());
    let all: Vec<String> = found.iter().map(letters).collect();
    let is_part = |name: &String| {
        all.iter().any(|other| {
            other.len() > name.len() && (other.ends_with(name.as_str()) || other.starts_with(name.as_str()))
        })
    };
    let parts: Vec<bool> = all.iter().map(is_part).collect();
    found.into_iter().zip(parts).filter(|(_, is_part)| !is_part).map(|(party, _)| party).collect()
}

fn shares_name(a: &Found, b: &Found) -> bool {
    let (a, b) =
        (compact(a.normalized.as_str().unwrap_or_default()), compact(b.normalized.as_str().unwrap_or_default()));
    a.starts_with(&b) || b.starts_with(&a)
}

fn compact(name: &str) -> String {
    name.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect()
}

/// `Acme Widgets, Inc.`, `Müller & Söhne GmbH`, `Fondation Example`.
fn organisations(text: &str) -> Vec<Found> {
    let expression = pattern!(
        r"(?x)
        (?: ^ | [^\p{L}\p{N}&.'’-] )
        (?P<name>
          \p{Lu}[\p{L}\p{N}&.'’/-]*
          (?: [\ \x{a0}]{1,2} (?: \p{Lu}[\p{L}\p{N}&.'’/-]* | & | of | and | the | for | und | für | et | de | du | des | y | e | \(\p{L}+\) ) ){0,7}
          ,? [\ \x{a0}\n]
          (?: Inc | INC | Incorporated | INCORPORATED | L\.?L\.?C | L\.?L\.?P | L\.?P | Ltd | LTD | Limited | LIMITED | Corp | CORP | Corporation | CORPORATION
            | Company | COMPANY | Co | CO | P\.?L\.?C | plc | GmbH(?:[\ ]&[\ ]Co\.?[\ ]KG)? | AG | KG | OHG | UG | e\.\ ?V | eG | SE | S\.A\.R\.L | SARL | SAS | S\.A\.S
            | S\.A | SA | N\.V | NV | B\.V | BV | S\.p\.A | SpA | S\.r\.l | Srl | S\.L | SL | Sp\.[\ ]z[\ ]o\.o | Oy | AB | ApS | A/S | Pty[\ ]Ltd
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
        (?P<first> [^;]{3,500}? ) [,)\s]+ (?:and|und|et|y|e)\s+ (?P<second> \p{L}[^;,(]{2,160} )"
    );
    let mut found = Vec::new();
    for groups in captures(expression, text) {
        if !groups.get(0).is_some_and(|whole| is_agreed(text, whole.start())) {
            continue;
        }
        for side in [groups.name("first"), groups.name("second")].into_iter().flatten() {
            let name = first_name(side.as_str());
            let words: Vec<&str> = name.split_whitespace().collect();
            let capitals = words.iter().filter(|word| word.starts_with(|c: char| c.is_uppercase() || c == '&')).count();
            if (1..=9).contains(&words.len())
                && name.starts_with(char::is_uppercase)
                && capitals * 2 >= words.len()
                && !is_role(name)
            {
                let range = with_form(text, side.start()..side.start() + name.len());
                found.push(Found::new(range.clone(), tidy(&text[range]), 0.9));
            }
        }
    }
    found
}

/// True when an agreement is made in the words before: other things lie between two things as well.
fn is_agreed(text: &str, at: usize) -> bool {
    let mut from = at.saturating_sub(300);
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    let before = text[from..at].to_lowercase();
    let signs = [
        "agreement",
        "contract",
        "lease",
        "entered into",
        "made",
        "vertrag",
        "vereinbarung",
        "contrat",
        "accord",
        "contrato",
        "acuerdo",
    ];
    signs.iter().any(|sign| before.contains(sign))
}

/// The words up to the first comma, bracket, quotation mark, paragraph or end of sentence.
fn first_name(words: &str) -> &str {
    let mark = words.find([',', '(', '"', '“', ';']).unwrap_or(words.len());
    let paragraph = words.find("\n\n").unwrap_or(words.len());
    let ends = |(at, _): &(usize, &str)| words[..*at].chars().rev().take_while(|c| c.is_alphabetic()).count() > 3;
    let sentence = words.match_indices(". ").find(ends).map_or(words.len(), |(at, _)| at);
    let alias =
        [" d/b/a", " dba ", " (", "\n("].iter().filter_map(|mark| words.find(mark)).min().unwrap_or(words.len());
    words[..mark.min(paragraph).min(sentence).min(alias)].trim_end()
}

/// Takes in a legal form that follows a comma: `Acme` → `Acme, Inc.`.
fn with_form(text: &str, range: Range<usize>) -> Range<usize> {
    let expression =
        pattern!(r"(?i)^,? ?(?:inc|llc|l\.l\.c|ltd|limited|corp|corporation|l\.?p|llp|plc|s\.a|n\.v|b\.v|co)\b\.?");
    let follows = expression.and_then(|expression| expression.find(&text[range.end..]));
    range.start..range.end + follows.map_or(0, |form| form.len())
}

fn named(text: &str, name: &Match<'_>, confidence: f32) -> Option<Found> {
    // Leading words that begin a sentence or a clause are not part of the name.
    const LEADS: [&str; 22] = [
        "The", "This", "Between", "By", "And", "To", "From", "For", "At", "In", "Of", "With", "Dear", "Die", "Der",
        "Das", "Zwischen", "Firma", "Le", "La", "Entre", "If",
    ];
    let mut start = name.start() + sentence_end(name.as_str());
    loop {
        let rest = &text[start..name.end()];
        let (first, after) = rest.split_once([' ', '\u{a0}', '\n'])?;
        if LEADS.contains(&first) || ["of", "and", "the", "for", "&"].contains(&first) {
            start = name.end() - after.len();
        } else {
            break;
        }
    }
    let words: Vec<&str> = text[start..name.end()].split_whitespace().collect();
    let [.., before, form] = words.as_slice() else { return None };
    let normalized = tidy(&text[start..name.end()]);
    let follows_name =
        !is_weak(form) || (before.starts_with(char::is_uppercase) && !is_filler(before) && !is_role(before));
    (follows_name && !is_role(&normalized)).then(|| Found::new(start..name.end(), normalized, confidence))
}

/// Where the last sentence inside `words` begins: `Bank. Acme Inc.` is one name, the second.
fn sentence_end(words: &str) -> usize {
    let ends = |(at, _): &(usize, &str)| words[..*at].chars().rev().take_while(|c| c.is_alphabetic()).count() > 3;
    words.match_indices(". ").filter(ends).last().map_or(0, |(at, _)| at + 2)
}

/// Words that form a name only behind a proper one: "the Company" is none.
fn is_weak(form: &str) -> bool {
    const WEAK: [&str; 13] = [
        "company",
        "corporation",
        "bank",
        "trust",
        "group",
        "partners",
        "foundation",
        "association",
        "cooperative",
        "university",
        "holdings",
        "co",
        "limited",
    ];
    WEAK.contains(&form.trim_end_matches('.').to_lowercase().as_str())
}

fn is_filler(word: &str) -> bool {
    const FILLERS: [&str; 26] = [
        "the",
        "of",
        "and",
        "or",
        "if",
        "that",
        "each",
        "neither",
        "none",
        "executive",
        "employee",
        "you",
        "any",
        "a",
        "by",
        "to",
        "for",
        "with",
        "internal",
        "name",
        "because",
        "public",
        "private",
        "general",
        "without",
        "no",
    ];
    FILLERS.contains(&word.to_lowercase().as_str())
}

/// "the Company", "Disclosing Party": roles a contract defines, not names.
fn is_role(name: &str) -> bool {
    const ROLES: [&str; 30] = [
        "company",
        "corporation",
        "party",
        "parties",
        "recipient",
        "discloser",
        "receiving",
        "disclosing",
        "provider",
        "seller",
        "buyer",
        "tenant",
        "landlord",
        "lessor",
        "lessee",
        "employee",
        "employer",
        "consultant",
        "contractor",
        "holding",
        "partners",
        "group",
        "bank",
        "limited",
        "each",
        "such",
        "any",
        "other",
        "both",
        "trust",
    ];
    name.split_whitespace()
        .all(|word| ROLES.contains(&word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase().as_str()))
}

pub(super) fn tidy(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches([',', ';', ':']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::parties;

    fn names(text: &str) -> Vec<String> {
        parties(text).iter().map(|found| found.normalized.as_str().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn names_with_legal_forms() {
        assert_eq!(
            names("Invoice from Müller & Söhne GmbH to the Deepwell Divers Ltd. today"),
            ["Müller & Söhne GmbH", "Deepwell Divers Ltd."]
        );
        assert_eq!(names("shipped by Acme Widgets, Inc. on Monday"), ["Acme Widgets, Inc."]);
        assert!(names("The Company shall pay the Bank. This Limited licence").is_empty());
    }

    #[test]
    fn the_two_sides_of_a_contract() {
        let text = "This Agreement is made by and between Blue Heron Labs, Inc., a Delaware corporation (\"Discloser\"), and Jane Q. Public (the \"Recipient\").";
        assert_eq!(names(text), ["Blue Heron Labs, Inc.", "Jane Q. Public"]);
        assert_eq!(names("zwischen der Gemeinde\nund niemandem."), Vec::<String>::new());
    }
}
