//! Texts to vectors.
//!
//! [`Embedder`] promises one unit vector a text, in order, or `EMBEDDING_INVALID`: a vector of another length, with a
//! NaN or of length zero never leaves this module. [`FastEmbedder`] is the local model; [`HashEmbedder`] needs no model
//! and is for tests. Not here: which texts were embedded before (the stage's cache), and storing vectors.

mod fast;
mod hash;
mod onnx;
mod queue;
mod space;

pub use fast::{FastEmbedder, FastEmbedderConfig, LocalModel, Pooling};
pub use hash::HashEmbedder;
pub use space::{Embedders, Space, bind_space};

use docmill_model::{Code, Failure};

/// A model that embeds texts.
#[async_trait::async_trait]
pub trait Embedder: Send + Sync {
    /// One L2-normalised vector a text, in the order of `texts`. No text is too long: what the model does not see is
    /// cut off.
    ///
    /// # Errors
    /// `EMBEDDING_INVALID` when the model fails or returns anything else than such vectors.
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure>;

    /// The vector of a question. Some models embed questions otherwise than what is to be found; for the others it is
    /// [`Self::embed`].
    ///
    /// # Errors
    /// As [`Self::embed`].
    async fn embed_query(&self, text: &str) -> Result<Vec<f32>, Failure> {
        let mut vectors = self.embed(&[text.to_owned()]).await?;
        vectors.pop().ok_or_else(|| Failure::new(Code::EmbeddingInvalid, "the embedder returned nothing"))
    }

    /// Length of the vectors.
    fn dimensions(&self) -> usize;

    /// What made the vectors: model, runtime and precision. Vectors of two fingerprints are never mixed.
    fn fingerprint(&self) -> String;
}

/// Cosine similarity, -1 to 1, of two vectors of one length; 0 when one of them has no length.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

/// The vectors, made unit length, when there are `count` usable ones.
///
/// # Errors
/// `EMBEDDING_INVALID` for another count or length, NaN, infinity or a zero vector.
pub fn usable(mut vectors: Vec<Vec<f32>>, count: usize, dimensions: usize) -> Result<Vec<Vec<f32>>, Failure> {
    let invalid = Code::EmbeddingInvalid;
    if vectors.len() != count {
        let message = "the embedding model returned another number of vectors than texts";
        return Err(Failure::limit(invalid, message, count as u64, vectors.len() as u64));
    }
    for vector in &mut vectors {
        if vector.len() != dimensions {
            let message = "the embedding model returned a vector of another length";
            return Err(Failure::limit(invalid, message, dimensions as u64, vector.len() as u64));
        }
        let norm = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
        if !norm.is_finite() || norm < 1e-6 {
            return Err(Failure::new(invalid, "the embedding model returned a zero vector or one that is not finite"));
        }
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
    Ok(vectors)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::usable;
    use docmill_model::Code;

    #[test]
    fn unusable_vectors_never_pass() {
        let bad = [
            ("fewer", vec![]),
            ("more", vec![vec![1.0, 0.0], vec![1.0, 0.0]]),
            ("short", vec![vec![1.0]]),
            ("nan", vec![vec![1.0, f32::NAN]]),
            ("infinite", vec![vec![1.0, f32::INFINITY]]),
            ("zero", vec![vec![0.0, 0.0]]),
        ];
        for (name, vectors) in bad {
            assert_eq!(usable(vectors, 1, 2).unwrap_err().code, Code::EmbeddingInvalid, "{name}");
        }
        assert_eq!(usable(vec![vec![3.0, 4.0]], 1, 2).unwrap(), vec![vec![0.6, 0.8]]);
    }
}
