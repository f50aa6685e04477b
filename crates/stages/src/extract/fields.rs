//! Which of the recognised values belong to each field of a schema.

use super::labels::{Label, beside, cell_below, nearness, occurrences};
use super::reading::{Found, Reading};
use super::scan::{addresses, amounts, contacts, dates, jurisdictions, lines, measures, parties};
use super::schema::{ExtractSchema, FieldKind, FieldSpec, Pick};
use docmill_model::results::FieldValue;
use serde_json::Value;
use std::collections::HashMap;

/// Most values of one array property.
const MAX_VALUES: usize = 200;
/// Bytes at the head of a document in which its sender is looked for.
const HEAD: usize = 300;
/// Confidence of a value that no label vouches for, when the field would rather have one.
const UNLABELLED: f32 = 0.5;

/// Values by field name, best first for single fields, in document order for arrays.
pub(super) fn resolve(reading: &Reading<'_>, schema: &ExtractSchema) -> Vec<(FieldSpec, Vec<FieldValue>)> {
    let mut scans = Scans::new(reading);
    schema.fields.iter().map(|field| (field.clone(), scans.values(field))).collect()
}

/// Each recogniser runs once per document.
pub(super) struct Scans<'a> {
    reading: &'a Reading<'a>,
    /// By kind, whether a label vouches for the value (numbers without a currency are amounts only then), calling code.
    found: HashMap<(FieldKind, bool, Option<String>), Vec<Found>>,
}

impl<'a> Scans<'a> {
    pub(super) fn new(reading: &'a Reading<'a>) -> Self {
        Self { reading, found: HashMap::new() }
    }

    /// Everything that has the form of the field's kind.
    pub(super) fn of_kind(&mut self, field: &FieldSpec) -> &[Found] {
        self.scan(field, true)
    }

    fn values(&mut self, field: &FieldSpec) -> Vec<FieldValue> {
        let labels = occurrences(self.reading.text(), &field.labels);
        let scored = match field.kind {
            FieldKind::Identifier | FieldKind::Text => self.after_labels(field, &labels),
            _ => self.recognised(field, &labels),
        };
        let chosen = if field.many { in_order(scored) } else { best(scored, field.pick).into_iter().collect() };
        let mut values: Vec<FieldValue> = Vec::new();
        for (found, confidence) in chosen {
            let Some(value) = self.reading.value(&found, confidence) else { continue };
            if values.iter().all(|other| other.normalized != value.normalized) && values.len() < MAX_VALUES {
                values.push(value);
            }
        }
        values
    }

    /// Values that have a form of their own.
    fn recognised(&mut self, field: &FieldSpec, labels: &[Label]) -> Vec<(Found, f32)> {
        let text = self.reading.text();
        if field.labels.is_empty() {
            return self.scan(field, false).iter().map(|found| (found.clone(), 1.0)).collect();
        }
        let values = self.scan(field, true);
        let mut scored: Vec<(Found, f32)> =
            beside(text, labels, values).into_iter().map(|(at, score)| (values[at].clone(), score)).collect();
        if scored.is_empty() && field.kind == FieldKind::Party {
            scored = self.after_labels(field, labels);
        }
        if scored.is_empty() && field.anywhere && field.kind == FieldKind::Party {
            let heads = self.scan(field, false).iter().filter(|found| found.range.start < HEAD).cloned();
            let heads: Vec<Found> = heads.chain(lines::letterhead(text)).take(1).collect();
            return heads.into_iter().map(|found| (found, UNLABELLED)).collect();
        }
        if scored.is_empty() && field.anywhere {
            return self.scan(field, false).iter().map(|found| (found.clone(), UNLABELLED)).collect();
        }
        scored
    }

    /// Values that only a label makes recognisable: on its line, else at the start of the next.
    fn after_labels(&self, field: &FieldSpec, labels: &[Label]) -> Vec<(Found, f32)> {
        let text = self.reading.text();
        let read = |from: usize, to: usize| match field.kind {
            FieldKind::Identifier => lines::identifier(text, from..to, field.pattern.as_ref()),
            _ => lines::rest_of_line(text, from..to),
        };
        let mut scored = Vec::new();
        for label in labels {
            let line_end = text[label.range.end..].find('\n').map_or(text.len(), |at| label.range.end + at);
            let below_end = text[line_end..].match_indices('\n').nth(2).map_or(text.len(), |(at, _)| line_end + at);
            if let Some(found) = cell_below(text, label).and_then(|cell| read(cell.start, cell.end)) {
                scored.push((found, 0.93 - 0.02 * label.rank as f32));
                continue;
            }
            let found = read(label.range.end, line_end).or_else(|| {
                let rest = text[label.range.end..line_end].trim_matches(|c: char| !c.is_alphanumeric());
                let skipped = text[line_end..below_end].len() - text[line_end..below_end].trim_start().len();
                if rest.is_empty() { read(line_end + skipped, below_end) } else { None }
            });
            if let Some(found) = found {
                let score = nearness(text, label, &found.range) - 0.02 * label.rank as f32;
                scored.push((found, score));
            }
        }
        if scored.is_empty()
            && let Some(pattern) = field.pattern.as_ref().filter(|_| field.anywhere || field.labels.is_empty())
        {
            scored.extend(lines::matching(text, pattern).into_iter().map(|found| (found, UNLABELLED)));
        }
        scored.retain(|(_, score)| *score > 0.0);
        scored
    }

    fn scan(&mut self, field: &FieldSpec, labelled: bool) -> &[Found] {
        let labelled = labelled && field.kind == FieldKind::Amount;
        let reading = self.reading;
        self.found
            .entry((field.kind, labelled, field.calling_code.clone()))
            .or_insert_with(|| recognise(reading, field, labelled))
    }
}

fn recognise(reading: &Reading<'_>, field: &FieldSpec, labelled: bool) -> Vec<Found> {
    let text = reading.text();
    match field.kind {
        FieldKind::Date => dates::dates(text, reading.language()),
        FieldKind::Amount if labelled => {
            let mut found = amounts::amounts(text);
            let bare = amounts::bare_amounts(text, amounts::only_currency(&found));
            let apart = |bare: &Found| {
                found.iter().all(|other| other.range.end <= bare.range.start || bare.range.end <= other.range.start)
            };
            let bare: Vec<Found> = bare.into_iter().filter(|bare| apart(bare)).collect();
            found.extend(bare);
            found.sort_by_key(|found| found.range.start);
            found
        }
        FieldKind::Amount => amounts::amounts(text),
        FieldKind::Party => parties::parties(text),
        FieldKind::ContractParty => parties::sides(text),
        FieldKind::Email => contacts::emails(text),
        FieldKind::Phone => contacts::phones(text, field.calling_code.as_deref()),
        FieldKind::Url => contacts::urls(text),
        FieldKind::Iban => contacts::ibans(text),
        FieldKind::Address => addresses::addresses(text),
        FieldKind::KeyValue => lines::key_values(text),
        FieldKind::Percentage => measures::percentages(text),
        FieldKind::Duration => measures::durations(text),
        FieldKind::Jurisdiction => jurisdictions::jurisdictions(text),
        FieldKind::Identifier | FieldKind::Text => Vec::new(),
    }
}

fn in_order(mut scored: Vec<(Found, f32)>) -> Vec<(Found, f32)> {
    scored.sort_by_key(|(found, _)| found.range.start);
    scored
}

/// The value with the best score; near-ties are settled as the field picks.
pub(super) fn best(scored: Vec<(Found, f32)>, pick: Pick) -> Option<(Found, f32)> {
    const TIE: f32 = 0.06;
    let top = scored.iter().map(|(_, score)| *score).reduce(f32::max)?;
    let tied = scored.into_iter().filter(|(_, score)| *score >= top - TIE);
    match pick {
        Pick::First => tied.min_by_key(|(found, _)| found.range.start),
        Pick::Last => tied.max_by_key(|(found, _)| found.range.start),
        Pick::Largest => tied.max_by(|(a, _), (b, _)| {
            size(&a.normalized).total_cmp(&size(&b.normalized)).then(b.range.start.cmp(&a.range.start))
        }),
    }
}

/// A number to compare by: amounts and percentages as they are, dates and durations in days.
fn size(normalized: &Value) -> f64 {
    let text = normalized["amount"].as_str().or(normalized.as_str()).unwrap_or_default();
    if let Ok(number) = text.parse() {
        return number;
    }
    if let Some(duration) = text.strip_prefix('P') {
        let digits: f64 = duration.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0.0);
        let days = match duration.chars().next_back() {
            Some('Y') => 365.0,
            Some('M') => 30.0,
            Some('W') => 7.0,
            _ => 1.0,
        };
        return digits * days;
    }
    text.replace('-', "").parse().unwrap_or(0.0)
}
