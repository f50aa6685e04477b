//! One tenant's tantivy index on disk: open, apply, search.
//!
//! It is a cache: a commit carries the feed number it has reached in the same atomic step, so what is on disk always
//! knows where to go on; whatever is wrong with it is answered by building it again. All calls block.

use super::query;
use super::schema::{CHUNK_HIGH, CHUNK_LOW, Fields, LexicalChunk};
use super::soundness;
use super::{LexicalHit, LexicalScope, WeightedWord};
use docmill_model::{ChunkId, GenerationId};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tantivy::collector::{Count, TopDocs};
use tantivy::columnar::Column;
use tantivy::indexer::LogMergePolicy;
use tantivy::query::TermQuery;
use tantivy::schema::IndexRecordOption;
use tantivy::{Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, TantivyDocument, Term};

/// Memory one open writer may buffer before it flushes a segment, bytes.
const WRITER_BYTES: usize = 32 << 20;
/// Looks for what removed chunks left: a background merge or a search that holds it is waited for.
const PURGE_ROUNDS: usize = 40;
const PURGE_PAUSE: Duration = Duration::from_millis(50);
/// Length of a segment's id, with which the names of its files begin.
const SEGMENT_CHARS: usize = 32;

/// What is done to an index, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LexicalChange {
    /// Remove every chunk of a generation.
    Remove(GenerationId),
    /// Add chunks.
    Add(Vec<LexicalChunk>),
}

pub(super) struct TenantIndex {
    index: Index,
    fields: Fields,
    reader: IndexReader,
    writer: Mutex<Option<IndexWriter>>,
    languages: Mutex<(u64, Vec<String>)>,
    /// The feed number of the last commit, [`NOTHING`] before.
    reached: AtomicI64,
}

const NOTHING: i64 = i64::MIN;

impl TenantIndex {
    /// Opens what is in `directory`; `None` when there is no index. With `check`, all of it is read first, and an index
    /// that was damaged is an error.
    pub fn open(directory: &Path, check: bool) -> tantivy::Result<Option<Self>> {
        if !directory.join("meta.json").exists() {
            return Ok(None);
        }
        let index = Index::open_in_dir(directory)?;
        let (schema, fields) = Fields::schema();
        if index.schema() != schema {
            return Err(tantivy::TantivyError::SchemaError("the index has another layout".to_owned()));
        }
        let opened = Self::over(index, fields)?;
        if check {
            soundness::check(&opened.index, &opened.reader.searcher(), directory)?;
        }
        Ok(Some(opened))
    }

    /// Empties `directory` and creates an index in it.
    pub fn create(directory: &Path) -> tantivy::Result<Self> {
        let removed = match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => std::fs::remove_file(directory),
            removed => removed,
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => std::fs::create_dir_all(directory)?,
        }
        let (schema, fields) = Fields::schema();
        Self::over(Index::create_in_dir(directory, schema)?, fields)
    }

    /// An index in memory, which holds `chunks` and nothing else.
    pub fn of(chunks: Vec<LexicalChunk>) -> tantivy::Result<Self> {
        let (schema, fields) = Fields::schema();
        let index = Self::over(Index::create_in_ram(schema), fields)?;
        index.apply(&LexicalChange::Add(chunks))?;
        index.commit(0)?;
        index.release_writer();
        Ok(index)
    }

    fn over(index: Index, fields: Fields) -> tantivy::Result<Self> {
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        let reached = AtomicI64::new(seq_of(&index)?.unwrap_or(NOTHING));
        Ok(Self { index, fields, reader, writer: Mutex::new(None), languages: Mutex::default(), reached })
    }

    /// The feed number of the last commit; `None` when nothing was committed yet.
    pub fn seq(&self) -> tantivy::Result<Option<i64>> {
        seq_of(&self.index)
    }

    /// Chunks of each of `generations`, and of all, as of the last commit.
    pub fn count(&self, generations: &[GenerationId]) -> tantivy::Result<(Vec<i64>, i64)> {
        let searcher = self.reader.searcher();
        let count = |generation: &GenerationId| {
            let term = TermQuery::new(self.fields.generation_term(*generation), IndexRecordOption::Basic);
            searcher.search(&term, &Count).map(|count| count as i64)
        };
        Ok((generations.iter().map(count).collect::<Result<_, _>>()?, searcher.num_docs() as i64))
    }

    /// Buffers a change; nothing is visible or durable before [`TenantIndex::commit`].
    pub fn apply(&self, change: &LexicalChange) -> tantivy::Result<()> {
        let mut guard = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = self.writer(&mut guard)?;
        match change {
            LexicalChange::Remove(generation) => {
                writer.delete_term(self.fields.generation_term(*generation));
            }
            LexicalChange::Add(chunks) => {
                for chunk in chunks {
                    writer.add_document(self.fields.document(chunk))?;
                }
            }
        }
        Ok(())
    }

    /// Makes buffered changes durable together with the feed number they reach, and visible to searches.
    pub fn commit(&self, seq: i64) -> tantivy::Result<()> {
        let mut guard = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = self.writer(&mut guard)?;
        let mut prepared = writer.prepare_commit()?;
        prepared.set_payload(&payload(seq));
        prepared.commit()?;
        self.reader.reload()?;
        self.reached.store(seq, Ordering::Release);
        Ok(())
    }

    /// Rewrites segments that hold removed chunks, so that nothing of those stays on disk.
    pub fn purge(&self) -> tantivy::Result<()> {
        let mut guard = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = self.writer(&mut guard)?;
        for _ in 0..PURGE_ROUNDS {
            let metas = self.index.searchable_segment_metas()?;
            let stale: Vec<_> = metas.iter().filter(|meta| meta.has_deletes()).map(|meta| meta.id()).collect();
            drop(metas);
            for segment in stale {
                if let Err(error) = writer.merge(&[segment]).wait() {
                    tracing::debug!(error = %error, "a segment is merged by itself");
                }
            }
            // The searcher holds the files of the segments it was opened on, also of those a background merge has replaced;
            // so does a merge, for a moment after it has ended.
            self.reader.reload()?;
            writer.garbage_collect_files().wait()?;
            if self.is_purged()? {
                return Ok(());
            }
            std::thread::sleep(PURGE_PAUSE);
        }
        tracing::warn!("a lexical index keeps files of removed chunks until its next change");
        Ok(())
    }

    /// True when no segment holds a removed chunk, and no file is left of one that did.
    fn is_purged(&self) -> tantivy::Result<bool> {
        let metas = self.index.searchable_segment_metas()?;
        let alive: HashSet<String> = metas.iter().map(|meta| meta.id().uuid_string()).collect();
        let is_stray = |path: &PathBuf| {
            let stem = path.file_name().and_then(|name| name.to_str()?.split_once('.')).map(|(stem, _)| stem);
            stem.is_some_and(|stem| stem.len() == SEGMENT_CHARS && !alive.contains(stem))
        };
        let files = self.index.directory().list_managed_files();
        Ok(!metas.iter().any(|meta| meta.has_deletes()) && !files.iter().any(is_stray))
    }

    /// Gives the writer's memory, threads and lock back; the next change opens it again.
    pub fn release_writer(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && let Err(error) = writer.wait_merging_threads()
        {
            tracing::warn!(error = %error, "a lexical writer ended badly; the last commit stands");
        }
    }

    fn writer<'g>(&self, guard: &'g mut Option<IndexWriter>) -> tantivy::Result<&'g mut IndexWriter> {
        if guard.is_none() {
            let writer = self.index.writer_with_num_threads::<TantivyDocument>(1, WRITER_BYTES)?;
            let mut policy = LogMergePolicy::default();
            policy.set_del_docs_ratio_before_merge(0.3);
            writer.set_merge_policy(Box::new(policy));
            *guard = Some(writer);
        }
        guard.as_mut().ok_or_else(|| tantivy::TantivyError::SystemError("no writer".to_owned()))
    }

    /// True once something was committed: before, an index that is being built holds nothing.
    pub fn is_committed(&self) -> bool {
        self.reached().is_some()
    }

    /// The feed number that searches have reached; `None` when nothing was committed yet.
    pub fn reached(&self) -> Option<i64> {
        Some(self.reached.load(Ordering::Acquire)).filter(|&seq| seq != NOTHING)
    }

    /// The best `limit` chunks for `text` within `scope`. Ties go by chunk id.
    pub fn search(&self, text: &str, limit: usize, scope: &LexicalScope) -> tantivy::Result<Vec<LexicalHit>> {
        let searcher = self.reader.searcher();
        let languages = self.languages(&searcher)?;
        let Some(query) = query::build(&self.fields, text, &languages, scope) else { return Ok(Vec::new()) };
        let limit = limit.min(searcher.num_docs() as usize).max(1);
        let top = searcher.search(&*query, &TopDocs::with_limit(limit).order_by_score())?;
        let mut columns: HashMap<u32, (Column<u64>, Column<u64>)> = HashMap::new();
        let mut hits = Vec::with_capacity(top.len());
        for (score, address) in top {
            let columns = match columns.entry(address.segment_ord) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    let fast = searcher.segment_reader(address.segment_ord).fast_fields();
                    entry.insert((fast.u64(CHUNK_HIGH)?, fast.u64(CHUNK_LOW)?))
                }
            };
            if let (Some(high), Some(low)) = (columns.0.first(address.doc_id), columns.1.first(address.doc_id)) {
                hits.push(LexicalHit {
                    chunk_id: ChunkId(uuid::Uuid::from_u64_pair(high, low)),
                    score: f64::from(score),
                });
            }
        }
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.chunk_id.cmp(&b.chunk_id)));
        Ok(hits)
    }

    /// The distinct words of `text` that carry meaning, each with its stems in the index's languages and its inverse
    /// document frequency.
    pub fn weigh(&self, text: &str) -> tantivy::Result<Vec<WeightedWord>> {
        let searcher = self.reader.searcher();
        let languages = self.languages(&searcher)?;
        let total = searcher.num_docs().max(1) as f64;
        let mut words = query::weighted_words(text, &languages);
        for word in &mut words {
            let mut frequency = 0;
            for stem in &word.stems {
                frequency = frequency.max(searcher.doc_freq(&Term::from_field_text(self.fields.stems, stem))?);
            }
            let frequency = (frequency as f64).min(total);
            word.weight *= (1.0 + (total - frequency + 0.5) / (frequency + 0.5)).ln();
        }
        Ok(words)
    }

    /// The languages of the indexed chunks, read once for every state of the index.
    fn languages(&self, searcher: &Searcher) -> tantivy::Result<Vec<String>> {
        let generation = searcher.generation().generation_id() + 1;
        let mut cached = self.languages.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.0 != generation {
            let mut found = BTreeSet::new();
            for segment in searcher.segment_readers() {
                let inverted = segment.inverted_index(self.fields.language)?;
                let mut terms = inverted.terms().stream()?;
                while terms.advance() {
                    found.insert(String::from_utf8_lossy(terms.key()).into_owned());
                }
            }
            *cached = (generation, found.into_iter().collect());
        }
        Ok(cached.1.clone())
    }
}

/// What a commit carries: the feed number, twice, since the file it is kept in has no checksum and a number that grew
/// would have the feed pass over what the index lacks.
fn payload(seq: i64) -> String {
    format!("seq={seq} seq={seq}")
}

/// `None` also for a number that is not what was written.
fn seq_of(index: &Index) -> tantivy::Result<Option<i64>> {
    let carried = index.load_metas()?.payload;
    Ok(carried.and_then(|carried| {
        let seq = carried.strip_prefix("seq=")?.split(' ').next()?.parse().ok()?;
        (carried == payload(seq)).then_some(seq)
    }))
}
