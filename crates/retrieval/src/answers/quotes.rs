//! Finding a model's quote in the passage it names. Pure.

/// Letters or digits a quote needs to prove anything.
const MIN_CHARS: usize = 8;

/// Where `quote` stands in `passage` when runs of whitespace count as equal: the character offset and the passage's own
/// words.
pub(crate) fn find_quote(passage: &str, quote: &str) -> Option<(u32, String)> {
    let wanted: Vec<char> = quote.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
    if wanted.iter().filter(|c| c.is_alphanumeric()).count() < MIN_CHARS {
        return None;
    }
    let text: Vec<char> = passage.chars().collect();
    (0..text.len()).find_map(|start| {
        let length = matches_at(&text[start..], &wanted)?;
        Some((start as u32, text[start..start + length].iter().collect()))
    })
}

/// How many characters of `text` spell `wanted`, whose whitespace is single spaces.
fn matches_at(text: &[char], wanted: &[char]) -> Option<usize> {
    let mut at = 0;
    for &c in wanted {
        if c == ' ' {
            let blanks = text[at..].iter().take_while(|c| c.is_whitespace()).count();
            if blanks == 0 {
                return None;
            }
            at += blanks;
        } else if text.get(at) == Some(&c) {
            at += 1;
        } else {
            return None;
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_found_despite_line_breaks_and_never_when_forged() {
        let passage = "The fee is\n  ninety pounds,\npayable in May.";
        assert_eq!(find_quote(passage, "fee is ninety pounds"), Some((4, "fee is\n  ninety pounds".to_owned())));
        for forged in ["fee is eighty pounds", "The fee is ninety pounds payable", "", "May", "the FEE is ninety"] {
            assert_eq!(find_quote(passage, forged), None, "{forged}");
        }
    }
}
