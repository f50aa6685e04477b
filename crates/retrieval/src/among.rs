//! Ranking given passages as a search ranks a corpus: by both halves and their fusion, over nothing but these. What a sample
//! of a replay would answer is compared with what is answered so. Nothing is written.

use crate::dense::DenseHit;
use crate::lexical::{LexicalChunk, LexicalHit, PassingIndex};
use crate::search::Search;
use crate::search::fusion::{LexicalCandidate, fuse};
use docmill_model::chunk::embed_text;
use docmill_model::{ChunkId, Code, DocumentId, Failure, GenerationId, Sha256Hex, TenantId};
use docmill_platform::database::DbError;
use docmill_platform::embedder::{Embedder, Space, cosine};
use pgvector::Vector;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// Most texts that are embedded while the caller waits.
pub const EMBEDDED_LIMIT: usize = 256;
/// Candidates of each half.
const CANDIDATES: usize = 100;

/// A passage of a document, shown or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// Its document.
    pub document_id: DocumentId,
    /// The document's title and name.
    pub titles: Vec<String>,
    /// Titles of the headings above, outermost first.
    pub heading_path: Vec<String>,
    /// The words.
    pub text: String,
    /// ISO 639-3 language.
    pub language: Option<String>,
}

impl Passage {
    fn hash(&self) -> Vec<u8> {
        Sha256Hex::of(embed_text(&self.heading_path, &self.text).as_bytes()).to_bytes().to_vec()
    }

    fn indexed(&self, place: usize) -> LexicalChunk {
        let mut headings = self.heading_path.clone();
        headings.extend(self.titles.iter().cloned());
        headings.dedup();
        LexicalChunk {
            chunk_id: id(place),
            document_id: self.document_id,
            collection: String::new(),
            generation_id: GenerationId(Uuid::nil()),
            text: self.text.clone(),
            headings,
            language: self.language.clone(),
        }
    }
}

/// A passage is known by its place among the others.
fn id(place: usize) -> ChunkId {
    ChunkId(Uuid::from_u128(place as u128))
}

fn place(id: ChunkId) -> usize {
    id.0.as_u128() as usize
}

impl Search {
    /// For each of `questions` the best `k` of `passages`, as places in that list, best first; of equal texts the first.
    /// Vectors are those of the tenant in the space that answers. The first [`EMBEDDED_LIMIT`] texts without one are embedded,
    /// those beyond are ranked by their words alone.
    ///
    /// # Errors
    /// Failures of database, model and index.
    pub async fn among(
        &self,
        tenant: TenantId,
        passages: Arc<[Passage]>,
        questions: &[String],
        k: usize,
    ) -> Result<Vec<Vec<usize>>, Failure> {
        if passages.is_empty() || questions.is_empty() {
            return Ok(vec![Vec::new(); questions.len()]);
        }
        let hashes: Vec<Vec<u8>> = passages.iter().map(Passage::hash).collect();
        let (model, vectors) = self.vectors_of(tenant, &passages, &hashes).await?;
        let mut asked = Vec::with_capacity(questions.len());
        for question in questions {
            asked.push((question.clone(), model.embed_query(question).await?));
        }
        let config = self.fusion().clone();
        let ranked = move || {
            let chunks = passages.iter().enumerate().map(|(place, passage)| passage.indexed(place));
            let index = PassingIndex::of(chunks.collect())?;
            let mut best = Vec::with_capacity(asked.len());
            for (question, vector) in asked {
                let cosines: Vec<Option<f64>> =
                    vectors.iter().map(|other| Some(cosine(&vector, other.as_ref()?))).collect();
                let hit = |place: usize| {
                    let (embed_hash, language) = (hashes[place].clone(), passages[place].language.clone());
                    Some(DenseHit { chunk_id: id(place), embed_hash, language, cosine: cosines[place]? })
                };
                let mut dense: Vec<DenseHit> = (0..passages.len()).filter_map(hit).collect();
                dense.sort_by(|a, b| b.cosine.total_cmp(&a.cosine).then(a.chunk_id.cmp(&b.chunk_id)));
                dense.truncate(CANDIDATES);
                let candidate = |LexicalHit { chunk_id, score }: LexicalHit| LexicalCandidate {
                    chunk_id,
                    embed_hash: hashes[place(chunk_id)].clone(),
                    language: passages[place(chunk_id)].language.clone(),
                    score,
                    cosine: cosines[place(chunk_id)],
                };
                let lexical: Vec<LexicalCandidate> =
                    index.search(&question, CANDIDATES)?.into_iter().map(candidate).collect();
                best.push(fuse(&config, &lexical, &dense).iter().take(k).map(|fused| place(fused.chunk_id)).collect());
            }
            Ok(best)
        };
        let failed = |_| Failure::new(Code::Internal, "ranking passages panicked");
        tokio::task::spawn_blocking(ranked).await.map_err(failed)?
    }

    /// The model of the space that answers, and the vectors of `passages` there, in their order, as far as there are any.
    async fn vectors_of(
        &self,
        tenant: TenantId,
        passages: &[Passage],
        hashes: &[Vec<u8>],
    ) -> Result<(Arc<dyn Embedder>, Vec<Option<Arc<[f32]>>>), Failure> {
        let wanted = hashes.to_vec();
        let read = self.database().read(tenant, |connection| {
            Box::pin(async move {
                let space = Space::active(connection).await?;
                let known: Vec<(Vec<u8>, Vector)> = sqlx::query_as(
                    "SELECT embed_hash, embedding FROM vectors
                     WHERE tenant_id = current_tenant() AND space_id = $1 AND embed_hash = ANY ($2)",
                )
                .bind(space.id)
                .bind(wanted)
                .fetch_all(connection)
                .await?;
                Ok::<_, DbError>((space, known))
            })
        });
        let (space, known) = read.await?;
        let model = self.embedders().need(&space)?;
        let mut vectors: HashMap<Vec<u8>, Arc<[f32]>> =
            known.into_iter().map(|(hash, vector)| (hash, Arc::from(vector.to_vec()))).collect();
        let mut met = HashSet::new();
        let (missing, texts): (Vec<_>, Vec<_>) = passages
            .iter()
            .zip(hashes)
            .filter(|(_, hash)| !vectors.contains_key(*hash) && met.insert(*hash))
            .map(|(passage, hash)| (hash.clone(), embed_text(&passage.heading_path, &passage.text)))
            .take(EMBEDDED_LIMIT)
            .unzip();
        if !texts.is_empty() {
            let made = model.embed(&texts).await?;
            vectors.extend(missing.into_iter().zip(made.into_iter().map(Arc::from)));
        }
        Ok((model, hashes.iter().map(|hash| vectors.get(hash).cloned()).collect()))
    }
}
