//! From the words of a question to a tantivy query, built from terms. The query parser is never involved, so nothing
//! a user types can become an operator, a field name or a range.

use super::analysis::{self, analyse};
use super::schema::Fields;
use super::{LexicalScope, WeightedWord};
use std::collections::HashSet;
use tantivy::Term;
use tantivy::query::{
    BooleanQuery, BoostQuery, ConstScoreQuery, DisjunctionMaxQuery, Occur, PhraseQuery, Query, TermQuery, TermSetQuery,
};
use tantivy::schema::{Field, IndexRecordOption};

/// Most distinct words of a query that are looked up; a longer question keeps its first ones.
const MAX_WORDS: usize = 256;
/// Weights beside 1 for a stemmed match in headings and body: of an exact (unstemmed) match in the body, of a further
/// match in headings, of a word that carries no meaning of its own, of a quoted phrase. The first three were chosen on
/// scifact's training claims by a grid that was not kept: no program repeats it, and what each adds is not measured.
const WORD_BOOST: f32 = 0.3;
const HEADING_BOOST: f32 = 0.3;
const STOP_WORD_BOOST: f32 = 0.2;
const PHRASE_BOOST: f32 = 2.0;

/// The query for `text` over chunks in any of `languages`, within `scope`; `None` when the text holds no word.
pub(super) fn build(fields: &Fields, text: &str, languages: &[String], scope: &LexicalScope) -> Option<Box<dyn Query>> {
    let plain = analyse(text, None);
    let stop_words = stop_words(text, &plain.words, likely_language(text, languages));
    let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
    let mut seen = HashSet::new();
    for word in plain.words.iter().filter(|word| seen.insert(word.as_str())).take(MAX_WORDS) {
        if !stop_words.contains(word) {
            clauses.push((Occur::Should, boosted(term(fields.words, word), WORD_BOOST)));
        }
    }
    for stems in distinct_stems(text, languages, &plain.stems).into_iter().take(MAX_WORDS) {
        if stop_words.contains(&stems.plain) {
            clauses.push((Occur::Should, boosted(any_of(fields.stems, &stems.variants), STOP_WORD_BOOST)));
        } else {
            clauses.push((Occur::Should, any_of(fields.stems, &stems.variants)));
            clauses.push((Occur::Should, boosted(any_of(fields.headings, &stems.variants), HEADING_BOOST)));
        }
    }
    if clauses.is_empty() {
        return None;
    }
    clauses.extend(phrases(fields, text).into_iter().map(|phrase| (Occur::Should, phrase)));
    let scored: Box<dyn Query> = Box::new(BooleanQuery::new(clauses));
    let mut gates: Vec<Box<dyn Query>> = Vec::new();
    if let Some(documents) = &scope.documents {
        gates.push(Box::new(TermSetQuery::new(documents.iter().map(|&document| fields.document_term(document)))));
    }
    if let Some(collection) = &scope.collection {
        gates.push(Box::new(TermQuery::new(fields.collection_term(collection), IndexRecordOption::Basic)));
    }
    if gates.is_empty() {
        return Some(scored);
    }
    let silent = |gate| (Occur::Must, Box::new(ConstScoreQuery::new(gate, 0.0)) as Box<dyn Query>);
    let clauses = std::iter::once((Occur::Must, scored)).chain(gates.into_iter().map(silent)).collect();
    Some(Box::new(BooleanQuery::new(clauses)))
}

/// The words that carry no meaning in the question's language; none when nothing else would be left.
fn stop_words(text: &str, words: &[String], language: Option<&str>) -> HashSet<String> {
    let stop = analysis::stop_words(text, language);
    if words.iter().all(|word| stop.contains(word)) { HashSet::new() } else { stop }
}

/// Which of the index's languages the question is most likely in.
pub(super) fn likely_language<'l>(text: &str, languages: &'l [String]) -> Option<&'l str> {
    if let [one] = languages {
        return Some(one);
    }
    let allowed: Vec<whatlang::Lang> = languages.iter().filter_map(whatlang::Lang::from_code).collect();
    let code = whatlang::Detector::with_allowlist(allowed).detect_lang(text)?.code();
    languages.iter().map(String::as_str).find(|&language| language == code)
}

/// One word or bigram of the question.
#[derive(PartialEq, Eq, Hash)]
struct Stems {
    /// As folded, not stemmed.
    plain: String,
    /// Its stems in the languages of the index.
    variants: Vec<String>,
}

/// Every word and bigram once, with its stems in all languages of the index.
fn distinct_stems(text: &str, languages: &[String], plain: &[String]) -> Vec<Stems> {
    let by_language: Vec<Vec<String>> = languages.iter().map(|language| analyse(text, Some(language)).stems).collect();
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for (position, plain) in plain.iter().enumerate() {
        let mut variants: Vec<String> = by_language.iter().filter_map(|stems| stems.get(position).cloned()).collect();
        if variants.is_empty() {
            variants.push(plain.clone());
        }
        variants.sort_unstable();
        variants.dedup();
        if seen.insert(variants.clone()) {
            out.push(Stems { plain: plain.clone(), variants });
        }
    }
    out
}

/// The words and bigrams of a question with their stems, weighed 1, or little when they carry no meaning of their own.
pub(super) fn weighted_words(text: &str, languages: &[String]) -> Vec<WeightedWord> {
    let plain = analyse(text, None);
    let stop_words = stop_words(text, &plain.words, likely_language(text, languages));
    let weigh = |stems: Stems| {
        let weight = if stop_words.contains(&stems.plain) { 0.1 } else { 1.0 };
        WeightedWord { stems: stems.variants, weight }
    };
    distinct_stems(text, languages, &plain.stems).into_iter().take(MAX_WORDS).map(weigh).collect()
}

/// Text between double quotes, two words or more, as a phrase that lifts but does not exclude.
fn phrases(fields: &Fields, text: &str) -> Vec<Box<dyn Query>> {
    let unified = text.replace(['“', '”', '„', '«', '»'], "\"");
    let quoted = unified.split('"').skip(1).step_by(2).take(8);
    let words = quoted.map(|phrase| analyse(phrase, None).words).filter(|words| (2..=32).contains(&words.len()));
    words
        .map(|words| {
            let terms = words.iter().map(|word| Term::from_field_text(fields.words, word)).collect();
            boosted(Box::new(PhraseQuery::new(terms)), PHRASE_BOOST)
        })
        .collect()
}

fn any_of(field: Field, texts: &[String]) -> Box<dyn Query> {
    match texts {
        [one] => term(field, one),
        many => Box::new(DisjunctionMaxQuery::new(many.iter().map(|text| term(field, text)).collect())),
    }
}

fn term(field: Field, text: &str) -> Box<dyn Query> {
    Box::new(TermQuery::new(Term::from_field_text(field, text), IndexRecordOption::WithFreqs))
}

fn boosted(query: Box<dyn Query>, boost: f32) -> Box<dyn Query> {
    Box::new(BoostQuery::new(query, boost))
}
