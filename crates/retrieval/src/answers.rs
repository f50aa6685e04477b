//! Questions answered with citations that can be checked down to the characters of a document.
//!
//! Promises: every citation is an exact quote of canonical text inside a passage retrieved for this very caller,
//! verified before it is sent; where support is weak the answer says that the documents hold none. Without a provider
//! the sentences are the documents' own. Not here: retrieval ([`crate::search`]), what a conversation remembers.

mod canonical;
mod events;
mod extract;
mod generate;
mod hints;
mod models;
mod quotes;
mod rank;
mod reader;
mod sentences;
mod snapshot;
mod vectors;
pub mod wire;
mod wording;

pub use events::{AnswerEvent, RetrievedPassage};
pub use generate::{ANSWERS, Ask, Generated, Generator};
pub use models::Models;
pub use rank::RankConfig;
pub use wire::{Answer, AnswerRequest, AnswerSentence, Citation, PageBox, Usage};
pub use wording::{clean, is_plain, is_supported, repeats};

use crate::search::{Hit, SearchRequest};
use crate::{Caller, Search};
use canonical::CanonicalTexts;
use docmill_model::{AnswerId, ChunkId, Code, ConversationId, Failure, Sha256Hex, Span};
use docmill_platform::artifacts::Artifacts;
use events::Sink;
use extract::Instead;
use rank::Candidate;
use snapshot::{CitedVersion, StoredCitation};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;
use vectors::SentenceVectors;

/// Constants of answers.
#[derive(Clone, Debug, Default)]
pub struct AnswersConfig {
    /// How sentences are ranked, and when there is no answer.
    pub rank: RankConfig,
}

/// The answering service.
#[derive(Clone)]
pub struct Answers {
    search: Search,
    texts: Arc<CanonicalTexts>,
    vectors: Arc<SentenceVectors>,
    generator: Option<Arc<dyn Generator>>,
    config: Arc<AnswersConfig>,
}

/// The name of the engine that quotes.
const EXTRACTIVE: &str = "extractive";

impl Answers {
    /// Over the search, the artifact store and, where a provider is configured, a generator.
    #[must_use]
    pub fn new(
        search: Search,
        artifacts: Artifacts,
        generator: Option<Arc<dyn Generator>>,
        config: AnswersConfig,
    ) -> Self {
        let (texts, vectors) = (Arc::new(CanonicalTexts::new(artifacts)), Arc::default());
        Self { search, texts, vectors, generator, config: Arc::new(config) }
    }

    /// Answers `request` for `caller` and stores the snapshot.
    ///
    /// # Errors
    /// `QUERY_EMPTY`, `QUERY_LIMIT`, `FIELD_INVALID` for the request; `DATABASE_UNAVAILABLE`, `STORE_UNAVAILABLE`.
    pub async fn answer(&self, caller: &Caller, request: &AnswerRequest) -> Result<Answer, Failure> {
        self.answer_in(caller, request, None, None).await
    }

    /// The same within a conversation, telling `events` how it comes about. The last event is the stored answer; when
    /// there is none, the failure is returned.
    ///
    /// # Errors
    /// As [`Self::answer`]; with events also `PROVIDER_ERROR` and other failures of a model whose first sentences were
    /// sent already.
    pub async fn answer_in(
        &self,
        caller: &Caller,
        request: &AnswerRequest,
        conversation: Option<ConversationId>,
        events: Option<UnboundedSender<AnswerEvent>>,
    ) -> Result<Answer, Failure> {
        request.check()?;
        let sink = events.map(Sink::new);
        let asked = Asked { conversation, sink: sink.as_ref() };
        let filters = request.filters.clone();
        let (space, query) = (request.space.clone(), request.question.as_str());
        let search = SearchRequest { k: request.k, filters, space, ..SearchRequest::new(query) };
        let hits = self.search.search(caller, &search).await?.hits;
        let versions = self.versions(caller, &hits).await?;
        let evidence = Evidence { caller, hits: &hits, versions: &versions };
        if let Some(sink) = asked.sink {
            sink.retrieval(&hits);
        }
        let chosen = self.choose(&request.question, &evidence).await?;
        // What the documents do not support, a model is not asked to word.
        let generator = self.generator.as_ref().filter(|generator| !chosen.is_empty() && generator.serves(ANSWERS));
        let answer = match generator {
            Some(generator) => self.worded(generator, request, &asked, &evidence, chosen).await?,
            None => self.extracted(request, &asked, &evidence, chosen, Instead::default()).await?,
        };
        metrics::counter!("docmill_answers_total", "found" => answer.found.to_string()).increment(1);
        snapshot::store(self.search.database(), caller, &request.question, &answer).await?;
        if let Some(sink) = asked.sink {
            sink.answer(&answer);
        }
        Ok(answer)
    }

    /// A model's answer, and where it gives none that holds, the documents' own sentences.
    async fn worded(
        &self,
        generator: &Arc<dyn Generator>,
        request: &AnswerRequest,
        asked: &Asked<'_>,
        evidence: &Evidence<'_>,
        chosen: Vec<Candidate>,
    ) -> Result<Answer, Failure> {
        let mut removed = 0;
        let failure = match self.generated(generator, request, asked, evidence, &mut removed).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => failure,
        };
        // Sentences that were sent cannot be taken back: no other answer may follow them.
        if asked.sink.is_some_and(Sink::has_sent) {
            return Err(failure);
        }
        tracing::warn!(code = %failure.code, removed, "no usable answer of a model; answering from the documents' own sentences");
        metrics::counter!("docmill_answer_fallbacks_total", "code" => failure.code.as_str()).increment(1);
        self.extracted(request, asked, evidence, chosen, Instead { failure: Some(failure), removed }).await
    }

    /// What words prompts are put to, where a provider is configured.
    #[must_use]
    pub fn generator(&self) -> Option<&Arc<dyn Generator>> {
        self.generator.as_ref()
    }

    /// A stored answer as it reads today: quotes come from canonical text, and citations of documents that were
    /// deleted or are not for this caller are withdrawn.
    ///
    /// # Errors
    /// `NOT_FOUND` for an unknown id, also of another tenant.
    pub async fn get(&self, caller: &Caller, id: AnswerId) -> Result<Answer, Failure> {
        let (engine, snapshot, versions) = snapshot::load(self.search.database(), caller, id).await?;
        let mut sentences = Vec::with_capacity(snapshot.sentences.len());
        for stored in &snapshot.sentences {
            let mut citations = Vec::with_capacity(stored.len());
            for citation in stored {
                citations.push(self.render(caller, citation, versions.get(&citation.version_id)).await?);
            }
            let quotes: Vec<&str> = citations.iter().filter_map(|citation| citation.quote.as_deref()).collect();
            let text = (engine == EXTRACTIVE && !quotes.is_empty()).then(|| wording::plain(&quotes.join(" ")));
            sentences.push(AnswerSentence { text, citations });
        }
        let note = (engine != EXTRACTIVE && snapshot.found)
            .then(|| "The wording of generated answers is not kept; these are the quotes it rested on.".to_owned());
        Ok(Answer { id, engine, found: snapshot.found, sentences, removed: snapshot.removed, usage: None, note })
    }

    async fn render(
        &self,
        caller: &Caller,
        stored: &StoredCitation,
        version: Option<&CitedVersion>,
    ) -> Result<Citation, Failure> {
        let Some(version) = version else { return Ok(stored.withdrawn()) };
        let Some(text) = stored.parsed_sha256.as_ref().or(version.parsed_sha256.as_ref()) else {
            return Ok(stored.withdrawn());
        };
        let readable = match self.texts.read(caller.tenant_id, text).await {
            Ok(readable) => readable,
            Err(failure) if failure.code == Code::ObjectMissing => return Ok(stored.withdrawn()),
            Err(failure) => return Err(failure),
        };
        let is_same = |quote: &&str| Sha256Hex::of(quote.as_bytes()) == stored.quote_sha256;
        let Some(quote) = readable.quote(stored.span).filter(is_same) else { return Ok(stored.withdrawn()) };
        Ok(Citation {
            document: Some(version.document.clone()),
            sha256: Some(version.sha256.clone()),
            page: readable.page(stored.span),
            boxes: readable.boxes(stored.span),
            quote: Some(quote.to_owned()),
            withdrawn: false,
            ..stored.withdrawn()
        })
    }

    async fn versions(&self, caller: &Caller, hits: &[Hit]) -> Result<HashMap<ChunkId, CitedVersion>, Failure> {
        let ids: Vec<uuid::Uuid> = hits.iter().map(|hit| hit.chunk_id.0).collect();
        let labels = caller.labels.clone();
        let read = self.search.database().read(caller.tenant_id, move |connection| {
            Box::pin(async move { snapshot::cited_chunks(connection, &labels, &ids).await })
        });
        Ok(read.await?)
    }

    /// A verified citation of `words` inside `hit`; `None` when they do not stand there for a reader to see.
    async fn cite(
        &self,
        evidence: &Evidence<'_>,
        hit: &Hit,
        guess: u32,
        words: &str,
    ) -> Result<Option<Citation>, Failure> {
        let Some((version, text)) = evidence.text_of(hit) else { return Ok(None) };
        let readable = self.texts.read(evidence.caller.tenant_id, text).await?;
        let Some(span) = readable.locate(Span::new(hit.char_start, hit.char_end), guess, words) else {
            return Ok(None);
        };
        Ok(Some(Citation {
            document_id: hit.document_id,
            version_id: hit.version_id,
            chunk_id: hit.chunk_id,
            document: Some(hit.document.clone()),
            sha256: Some(version.sha256.clone()),
            page: readable.page(span).or(hit.page_start),
            boxes: readable.boxes(span),
            char_start: span.start,
            char_end: span.end,
            quote: readable.quote(span).map(str::to_owned),
            withdrawn: false,
            parsed_sha256: Some(text.clone()),
        }))
    }
}

/// How an answer is asked for.
struct Asked<'a> {
    conversation: Option<ConversationId>,
    sink: Option<&'a Sink>,
}

/// What an answer may rest on.
struct Evidence<'e> {
    caller: &'e Caller,
    hits: &'e [Hit],
    versions: &'e HashMap<ChunkId, CitedVersion>,
}

impl Evidence<'_> {
    /// The version of a passage and the text it was cut from.
    fn text_of(&self, hit: &Hit) -> Option<(&CitedVersion, &Sha256Hex)> {
        let version = self.versions.get(&hit.chunk_id)?;
        Some((version, version.parsed_sha256.as_ref()?))
    }
}
