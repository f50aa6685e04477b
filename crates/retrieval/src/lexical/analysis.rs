//! Words of a text as the lexical index knows them: the same function serves indexing and querying.
//!
//! Two views of every text. *Words*: case and accents folded, single characters for scripts written without spaces.
//! *Stems*: Snowball stems of the text's language, character bigrams for scripts written without spaces. There is no
//! query syntax anywhere: punctuation separates words and means nothing else.

use std::collections::HashSet;
use tantivy::tokenizer::{Language, Stemmer, StopWordFilter, TextAnalyzer, TokenStream, WhitespaceTokenizer};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

/// Longest word kept, in characters; longer ones (encoded data) are cut.
const MAX_WORD_CHARS: usize = 60;

/// A text analysed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    /// Folded words in order.
    pub words: Vec<String>,
    /// Stems and bigrams in order.
    pub stems: Vec<String>,
}

/// Analyses `text` as written in `language` (ISO 639-3; unknown languages are not stemmed).
#[must_use]
pub fn analyse(text: &str, language: Option<&str>) -> Analysis {
    let mut out = Analysis::default();
    let mut spaced: Vec<String> = Vec::new();
    let flush = |spaced: &mut Vec<String>, stems: &mut Vec<String>| {
        stems.extend(stem(spaced, language).iter().map(|stem| fold(stem)));
        spaced.clear();
    };
    for piece in pieces(text) {
        match piece {
            Piece::Word(word) => {
                out.words.push(fold(&word));
                spaced.push(word);
            }
            Piece::Run(run) => {
                flush(&mut spaced, &mut out.stems);
                let folded = fold(&run);
                // With the vowels and tones that stand on it, a letter is one character.
                let characters: Vec<&str> = folded.graphemes(true).collect();
                out.words.extend(characters.iter().map(|&character| character.to_owned()));
                match characters[..] {
                    [one] => out.stems.push(one.to_owned()),
                    _ => out.stems.extend(characters.windows(2).map(<[&str]>::concat)),
                }
            }
        }
    }
    flush(&mut spaced, &mut out.stems);
    out
}

/// The language a text is probably written in (ISO 639-3), `None` when too short or unclear to say.
#[must_use]
pub fn detect_language(text: &str) -> Option<&'static str> {
    whatlang::detect(text).filter(whatlang::Info::is_reliable).map(|info| info.lang().code())
}

/// The language a chunk is analysed in, by the index and by what compares with it: the one it is `known` to be in, else the
/// one its text, without headings, is probably in.
#[must_use]
pub fn language_of<'k>(known: Option<&'k str>, text: &str) -> Option<&'k str> {
    known.or_else(|| detect_language(text))
}

/// Words that make an English question and carry none of its meaning; the list tantivy has for English lacks them.
const ENGLISH_QUESTION_WORDS: [&str; 44] = [
    "what", "which", "who", "whom", "whose", "when", "where", "why", "how", "much", "many", "do", "does", "did",
    "done", "has", "have", "had", "can", "could", "would", "should", "may", "might", "must", "shall", "were", "been",
    "being", "am", "from", "about", "than", "i", "you", "we", "he", "she", "its", "his", "her", "our", "your", "me",
];

/// True when `word` (lower case, not stemmed) carries no meaning of its own in `language`.
#[must_use]
pub fn is_stop_word(word: &str, language: Option<&str>) -> bool {
    StopWords::of(language).holds(word)
}

/// The words of `text`, folded, that carry no meaning of their own in `language`. They are looked up as written, since
/// the lists keep their accents, and folded.
#[must_use]
pub fn stop_words(text: &str, language: Option<&str>) -> HashSet<String> {
    let mut list = StopWords::of(language);
    let mut out = HashSet::new();
    for piece in pieces(text) {
        let Piece::Word(word) = piece else { continue };
        let folded = fold(&word);
        if list.holds(&word.nfc().collect::<String>()) || list.holds(&folded) {
            out.insert(folded);
        }
    }
    out
}

/// The list of one language.
struct StopWords {
    is_english: bool,
    list: Option<TextAnalyzer>,
}

impl StopWords {
    fn of(language: Option<&str>) -> Self {
        let filter = language.and_then(stemmer_of).and_then(StopWordFilter::new);
        let analyzer = |filter| TextAnalyzer::builder(WhitespaceTokenizer::default()).filter(filter).build();
        Self { is_english: language == Some("eng"), list: filter.map(analyzer) }
    }

    fn holds(&mut self, word: &str) -> bool {
        let is_listed = |list: &mut TextAnalyzer| !list.token_stream(word).advance();
        self.is_english && ENGLISH_QUESTION_WORDS.contains(&word) || self.list.as_mut().is_some_and(is_listed)
    }
}

enum Piece {
    /// A lower-case word of a script that separates words.
    Word(String),
    /// A run of characters of a script that does not.
    Run(String),
}

fn pieces(text: &str) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut run = String::new();
    let mut run_end = 0;
    for (start, word) in text.unicode_word_indices() {
        if word.chars().next().is_some_and(is_unspaced) {
            if start != run_end && !run.is_empty() {
                out.push(Piece::Run(std::mem::take(&mut run)));
            }
            run.push_str(word);
            run_end = start + word.len();
            continue;
        }
        if !run.is_empty() {
            out.push(Piece::Run(std::mem::take(&mut run)));
        }
        split_word(&word.to_lowercase(), &mut out);
    }
    if !run.is_empty() {
        out.push(Piece::Run(run));
    }
    out
}

/// UAX 29 keeps `example.com`, `3,500.25` and `firm's` whole. Numbers stay whole without their grouping commas; other
/// words split at what joins them, and the possessive goes.
fn split_word(word: &str, out: &mut Vec<Piece>) {
    let cut = |part: &str| Piece::Word(part.chars().take(MAX_WORD_CHARS).collect());
    if word.starts_with(|c: char| c.is_numeric()) && !word.contains(char::is_alphabetic) {
        out.push(cut(&word.replace(',', "")));
        return;
    }
    let bare = word.strip_suffix("'s").or_else(|| word.strip_suffix("’s")).unwrap_or(word);
    let parts = bare.split(['.', '_', ':', '\'', '’', '·', ',']).filter(|part| !part.is_empty());
    out.extend(parts.map(cut));
}

/// Scripts written without spaces between words, and Hangul, whose words are better matched by their syllables.
fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c),
        0x0E00..=0x0EFF     // Thai, Lao
        | 0x1000..=0x109F   // Myanmar
        | 0x1780..=0x17FF   // Khmer
        | 0x3040..=0x30FF   // Hiragana, Katakana
        | 0x31F0..=0x31FF
        | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x323AF // Han
        | 0x3005..=0x3007
        | 0xAC00..=0xD7AF   // Hangul
        | 0xFF66..=0xFF9F)
}

/// Marks that writers of Latin, Greek, Cyrillic, Hebrew and Arabic leave out or that case and style add. In all other
/// scripts a mark is a letter: it makes another word.
fn is_accent(c: char) -> bool {
    matches!(u32::from(c),
        0x0300..=0x036F     // Latin, Greek
        | 0x0483..=0x0489   // Cyrillic
        | 0x0591..=0x05BD | 0x05BF | 0x05C1..=0x05C2 | 0x05C4..=0x05C5 | 0x05C7 // Hebrew
        | 0x0610..=0x061A | 0x064B..=0x065F | 0x0670 | 0x06D6..=0x06DC | 0x06DF..=0x06E4 | 0x06E7..=0x06E8
        | 0x06EA..=0x06ED | 0x0898..=0x089F | 0x08CA..=0x08E1 | 0x08E3..=0x08FF // Arabic
        | 0x1AB0..=0x1ACE | 0x1DC0..=0x1DFF | 0x20D0..=0x20F0
        | 0x2DE0..=0x2DFF | 0xA66F..=0xA672 | 0xA674..=0xA67D | 0xA69E..=0xA69F // Cyrillic
        | 0xFB1E | 0xFE20..=0xFE2F)
}

/// Compatibility forms and accents removed, lower case. Marks of other scripts stay: of kana, Thai, Khmer, Devanagari.
#[must_use]
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.nfkd().filter(|&c| !is_accent(c)) {
        match c {
            'ß' => out.push_str("ss"),
            'æ' | 'Æ' => out.push_str("ae"),
            'œ' | 'Œ' => out.push_str("oe"),
            'þ' | 'Þ' => out.push_str("th"),
            'ø' | 'Ø' => out.push('o'),
            'ł' | 'Ł' => out.push('l'),
            'đ' | 'Đ' | 'ð' | 'Ð' => out.push('d'),
            'ı' => out.push('i'),
            // Arabic: the lengthening stroke, and letter forms writers use for one another.
            '\u{640}' => {}
            'ى' => out.push('ي'),
            'ة' => out.push('ه'),
            other => out.extend(other.to_lowercase()),
        }
    }
    out.nfc().collect()
}

/// One stem for each word.
fn stem(words: &[String], language: Option<&str>) -> Vec<String> {
    let Some(language) = language.and_then(stemmer_of) else { return words.to_vec() };
    let joined = words.join(" ");
    let mut analyzer = TextAnalyzer::builder(WhitespaceTokenizer::default()).filter(Stemmer::new(language)).build();
    let mut stream = analyzer.token_stream(&joined);
    let mut stems = Vec::with_capacity(words.len());
    while stream.advance() {
        stems.push(stream.token().text.clone());
    }
    stems
}

fn stemmer_of(language: &str) -> Option<Language> {
    Some(match language {
        "ara" => Language::Arabic,
        "dan" => Language::Danish,
        "nld" => Language::Dutch,
        "eng" => Language::English,
        "fin" => Language::Finnish,
        "fra" => Language::French,
        "deu" => Language::German,
        "ell" => Language::Greek,
        "hun" => Language::Hungarian,
        "ita" => Language::Italian,
        "nob" | "nno" | "nor" => Language::Norwegian,
        "por" => Language::Portuguese,
        "ron" => Language::Romanian,
        "rus" => Language::Russian,
        "spa" => Language::Spanish,
        "swe" => Language::Swedish,
        "tam" => Language::Tamil,
        "tur" => Language::Turkish,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stems(text: &str, language: &str) -> Vec<String> {
        analyse(text, Some(language)).stems
    }

    #[test]
    fn punctuation_is_never_syntax() {
        let hostile = r#"tenant:"x" OR +body:(a* AND -b) {!lucene} [1 TO 2]^5~ \"#;
        let words = analyse(hostile, None).words;
        assert_eq!(words, ["tenant", "x", "or", "body", "a", "and", "b", "lucene", "1", "to", "2", "5"]);
    }

    #[test]
    fn words_fold_and_stems_follow_the_language() {
        assert_eq!(analyse("Crème Brûlée, ŁÓDŹ Straße", None).words, ["creme", "brulee", "lodz", "strasse"]);
        assert_eq!(stems("running runners' teams", "eng"), ["run", "runner", "team"]);
        assert_eq!(stems("Häuser Hauses", "deu"), ["haus", "haus"]);
        assert_eq!(stems("книгами книга", "rus"), ["книг", "книг"]);
        assert_eq!(
            analyse("The firm's example.com cost $3,500.25", None).words,
            ["the", "firm", "example", "com", "cost", "3500.25"]
        );
    }

    #[test]
    fn unspaced_scripts_become_characters_and_bigrams() {
        let chinese = analyse("北京大学,2024年", None);
        assert_eq!(chinese.words, ["北", "京", "大", "学", "2024", "年"]);
        assert_eq!(chinese.stems, ["北京", "京大", "大学", "2024", "年"]);
        assert_eq!(stems("がっこう", "jpn"), ["がっ", "っこ", "こう"]);
        assert_eq!(stems("한국어", "kor"), ["한국", "국어"]);
        assert_eq!(analyse("ที่นี่", None).words, ["ที่", "นี่"]);
        assert_eq!(stems("ภาษาไทย", "tha"), ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"].map(str::to_owned));
    }

    #[test]
    fn marks_that_make_another_word_stay() {
        // Thai near and far, Hindi day and poor, Khmer, Bengali: only a mark tells them apart.
        for (one, other) in [("ใกล้", "ใกล"), ("दिन", "दीन"), ("កា", "កិ"), ("কি", "কী"), ("ガス", "カス")]
        {
            assert_ne!(fold(one), fold(other), "{one}");
        }
        for (one, other) in [("ёж", "еж"), ("Ἀθῆναι", "αθηναι"), ("שָׁלוֹם", "שלום"), ("مُحَمَّد", "محمد"), ("Việt", "viet")]
        {
            assert_eq!(fold(one), other, "{one}");
        }
    }

    #[test]
    fn stop_words_are_known_by_language() {
        assert!(is_stop_word("the", Some("eng")));
        assert!(is_stop_word("und", Some("deu")));
        assert!(!is_stop_word("contract", Some("eng")));
        assert!(!is_stop_word("the", None));
        let held = |text, language| stop_words(text, Some(language));
        assert!(held("Für wen?", "deu").contains("fur") && held("qu'était-ce", "fra").contains("etait"));
        assert!(held("fu\u{308}r", "deu").contains("fur"), "also written in two characters");
        assert!(!held("Vertrag", "deu").contains("vertrag"));
    }
}
