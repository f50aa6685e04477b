//! What differs between two readings of a document. Pure.

use docmill_retrieval::among::Passage;
use serde_json::Value;
use similar::{DiffOp, DiffTag, TextDiff};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Changes and passages that are shown of a document.
const SHOWN: usize = 5;
/// Characters of an excerpt.
const EXCERPT: usize = 300;
/// Longest look for the smallest difference; after it a larger one is told.
const PATIENCE: Duration = Duration::from_millis(200);

/// How two texts differ.
#[derive(Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct TextDifference {
    /// True when they are equal.
    pub is_same: bool,
    /// Characters of the text that is shown.
    pub before_chars: usize,
    /// Characters of the text that was made.
    pub after_chars: usize,
    /// Share of equal lines, 0 to 1.
    pub similarity: f32,
    /// Stretches of lines that differ.
    pub changed: usize,
    /// The first five of them.
    pub changes: Vec<Change>,
}

/// A stretch that differs, cut to 300 characters.
#[derive(Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Change {
    /// As it is shown; empty for what was added.
    pub before: String,
    /// As it was made; empty for what went.
    pub after: String,
}

/// How two lists of chunks differ. Chunks are equal when heading path and words are.
#[derive(Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct ChunkDifference {
    /// Chunks that are shown.
    pub before: usize,
    /// Chunks that were made.
    pub after: usize,
    /// Chunks in both.
    pub kept: usize,
    /// The beginnings of the first five that are shown and were not made again.
    pub removed: Vec<String>,
    /// The beginnings of the first five that are new.
    pub added: Vec<String>,
}

impl ChunkDifference {
    pub(super) fn is_same(&self) -> bool {
        self.kept == self.before && self.kept == self.after
    }
}

/// A field whose value differs; null where there is none.
#[derive(Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct FieldDifference {
    /// Its name.
    pub field: String,
    /// As it is shown.
    #[schema(value_type = Object)]
    pub before: Value,
    /// As it was made.
    #[schema(value_type = Object)]
    pub after: Value,
}

/// Two summaries.
#[derive(Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct SummaryDifference {
    /// True when they are equal.
    pub is_same: bool,
    /// The sentences that are shown.
    pub before: Vec<String>,
    /// The sentences that were made.
    pub after: Vec<String>,
}

/// The beginning of a text.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Compares line by line.
pub(super) fn text(before: &str, after: &str) -> TextDifference {
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(before, after);
    let changed: Vec<&DiffOp> = diff.ops().iter().filter(|op| op.tag() != DiffTag::Equal).collect();
    let lines = |slices: &[&str]| excerpt(slices.concat().trim_end_matches('\n'));
    let change = |op: &&DiffOp| Change {
        before: lines(&diff.old_slices()[op.old_range()]),
        after: lines(&diff.new_slices()[op.new_range()]),
    };
    TextDifference {
        is_same: before == after,
        before_chars: before.chars().count(),
        after_chars: after.chars().count(),
        similarity: diff.ratio(),
        changed: changed.len(),
        changes: changed.iter().take(SHOWN).map(change).collect(),
    }
}

/// Compares as multisets.
pub(super) fn chunks(before: &[Passage], after: &[Passage]) -> ChunkDifference {
    let key = |passage: &Passage| (passage.document_id, passage.heading_path.clone(), passage.text.clone());
    let only = |these: &[Passage], others: &[Passage]| -> Vec<String> {
        let mut left: HashMap<_, usize> = HashMap::new();
        others.iter().for_each(|passage| *left.entry(key(passage)).or_default() += 1);
        let is_new = |passage: &&Passage| match left.get_mut(&key(passage)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        };
        these.iter().filter(is_new).map(|passage| excerpt(&passage.text)).collect()
    };
    let (mut removed, mut added) = (only(before, after), only(after, before));
    let kept = before.len() - removed.len();
    removed.truncate(SHOWN);
    added.truncate(SHOWN);
    ChunkDifference { before: before.len(), after: after.len(), kept, removed, added }
}

/// The fields of either whose values differ.
pub(super) fn fields(before: &Value, after: &Value) -> Vec<FieldDifference> {
    let names =
        |data: &Value| data.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
    let all: BTreeSet<String> = names(before).union(&names(after)).cloned().collect();
    let differs = |field: &String| before.get(field) != after.get(field);
    let value = |data: &Value, field: &str| data.get(field).cloned().unwrap_or_default();
    all.into_iter()
        .filter(differs)
        .map(|field| FieldDifference { before: value(before, &field), after: value(after, &field), field })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use docmill_model::DocumentId;
    use serde_json::json;

    fn passage(heading: &str, text: &str) -> Passage {
        Passage {
            document_id: DocumentId(uuid::Uuid::nil()),
            titles: vec!["a.txt".to_owned()],
            heading_path: vec![heading.to_owned()],
            text: text.to_owned(),
            language: None,
        }
    }

    #[test]
    fn stretches_of_lines_that_differ_are_told() {
        let same = text("one\ntwo\n", "one\ntwo\n");
        assert_eq!((same.is_same, same.similarity, same.changed), (true, 1.0, 0));
        let other = text("one\ntwo\nthree\nfour\n", "one\n2\nthree\nfour\nfive\n");
        let change = |before: &str, after: &str| Change { before: before.to_owned(), after: after.to_owned() };
        assert_eq!(other.changes, [change("two", "2"), change("", "five")]);
        assert_eq!((other.is_same, other.changed, other.before_chars, other.after_chars), (false, 2, 19, 22));
        assert!((0.6..0.7).contains(&other.similarity), "{}", other.similarity);
    }

    #[test]
    fn an_excerpt_is_cut_between_characters() {
        let long = "ß".repeat(EXCERPT + 1);
        assert_eq!(excerpt(&long).chars().count(), EXCERPT + 1);
        assert_eq!(excerpt("ß"), "ß");
    }

    #[test]
    fn chunks_are_counted_as_often_as_they_are_there() {
        let before = [passage("A", "x"), passage("A", "x"), passage("B", "y")];
        let after = [passage("A", "x"), passage("C", "y")];
        let difference = chunks(&before, &after);
        assert_eq!((difference.before, difference.after, difference.kept), (3, 2, 1));
        assert_eq!((difference.removed.len(), &difference.added[..]), (2, &["y".to_owned()][..]));
        assert!(!difference.is_same() && chunks(&before, &before).is_same());
    }

    #[test]
    fn a_field_that_came_or_went_differs() {
        let found =
            fields(&json!({"total": "12", "date": "2025-01-01"}), &json!({"date": "2025-01-01", "seller": "A"}));
        let named: Vec<&str> = found.iter().map(|difference| difference.field.as_str()).collect();
        assert_eq!(named, ["seller", "total"]);
        assert_eq!((&found[0].before, &found[1].after), (&Value::Null, &Value::Null));
    }
}
