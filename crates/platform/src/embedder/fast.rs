//! The local model: all-MiniLM-L6-v2 in full precision through `fastembed` and ONNX Runtime.
//!
//! Measured on CPUs, what costs is padding and what gains nothing is size: texts are sorted by tokens and cut into small
//! batches of nearly equal length. Each worker is a thread with a session of its own that uses one core, which beats one
//! session over all cores. A question does not wait behind a document: small requests go before the rest. The library
//! is loaded from the path given, never from the environment; a model that gives another vector for a known text is refused.

use super::{Embedder, onnx, usable};
use crate::tokens::{TokenCounter, WINDOW};
use docmill_model::{Code, Failure, Sha256Hex};
use fastembed::{InitOptionsUserDefined, Pooling, TextEmbedding, TokenizerFiles, UserDefinedEmbeddingModel};
use ort::environment::Environment;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// Most texts of one batch.
const BATCH_TEXTS: usize = 8;
/// Most tokens of one batch, padding included.
const BATCH_TOKENS: usize = 1024;
/// A text joins a batch when it has at least this share of the longest one's tokens.
const BATCH_FILL: f64 = 0.85;
/// Requests of at most this many texts go first.
const URGENT_TEXTS: usize = 2;
/// What the known vector may differ by.
const KNOWN_COSINE: f64 = 0.9999;
const KNOWN: &str = include_str!("known.json");

/// Where the parts are, and how much of the machine to use.
#[derive(Clone, Debug)]
pub struct FastEmbedderConfig {
    /// `libonnxruntime.so`. One process loads one; later paths are ignored.
    pub onnxruntime: PathBuf,
    /// Folder with `model.safetensors`, `config.json` and the tokenizer's files.
    pub model_dir: PathBuf,
    /// Workers, each with one core and about 110 MB; at least 1.
    pub threads: usize,
}

/// The local embedding model.
pub struct FastEmbedder {
    queue: Arc<Queue>,
    tokens: Arc<TokenCounter>,
    workers: Vec<JoinHandle<()>>,
    dimensions: usize,
    fingerprint: String,
}

impl FastEmbedder {
    /// Loads library and model, checks a known vector and starts the workers. Blocks for about a second.
    ///
    /// # Errors
    /// `PART_MISSING` for a missing file, `CONFIG_INVALID` for an unusable library or model.
    pub fn load(config: FastEmbedderConfig) -> Result<Self, Failure> {
        let environment = environment(&config.onnxruntime)?;
        let weights = read(&config.model_dir, "model.safetensors")?;
        let shape: onnx::BertConfig = serde_json::from_slice(&read(&config.model_dir, "config.json")?)
            .map_err(|_| unusable("config.json does not describe a BERT model"))?;
        let model = Sha256Hex::of(&weights);
        let graph = onnx::build(&weights, shape)?;
        drop(weights);
        let fingerprint = format!(
            "all-minilm-l6-v2@{}/onnxruntime@{}/fp32/mean/{WINDOW}",
            &model.as_str()[..16],
            runtime_version(&config.onnxruntime)
        );
        let queue = Arc::new(Queue::default());
        let count = config.threads.max(1);
        let mut embedder = Self {
            queue: Arc::clone(&queue),
            tokens: Arc::new(TokenCounter::load(&config.model_dir)?),
            workers: Vec::with_capacity(count),
            dimensions: shape.hidden_size,
            fingerprint,
        };
        let mut graph = Some(graph);
        for number in 0..count {
            let bytes = if number + 1 == count { graph.take() } else { graph.clone() };
            let session = session(environment.clone(), &config.model_dir, bytes.unwrap_or_default())?;
            embedder.workers.push(start(session, Arc::clone(&queue), number)?);
        }
        Ok(embedder)
    }
}

impl Drop for FastEmbedder {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.ready.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

#[async_trait::async_trait]
impl Embedder for FastEmbedder {
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
        let (reply, mut replies) = mpsc::unbounded_channel();
        let is_urgent = texts.len() <= URGENT_TEXTS;
        let batches = if is_urgent {
            texts.iter().enumerate().map(|(place, text)| (vec![place], vec![text.clone()])).collect()
        } else {
            let (texts, tokens) = (texts.to_vec(), Arc::clone(&self.tokens));
            let planned = tokio::task::spawn_blocking(move || plan(texts, |text| tokens.count(text).min(WINDOW)));
            planned.await.map_err(|_| Failure::new(Code::EmbeddingInvalid, "counting tokens failed"))?
        };
        self.queue
            .push(batches.into_iter().map(|(places, texts)| Batch { places, texts, reply: reply.clone() }), is_urgent);
        drop(reply);
        let mut vectors = vec![Vec::new(); texts.len()];
        while let Some((places, result)) = replies.recv().await {
            let embedded = usable(result?, places.len(), self.dimensions)?;
            for (place, vector) in places.into_iter().zip(embedded) {
                vectors[place] = vector;
            }
        }
        // A batch that no worker answered leaves its places empty.
        usable(vectors, texts.len(), self.dimensions)
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// Texts with their places in the request, longest first, in batches that pad little.
fn plan(texts: Vec<String>, tokens: impl Fn(&str) -> usize) -> Vec<(Vec<usize>, Vec<String>)> {
    let mut sorted: Vec<(usize, usize, String)> =
        texts.into_iter().enumerate().map(|(place, text)| (tokens(&text), place, text)).collect();
    sorted.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut batches: Vec<(Vec<usize>, Vec<String>)> = Vec::new();
    let mut longest = 0;
    for (length, place, text) in sorted {
        match batches.last_mut() {
            Some((places, texts))
                if places.len() < BATCH_TEXTS
                    && (places.len() + 1) * longest <= BATCH_TOKENS
                    && length as f64 >= BATCH_FILL * longest as f64 =>
            {
                places.push(place);
                texts.push(text);
            }
            _ => {
                longest = length;
                batches.push((vec![place], vec![text]));
            }
        }
    }
    batches
}

type Reply = (Vec<usize>, Result<Vec<Vec<f32>>, Failure>);

struct Batch {
    places: Vec<usize>,
    texts: Vec<String>,
    reply: mpsc::UnboundedSender<Reply>,
}

#[derive(Default)]
struct Waiting {
    urgent: VecDeque<Batch>,
    bulk: VecDeque<Batch>,
    closed: bool,
}

/// Batches on their way to a worker. Bounded by the callers: each has one request open.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, batches: impl Iterator<Item = Batch>, urgent: bool) {
        let mut waiting = self.lock();
        if urgent {
            waiting.urgent.extend(batches)
        } else {
            waiting.bulk.extend(batches)
        }
        drop(waiting);
        self.ready.notify_all();
    }

    /// The next batch somebody still waits for; `None` when the queue is closed.
    fn next(&self) -> Option<Batch> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            match waiting.urgent.pop_front().or_else(|| waiting.bulk.pop_front()) {
                Some(batch) if batch.reply.is_closed() => {}
                Some(batch) => return Some(batch),
                None => waiting = self.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

fn start(mut session: TextEmbedding, queue: Arc<Queue>, number: usize) -> Result<JoinHandle<()>, Failure> {
    let work = move || {
        while let Some(Batch { places, texts, reply }) = queue.next() {
            let size = texts.len();
            let done = catch_unwind(AssertUnwindSafe(|| session.embed(&texts, Some(size))));
            let result = match done {
                Ok(Ok(vectors)) => Ok(vectors),
                Ok(Err(_)) => Err(Failure::new(Code::EmbeddingInvalid, "the embedding model failed")),
                Err(_) => Err(Failure::new(Code::EmbeddingInvalid, "the embedding model panicked")),
            };
            metrics::counter!("docmill_embedded_texts_total").increment(size as u64);
            let _ = reply.send((places, result));
        }
    };
    let thread = std::thread::Builder::new().name(format!("embed-{number}")).spawn(work);
    thread.map_err(|_| Failure::new(Code::Internal, "no thread can be started for the embedding model"))
}

/// One session of the model that has shown it gives the known vector.
fn session(environment: Environment, model_dir: &Path, graph: Vec<u8>) -> Result<TextEmbedding, Failure> {
    let files = TokenizerFiles {
        tokenizer_file: read(model_dir, "tokenizer.json")?,
        config_file: read(model_dir, "config.json")?,
        special_tokens_map_file: read(model_dir, "special_tokens_map.json")?,
        tokenizer_config_file: read(model_dir, "tokenizer_config.json")?,
    };
    let model = UserDefinedEmbeddingModel::new(graph, files).with_pooling(Pooling::Mean);
    let options = InitOptionsUserDefined::new()
        .with_environment(environment)
        .with_max_length(WINDOW)
        .with_intra_threads(1)
        .with_session_config("session.intra_op.allow_spinning", "0");
    let mut session = TextEmbedding::try_new_from_user_defined(model, options)
        .map_err(|error| unusable(&format!("ONNX Runtime does not load it: {error}")))?;
    let (text, known) = known()?;
    let vectors =
        session.embed([text.as_str()], None).map_err(|error| unusable(&format!("it does not run: {error}")))?;
    let found = vectors.first().map(|found| cosine(found, &known)).unwrap_or(0.0);
    if vectors.first().map(Vec::len) != Some(known.len()) || found < KNOWN_COSINE {
        return Err(unusable(&format!(
            "it gives another vector for a known text (cosine {found:.5}); use all-MiniLM-L6-v2"
        )));
    }
    Ok(session)
}

fn known() -> Result<(String, Vec<f32>), Failure> {
    #[derive(serde::Deserialize)]
    struct Known {
        text: String,
        vector: Vec<f32>,
    }
    let known: Known =
        serde_json::from_str(KNOWN).map_err(|_| Failure::new(Code::Internal, "the known vector cannot be read"))?;
    Ok((known.text, known.vector))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The one environment of the process, with the library at `path`.
fn environment(path: &Path) -> Result<Environment, Failure> {
    static LOADED: Mutex<Option<Environment>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = loaded.as_ref() {
        return Ok(environment.clone());
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if !path.is_file() {
        return Err(Failure::new(Code::PartMissing, format!("{} does not exist", path.display())));
    }
    let library = |error: &dyn std::fmt::Display| {
        Failure::new(Code::ConfigInvalid, format!("{} cannot be used: {error}", path.display()))
    };
    let environment = ort::init_from(&path).map_err(|e| library(&e))?.build().map_err(|e| library(&e))?;
    Ok(loaded.insert(environment).clone())
}

/// The version in the library's file name, else the commit it was built from.
fn runtime_version(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some((_, version)) = name.split_once(".so.") {
        return version.to_owned();
    }
    let commit = ort::info().split("git-commit-id=").nth(1).unwrap_or_default();
    commit.chars().take_while(char::is_ascii_alphanumeric).take(10).collect()
}

fn read(model_dir: &Path, file: &str) -> Result<Vec<u8>, Failure> {
    let path = model_dir.join(file);
    std::fs::read(&path)
        .map_err(|error| Failure::new(Code::PartMissing, format!("cannot read {}: {error}", path.display())))
}

fn unusable(why: &str) -> Failure {
    Failure::new(Code::ConfigInvalid, format!("the embedding model cannot be used: {why}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(queue: &Queue, texts: &[&str], urgent: bool) -> mpsc::UnboundedReceiver<Reply> {
        let (reply, replies) = mpsc::unbounded_channel();
        let batch = |(place, text): (usize, &&str)| Batch {
            places: vec![place],
            texts: vec![(*text).to_owned()],
            reply: reply.clone(),
        };
        queue.push(texts.iter().enumerate().map(batch), urgent);
        replies
    }

    #[test]
    fn a_question_goes_first_and_what_nobody_waits_for_is_left_out() {
        let queue = Queue::default();
        let dropped = request(&queue, &["nobody", "waits"], false);
        let _document = request(&queue, &["a", "document"], false);
        let _question = request(&queue, &["a question"], true);
        drop(dropped);
        let order: Vec<String> = (0..3).map(|_| queue.next().unwrap().texts.remove(0)).collect();
        assert_eq!(order, ["a question", "a", "document"]);
        queue.lock().closed = true;
        assert!(queue.next().is_none());
    }

    #[test]
    fn batches_are_small_nearly_equal_and_hold_every_text_once() {
        let lengths = [256, 10, 12, 250, 11, 256, 200, 3, 254, 256, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
        let texts: Vec<String> = lengths.iter().map(usize::to_string).collect();
        let batches = plan(texts, |text| text.parse().unwrap_or(0));
        let mut seen: Vec<usize> = batches.iter().flat_map(|(places, _)| places.clone()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        for (places, texts) in &batches {
            let tokens: Vec<usize> = places.iter().map(|&place| lengths[place]).collect();
            assert_eq!(*texts, tokens.iter().map(usize::to_string).collect::<Vec<_>>());
            assert!(tokens.len() <= 8 && tokens.len() * tokens[0] <= 1024, "{tokens:?}");
            assert!(tokens.iter().all(|&n| n as f64 >= 0.85 * tokens[0] as f64), "{tokens:?}");
        }
        assert_eq!(lengths[batches[0].0[0]], 256, "the longest first, so that the workers end together");
    }
}
