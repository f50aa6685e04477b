//! Ways to cut long texts into passages, judged by how much of the gold excerpts a budget of retrieved characters covers.
//!
//! Every way gets the same budget: passages are taken in the order of the ranking until it is used up, the last one cut
//! short. Recall is the covered share of the excerpts, IoU the covered characters over those of excerpts and passages
//! together (Smith and Troynikov, Evaluating Chunking Strategies for Retrieval, 2024). Not here: the cutting.

use super::beir::Entry;
use super::outcome::Measure;
use super::scratch::{Bench, Progress, Scratch};
use crate::search::{SearchMode, SearchRequest};
use docmill_model::{Failure, Span};
use std::collections::{BTreeMap, HashSet};

/// Most passages of one question.
const DEPTH: u32 = 100;

/// A passage of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Name of the text.
    pub text_name: String,
    /// Where it stands, in characters.
    pub span: Span,
    /// Headings above it.
    pub title: String,
    /// Its words.
    pub text: String,
}

/// One way to cut the texts.
#[derive(Clone, Copy, Debug)]
pub struct Way<'w> {
    /// Its name, before those of its measures.
    pub name: &'w str,
    /// What it cuts, by text and place.
    pub passages: &'w [Passage],
    /// Numbers of passages on each side that are taken together with one that is found, as a search that asks for
    /// neighbours gives them to who shows none twice; each is judged apart, 0 as `NAME`, others as `NAME+NUMBER`.
    pub around: &'w [usize],
}

/// A question with the excerpts that answer it, all of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExcerptQuestion {
    /// Its number.
    pub id: String,
    /// The words.
    pub text: String,
    /// Name of the text.
    pub text_name: String,
    /// Where the excerpts stand.
    pub excerpts: Vec<Span>,
}

/// Loads the passages of a way, asks every question and gives `recall@BUDGET` and `iou@BUDGET` for each budget in characters.
///
/// # Errors
/// `CONFLICT` while another evaluation runs; failures of database and model.
pub async fn evaluate_excerpts(
    bench: &Bench,
    way: Way<'_>,
    questions: &[ExcerptQuestion],
    mode: SearchMode,
    budgets: &[u32],
    progress: Progress<'_>,
) -> Result<Vec<Measure>, Failure> {
    let entry = |(at, passage): (usize, &Passage)| Entry {
        id: at.to_string(),
        title: passage.title.clone(),
        text: passage.text.clone(),
    };
    let entries: Vec<Entry> = way.passages.iter().enumerate().map(entry).collect();
    let scratch = Scratch::build(bench, &entries, None, progress).await?;
    let judged: Vec<(usize, u32)> =
        way.around.iter().flat_map(|&around| budgets.iter().map(move |&budget| (around, budget))).collect();
    let mut scores: Vec<[BTreeMap<String, f64>; 2]> = vec![Default::default(); judged.len()];
    for question in questions {
        let request = SearchRequest { k: DEPTH, mode, ..SearchRequest::new(question.text.as_str()) };
        let hits = scratch.search().search(&scratch.caller(), &request).await?.hits;
        let found: Vec<usize> = hits.iter().filter_map(|hit| scratch.entry_id(hit.document_id)?.parse().ok()).collect();
        for ((around, budget), [recall, iou]) in judged.iter().zip(&mut scores) {
            let (covered, wanted, together) = coverage(&surrounded(way.passages, &found, *around), question, *budget);
            recall.insert(question.id.clone(), covered as f64 / wanted.max(1) as f64);
            iou.insert(question.id.clone(), covered as f64 / together.max(1) as f64);
        }
    }
    scratch.remove().await?;
    let named = judged.iter().zip(scores).flat_map(|((around, budget), [recall, iou])| {
        let name = if *around == 0 { way.name.to_owned() } else { format!("{}+{around}", way.name) };
        [
            Measure::mean_of(format!("{name}.recall@{budget}"), recall),
            Measure::mean_of(format!("{name}.iou@{budget}"), iou),
        ]
    });
    Ok(named.collect())
}

/// The passages that were found, each followed by those beside it in its text, nearest first and none twice.
fn surrounded<'p>(passages: &'p [Passage], found: &[usize], around: usize) -> Vec<&'p Passage> {
    let mut taken = HashSet::new();
    let mut out = Vec::new();
    for &at in found {
        let beside = (1..=around).flat_map(|by| [at.checked_sub(by), at.checked_add(by)]).flatten();
        let beside = beside.filter(|&other| {
            passages.get(other).zip(passages.get(at)).is_some_and(|(other, own)| other.text_name == own.text_name)
        });
        for one in std::iter::once(at).chain(beside) {
            if taken.insert(one) {
                out.extend(passages.get(one));
            }
        }
    }
    out
}

/// Characters of the excerpts that the first `budget` characters of `ranked` cover, characters of the excerpts, and
/// characters of both together.
fn coverage(ranked: &[&Passage], question: &ExcerptQuestion, budget: u32) -> (u32, u32, u32) {
    let (mut left, mut own, mut elsewhere) = (budget, Vec::new(), 0);
    for passage in ranked {
        if left == 0 {
            break;
        }
        let taken = passage.span.len().min(left);
        left -= taken;
        if passage.text_name == question.text_name {
            own.push(Span::new(passage.span.start, passage.span.start + taken));
        } else {
            elsewhere += taken;
        }
    }
    let (own, wanted) = (merged(own), merged(question.excerpts.clone()));
    let length = |spans: &[Span]| spans.iter().map(|span| span.len()).sum::<u32>();
    let shared = |a: &Span, b: &Span| a.end.min(b.end).saturating_sub(a.start.max(b.start));
    let covered = own.iter().map(|a| wanted.iter().map(|b| shared(a, b)).sum::<u32>()).sum::<u32>();
    (covered, length(&wanted), length(&own) + elsewhere + length(&wanted) - covered)
}

/// The same characters as spans in order that do not touch.
fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.start, span.end));
    let mut out: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match out.last_mut() {
            Some(last) if span.start <= last.end => last.end = last.end.max(span.end),
            _ => out.push(span),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passage(name: &str, start: u32, end: u32) -> Passage {
        let (text_name, title, text) = (name.to_owned(), String::new(), String::new());
        Passage { text_name, span: Span::new(start, end), title, text }
    }

    #[test]
    fn a_budget_covers_what_its_characters_cover() {
        let (a, b, c) = (passage("x", 0, 100), passage("y", 0, 50), passage("x", 80, 200));
        let question = ExcerptQuestion {
            id: "1".to_owned(),
            text: "q".to_owned(),
            text_name: "x".to_owned(),
            excerpts: vec![Span::new(90, 110), Span::new(100, 120)],
        };
        assert_eq!(coverage(&[&a, &b, &c], &question, 100), (10, 30, 120));
        assert_eq!(coverage(&[&a, &b, &c], &question, 1_000), (30, 30, 250));
        assert_eq!(coverage(&[&a, &b, &c], &question, 165), (10, 30, 170));
        assert_eq!(coverage(&[], &question, 10), (0, 30, 30));
    }

    #[test]
    fn neighbours_are_of_the_same_text_and_taken_once() {
        let passages = [passage("x", 0, 10), passage("x", 10, 20), passage("x", 20, 30), passage("y", 0, 10)];
        let starts = |found: &[usize], around| {
            let taken = surrounded(&passages, found, around);
            taken.into_iter().map(|one| (one.text_name.as_str(), one.span.start)).collect::<Vec<_>>()
        };
        assert_eq!(starts(&[2, 0, 3], 0), [("x", 20), ("x", 0), ("y", 0)]);
        assert_eq!(starts(&[2, 0, 3], 1), [("x", 20), ("x", 10), ("x", 0), ("y", 0)]);
        assert_eq!(starts(&[1, 9], 2), [("x", 10), ("x", 0), ("x", 20)]);
    }
}
