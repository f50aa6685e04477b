//! The reranker that is always there: a candidate whose passage holds much of the question close together is lifted.
//!
//! To the fused score, as a share of the best candidate's, comes, times a constant, the greatest share of the question's
//! weight that stands within a few words of the passage; a word weighs what it tells in the tenant's index. As a share of
//! the best, since what halves can reach differs: BM25 alone .35. In scripts without spaces a word is a pair of
//! characters, for which the window was not chosen. Needs no model and reads in a millisecond or two; the second
//! snapshot that all reranking takes costs four more round trips to Postgres. Window and weight were chosen on scifact's
//! training claims: deploy/bench/retrieval.

use crate::lexical::analysis::{analyse, language_of};
use crate::lexical::{LexicalIndexes, WeightedWord};
use docmill_model::TenantId;
use docmill_platform::reranker::{Passage, RerankError, Reranker};
use std::collections::HashMap;
use std::sync::Arc;

/// Words from the first to the last of those that count together.
const WINDOW: usize = 10;
/// Weight of the share of the question beside 1 for the fused score of the best candidate.
const WEIGHT: f64 = 0.4;

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
    async fn rerank(&self, tenant: TenantId, question: &str, passages: Vec<Passage>) -> Result<Vec<f64>, RerankError> {
        let weighed = self.lexical.weigh(tenant, question.to_owned()).await;
        let question = Question::of(&weighed.map_err(|_| RerankError("the lexical index cannot weigh the words"))?);
        let read = move || question.scores(&passages);
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

    /// One score a passage, 0–1: that of the best in both is 1.
    fn scores(&self, passages: &[Passage]) -> Vec<f64> {
        let best = passages.iter().map(|passage| passage.fused).fold(0.0, f64::max);
        let score = |passage: &Passage| {
            let fused = if best > 0.0 { passage.fused.max(0.0) / best } else { 0.0 };
            (fused + WEIGHT * self.nearest(&stems(passage))) / (1.0 + WEIGHT)
        };
        passages.iter().map(score).collect()
    }

    /// The greatest share of the weight that stands within a window of `stems`; 0 for a question that tells nothing.
    fn nearest(&self, stems: &[String]) -> f64 {
        let met: Vec<(usize, usize)> =
            stems.iter().enumerate().filter_map(|(place, stem)| Some((place, *self.words.get(stem)?))).collect();
        let mut held = vec![0_usize; self.weights.len()];
        let (mut first, mut within, mut best) = (0, 0.0_f64, 0.0_f64);
        for &(place, word) in &met {
            if held[word] == 0 {
                within += self.weights[word];
            }
            held[word] += 1;
            while met[first].0 + WINDOW <= place {
                let left = met[first].1;
                held[left] -= 1;
                if held[left] == 0 {
                    within -= self.weights[left];
                }
                first += 1;
            }
            best = best.max(within);
        }
        let whole: f64 = self.weights.iter().sum();
        // Sums in another order differ by a rounding.
        if whole > 0.0 { (best / whole).min(1.0) } else { 0.0 }
    }
}

/// The words of a passage as its index holds them, those of the headings first.
fn stems(passage: &Passage) -> Vec<String> {
    let language = language_of(passage.language.as_deref(), &passage.text);
    let stems = |text: &str| analyse(text, language).stems;
    [stems(&passage.headings.join("\n")), stems(&passage.text)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(words: &[(&str, f64)]) -> Question {
        let word = |&(stem, weight): &(&str, f64)| WeightedWord { stems: vec![stem.to_owned()], weight };
        Question::of(&words.iter().map(word).collect::<Vec<_>>())
    }

    fn passage(text: &str, fused: f64) -> Passage {
        Passage { headings: Vec::new(), text: text.to_owned(), language: Some("eng".to_owned()), fused }
    }

    fn share(question: &Question, text: &str) -> f64 {
        question.nearest(&stems(&passage(text, 0.5)))
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
    fn a_passage_has_the_stems_that_its_index_has() {
        let (greek, heading) = ("Τα τέλη πληρώνονται στο λιμάνι", "Who has to pay the harbour dues of the ferries");
        let found = |headings: &[&str], language: Option<&str>| {
            let headings = headings.iter().map(|heading| (*heading).to_owned()).collect();
            stems(&Passage { headings, language: language.map(str::to_owned), ..passage(greek, 0.5) })
        };
        let of = |text: &str, language: &str| analyse(text, Some(language)).stems;
        assert_ne!(of(greek, "ell"), of(greek, "und"));
        assert_eq!(found(&[], None), of(greek, "ell"), "told from the text");
        assert_eq!(found(&[heading], None), [of(heading, "ell"), of(greek, "ell")].concat(), "and from that alone");
        assert_eq!(
            found(&[heading], Some("eng")),
            [of(heading, "eng"), of(greek, "eng")].concat(),
            "where it is known"
        );
    }

    #[test]
    fn a_share_of_the_question_counts_the_same_beside_whatever_the_halves_reach() {
        let asked = question(&[("fog", 1.0)]);
        for reached in [1.0, 0.35, 0.02] {
            let texts = [("calm", 1.0), ("calm", 0.8), ("fog", 0.8), ("fog", 0.6), ("fog", -0.1)];
            let passages: Vec<Passage> = texts.iter().map(|(text, fused)| passage(text, fused * reached)).collect();
            let wanted = [1.0, 0.8, 0.8 + WEIGHT, 0.6 + WEIGHT, WEIGHT].map(|score| score / (1.0 + WEIGHT));
            for (score, wanted) in asked.scores(&passages).iter().zip(wanted) {
                assert!((score - wanted).abs() < 1e-12, "{score} for {wanted}, best {reached}");
            }
        }
        let best = asked.scores(&[passage("fog", 0.4)]);
        assert!((best[0] - 1.0).abs() < 1e-12 && best[0] <= 1.0, "{best:?}");
        assert_eq!(asked.scores(&[passage("calm", 0.0), passage("calm", -0.2)]), [0.0, 0.0]);
    }

    #[test]
    fn a_question_that_tells_nothing_keeps_the_order() {
        for asked in [question(&[]), question(&[("fog", 0.0)])] {
            let scores = asked.scores(&[passage("calm", 0.6), passage("fog", 0.5), passage("fog", 0.0)]);
            assert!(scores[0] > scores[1] && scores[1] > scores[2], "{scores:?}");
        }
    }
}
