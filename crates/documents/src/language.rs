//! Names the language of a document and of its blocks (ISO 639-3), where the evidence is good enough.
//!
//! Short or mixed text gets no language rather than a guess. Scripts that one language uses are enough.

use docmill_model::document::{Block, BlockKind, ParsedDocument};
use docmill_model::{CanonicalText, Span};

/// Characters read per block and per document: trigram statistics do not improve beyond.
const BLOCK_SAMPLE: usize = 1_000;
const DOCUMENT_SAMPLE: usize = 8_000;
/// Letters below which a block says too little.
const BLOCK_LETTERS: usize = 60;
/// Blocks that are looked at; the rest of a huge file keeps the document's language only.
const BLOCKS: usize = 5_000;
/// Confidence that the whole document needs, having more text than a block.
const DOCUMENT_CONFIDENCE: f64 = 0.5;
const ENGLISH: &str = "eng";

/// Fills in `language` of the document and of every block that is long enough.
///
/// Trigrams of some forty languages are looked at for the document; for a block of an English one only where a linear
/// model over sixteen languages, which takes a fifteenth of the time, does not find English in it. Of others that model
/// takes one for another: what it does not know goes to a neighbour, in Latin script to any but English.
pub(crate) fn annotate(document: &mut ParsedDocument) {
    let text = CanonicalText::from_canonical(document.text.clone());
    let start = |block: &Block| {
        let end = block.span.end.min(block.span.start.saturating_add(BLOCK_SAMPLE as u32));
        text.slice(Span::new(block.span.start, end)).unwrap_or_default()
    };
    let mut sample = String::new();
    for block in document.blocks.iter().filter(|b| b.role != BlockKind::Furniture) {
        sample.push_str(start(block));
        sample.push('\n');
        if sample.len() >= DOCUMENT_SAMPLE {
            break;
        }
    }
    document.language = of_document(&sample);
    for block in document.blocks.iter_mut().filter(|b| b.role != BlockKind::Furniture).take(BLOCKS) {
        let words = start(block);
        let prose = !matches!(block.role, BlockKind::Code | BlockKind::Table { .. });
        if prose && letters(words) >= BLOCK_LETTERS {
            let usual = document.language.as_deref().filter(|&usual| usual == ENGLISH && is_english(words));
            block.language = usual.map(str::to_owned).or_else(|| reliable(words));
        }
    }
}

/// True for words that the linear model takes for English.
fn is_english(words: &str) -> bool {
    whatlang::detect_script(words) == Some(whatlang::Script::Latin)
        && whichlang::detect_language(words) == whichlang::Lang::Eng
}

/// The language of a longer text, or `None` when it is unclear.
pub(crate) fn of_document(sample: &str) -> Option<String> {
    let info = whatlang::detect(sample)?;
    let sure = info.is_reliable() || (letters(sample) >= 4 * BLOCK_LETTERS && info.confidence() >= DOCUMENT_CONFIDENCE);
    sure.then(|| info.lang().code().to_owned())
}

fn reliable(words: &str) -> Option<String> {
    whatlang::detect(words).filter(whatlang::Info::is_reliable).map(|info| info.lang().code().to_owned())
}

/// Letters, counting an ideograph for three: a sentence has about a third as many of them.
fn letters(words: &str) -> usize {
    words.chars().filter(|c| c.is_alphabetic()).map(|c| if c >= '\u{2e80}' { 3 } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::of_document;
    use crate::blocks::DocumentBuilder;
    use crate::inline::Inline;
    use docmill_model::document::{BlockKind, Format};

    #[test]
    fn says_nothing_about_a_few_letters() {
        assert_eq!(of_document("OK"), None);
        let german =
            "Der Mieter hat die Wohnung nach Ablauf der Mietzeit in ordentlichem Zustand zurückzugeben. ".repeat(3);
        assert_eq!(of_document(&german).as_deref(), Some("deu"));
    }

    #[test]
    fn blocks_in_other_languages_are_told_whatever_the_document_is_in() {
        let english = "The tenant shall return the premises in good order at the end of the lease, fair wear excepted.";
        let others = [
            ("ell", "Ο μισθωτής υποχρεούται να παραδώσει το διαμέρισμα σε καλή κατάσταση μετά τη λήξη της μίσθωσης."),
            (
                "ukr",
                "Орендар зобов'язаний повернути приміщення у належному стані після закінчення строку дії договору.",
            ),
            (
                "pol",
                "Najemca jest zobowiązany zwrócić lokal w należytym stanie po zakończeniu okresu najmu i wszystkie klucze.",
            ),
        ];
        for (usual, language) in [(english, "eng"), (others[1].1, "ukr")] {
            let mut builder = DocumentBuilder::new(Format::Text);
            let blocks = std::iter::repeat_n(usual, 8).chain(others.map(|(_, words)| words));
            for words in blocks {
                builder.block(BlockKind::Paragraph, "p", &Inline::of(words));
            }
            let document = builder.finish().expect("has text");
            assert_eq!(document.language.as_deref(), Some(language));
            let found: Vec<&str> = document.blocks[8..].iter().filter_map(|block| block.language.as_deref()).collect();
            assert_eq!(found, others.map(|(language, _)| language));
        }
    }
}
