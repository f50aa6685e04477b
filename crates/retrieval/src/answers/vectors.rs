//! Vectors of sentences that were compared lately: the passages people ask about are few, their sentences come again.
//!
//! In memory only, by tenant and hash of the text, bounded; questions are never kept.

use docmill_model::{Failure, Sha256Hex, TenantId};
use docmill_platform::embedder::{Embedder, cosine};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Vectors of one half of the memory, at most; about 1.6 KB each.
const HALF: usize = 8_192;

type Key = (TenantId, [u8; 32]);
type Vector = Arc<[f32]>;

/// What was asked for since the halves last changed places, and what before: when the first is full, the second goes.
#[derive(Default)]
struct Halves {
    recent: HashMap<Key, Vector>,
    older: HashMap<Key, Vector>,
}

impl Halves {
    fn get(&mut self, key: &Key) -> Option<Vector> {
        if let Some(vector) = self.recent.get(key) {
            return Some(vector.clone());
        }
        let vector = self.older.get(key)?.clone();
        self.put(*key, vector.clone());
        Some(vector)
    }

    fn put(&mut self, key: Key, vector: Vector) {
        if self.recent.len() >= HALF {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(key, vector);
    }
}

/// Embeds sentences, each text once for a while.
#[derive(Default)]
pub(crate) struct SentenceVectors {
    halves: Mutex<Halves>,
}

impl SentenceVectors {
    /// The cosine of `question` with each of `sentences`.
    ///
    /// # Errors
    /// The embedder's.
    pub async fn cosines(
        &self,
        embedder: &dyn Embedder,
        tenant: TenantId,
        question: &str,
        sentences: &[&str],
    ) -> Result<Vec<f64>, Failure> {
        let keys: Vec<Key> = sentences.iter().map(|text| (tenant, Sha256Hex::of(text.as_bytes()).to_bytes())).collect();
        let mut known: Vec<Option<Vector>> = {
            let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
            keys.iter().map(|key| halves.get(key)).collect()
        };
        let missing: Vec<usize> = (0..sentences.len()).filter(|&place| known[place].is_none()).collect();
        let mut texts = vec![question.to_owned()];
        texts.extend(missing.iter().map(|&place| sentences[place].to_owned()));
        let mut vectors = embedder.embed(&texts).await?.into_iter();
        let asked = vectors.next().unwrap_or_default();
        {
            let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
            for (&place, vector) in missing.iter().zip(vectors) {
                let vector: Vector = vector.into();
                halves.put(keys[place], vector.clone());
                known[place] = Some(vector);
            }
        }
        Ok(known.iter().map(|told| told.as_ref().map_or(0.0, |told| cosine(&asked, told))).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use docmill_platform::embedder::HashEmbedder;

    #[tokio::test]
    async fn cosines_are_the_same_with_and_without_memory_and_tenants_share_nothing() {
        let (memory, embedder) = (SentenceVectors::default(), HashEmbedder::new());
        let (one, other) = (TenantId::fresh(), TenantId::fresh());
        let sentences = ["the red boat", "a quiet meadow", "the red boat"];
        let first = memory.cosines(&embedder, one, "red boat", &sentences).await.unwrap();
        let again = memory.cosines(&embedder, one, "red boat", &sentences).await.unwrap();
        assert_eq!(first, again);
        assert!(first[0] > first[1] && (first[0] - first[2]).abs() < 1e-12);
        assert_eq!(memory.halves.lock().unwrap().recent.len(), 2);
        memory.cosines(&embedder, other, "red boat", &sentences).await.unwrap();
        assert_eq!(memory.halves.lock().unwrap().recent.len(), 4);
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let (mut halves, tenant) = (Halves::default(), TenantId::fresh());
        let key = |number: usize| (tenant, Sha256Hex::of(&number.to_be_bytes()).to_bytes());
        let vector: Vector = vec![1.0f32].into();
        for number in 0..3 * HALF {
            halves.put(key(number), vector.clone());
            assert!(halves.get(&key(0)).is_some());
        }
        assert!(halves.recent.len() + halves.older.len() <= 2 * HALF + 1);
        assert!(halves.get(&key(1)).is_none());
    }
}
