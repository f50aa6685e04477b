//! From the words of a question to a tantivy query, built from terms. The query parser is never involved, so nothing
//! a user types can become an operator, a field name or a range.

use super::analysis::{Analysis, analyse, is_stop_word};
use super::schema::Fields;
use docmill_model::GenerationId;
use std::collections::HashSet;
use tantivy::Term;
use tantivy::query::{BooleanQuery, BoostQuery, ConstScoreQuery, DisjunctionMaxQuery, Occur, PhraseQuery, Query, TermQuery, TermSetQuery};
use tantivy::schema::{Field, IndexRecordOption};

/// Most distinct words of a query that are looked up; a longer question keeps its first ones.
const MAX_WORDS: usize = 256;
/// Weight of an exact (unstemmed) match beside the stemmed one, of a match in headings, of a quoted phrase.
const WORD_BOOST: f32 = 0.25;
const HEADING_BOOST: f32 = 0.35;
const PHRASE_BOOST: f32 = 2.0;

/// The query for `text` over chunks in any of `languages`, within `only` these generations where given; `None` when
/// the text holds no word.
pub(super) fn build(fields: &Fields, text: &str, languages: &[String], only: Option<&[GenerationId]>) -> Option<Box<dyn Query>> {
    let words = content_words(text, languages);
    let mut clauses: Vec<(Occur, Box<dyn Query>)> = Vec::new();
    let mut seen = HashSet::new();
    for word in words.words.iter().filter(|word| seen.insert(word.as_str())).take(MAX_WORDS) {
        clauses.push((Occur::Should, boosted(term(fields.words, word), WORD_BOOST)));
    }
    for stems in distinct_stems(text, languages, &words).into_iter().take(MAX_WORDS) {
        clauses.push((Occur::Should, any_of(fields.stems, &stems)));
        clauses.push((Occur::Should, boosted(any_of(fields.headings, &stems), HEADING_BOOST)));
    }
    if clauses.is_empty() {
        return None;
    }
    clauses.extend(phrases(fields, text).into_iter().map(|phrase| (Occur::Should, phrase)));
    let scored: Box<dyn Query> = Box::new(BooleanQuery::new(clauses));
    let Some(only) = only else { return Some(scored) };
    let set = TermSetQuery::new(only.iter().map(|&generation| fields.generation_term(generation)));
    let gate: Box<dyn Query> = Box::new(ConstScoreQuery::new(Box::new(set), 0.0));
    Some(Box::new(BooleanQuery::new(vec![(Occur::Must, scored), (Occur::Must, gate)])))
}

/// The question without the words that carry no meaning in its language, unless nothing else is left.
fn content_words(text: &str, languages: &[String]) -> Analysis {
    let all = analyse(text, None);
    let language = likely_language(text, languages);
    let keep = |word: &&String| !is_stop_word(word, language);
    let words: Vec<String> = all.words.iter().filter(keep).cloned().collect();
    if words.is_empty() { all } else { Analysis { words, stems: all.stems } }
}

/// Which of the index's languages the question is most likely in.
pub(super) fn likely_language<'l>(text: &str, languages: &'l [String]) -> Option<&'l str> {
    if let [one] = languages {
        return Some(one);
    }
    let allowed: Vec<whatlang::Lang> = languages.iter().filter_map(|code| whatlang::Lang::from_code(code)).collect();
    let code = whatlang::Detector::with_allowlist(allowed).detect_lang(text)?.code();
    languages.iter().map(String::as_str).find(|&language| language == code)
}

/// For every kept word, its stems in all languages of the index; each set once.
fn distinct_stems(text: &str, languages: &[String], kept: &Analysis) -> Vec<Vec<String>> {
    let unstemmed = analyse(text, None).stems;
    let kept: HashSet<&str> = kept.words.iter().map(String::as_str).collect();
    let by_language: Vec<Vec<String>> = languages.iter().map(|language| analyse(text, Some(language)).stems).collect();
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for (position, plain) in unstemmed.iter().enumerate() {
        // Bigrams are no words: their characters are.
        let is_kept = kept.contains(plain.as_str()) || plain.chars().any(|c| kept.contains(c.to_string().as_str()));
        let mut stems: Vec<String> = by_language.iter().filter_map(|stems| stems.get(position).cloned()).collect();
        if stems.is_empty() {
            stems.push(plain.clone());
        }
        stems.sort_unstable();
        stems.dedup();
        if is_kept && seen.insert(stems.clone()) {
            out.push(stems);
        }
    }
    out
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
