//! How much each word of a question tells: by its rarity among the tenant's chunks, and alike where no index says.
//!
//! Not here: what is a word, a stem or a stop word ([`super::analysis`]), and what the weights are used for.

use super::{LexicalError, LexicalIndexes, analysis, query};
use docmill_model::TenantId;
use std::sync::Arc;

/// A word of a question and how much it tells.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedWord {
    /// Its stems in the languages of the index.
    pub stems: Vec<String>,
    /// Inverse document frequency in the tenant's index, 1 without an index; a tenth of it for stop words.
    pub weight: f64,
}

impl WeightedWord {
    /// The words of `text` where no index tells how rare they are: alike, except for the stop words of its language.
    pub(crate) fn alike(text: &str) -> Vec<Self> {
        let languages: Vec<String> = analysis::detect_language(text).map(str::to_owned).into_iter().collect();
        query::weighted_words(text, &languages)
    }
}

impl LexicalIndexes {
    /// The distinct words of `text` weighed by how rare they are among the tenant's chunks; alike when the tenant has no
    /// index, or one that is still being built.
    ///
    /// # Errors
    /// [`LexicalError`]; the tenant is then suspect and will be rebuilt.
    pub async fn weigh(self: &Arc<Self>, tenant: TenantId, text: String) -> Result<Vec<WeightedWord>, LexicalError> {
        self.blocking(tenant, move |indexes| match indexes.built(tenant)? {
            Some(index) => Ok(index.weigh(&text)?),
            None => Ok(WeightedWord::alike(&text)),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lexical::{LexicalChange, LexicalChunk, LexicalConfig};
    use docmill_model::{ChunkId, DocumentId, GenerationId};

    fn chunk(text: &str) -> LexicalChunk {
        LexicalChunk {
            chunk_id: ChunkId::fresh(),
            document_id: DocumentId::fresh(),
            collection: "default".to_owned(),
            generation_id: GenerationId::fresh(),
            text: text.to_owned(),
            headings: Vec::new(),
            language: Some("eng".to_owned()),
        }
    }

    #[tokio::test]
    async fn without_an_index_or_with_one_that_is_being_built_words_weigh_alike() {
        let folder = tempfile::tempdir().unwrap();
        let indexes = LexicalIndexes::new(LexicalConfig::new(folder.path())).unwrap();
        let tenant = TenantId::fresh();
        let weights = async || {
            let weighed = indexes.weigh(tenant, "ferry harbour".to_owned()).await.unwrap();
            weighed.iter().map(|word| word.weight).collect::<Vec<f64>>()
        };
        assert_eq!(weights().await, [1.0, 1.0]);
        assert!(indexes.take_suspects().contains(&tenant), "there should be one");
        let writer = indexes.recreate(tenant).await.unwrap();
        writer.apply(LexicalChange::Add(["a ferry", "a ferry in fog", "harbour"].map(chunk).into())).await.unwrap();
        assert_eq!(weights().await, [1.0, 1.0], "nothing is committed yet");
        writer.commit(1).await.unwrap();
        let weighed = weights().await;
        assert!(weighed[0] < weighed[1], "the rarer word tells more: {weighed:?}");
    }
}
