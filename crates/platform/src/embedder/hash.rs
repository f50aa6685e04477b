//! A deterministic stand-in for the model: a bag of hashed words. Texts that share words are close.

use super::{Embedder, usable};
use docmill_model::Failure;
use sha2::{Digest, Sha256};

/// Length of the vectors unless another is asked for.
const DIMENSIONS: usize = 384;

/// Embeds without a model, equal on every machine.
#[derive(Clone, Copy, Debug)]
pub struct HashEmbedder {
    dimensions: usize,
}

impl Default for HashEmbedder {
    fn default() -> Self {
        Self::new()
    }
}

impl HashEmbedder {
    /// The usual one, of 384 dimensions.
    #[must_use]
    pub fn new() -> Self {
        Self::with_dimensions(DIMENSIONS)
    }

    /// Another model: vectors of `dimensions`, at least 1.
    #[must_use]
    pub fn with_dimensions(dimensions: usize) -> Self {
        Self { dimensions: dimensions.max(1) }
    }

    /// The vector of one text.
    #[must_use]
    pub fn vector(&self, text: &str) -> Vec<f32> {
        // A little of one direction in every vector: a text without words is not a zero vector.
        let mut vector = vec![0.0; self.dimensions];
        vector[0] = 0.1;
        let lower = text.to_lowercase();
        for word in lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            let digest = Sha256::digest(word.as_bytes());
            let place = (usize::from(digest[0]) << 8 | usize::from(digest[1])) % self.dimensions;
            vector[place] += if digest[2] % 2 == 0 { 1.0 } else { -1.0 };
        }
        vector
    }
}

#[async_trait::async_trait]
impl Embedder for HashEmbedder {
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        usable(texts.iter().map(|text| self.vector(text)).collect(), texts.len(), self.dimensions)
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn fingerprint(&self) -> String {
        format!("hash-{}-v1", self.dimensions)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn shared_words_are_close_and_every_text_has_a_unit_vector() {
        let texts =
            ["The fee is ninety pounds", "ninety pounds: the FEE", "zebra crossing", "", "?!"].map(str::to_owned);
        let vectors = HashEmbedder::new().embed(&texts).await.unwrap();
        let cosine = |a: usize, b: usize| vectors[a].iter().zip(&vectors[b]).map(|(x, y)| x * y).sum::<f32>();
        assert!(cosine(0, 1) > 0.85, "{}", cosine(0, 1));
        assert!(cosine(0, 2) < 0.3, "{}", cosine(0, 2));
        assert!((0..texts.len()).all(|i| (cosine(i, i) - 1.0).abs() < 1e-5));
    }
}
