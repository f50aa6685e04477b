//! The chunker beside windows of fixed size, both with the same search and the same budget of retrieved characters.
//!
//! The set has `corpora/*.md` and a CSV of questions with gold excerpts by character offsets.

use super::run::{Stand, invalid, outcome, plain};
use docmill_model::{Failure, Span};
use docmill_platform::tokens::TokenCounter;
use docmill_retrieval::eval::excerpts::{ExcerptQuestion, Passage, Way, evaluate_excerpts};
use docmill_retrieval::eval::{Outcome, fingerprint};
use docmill_retrieval::search::SearchMode;
use docmill_stages::chunk::{ChunkConfig, chunk_document};
use std::path::Path;

/// Passages of fixed size that make up a budget, as the published figures have it.
const WINDOWS: u32 = 5;

/// Neighbours on each side that passages are judged with: none, and as a search gives them on request.
const AROUND: [usize; 2] = [0, 1];

/// A text of the set.
struct Text {
    name: String,
    text: String,
}

/// A gold excerpt as the set keeps it.
#[derive(serde::Deserialize)]
struct Excerpt {
    content: String,
    start_index: usize,
    end_index: usize,
}

/// Judges `docmill.…`, `docmill+1.…` (with neighbours) and `fixed-SIZE.…` for every budget.
///
/// # Errors
/// `CONFIG_INVALID` for data that cannot be read; failures of services.
pub async fn run(
    stand: &Stand,
    name: &str,
    path: &Path,
    mode: SearchMode,
    budgets: &[u32],
) -> Result<Outcome, Failure> {
    let texts = texts(&path.join("corpora"))?;
    let questions = questions(path, &texts)?;
    let own = own_chunks(&texts, &stand.tokens)?;
    let judge = async |name: &str, passages: &[Passage], around: &[usize], budgets: &[u32]| {
        let way = Way { name, passages, around };
        evaluate_excerpts(&stand.bench, way, &questions, mode, budgets, &stand.progress()).await
    };
    let mut measures = judge("docmill", &own, &AROUND, budgets).await?;
    for &budget in budgets {
        let size = (budget / WINDOWS).max(1);
        measures.extend(judge(&format!("fixed-{size}"), &windows(&texts, size), &[0], &[budget]).await?);
    }
    let asked = questions.iter().map(|question| question.text.as_str());
    let facts = [
        ("data", fingerprint(texts.iter().map(|text| text.text.as_str()).chain(asked)).into()),
        ("texts", texts.len().into()),
        ("questions", questions.len().into()),
        ("chunks", own.len().into()),
        (
            "mean_chunk_chars",
            (own.iter().map(|p| u64::from(p.span.len())).sum::<u64>() / own.len().max(1) as u64).into(),
        ),
    ];
    Ok(outcome(name, "chunking", facts, measures))
}

fn texts(folder: &Path) -> Result<Vec<Text>, Failure> {
    let listed = std::fs::read_dir(folder).map_err(|e| invalid(format!("{}: {e}", folder.display())))?;
    let mut paths: Vec<_> = listed.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).map_err(|e| invalid(format!("{}: {e}", path.display())))?;
        Ok(Text { name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text })
    };
    paths.iter().map(read).collect()
}

/// Questions whose excerpts all stand where the set says.
fn questions(path: &Path, texts: &[Text]) -> Result<Vec<ExcerptQuestion>, Failure> {
    let file = path.join("questions-shared.csv");
    let mut reader = csv::Reader::from_path(&file).map_err(|e| invalid(format!("{}: {e}", file.display())))?;
    let mut questions = Vec::new();
    for (number, row) in reader.deserialize::<(String, String, String)>().enumerate() {
        let (text, excerpts, text_name) = row.map_err(|e| invalid(format!("{}: {e}", file.display())))?;
        let excerpts: Vec<Excerpt> =
            serde_json::from_str(&excerpts).map_err(|e| invalid(format!("{}: {e}", file.display())))?;
        let Some(whole) = texts.iter().find(|text| text.name == text_name) else { continue };
        let stands = |e: &Excerpt| {
            whole.text.chars().skip(e.start_index).take(e.end_index - e.start_index).eq(e.content.chars())
        };
        if excerpts.iter().all(stands) {
            let spans = excerpts.iter().map(|e| Span::new(e.start_index as u32, e.end_index as u32)).collect();
            questions.push(ExcerptQuestion { id: number.to_string(), text, text_name, excerpts: spans });
        }
    }
    Ok(questions)
}

fn own_chunks(texts: &[Text], tokens: &TokenCounter) -> Result<Vec<Passage>, Failure> {
    let mut passages = Vec::new();
    for text in texts {
        let document = plain(&text.text)?;
        let moved = moved(&text.text, &document.text);
        let moved =
            moved.ok_or_else(|| invalid(format!("{} is not canonical text: its offsets would not hold", text.name)))?;
        passages.extend(chunk_document(&document, tokens, &ChunkConfig::default()).into_iter().map(|chunk| Passage {
            text_name: text.name.clone(),
            span: Span::new(chunk.span.start + moved, chunk.span.end + moved),
            title: chunk.heading_path.join(" > "),
            text: chunk.text,
        }));
    }
    Ok(passages)
}

/// Characters that `read` begins later than `raw`: reading leaves out white space at both ends. `None` when it changed more.
fn moved(raw: &str, read: &str) -> Option<u32> {
    let leading = |text: &str| text.chars().take_while(|letter| letter.is_whitespace()).count() as u32;
    if raw.trim() == read.trim() { leading(raw).checked_sub(leading(read)) } else { None }
}

fn windows(texts: &[Text], size: u32) -> Vec<Passage> {
    let mut passages = Vec::new();
    for text in texts {
        let characters: Vec<char> = text.text.chars().collect();
        for (number, window) in characters.chunks(size as usize).enumerate() {
            let start = number as u32 * size;
            passages.push(Passage {
                text_name: text.name.clone(),
                span: Span::new(start, start + window.len() as u32),
                title: String::new(),
                text: window.iter().collect(),
            });
        }
    }
    passages
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn offsets_hold_where_white_space_was_left_out_at_the_ends_and_nowhere_else() {
        assert_eq!(moved("é b", "é b"), Some(0));
        assert_eq!(moved(" \u{a0}é b \n", "é b"), Some(2));
        assert_eq!(moved(" é b", " é b\n"), Some(0));
        assert_eq!(moved(" a  b", "a b"), None);
        assert_eq!(moved("a\r\nb", "a\nb"), None);
    }

    #[test]
    fn chunks_of_a_text_with_white_space_at_its_ends_stand_where_their_words_stand() {
        let text = Text { name: "t".to_owned(), text: "\n = Quay =\n\nThe lantern hangs at the quay.\n \n".to_owned() };
        let passages = own_chunks(std::slice::from_ref(&text), &TokenCounter::words()).unwrap();
        assert!(!passages.is_empty());
        for passage in &passages {
            let (start, length) = (passage.span.start as usize, passage.span.len() as usize);
            assert_eq!(text.text.chars().skip(start).take(length).collect::<String>(), passage.text);
        }
    }
}
