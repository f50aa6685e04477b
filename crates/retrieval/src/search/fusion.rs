//! One ranking out of two: a convex combination of scores, and the collapse of equal texts. Pure.
//!
//! BM25 is divided by the best of the candidates, the cosine taken as it is (below 0 counts as 0); a candidate of one
//! half is scored by the other half as well where that is known. Bruch, Gai, Ingber, "An Analysis of Fusion Functions
//! for Hybrid Retrieval", TOIS 2023. On scifact's training claims this beats reciprocal ranks; the weight
//! lies on a plateau read off all of them.

use super::wire::Explanation;
use crate::dense::DenseHit;
use docmill_model::ChunkId;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// Constants of the fusion.
#[derive(Clone, Debug)]
pub struct FusionConfig {
    /// Weight of BM25, relative to the best candidate's.
    pub lexical_weight: f64,
    /// Weight of the cosine for chunks in a language the embedding model was made for.
    pub dense_weight: f64,
    /// Weight of the cosine for chunks in any other language: it orders what the words leave open.
    pub foreign_dense_weight: f64,
    /// Languages (ISO 639-3) the embedding model was made for.
    pub dense_languages: Vec<String>,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self {
            lexical_weight: 0.35,
            dense_weight: 0.65,
            foreign_dense_weight: 0.03,
            dense_languages: vec!["eng".to_owned()],
        }
    }
}

/// A visible BM25 candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct LexicalCandidate {
    /// The chunk.
    pub chunk_id: ChunkId,
    /// Identity of its text.
    pub embed_hash: Vec<u8>,
    /// ISO 639-3 language of the chunk.
    pub language: Option<String>,
    /// BM25.
    pub score: f64,
    /// Cosine with the question, where that was embedded.
    pub cosine: Option<f64>,
}

/// A chunk with its fused score.
#[derive(Clone, Debug, PartialEq)]
pub struct Fused {
    /// The chunk.
    pub chunk_id: ChunkId,
    /// What orders it: the fused score, less what its age took; of one that was read again 1 more than its
    /// reranking score, times what its age left.
    pub score: f64,
    /// How its score came about.
    pub explanation: Explanation,
}

/// Fuses two visible rankings, best first; of chunks with equal text the first in each ranking stays.
#[must_use]
pub fn fuse(config: &FusionConfig, lexical: &[LexicalCandidate], dense: &[DenseHit]) -> Vec<Fused> {
    let best = lexical.iter().map(|candidate| candidate.score).fold(0.0, f64::max);
    let languages = lexical.iter().map(|candidate| &candidate.language).chain(dense.iter().map(|hit| &hit.language));
    let usual = usual_language(languages.flatten());
    // Equal texts are one candidate, known by their first chunk in either ranking.
    let mut leader: HashMap<&[u8], ChunkId> = HashMap::new();
    let mut fused: HashMap<ChunkId, Explanation> = HashMap::new();
    let mut seen = HashSet::new();
    let mut rank = 0;
    for candidate in lexical.iter().filter(|candidate| seen.insert(candidate.embed_hash.as_slice())) {
        rank += 1;
        leader.insert(&candidate.embed_hash, candidate.chunk_id);
        let words = if best > 0.0 { config.lexical_weight * candidate.score / best } else { 0.0 };
        let meaning = config.meaning(candidate.language.as_deref().or(usual), candidate.cosine.unwrap_or(0.0));
        let explanation = Explanation {
            bm25_rank: Some(rank),
            bm25_score: Some(candidate.score),
            dense_rank: None,
            dense_cosine: candidate.cosine,
            fused: words + meaning,
            freshness: None,
            rerank: None,
        };
        fused.insert(candidate.chunk_id, explanation);
    }
    seen.clear();
    let mut rank = 0;
    for candidate in dense.iter().filter(|candidate| seen.insert(candidate.embed_hash.as_slice())) {
        rank += 1;
        let chunk = *leader.entry(&candidate.embed_hash).or_insert(candidate.chunk_id);
        let entry = fused.entry(chunk).or_default();
        entry.dense_rank = Some(rank);
        if entry.dense_cosine.replace(candidate.cosine).is_none() {
            entry.fused += config.meaning(candidate.language.as_deref().or(usual), candidate.cosine);
        }
    }
    let one =
        |(chunk_id, explanation): (ChunkId, Explanation)| Fused { chunk_id, score: explanation.fused, explanation };
    let mut out: Vec<Fused> = fused.into_iter().map(one).collect();
    sort(&mut out);
    out
}

/// Best first; ties go by chunk id.
pub(super) fn sort(fused: &mut [Fused]) {
    fused.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.chunk_id.cmp(&b.chunk_id)));
}

/// What a candidate of unknown language is taken to be in: the language of most others. To a model that does not know a
/// script all its texts are alike, and one of them must not outweigh the words.
fn usual_language<'a>(languages: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    languages.for_each(|language| *counts.entry(language).or_default() += 1);
    counts.into_iter().max_by_key(|&(language, count)| (count, Reverse(language))).map(|(language, _)| language)
}

impl FusionConfig {
    /// What the cosine of a chunk adds. Without any hint at its language the model is taken to know it.
    fn meaning(&self, language: Option<&str>, cosine: f64) -> f64 {
        let is_known = language.is_none_or(|language| self.dense_languages.iter().any(|known| known == language));
        let weight = if is_known { self.dense_weight } else { self.foreign_dense_weight };
        weight * cosine.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use docmill_model::id::derived_uuid;

    fn id(name: &str) -> ChunkId {
        ChunkId(derived_uuid(&[name.as_bytes()]))
    }

    fn lexical(name: &str, text: u8, score: f64) -> LexicalCandidate {
        LexicalCandidate {
            chunk_id: id(name),
            embed_hash: vec![text],
            language: Some("eng".to_owned()),
            score,
            cosine: None,
        }
    }

    fn dense(name: &str, text: u8, cosine: f64) -> DenseHit {
        DenseHit { chunk_id: id(name), embed_hash: vec![text], language: Some("eng".to_owned()), cosine }
    }

    #[test]
    fn agreement_of_both_halves_beats_the_top_of_one() {
        let fused = fuse(
            &FusionConfig::default(),
            &[lexical("a", 1, 9.0), lexical("b", 2, 7.0)],
            &[dense("c", 3, 0.6), dense("b", 2, 0.5)],
        );
        assert_eq!(fused[0].chunk_id, id("b"));
        assert_eq!((fused[0].explanation.bm25_rank, fused[0].explanation.dense_rank), (Some(2), Some(2)));
        assert_eq!(fused.len(), 3);
    }

    #[test]
    fn a_known_cosine_counts_once_and_also_below_the_dense_candidates() {
        let near = LexicalCandidate { cosine: Some(0.4), ..lexical("near", 1, 8.0) };
        let far = LexicalCandidate { cosine: Some(0.1), ..lexical("far", 2, 8.0) };
        let fused = fuse(&FusionConfig::default(), &[far.clone(), near.clone()], &[dense("near", 1, 0.4)]);
        assert_eq!(fused[0].chunk_id, id("near"));
        assert!((fused[0].explanation.fused - (0.35 + 0.65 * 0.4)).abs() < 1e-12);
        assert_eq!((fused[1].explanation.dense_rank, fused[1].explanation.dense_cosine), (None, Some(0.1)));
    }

    #[test]
    fn each_half_alone_keeps_its_order() {
        let words = fuse(&FusionConfig::default(), &[lexical("a", 1, 3.0), lexical("b", 2, 2.0)], &[]);
        let meaning = fuse(&FusionConfig::default(), &[], &[dense("a", 1, 0.3), dense("b", 2, 0.2)]);
        for fused in [words, meaning] {
            assert_eq!(fused.iter().map(|f| f.chunk_id).collect::<Vec<_>>(), [id("a"), id("b")]);
        }
    }

    #[test]
    fn equal_texts_collapse_to_one_candidate_across_halves() {
        let fused = fuse(
            &FusionConfig::default(),
            &[lexical("copy-1", 9, 5.0), lexical("copy-2", 9, 5.0), lexical("other", 1, 1.0)],
            &[dense("copy-3", 9, 0.5), dense("copy-1", 9, 0.5)],
        );
        assert_eq!(fused.iter().map(|f| f.chunk_id).collect::<Vec<_>>(), [id("copy-1"), id("other")]);
        assert_eq!(fused[1].explanation.bm25_rank, Some(2), "a copy takes no rank");
    }

    #[test]
    fn a_language_foreign_to_the_model_cannot_overturn_the_words() {
        let russian = |hit: DenseHit| DenseHit { language: Some("rus".to_owned()), ..hit };
        let fused = fuse(
            &FusionConfig::default(),
            &[lexical("words", 1, 4.0), lexical("second", 2, 3.5)],
            &[russian(dense("wrong", 3, 0.9)), russian(dense("second", 2, 0.8))],
        );
        assert_eq!(fused[0].chunk_id, id("words"));
    }

    #[test]
    fn text_of_unknown_language_is_taken_for_what_the_others_are_in() {
        let with = |language: Option<&str>, hit: DenseHit| DenseHit { language: language.map(str::to_owned), ..hit };
        for (language, first) in [("rus", "words"), ("eng", "meaning")] {
            let words = LexicalCandidate { language: Some(language.to_owned()), ..lexical("words", 1, 4.0) };
            let meaning = [with(None, dense("meaning", 3, 0.9)), with(Some(language), dense("other", 2, 0.1))];
            assert_eq!(fuse(&FusionConfig::default(), &[words], &meaning)[0].chunk_id, id(first), "{language}");
        }
    }
}
