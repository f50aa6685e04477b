//! The JSON a model answers with, whole or while it is still being written. Pure.

use docmill_model::{Code, Failure};
use serde_json::{Value, json};

#[derive(Debug, serde::Deserialize)]
pub(crate) struct Told {
    pub found: bool,
    #[serde(default)]
    pub sentences: Vec<ToldSentence>,
}

#[derive(Debug, serde::Deserialize)]
pub(crate) struct ToldSentence {
    pub text: String,
    #[serde(default)]
    pub citations: Vec<ToldCitation>,
}

#[derive(Debug, serde::Deserialize)]
pub(crate) struct ToldCitation {
    pub passage: usize,
    pub quote: String,
}

/// What an answer has to fit.
pub(crate) fn schema() -> Value {
    let citation = json!({"type": "object", "required": ["passage", "quote"], "additionalProperties": false,
        "properties": {"passage": {"type": "integer", "minimum": 1}, "quote": {"type": "string"}}});
    let sentence = json!({"type": "object", "required": ["text", "citations"], "additionalProperties": false,
        "properties": {"text": {"type": "string"}, "citations": {"type": "array", "items": citation}}});
    json!({"type": "object", "required": ["found", "sentences"], "additionalProperties": false,
        "properties": {"found": {"type": "boolean"}, "sentences": {"type": "array", "items": sentence}}})
}

/// The JSON object in the model's text, with or without a fence around it.
pub(crate) fn read(text: &str) -> Result<Told, Failure> {
    let invalid = || Failure::new(Code::ProviderOutputInvalid, "the model's answer is not the JSON asked for");
    let (start, end) = (text.find('{').ok_or_else(invalid)?, text.rfind('}').ok_or_else(invalid)?);
    serde_json::from_str(text.get(start..=end).ok_or_else(invalid)?).map_err(|_| invalid())
}

/// Gives the sentences of an answer one by one, each as soon as it is written. An answer that does not say `found` before
/// its first sentence gives none early.
#[derive(Default)]
pub(crate) struct SentenceReader {
    text: String,
    /// Byte after the last sentence that was given.
    at: usize,
    is_inside: bool,
}

impl SentenceReader {
    /// Takes the next piece of text and gives what it completes.
    pub fn push(&mut self, piece: &str) -> Vec<ToldSentence> {
        self.text.push_str(piece);
        if !self.is_inside && !self.enter() {
            return Vec::new();
        }
        let mut given = Vec::new();
        while let Some((sentence, end)) = self.next_object() {
            self.at = end;
            let Some(sentence) = sentence else { break };
            given.push(sentence);
        }
        given
    }

    /// Finds the list of sentences, behind `"found": true`.
    fn enter(&mut self) -> bool {
        let Some(key) = self.text.find("\"sentences\"") else { return false };
        let before: String = self.text[..key].split_whitespace().collect();
        let Some(open) = self.text[key..].find('[') else { return false };
        self.is_inside = before.contains("\"found\":true");
        self.at = if self.is_inside { key + open + 1 } else { self.text.len() };
        self.is_inside
    }

    /// The next whole object and the byte after it; no sentence when it is not one.
    fn next_object(&self) -> Option<(Option<ToldSentence>, usize)> {
        let rest = &self.text[self.at..];
        let skipped = rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',').len();
        if !rest[skipped..].starts_with('{') {
            return None;
        }
        let (mut depth, mut in_string, mut escaped) = (0u32, false, false);
        for (offset, byte) in rest.bytes().enumerate().skip(skipped) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'{' if !in_string => depth += 1,
                b'}' if !in_string => depth -= 1,
                _ => {}
            }
            if depth == 0 && !in_string {
                let object = serde_json::from_str(&rest[skipped..=offset]).ok();
                return Some((object, self.at + offset + 1));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WHOLE: &str = r#"{"found": true, "sentences": [{"text": "a } \" ]", "citations": [{"passage": 1, "quote": "b"}]}, {"text": "c", "citations": []}]}"#;

    #[test]
    fn the_json_is_read_with_and_without_a_fence() {
        assert_eq!(read(WHOLE).unwrap().sentences.len(), 2);
        assert!(read(&format!("```json\n{WHOLE}\n```")).unwrap().found);
        assert_eq!(read("I cannot").err().unwrap().code, Code::ProviderOutputInvalid);
        assert_eq!(read("} {").err().unwrap().code, Code::ProviderOutputInvalid);
    }

    #[test]
    fn sentences_come_as_soon_as_they_are_whole() {
        let mut reader = SentenceReader::default();
        let mut seen = Vec::new();
        for (at, c) in WHOLE.char_indices() {
            seen.extend(reader.push(&c.to_string()).into_iter().map(|sentence| (at, sentence.text)));
        }
        let texts: Vec<&str> = seen.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["a } \" ]", "c"]);
        assert!(seen[0].0 < WHOLE.find(r#"{"text": "c""#).unwrap(), "the first came before the second was begun");
        let mut at_once = SentenceReader::default();
        assert_eq!(at_once.push(WHOLE).len(), 2);
    }

    #[test]
    fn nothing_comes_early_unless_found_was_said() {
        for text in [&WHOLE.replace("true", "false"), r#"{"sentences": [{"text": "a"}], "found": true}"#, "no JSON"] {
            assert!(SentenceReader::default().push(text).is_empty(), "{text}");
        }
    }
}
