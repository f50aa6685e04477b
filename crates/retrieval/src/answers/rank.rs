//! Which sentences answer a question: features of every sentence, one weighted sum, redundancy control, and the
//! decision that nothing answers it. Pure; what the weights come to is in deploy/bench/answers/README.md.

use super::hints::{self, AnswerKind};
use super::sentences::{self, Sentence};
use crate::lexical::WeightedWord;
use crate::lexical::analysis::analyse;
use crate::search::Hit;
use std::collections::HashSet;

/// Weights and thresholds of extractive answers.
#[derive(Clone, Debug)]
pub struct RankConfig {
    /// Weight of the cosine between question and sentence.
    pub cosine: f64,
    /// Weight of the share of the question's words in the sentence.
    pub overlap: f64,
    /// Weight of the share of the question's words in the sentence before, the one after, and the headings.
    pub context: f64,
    /// Weight of the passage's own rank.
    pub passage: f64,
    /// Weight of holding the kind of thing asked for.
    pub kind: f64,
    /// Support below which the documents hold no answer, for languages the embedding model knows.
    pub min_support: f64,
    /// The same for other languages, where only words count.
    pub min_word_support: f64,
    /// Support below which a single sentence is left out of an answer that is otherwise supported.
    pub min_sentence_support: f64,
    /// Cosine that a sentence needs when neither it nor its passage shares a word with the question.
    pub min_wordless_cosine: f64,
    /// Share of the words of a model's sentence, by weight, that stand in the passages it cites, for it to rest on them.
    pub min_borne_overlap: f64,
    /// Cosine of a model's sentence with a quote it cites, for it to rest on it where its words are others.
    pub min_borne_cosine: f64,
    /// Sentences compared by cosine, at most; the best by words go first.
    pub embedded: usize,
}

impl Default for RankConfig {
    fn default() -> Self {
        Self {
            cosine: 1.0,
            overlap: 1.0,
            context: 0.4,
            passage: 0.6,
            kind: 0.3,
            min_support: 0.45,
            min_word_support: 0.35,
            min_sentence_support: 0.25,
            min_wordless_cosine: 0.5,
            min_borne_overlap: 0.6,
            min_borne_cosine: 0.55,
            embedded: 32,
        }
    }
}

/// Share of a question's words, by weight, that stop words alone do not reach.
const TELLING: f64 = 0.1;

/// A question, understood.
pub(crate) struct Question<'q> {
    text: &'q str,
    words: Vec<WeightedWord>,
    kind: AnswerKind,
}

/// A sentence of a retrieved passage with its features.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Index of the passage among the hits.
    pub passage: usize,
    /// The sentence within the passage.
    pub sentence: Sentence,
    stems: HashSet<String>,
    overlap: f64,
    context: f64,
    passage_overlap: f64,
    kind: f64,
    is_known_language: bool,
    cosine: f64,
}

impl<'q> Question<'q> {
    /// With the question's words as the lexical index weighs them.
    pub fn new(text: &'q str, words: Vec<WeightedWord>) -> Self {
        Self { text, words, kind: hints::asked_for(text) }
    }

    /// Share of the question's words, by weight, among `stems`, 0–1.
    fn overlap(&self, stems: &HashSet<String>) -> f64 {
        share(&self.words, stems)
    }
}

/// Every sentence of every hit, with the features that need no model, best by those first, at most `config.embedded`.
pub(crate) fn candidates(
    config: &RankConfig,
    question: &Question<'_>,
    hits: &[Hit],
    known: &[String],
) -> Vec<Candidate> {
    let mut out = Vec::new();
    for (passage, hit) in hits.iter().enumerate() {
        let language = hit.language.as_deref();
        let stems = |text: &str| analyse(text, language).stems.into_iter().collect::<HashSet<String>>();
        let split = sentences::split(&hit.text, &hit.kind);
        let by_sentence: Vec<HashSet<String>> = split.iter().map(|sentence| stems(&sentence.text)).collect();
        let mut whole =
            stems(&format!("{}\n{}", hit.heading_path.join("\n"), hit.title.as_deref().unwrap_or_default()));
        let headings = whole.clone();
        whole.extend(by_sentence.iter().flatten().cloned());
        let passage_overlap = question.overlap(&whole);
        let is_known_language = language.is_none_or(|language| known.iter().any(|known| known == language));
        for (number, sentence) in split.into_iter().enumerate() {
            let mut around = headings.clone();
            around.extend(by_sentence[number].iter().cloned());
            let near = number.checked_sub(1).into_iter().chain([number + 1]).filter_map(|n| by_sentence.get(n));
            near.for_each(|stems| around.extend(stems.iter().cloned()));
            out.push(Candidate {
                passage,
                overlap: question.overlap(&by_sentence[number]),
                context: question.overlap(&around),
                passage_overlap,
                kind: hints::holds(question.kind, &sentence.text, question.text),
                stems: by_sentence[number].clone(),
                sentence,
                is_known_language,
                cosine: 0.0,
            });
        }
    }
    out.sort_by(|a, b| b.score(config).total_cmp(&a.score(config)));
    out.truncate(config.embedded);
    out
}

/// Enters the cosines, in the order of `candidates`, and sorts by the final score; without cosines words alone count.
pub(crate) fn rank(config: &RankConfig, candidates: &mut [Candidate], cosines: Option<Vec<f64>>) {
    match cosines {
        Some(cosines) => candidates.iter_mut().zip(cosines).for_each(|(candidate, cosine)| candidate.cosine = cosine),
        None => candidates.iter_mut().for_each(|candidate| candidate.is_known_language = false),
    }
    candidates.sort_by(|a, b| b.score(config).total_cmp(&a.score(config)));
}

/// Best first without near repetitions and without what is hardly supported itself; empty when even the best is weakly supported.
pub(crate) fn choose(config: &RankConfig, ranked: &[Candidate]) -> Vec<Candidate> {
    if !ranked.iter().take(3).any(|candidate| candidate.is_supported(config)) {
        return Vec::new();
    }
    let mut chosen: Vec<Candidate> = Vec::new();
    for candidate in ranked.iter().filter(|candidate| candidate.may_be_said(config)) {
        if !chosen.iter().any(|other| similarity(&other.stems, &candidate.stems) > 0.8) {
            chosen.push(candidate.clone());
        }
    }
    chosen
}

impl Candidate {
    fn score(&self, config: &RankConfig) -> f64 {
        let cosine = if self.is_known_language { config.cosine * self.cosine } else { 0.0 };
        cosine
            + config.overlap * self.overlap
            + config.context * self.context
            + config.passage / (1.0 + self.passage as f64)
            + config.kind * self.kind
    }

    /// How far sentence and passage speak of what is asked, 0–1.
    fn support(&self) -> f64 {
        let words = 0.5 * self.overlap + 0.5 * self.passage_overlap;
        if self.is_known_language { 0.5 * self.cosine + 0.5 * words } else { words }
    }

    /// Whether it may stand in an answer that is supported. What shares no telling word with the question, and whose passage
    /// does not either, must be near in meaning.
    fn may_be_said(&self, config: &RankConfig) -> bool {
        let is_wordless = self.overlap.max(self.passage_overlap) < TELLING;
        self.support() >= config.min_sentence_support && (!is_wordless || self.cosine >= config.min_wordless_cosine)
    }

    fn is_supported(&self, config: &RankConfig) -> bool {
        self.support() >= if self.is_known_language { config.min_support } else { config.min_word_support }
    }
}

/// Share of the `words` of a sentence, by weight, that stand in `passages`, 0–1.
pub(crate) fn shared(words: &[WeightedWord], passages: &[&Hit]) -> f64 {
    let stems = |hit: &&Hit| analyse(&hit.text, hit.language.as_deref()).stems;
    share(words, &passages.iter().flat_map(stems).collect())
}

/// Share of `words`, by weight, among `stems`, 0–1; 0 without words.
fn share(words: &[WeightedWord], stems: &HashSet<String>) -> f64 {
    let total: f64 = words.iter().map(|word| word.weight).sum();
    let held = words.iter().filter(|word| word.stems.iter().any(|stem| stems.contains(stem)));
    if total > 0.0 { held.map(|word| word.weight).sum::<f64>() / total } else { 0.0 }
}

/// Jaccard similarity.
fn similarity(a: &HashSet<String>, b: &HashSet<String>) -> f64 {
    let shared = a.intersection(b).count() as f64;
    let all = (a.len() + b.len()) as f64 - shared;
    if all > 0.0 { shared / all } else { 1.0 }
}
