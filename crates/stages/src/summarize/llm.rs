//! A summary in a model's words, each sentence resting on numbered sentences of the document: what names none, or holds a
//! figure, link or code that those do not, is left out.

use super::Candidate;
use crate::models::{StageModels, marker};
use docmill_model::results::{Place, Summary, SummarySentence};
use docmill_model::{Code, Failure};
use docmill_retrieval::answers::{clean, is_plain, is_supported};
use docmill_runtime::JobContext;
use serde_json::{Value, json};

/// The use of models for this stage, and the name of its prompt.
pub(super) const USE: &str = "summarize";
/// Characters of sentences a model reads.
const MAX_CHARS: usize = 40_000;

/// Summarises by a model.
pub(super) async fn summarize(
    models: &StageModels,
    job: &JobContext,
    candidates: &[Candidate],
    most: u32,
) -> Result<Summary, Failure> {
    let mut numbered = String::new();
    for (at, candidate) in candidates.iter().enumerate() {
        let line = format!("{}. {}\n", at + 1, clean(&candidate.text));
        if numbered.len() + line.len() > MAX_CHARS {
            break;
        }
        numbered.push_str(&line);
    }
    let (marker, limit) = (marker(&numbered), most.to_string());
    let values = [("marker", marker.as_str()), ("sentences", &numbered), ("max_sentences", &limit)];
    let (done, told) = models.ask(job, USE, &values, &schema()).await?;
    let sentences = borne_out(&told, candidates, most as usize);
    if sentences.is_empty() {
        return Err(Failure::new(Code::ProviderOutputInvalid, "no sentence of the model's summary could be verified"));
    }
    Ok(Summary { engine: done.model, sentences })
}

fn schema() -> Value {
    let sentence = json!({"type": "object", "required": ["text", "cites"], "properties": {
        "text": {"type": "string"}, "cites": {"type": "array", "items": {"type": "integer"}}}});
    json!({"type": "object", "required": ["sentences"], "properties": {"sentences": {"type": "array", "items": sentence}}})
}

fn borne_out(told: &Value, candidates: &[Candidate], most: usize) -> Vec<SummarySentence> {
    let verified = |sentence: &Value| {
        let text = clean(sentence["text"].as_str()?).trim().to_owned();
        let numbers = sentence["cites"].as_array()?.iter().filter_map(Value::as_u64);
        let cited: Vec<&Candidate> =
            numbers.filter_map(|number| candidates.get(usize::try_from(number).ok()?.checked_sub(1)?)).collect();
        let sources: Vec<&str> = cited.iter().map(|candidate| candidate.text.as_str()).collect();
        let is_borne_out =
            !cited.is_empty() && !text.is_empty() && is_plain(&text, &sources) && is_supported(&text, &sources);
        let place = |candidate: &&Candidate| Place { span: candidate.span, page: candidate.page };
        is_borne_out.then(|| SummarySentence { text, citations: cited.iter().map(place).collect() })
    };
    told["sentences"].as_array().into_iter().flatten().filter_map(verified).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use docmill_model::Span;

    #[test]
    fn only_sentences_the_document_bears_out_are_kept() {
        let candidate = |text: &str, start: u32| Candidate {
            text: text.to_owned(),
            span: Span::new(start, start + 10),
            page: Some(1),
            position: 0.0,
            opens_paragraph: true,
        };
        let candidates = [candidate("The rent is 4,250 euros a month.", 0), candidate("Notice is six months.", 40)];
        let told = json!({"sentences": [
            {"text": "Monthly rent is 4,250 euros, with six months' notice.", "cites": [1, 2]},
            {"text": "Rent is 9,999 euros.", "cites": [1]},
            {"text": "Nobody says this.", "cites": []},
            {"text": "Nor this.", "cites": [7, 0]},
            {"text": "See https://evil.example.", "cites": [1]},
            {"text": "Notice is needed.", "cites": [2]},
        ]});
        let kept = borne_out(&told, &candidates, 5);
        let texts: Vec<&str> = kept.iter().map(|sentence| sentence.text.as_str()).collect();
        assert_eq!(texts, ["Monthly rent is 4,250 euros, with six months' notice.", "Notice is needed."]);
        assert_eq!(kept[0].citations.len(), 2);
        assert_eq!(borne_out(&told, &candidates, 1).len(), 1);
    }
}
