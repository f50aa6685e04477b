//! One ranking out of two: weighted reciprocal rank fusion, and the collapse of equal texts. Pure.
//!
//! Reciprocal rank fusion: Cormack, Clarke, Büttcher, SIGIR 2009.

use super::wire::Explanation;
use crate::dense::DenseHit;
use docmill_model::ChunkId;
use std::collections::{HashMap, HashSet};

/// Constants of the fusion.
#[derive(Clone, Debug)]
pub struct FusionConfig {
    /// The constant added to every rank.
    pub rank_constant: f64,
    /// Weight of the BM25 half.
    pub lexical_weight: f64,
    /// Weight of the dense half for chunks in a language the embedding model was made for.
    pub dense_weight: f64,
    /// Weight of the dense half for chunks in any other language.
    pub foreign_dense_weight: f64,
    /// Languages (ISO 639-3) the embedding model was made for.
    pub dense_languages: Vec<String>,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self {
            rank_constant: 10.0,
            lexical_weight: 1.0,
            dense_weight: 1.0,
            foreign_dense_weight: 0.05,
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
    /// BM25.
    pub score: f64,
}

/// A chunk with its fused score.
#[derive(Clone, Debug, PartialEq)]
pub struct Fused {
    /// The chunk.
    pub chunk_id: ChunkId,
    /// How its score came about.
    pub explanation: Explanation,
}

/// Fuses two visible rankings, best first; of chunks with equal text the first in each ranking stays.
#[must_use]
pub fn fuse(config: &FusionConfig, lexical: &[LexicalCandidate], dense: &[DenseHit]) -> Vec<Fused> {
    // Equal texts are one candidate, known by their first chunk in either ranking.
    let mut leader: HashMap<&[u8], ChunkId> = HashMap::new();
    let mut fused: HashMap<ChunkId, Explanation> = HashMap::new();
    let mut seen = HashSet::new();
    let mut rank = 0;
    for candidate in lexical.iter().filter(|candidate| seen.insert(candidate.embed_hash.as_slice())) {
        rank += 1;
        leader.insert(&candidate.embed_hash, candidate.chunk_id);
        let entry = fused.entry(candidate.chunk_id).or_default();
        entry.bm25_rank = Some(rank);
        entry.bm25_score = Some(candidate.score);
        entry.fused += config.lexical_weight / (config.rank_constant + f64::from(rank));
    }
    seen.clear();
    let mut rank = 0;
    for candidate in dense.iter().filter(|candidate| seen.insert(candidate.embed_hash.as_slice())) {
        rank += 1;
        let chunk = *leader.entry(&candidate.embed_hash).or_insert(candidate.chunk_id);
        let entry = fused.entry(chunk).or_default();
        entry.dense_rank = Some(rank);
        entry.dense_cosine = Some(candidate.cosine);
        entry.fused += config.weight_for(candidate.language.as_deref()) / (config.rank_constant + f64::from(rank));
    }
    let mut out: Vec<Fused> =
        fused.into_iter().map(|(chunk_id, explanation)| Fused { chunk_id, explanation }).collect();
    out.sort_by(|a, b| b.explanation.fused.total_cmp(&a.explanation.fused).then(a.chunk_id.cmp(&b.chunk_id)));
    out
}

impl FusionConfig {
    /// The dense weight of a chunk. Text of unknown language counts as known to the model.
    fn weight_for(&self, language: Option<&str>) -> f64 {
        match language {
            Some(language) if !self.dense_languages.iter().any(|known| known == language) => self.foreign_dense_weight,
            _ => self.dense_weight,
        }
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

    fn lexical(name: &str, text: u8) -> LexicalCandidate {
        LexicalCandidate { chunk_id: id(name), embed_hash: vec![text], score: 1.0 }
    }

    fn dense(name: &str, text: u8, language: &str) -> DenseHit {
        DenseHit { chunk_id: id(name), embed_hash: vec![text], language: Some(language.to_owned()), cosine: 0.5 }
    }

    #[test]
    fn agreement_of_both_halves_beats_the_top_of_one() {
        let fused = fuse(
            &FusionConfig::default(),
            &[lexical("a", 1), lexical("b", 2)],
            &[dense("c", 3, "eng"), dense("b", 2, "eng")],
        );
        assert_eq!(fused[0].chunk_id, id("b"));
        assert_eq!((fused[0].explanation.bm25_rank, fused[0].explanation.dense_rank), (Some(2), Some(2)));
        assert_eq!(fused.len(), 3);
    }

    #[test]
    fn equal_texts_collapse_to_one_candidate_across_halves() {
        let fused = fuse(
            &FusionConfig::default(),
            &[lexical("copy-1", 9), lexical("copy-2", 9), lexical("other", 1)],
            &[dense("copy-3", 9, "eng"), dense("copy-1", 9, "eng")],
        );
        assert_eq!(fused.iter().map(|f| f.chunk_id).collect::<Vec<_>>(), [id("copy-1"), id("other")]);
        assert_eq!(fused[1].explanation.bm25_rank, Some(2), "a copy takes no rank");
    }

    #[test]
    fn a_language_foreign_to_the_model_cannot_overturn_the_words() {
        let fused = fuse(
            &FusionConfig::default(),
            &[lexical("words", 1), lexical("second", 2)],
            &[dense("wrong", 3, "rus"), dense("second", 2, "rus")],
        );
        assert_eq!(fused[0].chunk_id, id("words"));
    }
}
