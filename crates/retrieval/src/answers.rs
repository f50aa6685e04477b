//! Questions answered with citations that can be checked down to the characters of a document.
//!
//! Promises: every citation is an exact quote of canonical text inside a passage retrieved for this very caller,
//! verified before it is sent; where support is weak the answer says that the documents hold none. Without a provider
//! the sentences are the documents' own. Not here: retrieval ([`crate::search`]), what a conversation remembers.

mod canonical;
mod events;
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
pub use wording::{clean, is_plain, is_supported};

use crate::search::{Hit, SearchMode, SearchRequest};
use crate::{Caller, Search};
use canonical::CanonicalTexts;
use docmill_model::{AnswerId, Code, ConversationId, Failure, Span, VersionId};
use docmill_platform::artifacts::Artifacts;
use events::Sink;
use rank::{Candidate, Question};
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
        let search = SearchRequest {
            query: request.question.clone(),
            k: request.k,
            mode: SearchMode::Hybrid,
            filters: request.filters.clone(),
            explain: false,
        };
        let hits = self.search.search(caller, &search).await?.hits;
        let versions = self.versions(caller, &hits).await?;
        let evidence = Evidence { caller, hits: &hits, versions: &versions };
        if let Some(sink) = asked.sink {
            sink.retrieval(&hits);
        }
        let generator = self.generator.as_ref().filter(|generator| !hits.is_empty() && generator.serves(ANSWERS));
        let answer = match generator {
            Some(generator) => match self.generated(generator, request, &asked, &evidence).await {
                Ok(answer) => answer,
                // Sentences that were sent cannot be taken back: no other answer may follow them.
                Err(failure) if asked.sink.is_some_and(Sink::has_sent) => return Err(failure),
                Err(failure) => {
                    tracing::warn!(code = %failure.code, "the model provider failed; answering from the documents' own sentences");
                    metrics::counter!("docmill_answer_fallbacks_total").increment(1);
                    self.extracted(request, &asked, &evidence, Some(excuse(&failure))).await?
                }
            },
            None => self.extracted(request, &asked, &evidence, None).await?,
        };
        metrics::counter!("docmill_answers_total", "found" => answer.found.to_string()).increment(1);
        snapshot::store(self.search.database(), caller, &request.question, &answer).await?;
        if let Some(sink) = asked.sink {
            sink.answer(&answer);
        }
        Ok(answer)
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
        Ok(Answer { id, engine, found: snapshot.found, sentences, removed: 0, usage: None, note })
    }

    async fn render(
        &self,
        caller: &Caller,
        stored: &StoredCitation,
        version: Option<&CitedVersion>,
    ) -> Result<Citation, Failure> {
        let Some(version) = version else { return Ok(stored.withdrawn()) };
        let readable = match self.texts.read(caller.tenant_id, &version.parsed_sha256).await {
            Ok(readable) => readable,
            Err(failure) if failure.code == Code::ObjectMissing => return Ok(stored.withdrawn()),
            Err(failure) => return Err(failure),
        };
        let is_same = |quote: &&str| docmill_model::Sha256Hex::of(quote.as_bytes()) == stored.quote_sha256;
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

    async fn versions(&self, caller: &Caller, hits: &[Hit]) -> Result<HashMap<VersionId, CitedVersion>, Failure> {
        let ids: Vec<uuid::Uuid> = hits.iter().map(|hit| hit.version_id.0).collect();
        let labels = caller.labels.clone();
        let read = self.search.database().read(caller.tenant_id, move |connection| {
            Box::pin(async move { snapshot::cited_versions(connection, &labels, &ids).await })
        });
        Ok(read.await?)
    }

    /// The documents' own sentences.
    async fn extracted(
        &self,
        request: &AnswerRequest,
        asked: &Asked<'_>,
        evidence: &Evidence<'_>,
        why: Option<&str>,
    ) -> Result<Answer, Failure> {
        let chosen = self.choose(&request.question, evidence).await?;
        let mut sentences = Vec::new();
        for candidate in chosen {
            if sentences.len() == request.max_sentences as usize {
                break;
            }
            let (hit, words) = (&evidence.hits[candidate.passage], &candidate.sentence.text);
            let text = wording::plain(words);
            if text.is_empty() {
                continue;
            }
            let guess = hit.char_start + candidate.sentence.start;
            if let Some(citation) = self.cite(evidence, hit, guess, words).await? {
                let sentence = AnswerSentence { text: Some(text), citations: vec![citation] };
                if let Some(sink) = asked.sink {
                    sink.sentence(sentences.len(), &sentence);
                }
                sentences.push(sentence);
            }
        }
        let found = !sentences.is_empty();
        let what =
            if found { "These sentences are quoted from the documents." } else { "This is not in the documents." };
        let note = why.map_or_else(|| what.to_owned(), |why| format!("{why} {what}"));
        Ok(Answer {
            id: AnswerId::fresh(),
            engine: EXTRACTIVE.to_owned(),
            found,
            sentences,
            removed: 0,
            usage: None,
            note: Some(note),
        })
    }

    /// The sentences that answer, best first; empty when none is supported.
    async fn choose(&self, question: &str, evidence: &Evidence<'_>) -> Result<Vec<Candidate>, Failure> {
        let words = self.search.weigh(evidence.caller.tenant_id, question).await;
        let question_read = Question::new(question, words);
        let known = self.search.known_languages();
        let mut candidates = rank::candidates(&self.config.rank, &question_read, evidence.hits, known);
        let sentences: Vec<&str> = candidates.iter().map(|candidate| candidate.sentence.text.as_str()).collect();
        let embedder = self.search.embedder().as_ref();
        // Without the embedding model the words alone decide.
        let cosines = self.vectors.cosines(embedder, evidence.caller.tenant_id, question, &sentences).await.ok();
        rank::rank(&self.config.rank, &mut candidates, cosines);
        Ok(rank::choose(&self.config.rank, &candidates))
    }

    /// A verified citation of `words` inside `hit`; `None` when they do not stand there for a reader to see.
    async fn cite(
        &self,
        evidence: &Evidence<'_>,
        hit: &Hit,
        guess: u32,
        words: &str,
    ) -> Result<Option<Citation>, Failure> {
        let Some(version) = evidence.versions.get(&hit.version_id) else { return Ok(None) };
        let readable = self.texts.read(evidence.caller.tenant_id, &version.parsed_sha256).await?;
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
        }))
    }
}

/// Why a model did not answer, for the reader.
fn excuse(failure: &Failure) -> &'static str {
    match failure.code {
        Code::BudgetExceeded => "The budget for model calls is used up.",
        _ => "The model provider failed.",
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
    versions: &'e HashMap<VersionId, CitedVersion>,
}
