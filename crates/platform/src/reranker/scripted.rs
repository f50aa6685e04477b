//! A stand-in for a reranking model that does what a test says: prefers a word, takes its time, fails.

use super::{Passage, RerankError, Reranker, usable};
use docmill_model::TenantId;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Scores 1 for passages with the preferred word, less for the others, in a stated time.
#[derive(Debug)]
pub struct ScriptedReranker {
    preferred: String,
    takes: Duration,
    fails: bool,
    running: AtomicUsize,
    most: AtomicUsize,
    read: AtomicUsize,
}

impl ScriptedReranker {
    /// That prefers passages which hold `word`.
    #[must_use]
    pub fn preferring(word: &str) -> Self {
        let (running, most, read) = Default::default();
        Self { preferred: word.to_owned(), takes: Duration::ZERO, fails: false, running, most, read }
    }

    /// The same, in this time for each call.
    #[must_use]
    pub fn taking(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }

    /// The same, failing always.
    #[must_use]
    pub fn failing(self) -> Self {
        Self { fails: true, ..self }
    }

    /// Most calls that ran at once.
    pub fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Passages that all calls were given.
    pub fn passages_read(&self) -> usize {
        self.read.load(Ordering::SeqCst)
    }
}

/// Counts a call as running until it ends or is dropped.
struct Running<'r>(&'r AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Reranker for ScriptedReranker {
    async fn rerank(&self, _: TenantId, _question: &str, passages: Vec<Passage>) -> Result<Vec<f64>, RerankError> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        let _running = Running(&self.running);
        self.most.fetch_max(running, Ordering::SeqCst);
        self.read.fetch_add(passages.len(), Ordering::SeqCst);
        tokio::time::sleep(self.takes).await;
        if self.fails {
            return Err(RerankError("the script says so"));
        }
        let score = |passage: &Passage| if passage.text.contains(&self.preferred) { 1.0 } else { 0.25 };
        usable(passages.iter().map(score).collect(), passages.len())
    }
}
