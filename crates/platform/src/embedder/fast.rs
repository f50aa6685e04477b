//! The local model: all-MiniLM-L6-v2 in full precision through `fastembed` and ONNX Runtime.
//!
//! Measured on CPUs, what costs is padding and what gains nothing is size: texts are sorted by tokens and cut into small
//! batches of nearly equal length. Each worker is a thread with a session of its own that uses one core, which beats one
//! session over all cores. A question does not wait behind a document: small requests go before the rest. The library
//! is loaded from the path given, never from the environment; a model that gives another vector for a known text is refused.

use super::queue::{Batch, Queue, plan};
use super::{Embedder, onnx, usable};
use crate::tokens::{TokenCounter, WINDOW};
use docmill_model::{Code, Failure, Sha256Hex};
use fastembed::{InitOptionsUserDefined, Pooling, TextEmbedding, TokenizerFiles, UserDefinedEmbeddingModel};
use ort::environment::Environment;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

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
        self.queue.close();
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
