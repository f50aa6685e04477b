//! Answers in the documents' own sentences: without a provider, and where a model gives no answer that holds.

use super::rank::{self, Candidate, Question};
use super::wire::{Answer, AnswerRequest, AnswerSentence};
use super::{Answers, Asked, EXTRACTIVE, Evidence, wording};
use docmill_model::{AnswerId, Code, Failure};

/// What a model was asked for before, in vain.
#[derive(Default)]
pub(super) struct Instead {
    /// Why its answer is not used.
    pub failure: Option<Failure>,
    /// Its sentences that the documents do not bear out.
    pub removed: u32,
}

impl Instead {
    /// The reason for a reader: a provider is said to have failed only when it did.
    fn excuse(&self) -> Option<&'static str> {
        Some(match self.failure.as_ref()?.code {
            Code::BudgetExceeded => "The budget for model calls is used up.",
            Code::PriceUnknown => "The budget for model calls is a hard one, and the model's price is not known.",
            Code::ProviderError => "The model provider failed.",
            Code::ProviderRefused => "The model provider refused to answer.",
            Code::Overloaded => "The model provider has more to do than it may be given.",
            Code::ProviderOutputInvalid if self.removed > 0 => "The documents do not bear out the model's answer.",
            Code::ProviderOutputInvalid | Code::OutputLimit => "The model's answer could not be used.",
            _ => "No model could be asked.",
        })
    }
}

impl Answers {
    /// The documents' own sentences: the `chosen`, as far as they can be cited.
    pub(super) async fn extracted(
        &self,
        request: &AnswerRequest,
        asked: &Asked<'_>,
        evidence: &Evidence<'_>,
        chosen: Vec<Candidate>,
        instead: Instead,
    ) -> Result<Answer, Failure> {
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
        let note = instead.excuse().map_or_else(|| what.to_owned(), |why| format!("{why} {what}"));
        Ok(Answer {
            id: AnswerId::fresh(),
            engine: EXTRACTIVE.to_owned(),
            found,
            sentences,
            removed: instead.removed,
            usage: None,
            note: Some(note),
        })
    }

    /// The sentences that answer, best first; empty when none is supported.
    pub(super) async fn choose(&self, question: &str, evidence: &Evidence<'_>) -> Result<Vec<Candidate>, Failure> {
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
}
