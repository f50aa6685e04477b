//! Question and passage to a score: candidates of a search read again, each together with the question.
//!
//! [`Reranker`] promises one score a passage, in order, or a [`RerankError`]; whoever asks keeps the order there was.
//! [`FastReranker`] is a local cross-encoder whose files an operator gives; [`ScriptedReranker`] needs no model and is for
//! tests. Not here: which candidates are read, for how long, what becomes of the scores, and the reranker that serves
//! where no model is given, which knows the lexical index (retrieval's).

mod fast;
mod scripted;

pub use fast::{FastReranker, FastRerankerConfig};
pub use scripted::ScriptedReranker;

use docmill_model::TenantId;
use docmill_model::chunk::embed_text;

/// Why there are no scores. Holds no text of a question or a passage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RerankError(pub &'static str);

/// A candidate, as it is read. A cross-encoder looks at headings and text; language and score serve what is built in.
#[derive(Clone, Debug)]
pub struct Passage {
    /// Titles above it.
    pub headings: Vec<String>,
    /// The words, without the headings.
    pub text: String,
    /// ISO 639-3, where it is known.
    pub language: Option<String>,
    /// The score of the ranking it comes from; comparable within one call only.
    pub fused: f64,
}

impl Passage {
    /// Headings and text, as they were embedded.
    #[must_use]
    pub fn whole(self) -> String {
        if self.headings.is_empty() { self.text } else { embed_text(&self.headings, &self.text) }
    }
}

/// What reads a question and a passage together.
#[async_trait::async_trait]
pub trait Reranker: Send + Sync {
    /// One score a passage, 0–1, in the order of `passages`; the more a passage answers the question, the higher. What a
    /// model does not see of a long text is cut off. A call that is dropped stops reading soon afterwards. The tenant, whose
    /// passages all are, serves what is built in, which weighs the question's words in that tenant's index.
    ///
    /// # Errors
    /// When the model fails, or does not give such scores.
    async fn rerank(&self, tenant: TenantId, question: &str, passages: Vec<Passage>) -> Result<Vec<f64>, RerankError>;
}

/// The scores, when there are `count` between 0 and 1.
///
/// # Errors
/// For another count, and for a score that is no such number.
pub fn usable(scores: Vec<f64>, count: usize) -> Result<Vec<f64>, RerankError> {
    if scores.len() != count {
        return Err(RerankError("the reranking model returned another number of scores than passages"));
    }
    if scores.iter().all(|score| (0.0..=1.0).contains(score)) {
        Ok(scores)
    } else {
        Err(RerankError("the reranking model returned a score that is not between 0 and 1"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::usable;

    #[test]
    fn unusable_scores_never_pass() {
        for (name, scores) in [
            ("fewer", vec![]),
            ("more", vec![0.1, 0.2]),
            ("nan", vec![f64::NAN]),
            ("infinite", vec![f64::INFINITY]),
            ("below", vec![-0.1]),
            ("above", vec![1.1]),
        ] {
            assert!(usable(scores, 1).is_err(), "{name}");
        }
        assert_eq!(usable(vec![0.0, 1.0], 2).unwrap(), [0.0, 1.0]);
    }
}
