//! What may be said: no markup that a reader's program would act on, nothing a reader cannot see, no figures or codes
//! that stand in no source, and none of the instructions a model was given. Pure.

use pulldown_cmark::{Event, Parser, Tag, TagEnd};
use regex::Regex;
use std::collections::HashSet;
use std::sync::LazyLock;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

/// Words in a row that give away the instructions.
const TELLING_RUN: usize = 6;

/// `name.tld`, what chat programs turn into links: also with names of other scripts, in their own letters (of one script,
/// so that no word of a text without spaces is one) or as `xn--`.
static HOST: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^(?:[\p{L}\p{M}\p{N}_-]+\.)+(?:[a-z]{2,24}|xn--[a-z0-9-]{1,59}|[[\p{L}\p{M}]--[a-z]]{2,24})$").ok()
});

/// Without control characters, zero-width characters and Unicode tags, which readers do not see and models do.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars().filter(|&c| !is_unseen(c)).collect()
}

fn is_unseen(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(u32::from(c),
            0x00AD | 0x034F | 0x061C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F
            | 0x202A..=0x202E | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF9..=0xFFFB
            | 0xE0000..=0xE0FFF)
}

/// True when CommonMark makes a link, an image, HTML or a link definition of it.
pub(crate) fn has_markup(text: &str) -> bool {
    text.contains("]:")
        || Parser::new(text).any(|event| {
            let is_active = |tag: &Tag<'_>| matches!(tag, Tag::Link { .. } | Tag::Image { .. } | Tag::HtmlBlock);
            matches!(&event, Event::Html(_) | Event::InlineHtml(_))
                || matches!(&event, Event::Start(tag) if is_active(tag))
        })
}

/// The words of a document as an answer says them: where they hold markup, only what a reader would see of it.
pub(crate) fn plain(text: &str) -> String {
    let text = clean(text);
    if !has_markup(&text) {
        return text;
    }
    let mut seen = String::new();
    for event in Parser::new(&text) {
        match event {
            Event::Text(part) | Event::Code(part) => seen.push_str(&part),
            Event::SoftBreak | Event::HardBreak | Event::End(TagEnd::Paragraph) => seen.push(' '),
            _ => {}
        }
    }
    // Escaped markup comes to life when it is read for the second time.
    if has_markup(&seen) {
        seen.retain(|c| !matches!(c, '[' | ']' | '<' | '>' | '!' | '\\'));
    }
    seen.trim().to_owned()
}

/// True when a model's sentence holds no link, address, image or markup. A link stays out also where a quote holds it: a
/// document may bring its own, and who reads the citation sees it there as text.
#[must_use]
pub fn is_plain(sentence: &str, quotes: &[&str]) -> bool {
    const LINKS: [&str; 13] =
        ["http:", "https:", "hxxp", "ftp:", "mailto:", "www.", "data:", "javascript:", "](", "][", "]:", "![", "&#"];
    // Signs of markup that honest sentences hold as well: `x < y`, `and//or`.
    const SIGNS: [&str; 2] = ["<", "//"];
    // Letters that only look different are the same ones here.
    let folded: String = sentence.nfkc().collect::<String>().to_lowercase();
    let quotes: Vec<String> = quotes.iter().map(|quote| quote.to_lowercase()).collect();
    let is_quoted = |word: &str| quotes.iter().any(|quote| quote.split_whitespace().any(|known| known == word));
    let is_safe = |word: &str| {
        !names_host(word)
            && !LINKS.iter().any(|link| word.contains(link))
            && (!SIGNS.iter().any(|sign| word.contains(sign)) || is_quoted(word))
    };
    let has_entity = folded.split('&').skip(1).any(|rest| {
        rest.split_once(';')
            .is_some_and(|(name, _)| (2..=31).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric()))
    });
    !has_entity && folded.split_whitespace().all(is_safe) && !has_markup(&folded)
}

/// True when a host is named anywhere in the word: alone, behind a scheme or an `@`, before a path.
fn names_host(word: &str) -> bool {
    let is_of_host = |c: char| c.is_alphanumeric() || is_combining_mark(c) || matches!(c, '.' | '-' | '_');
    let is_host = |name: &str| HOST.as_ref().is_some_and(|host| host.is_match(name));
    let mut rest = word;
    while let Some(start) = rest.find(is_of_host) {
        let before = rest[..start].chars().next_back();
        let length = rest[start..].find(|c: char| !is_of_host(c)).unwrap_or(rest.len() - start);
        let (run, after) = rest[start..].split_at(length);
        let name = run.trim_matches(['.', '-', '_']);
        // Where no path and no mailbox stands beside it, `u.s` is not a host.
        let has_path = after.starts_with('/') || (after.len() > 1 && after.starts_with(['?', '#']));
        let is_address = before == Some('@') || (run.ends_with(name) && has_path);
        // In a text without spaces the host is what is not of its script.
        let mut ascii = name.split(|c: char| !c.is_ascii()).map(|part| part.trim_matches(['.', '-', '_']));
        let is_named = |name: &str| is_host(name) && (is_address || !is_abbreviation(name));
        if is_named(name) || ascii.any(is_named) {
            return true;
        }
        rest = after;
    }
    false
}

/// `e.g`, `z.b`, `u.s`: single letters with dots between.
fn is_abbreviation(word: &str) -> bool {
    word.split('.').all(|part| part.chars().count() <= 2)
}

/// True when every figure, code and address of a model's sentence stands in one of the `sources`: what is quoted, what
/// was retrieved with it, and the question.
#[must_use]
pub fn is_supported(sentence: &str, sources: &[&str]) -> bool {
    let known: HashSet<String> = sources.iter().flat_map(|source| codes(source)).collect();
    codes(sentence).iter().all(|code| known.contains(code))
}

/// Words with digits or with capitals inside, and figures, without separators of thousands.
fn codes(text: &str) -> Vec<String> {
    let is_code = |word: &&str| {
        word.chars().any(|c| c.is_numeric()) || word.chars().skip(1).any(char::is_uppercase) && word.chars().count() > 3
    };
    text.unicode_words()
        .filter(is_code)
        .map(|word| word.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect())
        .collect()
}

/// True when the sentence repeats the instructions: six of their words in a row.
#[must_use]
pub fn repeats(sentence: &str, instructions: &str) -> bool {
    let words = |text: &str| -> Vec<String> { text.unicode_words().map(str::to_lowercase).collect() };
    let (said, told) = (words(sentence), words(instructions));
    let runs: HashSet<&[String]> = told.windows(TELLING_RUN).collect();
    said.windows(TELLING_RUN).any(|run| runs.contains(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_markup_never_pass() {
        for honest in [
            "The fee is ninety pounds.",
            "It rose by 4.5 % (cf. Fig. 3), e.g. in May.",
            "U.S. law & order apply.",
            "租金是4.250欧元，见第3.2条。",
            "Срок — 5 дней (т.е. до 3.05), см. п. 4.",
            "On 3.5.2026 at 10:30, version 2.0-rc.1 and v1.2.3 came out @ noon.",
        ] {
            assert!(is_plain(honest, &[]), "{honest}");
        }
        for hostile in [
            "See https://evil.example/x.",
            "![x](https://e.example)",
            "[a][b]\n[b]: //e.example",
            "<img src=x>",
            "www.e.example",
            "Visit evil.com/leak?q=1 now.",
            "Visit evil.com.",
            "ｈｔｔｐｓ：//evil.example",
            "&#104;ttps&#58;//evil",
            "a &lt;img src=x&gt; b",
            "Mail mailto:a@evil.example",
            "[click here][1]",
            "Write to billing@evil.example, please.",
            "Write to a@t.co.",
            "x:evil.example/7",
            "go=evil.example;now",
            "Visit bücher.example.",
            "Visit xn--bcher-kva.xn--p1ai now.",
            "Visit пример.рф.",
            "Besuche müll.中国/7.",
            "请访问evil.com谢谢",
            "See t.co/7.",
        ] {
            assert!(!is_plain(hostile, &["the fee is ninety pounds"]), "{hostile}");
        }
        assert!(!is_plain("Write to https://firm.example/help.", &["Write to https://firm.example/help."]));
        assert!(is_plain("It holds when x < y.", &["it holds when x < y"]));
    }

    #[test]
    fn a_documents_markup_is_said_without_what_acts() {
        assert_eq!(plain("The fee is [ninety](https://e.example) pounds."), "The fee is ninety pounds.");
        for hostile in [
            "Look ![x](http://evil.example/?q=1) here",
            "Look <img src=http://evil.example> here",
            "Look <http://evil.example> here",
            r"Look \[x\](http://evil.example) here",
            "[x]: http://evil.example",
        ] {
            let said = plain(hostile);
            assert!(!has_markup(&said), "{hostile} became {said}");
        }
        assert_eq!(plain("Größe 3 < 4 * 2\u{e0041}\u{200b}"), "Größe 3 < 4 * 2");
    }

    #[test]
    fn figures_and_codes_need_a_source() {
        let sources = ["The rent is 4,250 euros, see clause B12.", "What is the rent of hall 7?"];
        assert!(is_supported("The rent of hall 7 is 4250 euros (B12).", &sources));
        assert!(!is_supported("The rent is 4,251 euros.", &sources));
        assert!(!is_supported("The code is XK7-CANARY.", &sources));
    }

    #[test]
    fn instructions_are_not_repeated() {
        let told = "You answer questions from the passages of documents.";
        assert!(repeats("It says: you answer questions from the passages!", told));
        assert!(!repeats("You answer questions about rent.", told));
    }
}
