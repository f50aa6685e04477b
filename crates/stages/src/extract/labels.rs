//! Labels: where the words of a field's labels stand, and which value belongs to each.

use super::reading::Found;
use regex::{Regex, RegexBuilder};
use std::ops::Range;

/// Widest gap between a label and its value on one line, in characters.
const LINE_GAP: usize = 80;
/// Lines below a label that are searched.
const LINES_BELOW: usize = 3;

/// One occurrence of a label.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Label {
    pub range: Range<usize>,
    /// Position in the field's list; earlier ones are better.
    pub rank: usize,
}

/// Every occurrence of the labels in `text`, as whole words and without regard to case, in order; a longer label hides
/// the shorter ones inside it.
pub(super) fn occurrences(text: &str, labels: &[String]) -> Vec<Label> {
    let mut found: Vec<Label> = Vec::new();
    for (rank, label) in labels.iter().enumerate() {
        let Some(expression) = expression(label) else { continue };
        found.extend(
            expression.captures_iter(text).filter_map(|groups| Some(Label { range: groups.get(1)?.range(), rank })),
        );
    }
    found.sort_by_key(|label| (label.range.start, usize::MAX - label.range.end));
    let mut end = 0;
    found.retain(|label| {
        let keeps = label.range.start >= end;
        end = end.max(label.range.end);
        keeps
    });
    found
}

fn expression(label: &str) -> Option<Regex> {
    let words: Vec<String> = label.split_whitespace().map(regex::escape).collect();
    let text = format!(r"(?:^|[^\p{{L}}\p{{N}}])({})(?:$|[^\p{{L}}])", words.join(r"[\s\x{a0}]+"));
    RegexBuilder::new(&text).case_insensitive(true).build().ok()
}

/// How well `value` stands beside `label`: 0 when it does not.
pub(super) fn nearness(text: &str, label: &Label, value: &Range<usize>) -> f32 {
    if value.start < label.range.end {
        return 0.0;
    }
    let between = &text[label.range.end..value.start];
    if between.len() > 4 * (LINE_GAP + LINES_BELOW * 120) {
        return 0.0;
    }
    let lines = between.matches('\n').count();
    let chars = between.chars().count();
    let words = between.chars().filter(|c| c.is_alphanumeric()).count();
    if lines == 0 {
        return if chars <= LINE_GAP { 1.0 - 0.008 * words.min(60) as f32 } else { 0.0 };
    }
    if lines > LINES_BELOW {
        return 0.0;
    }
    if lines == 1
        && let (Some(above), Some(below)) = (Cell::at(text, label.range.start), Cell::at(text, value.start))
        && above.of == below.of
    {
        return if above.number == below.number { 0.93 } else { 0.3 };
    }
    // Directly below is nearly as good as beside; anything written in between makes it doubtful.
    (0.85 - 0.1 * (lines - 1) as f32 - 0.01 * words.min(40) as f32).max(0.0)
}

/// The cell of a table row (cells stand apart by ` | `) that a byte of the text is in.
struct Cell {
    number: usize,
    of: usize,
}

impl Cell {
    /// `None` on a line that is no row.
    fn at(text: &str, at: usize) -> Option<Self> {
        let start = text[..at].rfind('\n').map_or(0, |before| before + 1);
        let end = text[at..].find('\n').map_or(text.len(), |after| at + after);
        let of = text[start..end].matches(" | ").count() + 1;
        (of > 1).then(|| Self { number: text[start..at].matches(" | ").count(), of })
    }
}

/// The cell right below a label that heads a column; `None` where the two lines are not rows of one shape.
pub(super) fn cell_below(text: &str, label: &Label) -> Option<Range<usize>> {
    let head = Cell::at(text, label.range.start)?;
    // "Invoice date" is no head of a column of invoices.
    let rest = &text[label.range.end..];
    let rest = &rest[..rest.find(" | ").unwrap_or(rest.len()).min(rest.find('\n').unwrap_or(rest.len()))];
    if rest.contains(char::is_alphanumeric) {
        return None;
    }
    let start = text[label.range.end..].find('\n').map(|after| label.range.end + after + 1)?;
    if Cell::at(text, start)?.of != head.of {
        return None;
    }
    let end = text[start..].find('\n').map_or(text.len(), |after| start + after);
    let cells: Vec<&str> = text[start..end].split(" | ").collect();
    let from = start + cells[..head.number].iter().map(|cell| cell.len() + 3).sum::<usize>();
    Some(from..from + cells[head.number].len())
}

/// The value that best belongs to one of the labels: `(index of the value, score)` for every value that belongs to any.
pub(super) fn beside(text: &str, labels: &[Label], values: &[Found]) -> Vec<(usize, f32)> {
    let mut scores: Vec<(usize, f32)> = Vec::new();
    for label in labels {
        let first = values.partition_point(|value| value.range.start < label.range.end);
        let near = (first..values.len()).map(|at| (at, nearness(text, label, &values[at].range))).take(4);
        // The nearest value takes the label.
        let Some((at, nearness)) =
            near.filter(|(_, nearness)| *nearness > 0.0).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
        else {
            continue;
        };
        let score = nearness - 0.02 * label.rank as f32;
        match scores.iter_mut().find(|(other, _)| *other == at) {
            Some((_, best)) => *best = best.max(score),
            None => scores.push((at, score)),
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::{Found, beside, occurrences};

    fn labels(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn longer_labels_hide_shorter_ones() {
        let found = occurrences("Subtotal 1\nTotal amount  due: 2\ntotalled", &labels(&["Total", "Total amount due"]));
        assert_eq!(found.iter().map(|label| label.rank).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn the_cell_below_belongs_to_a_column_head() {
        let text = "Invoice | Due date\nVF-77 | 9 May\n";
        let label = occurrences(text, &labels(&["Due date"]));
        assert_eq!(super::cell_below(text, &label[0]).map(|cell| &text[cell]), Some("9 May"));
        assert!(super::nearness(text, &label[0], &(27..32)) > super::nearness(text, &label[0], &(19..24)));
    }

    #[test]
    fn the_nearest_value_belongs_to_the_label() {
        let text = "Invoice date: 1 May\nDue: 9 May";
        let value = |words: &str| {
            let start = text.find(words).unwrap_or(0);
            Found::new(start..start + words.len(), words, 1.0)
        };
        let values = [value("1 May"), value("9 May")];
        let due = beside(text, &occurrences(text, &labels(&["due"])), &values);
        assert_eq!(due.first().map(|(at, _)| *at), Some(1));
    }
}
