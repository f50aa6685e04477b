//! Guesses among charsets that carry no mark of their own.
//!
//! `chardetng` knows what browsers meet. Text from old Macs, DOS and Romanian Latin-10 it calls by the nearest
//! name it knows, so for single-byte guesses those candidates are compared by how words then look.

use super::{Decoded, standard};
use chardetng::EncodingDetector;
use encoding_rs::{Encoding, IBM866, ISO_8859_16, MACINTOSH, X_MAC_CYRILLIC};

/// Bytes that the comparison reads.
const SAMPLE: usize = 100_000;

/// The upper half of code page 437, which has no WHATWG name.
const DOS_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// Decodes bytes that are not Unicode with the likeliest charset.
pub(super) fn guess(bytes: &[u8]) -> Decoded {
    let mut detector = EncodingDetector::new();
    detector.feed(bytes, true);
    let guessed = detector.guess(None, false);
    if !guessed.is_single_byte() {
        return standard(guessed, bytes);
    }
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    let mut best = (score(&standard(guessed, sample).text), Candidate::Standard(guessed));
    let others = [MACINTOSH, X_MAC_CYRILLIC, IBM866, ISO_8859_16].map(Candidate::Standard);
    for candidate in others.into_iter().chain([Candidate::Dos437]) {
        let points = score(&candidate.decode(sample).text);
        // A rarer charset must be clearly better, not merely as good.
        if points > best.0 + best.0.abs() / 8 + 4 {
            best = (points, candidate);
        }
    }
    best.1.decode(bytes)
}

#[derive(Clone, Copy)]
enum Candidate {
    Standard(&'static Encoding),
    Dos437,
}

impl Candidate {
    fn decode(self, bytes: &[u8]) -> Decoded {
        match self {
            Candidate::Standard(encoding) => standard(encoding, bytes),
            Candidate::Dos437 => {
                let table: Vec<char> = DOS_437.chars().collect();
                let read = |b: &u8| if b.is_ascii() { char::from(*b) } else { table[usize::from(*b) - 128] };
                Decoded { text: bytes.iter().map(read).collect(), charset: "IBM437", replacements: 0 }
            }
        }
    }
}

/// How much the non-ASCII characters look like parts of words: letters among letters of the same script in a
/// sensible case count for, symbols inside words and capitals after small letters count against.
fn score(text: &str) -> i64 {
    let chars: Vec<char> = text.chars().collect();
    let mut total = 0;
    for (at, &c) in chars.iter().enumerate().filter(|(_, c)| !c.is_ascii()) {
        let before = at.checked_sub(1).map_or(' ', |i| chars[i]);
        let after = chars.get(at + 1).copied().unwrap_or(' ');
        let in_word = before.is_alphabetic() || after.is_alphabetic();
        let inside = before.is_alphabetic() && after.is_alphabetic();
        total += match c {
            '\u{80}'..='\u{9f}' | '\u{fffd}' => -4,
            'ª' | 'º' | 'ƒ' | 'ˆ' | '˜' => -1,
            '’' | '‘' | '“' | '”' | '„' | '«' | '»' | '–' | '—' | '…' | '\u{a0}' => {
                i64::from(!inside)
            }
            _ if c.is_alphabetic() && mixes_scripts(c, before, after) => -2,
            // Accented letters stand among plain ones; words of nothing else are another script misread.
            _ if [before, c, after].into_iter().all(|c| ('À'..='\u{24f}').contains(&c)) => -3,
            _ if c.is_uppercase() && before.is_lowercase() => -3,
            _ if c.is_alphabetic() && in_word => 2,
            _ if c.is_alphabetic() => 0,
            _ if inside => -3,
            _ => 0,
        };
    }
    total
}

fn mixes_scripts(c: char, before: char, after: char) -> bool {
    let script = |c: char| match c {
        'a'..='z' | 'A'..='Z' | 'À'..='\u{24f}' => 1,
        'Ͱ'..='\u{3ff}' => 2,
        '\u{400}'..='\u{52f}' => 3,
        _ => 0,
    };
    let own = script(c);
    [before, after].into_iter().any(|other| own != 0 && script(other) != 0 && script(other) != own)
}

#[cfg(test)]
mod tests {
    use super::{Candidate, guess};
    use encoding_rs::{KOI8_R, MACINTOSH, WINDOWS_1252};

    const GERMAN: &str = "Die Grundsätze für die Prüfung größerer Vermögen müssen überall geändert werden. ";

    #[test]
    fn western_text_from_three_systems() {
        for encoding in [WINDOWS_1252, MACINTOSH] {
            let (bytes, _, _) = encoding.encode(GERMAN);
            assert_eq!(guess(&bytes.repeat(4)).charset, encoding.name());
        }
        let dos: Vec<u8> = (GERMAN.chars())
            .map(|c| (128..=255u8).find(|b| Candidate::Dos437.decode(&[*b]).text.starts_with(c)).unwrap_or(c as u8))
            .collect();
        let decoded = guess(&dos.repeat(4));
        assert_eq!((decoded.charset, decoded.text), ("IBM437", GERMAN.repeat(4)));
    }

    #[test]
    fn cyrillic_is_left_to_the_detector() {
        let (bytes, _, _) = KOI8_R.encode("Все люди рождаются свободными и равными в своём достоинстве и правах. ");
        assert!(guess(&bytes.repeat(3)).text.starts_with("Все люди"));
    }
}
