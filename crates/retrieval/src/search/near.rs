//! The reranker that is always there: a candidate whose passage holds much of the question close together is lifted.
//!
//! To the fused score comes, times a constant, the greatest share of the question's weight that stands within a few words
//! of the passage; a word weighs what it tells in the tenant's index. Needs no model, reads in a millisecond or two. The
//! constants were chosen on scifact's training claims: deploy/bench/retrieval.

use crate::lexical::analysis::analyse;
use crate::lexical::{LexicalIndexes, WeightedWord};
use docmill_model::TenantId;
use docmill_platform::reranker::{Passage, RerankError, Reranker};
use std::collections::HashMap;
use std::sync::Arc;

/// Words from the first to the last of those that count together.
const WINDOW: usize = 10;
/// Weight of the share beside a fused score of 1.
const WEIGHT: f64 = 0.3;

/// Words of the question near each other, beside the fused score.
pub(super) struct NearWords {
    lexical: Arc<LexicalIndexes>,
}

impl NearWords {
    /// With the words' weights from these indexes.
    pub(super) fn new(lexical: Arc<LexicalIndexes>) -> Self {
        Self { lexical }
    }
}

#[async_trait::async_trait]
impl Reranker for NearWords {
    async fn rerank(&self, tenant: TenantId, question: &str, passages: &[Passage]) -> Result<Vec<f64>, RerankError> {
        let weighed = self.lexical.weigh(tenant, question.to_owned()).await;
        let question = Question::of(&weighed.map_err(|_| RerankError("the lexical index cannot weigh the words"))?);
        let passages = passages.to_vec();
        let read = move || passages.iter().map(|passage| question.score(passage)).collect();
        tokio::task::spawn_blocking(read).await.map_err(|_| RerankError("a passage could not be read"))
    }
}

/// The words of a question, by their stems.
struct Question {
    /// The first word that has the stem.
    words: HashMap<String, usize>,
    /// What each word tells.
    weights: Vec<f64>,
}

impl Question {
    fn of(weighed: &[WeightedWord]) -> Self {
        let mut words = HashMap::new();
        for (number, word) in weighed.iter().enumerate() {
            for stem in &word.stems {
                words.entry(stem.clone()).or_insert(number);
            }
        }
        Self { words, weights: weighed.iter().map(|word| word.weight).collect() }
    }

    fn score(&self, passage: &Passage) -> f64 {
        let near = self.nearest(&analyse(&passage.text, passage.language.as_deref()).stems);
        (passage.fused.clamp(0.0, 1.0) + WEIGHT * near) / (1.0 + WEIGHT)
    }

    /// The greatest share of the weight that stands within a window of `stems`; 0 for a question that tells nothing.
    fn nearest(&self, stems: &[String]) -> f64 {
        let met: Vec<(usize, usize)> =
            stems.iter().enumerate().filter_map(|(place, stem)| Some((place, *self.words.get(stem)?))).collect();
        let mut held = vec![0_usize; self.weights.len()];
        let (mut first, mut best) = (0, 0.0_f64);
        for &(place, word) in &met {
            held[word] += 1;
            while met[first].0 + WINDOW <= place {
                held[met[first].1] -= 1;
                first += 1;
            }
            let weights = self.weights.iter().zip(&held);
            best = best.max(weights.filter(|(_, times)| **times > 0).map(|(weight, _)| weight).sum());
        }
        let whole: f64 = self.weights.iter().sum();
        if whole > 0.0 { best / whole } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(words: &[(&str, f64)]) -> Question {
        let word = |&(stem, weight): &(&str, f64)| WeightedWord { stems: vec![stem.to_owned()], weight };
        Question::of(&words.iter().map(word).collect::<Vec<_>>())
    }

    fn passage(text: &str) -> Passage {
        Passage { text: text.to_owned(), language: Some("eng".to_owned()), fused: 0.5 }
    }

    fn share(question: &Question, text: &str) -> f64 {
        question.nearest(&analyse(text, Some("eng")).stems)
    }

    #[test]
    fn what_stands_together_counts_and_what_stands_apart_does_not() {
        let asked = question(&[("harbour", 2.0), ("due", 1.0), ("ferri", 1.0)]);
        let apart = format!("harbour {} dues {} ferry", "calm ".repeat(WINDOW), "calm ".repeat(WINDOW));
        for (text, wanted) in [
            ("the dues of a harbour, which the ferry pays", 1.0),
            ("ferry dues", 0.5),
            (apart.as_str(), 0.5),
            ("harbour harbour harbour", 0.5),
            ("fog", 0.0),
            ("", 0.0),
        ] {
            assert!((share(&asked, text) - wanted).abs() < 1e-12, "{text}");
        }
    }

    #[test]
    fn a_window_ends_where_it_says() {
        let asked = question(&[("fog", 1.0), ("pier", 1.0)]);
        let with = |between: usize| format!("fog {} pier", "calm ".repeat(between));
        assert!((share(&asked, &with(WINDOW - 2)) - 1.0).abs() < 1e-12);
        assert!((share(&asked, &with(WINDOW - 1)) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn scores_are_between_0_and_1_and_follow_the_fused_order_where_nothing_is_near() {
        let asked = question(&[("fog", 1.0)]);
        let scored = |text: &str, fused: f64| asked.score(&Passage { fused, ..passage(text) });
        assert!(scored("calm", 0.6) > scored("calm", 0.5));
        assert!(scored("fog", 0.5) > scored("calm", 0.6));
        assert!((scored("fog", 1.0) - 1.0).abs() < 1e-12 && scored("calm", -0.2) == 0.0);
        assert!(question(&[]).score(&passage("fog")) > 0.0, "a question of no words keeps the order");
    }
}
