//! A local cross-encoder through `fastembed` and ONNX Runtime, from files on this machine: nothing is downloaded.
//!
//! Any cross-encoder exported to ONNX with one logit a pair will do; the sigmoid of the logit is the score. Each worker is
//! a thread with a session of its own that uses one core. Passages are read in small batches of nearly equal length, which
//! pads little, and a worker stops between two of them when nobody waits any more.

use super::{Passage, RerankError, Reranker, usable};
use crate::onnxruntime::{environment, model_file};
use docmill_model::{Code, Failure, TenantId};
use fastembed::{RerankInitOptionsUserDefined, TextRerank, TokenizerFiles, UserDefinedRerankingModel};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Most tokens of question and passage together.
const WINDOW: usize = 512;
/// Passages that go through the model together.
const BATCH: usize = 4;
/// Where exports keep the graph, from the model's folder.
const GRAPHS: [&str; 2] = ["model.onnx", "onnx/model.onnx"];

/// Where the files are, and how much of the machine to use.
#[derive(Clone, Debug)]
pub struct FastRerankerConfig {
    /// `libonnxruntime.so`. One process loads one; later paths are ignored.
    pub onnxruntime: PathBuf,
    /// Folder with `model.onnx` or `onnx/model.onnx`, `tokenizer.json`, `config.json`, `special_tokens_map.json` and
    /// `tokenizer_config.json`.
    pub model_dir: PathBuf,
    /// Workers, each with one core and the weights once; at least 1.
    pub threads: usize,
}

/// A local cross-encoder.
pub struct FastReranker {
    /// Absent only while it is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    workers: Vec<JoinHandle<()>>,
}

/// What a worker reads.
struct Job {
    question: String,
    passages: Vec<String>,
    reply: oneshot::Sender<Result<Vec<f64>, RerankError>>,
}

impl FastReranker {
    /// Loads library and model, lets it read two passages and starts the workers. Blocks for as long as loading takes.
    ///
    /// # Errors
    /// `PART_MISSING` for a missing file, `CONFIG_INVALID` for an unusable library or model.
    pub fn load(config: &FastRerankerConfig) -> Result<Self, Failure> {
        let (jobs, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let mut workers = Vec::new();
        for number in 0..config.threads.max(1) {
            let (session, waiting) = (session(config)?, Arc::clone(&waiting));
            let thread = std::thread::Builder::new().name(format!("rerank-{number}"));
            let started = thread.spawn(move || work(session, &waiting));
            workers.push(started.map_err(|_| Failure::new(Code::Internal, "no thread for the reranking model"))?);
        }
        Ok(Self { jobs: Some(jobs), workers })
    }
}

impl Drop for FastReranker {
    fn drop(&mut self) {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

#[async_trait::async_trait]
impl Reranker for FastReranker {
    async fn rerank(&self, _tenant: TenantId, question: &str, passages: Vec<Passage>) -> Result<Vec<f64>, RerankError> {
        const ENDED: RerankError = RerankError("the reranking model has ended");
        let (reply, answer) = oneshot::channel();
        let count = passages.len();
        let passages = passages.into_iter().map(Passage::whole).collect();
        let job = Job { question: question.to_owned(), passages, reply };
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or(ENDED)?;
        usable(answer.await.map_err(|_| ENDED)??, count)
    }
}

/// Reads what comes until nobody can send any more.
fn work(mut session: TextRerank, waiting: &Mutex<mpsc::Receiver<Job>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { question, passages, reply }) = next else { return };
        let scores = read(&mut session, &question, &passages, || reply.is_closed());
        let _ = reply.send(scores);
    }
}

/// The scores of `passages`, which are read shortest first.
fn read(
    session: &mut TextRerank,
    question: &str,
    passages: &[String],
    is_given_up: impl Fn() -> bool,
) -> Result<Vec<f64>, RerankError> {
    let mut order: Vec<usize> = (0..passages.len()).collect();
    order.sort_by_key(|&place| passages[place].len());
    let mut scores = vec![f64::NAN; passages.len()];
    for places in order.chunks(BATCH) {
        if is_given_up() {
            return Err(RerankError("nobody waits for the scores any more"));
        }
        let texts: Vec<&str> = places.iter().map(|&place| passages[place].as_str()).collect();
        let ran = catch_unwind(AssertUnwindSafe(|| session.rerank(question, &texts, false, Some(BATCH))));
        let found = match ran {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => return Err(RerankError("the reranking model failed")),
            Err(_) => return Err(RerankError("the reranking model panicked")),
        };
        for result in found {
            if let Some(&place) = places.get(result.index) {
                scores[place] = sigmoid(f64::from(result.score));
            }
        }
    }
    Ok(scores)
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

/// One session that has shown it reads passages.
fn session(config: &FastRerankerConfig) -> Result<TextRerank, Failure> {
    let folder = &config.model_dir;
    let graph = GRAPHS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let graph = graph.ok_or_else(|| {
        Failure::new(Code::PartMissing, format!("{} holds no model.onnx or onnx/model.onnx", folder.display()))
    })?;
    let files = TokenizerFiles {
        tokenizer_file: model_file(folder, "tokenizer.json")?,
        config_file: model_file(folder, "config.json")?,
        special_tokens_map_file: model_file(folder, "special_tokens_map.json")?,
        tokenizer_config_file: model_file(folder, "tokenizer_config.json")?,
    };
    let options = RerankInitOptionsUserDefined::new()
        .with_environment(environment(&config.onnxruntime)?)
        .with_max_length(WINDOW)
        .with_intra_threads(1)
        .with_session_config("session.intra_op.allow_spinning", "0");
    let model = UserDefinedRerankingModel::new(graph, files);
    let mut session = TextRerank::try_new_from_user_defined(model, options)
        .map_err(|error| unusable(&format!("ONNX Runtime does not load it: {error}")))?;
    let passages =
        ["A pump moves water.", "A longer passage, so that one of the two has to be padded."].map(str::to_owned);
    read(&mut session, "What moves water?", &passages, || false)
        .and_then(|scores| usable(scores, passages.len()))
        .map_err(|error| unusable(&error.to_string()))?;
    Ok(session)
}

fn unusable(why: &str) -> Failure {
    Failure::new(Code::ConfigInvalid, format!("the reranking model cannot be used: {why}"))
}
