//! An answer while it comes about: what was retrieved, then sentence by sentence, then the whole.
//!
//! Only verified sentences are sent, so nothing has to be taken back. Whoever does not see the final event has no answer.

use super::wire::{Answer, AnswerSentence, Citation};
use crate::search::Hit;
use docmill_model::{ChunkId, DocumentId};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::UnboundedSender;

/// One event.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum AnswerEvent {
    /// The passages the answer may rest on.
    Retrieval {
        /// Best first.
        passages: Vec<RetrievedPassage>,
    },
    /// The next words of a sentence.
    Token {
        /// Which sentence, from 0.
        sentence: usize,
        /// The words, with the space behind them.
        text: String,
    },
    /// A sentence is complete: the places that hold it.
    Citations {
        /// Which sentence, from 0.
        sentence: usize,
        /// Verified.
        citations: Vec<Citation>,
    },
    /// The whole answer, stored. The last event.
    Answer(Box<Answer>),
}

impl AnswerEvent {
    /// The name of the event on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            AnswerEvent::Retrieval { .. } => "retrieval",
            AnswerEvent::Token { .. } => "token",
            AnswerEvent::Citations { .. } => "citations",
            AnswerEvent::Answer(_) => "answer",
        }
    }
}

/// A passage by its identity.
#[derive(Clone, Debug, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct RetrievedPassage {
    /// The document.
    pub document_id: DocumentId,
    /// Its file name.
    pub document: String,
    /// The passage.
    pub chunk_id: ChunkId,
    /// First page from 1, for paged formats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
}

/// Where events go. A reader that went away is ignored: the answer is stored all the same.
pub(crate) struct Sink {
    sender: UnboundedSender<AnswerEvent>,
    has_sent: AtomicBool,
}

impl Sink {
    pub fn new(sender: UnboundedSender<AnswerEvent>) -> Self {
        Self { sender, has_sent: AtomicBool::new(false) }
    }

    /// True when a sentence was sent: from then on another answer would contradict it.
    pub fn has_sent(&self) -> bool {
        self.has_sent.load(Ordering::Relaxed)
    }

    pub fn retrieval(&self, hits: &[Hit]) {
        let passage = |hit: &Hit| RetrievedPassage {
            document_id: hit.document_id,
            document: hit.document.clone(),
            chunk_id: hit.chunk_id,
            page: hit.page_start,
        };
        self.send(AnswerEvent::Retrieval { passages: hits.iter().map(passage).collect() });
    }

    pub fn sentence(&self, number: usize, sentence: &AnswerSentence) {
        self.has_sent.store(true, Ordering::Relaxed);
        for words in sentence.text.as_deref().unwrap_or_default().split_inclusive(' ') {
            self.send(AnswerEvent::Token { sentence: number, text: words.to_owned() });
        }
        self.send(AnswerEvent::Citations { sentence: number, citations: sentence.citations.clone() });
    }

    pub fn answer(&self, answer: &Answer) {
        self.send(AnswerEvent::Answer(Box::new(answer.clone())));
    }

    fn send(&self, event: AnswerEvent) {
        let _ = self.sender.send(event);
    }
}
