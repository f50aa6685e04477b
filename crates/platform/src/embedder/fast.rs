//! Local models through `fastembed` and ONNX Runtime: all-MiniLM-L6-v2 in full precision, or one that an operator names.
//!
//! Measured on CPUs, what costs is padding and what gains nothing is size: texts are sorted by tokens and cut into small
//! batches of nearly equal length. Each worker is a thread with a session of its own that uses one core, which beats one
//! session over all cores. A question does not wait behind a document: small requests go before the rest. The library
//! is loaded from the path given, never from the environment. Of all-MiniLM-L6-v2 a vector is known, and weights that give
//! another one are refused; of a named model its name, weights and settings are part of the fingerprint.

use super::queue::{Batch, Queue, plan};
use super::{Embedder, cosine, onnx, usable};
use crate::onnxruntime::{environment, model_file};
use crate::tokens::{TokenCounter, WINDOW};
use docmill_model::{Code, Failure, Sha256Hex};
use fastembed::{InitOptionsUserDefined, TextEmbedding, TokenizerFiles, UserDefinedEmbeddingModel};
use ort::environment::Environment;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    /// Folder with `model.onnx`, or `model.safetensors` of a BERT encoder, and with `config.json` and the tokenizer's files.
    pub model_dir: PathBuf,
    /// Workers, each with one core and, for all-MiniLM-L6-v2, about 110 MB; at least 1.
    pub threads: usize,
    /// Which model the folder holds.
    pub model: LocalModel,
}

/// How token vectors become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The one of the first token.
    Cls,
}

/// A model on this machine.
#[derive(Clone, Debug)]
pub enum LocalModel {
    /// all-MiniLM-L6-v2, whose vectors are known.
    MiniLm,
    /// One that an operator names, with what its makers say about its use.
    Named {
        /// Its name.
        name: String,
        /// How token vectors become one.
        pooling: Pooling,
        /// Tokens it reads of a text, special ones included.
        max_tokens: usize,
        /// Stands before every question.
        query_prefix: String,
        /// Stands before every text that is to be found.
        passage_prefix: String,
    },
}

impl LocalModel {
    fn pooling(&self) -> Pooling {
        match self {
            LocalModel::MiniLm => Pooling::Mean,
            LocalModel::Named { pooling, .. } => *pooling,
        }
    }

    fn max_tokens(&self) -> usize {
        match self {
            LocalModel::MiniLm => WINDOW,
            LocalModel::Named { max_tokens, .. } => *max_tokens,
        }
    }

    fn query_prefix(&self) -> &str {
        match self {
            LocalModel::MiniLm => "",
            LocalModel::Named { query_prefix, .. } => query_prefix,
        }
    }

    fn passage_prefix(&self) -> &str {
        match self {
            LocalModel::MiniLm => "",
            LocalModel::Named { passage_prefix, .. } => passage_prefix,
        }
    }

    fn fingerprint(&self, weights: &Sha256Hex, runtime: &str) -> String {
        let weights = &weights.as_str()[..16];
        match self {
            LocalModel::MiniLm => format!("all-minilm-l6-v2@{weights}/onnxruntime@{runtime}/fp32/mean/{WINDOW}"),
            LocalModel::Named { name, pooling, max_tokens, query_prefix, passage_prefix } => {
                let prefixes = Sha256Hex::of(format!("{query_prefix}\0{passage_prefix}").as_bytes());
                let (pooling, prefixes) = (format!("{pooling:?}").to_lowercase(), &prefixes.as_str()[..8]);
                format!("{name}@{weights}/onnxruntime@{runtime}/{pooling}/{max_tokens}/{prefixes}")
            }
        }
    }
}

/// A local embedding model.
pub struct FastEmbedder {
    model: LocalModel,
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
        let (graph, weights) = graph(&config)?;
        let fingerprint = config.model.fingerprint(&weights, &runtime_version(&config.onnxruntime));
        let queue = Arc::new(Queue::default());
        let count = config.threads.max(1);
        let mut embedder = Self {
            model: config.model.clone(),
            queue: Arc::clone(&queue),
            tokens: Arc::new(TokenCounter::load(&config.model_dir)?),
            workers: Vec::with_capacity(count),
            dimensions: 0,
            fingerprint,
        };
        let mut graph = Some(graph);
        for number in 0..count {
            let bytes = if number + 1 == count { graph.take() } else { graph.clone() };
            let (session, dimensions) = session(environment.clone(), &config, bytes.unwrap_or_default())?;
            embedder.dimensions = dimensions;
            embedder.workers.push(start(session, Arc::clone(&queue), number)?);
        }
        Ok(embedder)
    }
}

impl FastEmbedder {
    async fn vectors(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>, Failure> {
        let (reply, mut replies) = mpsc::unbounded_channel();
        let (count, is_urgent) = (texts.len(), texts.len() <= URGENT_TEXTS);
        let batches = if is_urgent {
            texts.into_iter().enumerate().map(|(place, text)| (vec![place], vec![text])).collect()
        } else {
            let (tokens, window) = (Arc::clone(&self.tokens), self.model.max_tokens());
            let planned = tokio::task::spawn_blocking(move || plan(texts, |text| tokens.count(text).min(window)));
            planned.await.map_err(|_| Failure::new(Code::EmbeddingInvalid, "counting tokens failed"))?
        };
        self.queue
            .push(batches.into_iter().map(|(places, texts)| Batch { places, texts, reply: reply.clone() }), is_urgent);
        drop(reply);
        let mut vectors = vec![Vec::new(); count];
        while let Some((places, result)) = replies.recv().await {
            let embedded = usable(result?, places.len(), self.dimensions)?;
            for (place, vector) in places.into_iter().zip(embedded) {
                vectors[place] = vector;
            }
        }
        // A batch that no worker answered leaves its places empty.
        usable(vectors, count, self.dimensions)
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
        let prefix = self.model.passage_prefix();
        self.vectors(texts.iter().map(|text| format!("{prefix}{text}")).collect()).await
    }

    async fn embed_query(&self, text: &str) -> Result<Vec<f32>, Failure> {
        let mut vectors = self.vectors(vec![format!("{}{text}", self.model.query_prefix())]).await?;
        vectors.pop().ok_or_else(|| Failure::new(Code::EmbeddingInvalid, "the embedding model returned nothing"))
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

/// The model as ONNX bytes, and the hash of its weights.
fn graph(config: &FastEmbedderConfig) -> Result<(Vec<u8>, Sha256Hex), Failure> {
    let is_named = matches!(config.model, LocalModel::Named { .. });
    if is_named && config.model_dir.join("model.onnx").is_file() {
        let graph = model_file(&config.model_dir, "model.onnx")?;
        let hash = Sha256Hex::of(&graph);
        return Ok((graph, hash));
    }
    let weights = model_file(&config.model_dir, "model.safetensors")?;
    let shape: onnx::BertConfig = serde_json::from_slice(&model_file(&config.model_dir, "config.json")?)
        .map_err(|_| unusable("config.json does not describe a BERT model"))?;
    Ok((onnx::build(&weights, shape)?, Sha256Hex::of(&weights)))
}

/// One session of the model that has shown what it gives for the known text, and the length of its vectors.
fn session(
    environment: Environment,
    config: &FastEmbedderConfig,
    graph: Vec<u8>,
) -> Result<(TextEmbedding, usize), Failure> {
    let files = TokenizerFiles {
        tokenizer_file: model_file(&config.model_dir, "tokenizer.json")?,
        config_file: model_file(&config.model_dir, "config.json")?,
        special_tokens_map_file: model_file(&config.model_dir, "special_tokens_map.json")?,
        tokenizer_config_file: model_file(&config.model_dir, "tokenizer_config.json")?,
    };
    let pooling = match config.model.pooling() {
        Pooling::Mean => fastembed::Pooling::Mean,
        Pooling::Cls => fastembed::Pooling::Cls,
    };
    let model = UserDefinedEmbeddingModel::new(graph, files).with_pooling(pooling);
    let options = InitOptionsUserDefined::new()
        .with_environment(environment)
        .with_max_length(config.model.max_tokens())
        .with_intra_threads(1)
        .with_session_config("session.intra_op.allow_spinning", "0");
    let mut session = TextEmbedding::try_new_from_user_defined(model, options)
        .map_err(|error| unusable(&format!("ONNX Runtime does not load it: {error}")))?;
    let (text, known) = known()?;
    let vectors =
        session.embed([text.as_str()], None).map_err(|error| unusable(&format!("it does not run: {error}")))?;
    let length = vectors.first().map_or(0, Vec::len);
    if matches!(config.model, LocalModel::MiniLm) {
        let found = vectors.first().map(|found| cosine(found, &known)).unwrap_or(0.0);
        if length != known.len() || found < KNOWN_COSINE {
            return Err(unusable(&format!(
                "it gives another vector for a known text (cosine {found:.5}); use all-MiniLM-L6-v2, or name the model in \
                 `embedding.models`"
            )));
        }
    }
    usable(vectors, 1, length)?;
    Ok((session, length))
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

/// The version in the library's file name, else the commit it was built from.
fn runtime_version(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some((_, version)) = name.split_once(".so.") {
        return version.to_owned();
    }
    let commit = ort::info().split("git-commit-id=").nth(1).unwrap_or_default();
    commit.chars().take_while(char::is_ascii_alphanumeric).take(10).collect()
}

fn unusable(why: &str) -> Failure {
    Failure::new(Code::ConfigInvalid, format!("the embedding model cannot be used: {why}"))
}
