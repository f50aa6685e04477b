//! Answers as the text of a chat message: Markdown in which nothing of a document or model is markup. Pure.

use docmill_retrieval::Answer;
use docmill_retrieval::answers::Citation;

/// What is said when the documents hold no answer.
pub(super) const NOT_FOUND: &str = "This is not in the documents.";

/// The whole message: sentences with footnote marks, then the footnotes.
pub(crate) fn content(answer: &Answer) -> String {
    if !answer.found {
        return NOT_FOUND.to_owned();
    }
    let mut notes = Footnotes::default();
    let sentences: Vec<String> = answer
        .sentences
        .iter()
        .filter_map(|sentence| {
            Some(format!("{}{}", escaped(sentence.text.as_deref()?), notes.marks(&sentence.citations)))
        })
        .collect();
    format!("{}{}", sentences.join(" "), notes.text())
}

/// Footnotes of a message that is being written.
#[derive(Default)]
pub(super) struct Footnotes(Vec<String>);

impl Footnotes {
    /// Marks for `citations`, which become footnotes.
    pub(super) fn marks(&mut self, citations: &[Citation]) -> String {
        let mut marks = String::new();
        for citation in citations {
            let place = citation.page.map_or_else(String::new, |page| format!(", page {page}"));
            let quote = citation.quote.as_deref().unwrap_or("withdrawn");
            let quote = quote.split_whitespace().collect::<Vec<_>>().join(" ");
            let name = escaped(citation.document.as_deref().unwrap_or("a document"));
            let note = format!("{name}{place}: “{}”", escaped(&quote));
            let number = match self.0.iter().position(|other| *other == note) {
                Some(at) => at + 1,
                None => {
                    self.0.push(note);
                    self.0.len()
                }
            };
            marks.push_str(&format!("[^{number}]"));
        }
        marks
    }

    /// The footnotes, behind a blank line.
    pub(super) fn text(&self) -> String {
        let notes = self.0.iter().enumerate().map(|(at, note)| format!("\n[^{}]: {note}", at + 1));
        let notes: String = notes.collect();
        if notes.is_empty() { notes } else { format!("\n{notes}") }
    }
}

/// `text` so that Markdown, also GitHub's with its bare links, shows it as it is.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split('\n') {
        if !out.is_empty() {
            out.push(' ');
        }
        let words: Vec<String> = line.split(' ').map(word).collect();
        out.push_str(&words.join(" "));
    }
    out
}

fn word(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let lower = word.to_lowercase();
    let breaks = lower.contains("www.") || lower.contains("xmpp:") || lower.contains("mailto:");
    for c in word.chars() {
        let marks = matches!(c, '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '&' | '~' | '|' | '@' | '#')
            || (c == '/' && word.contains("//"))
            || (matches!(c, '.' | ':') && breaks);
        if marks {
            out.push('\\');
        }
        if !docmill_retrieval::answers::clean(c.encode_utf8(&mut [0; 4])).is_empty() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulldown_cmark::{Event, Options, Parser, Tag};

    /// Links, images and HTML that a reader's program would make of it.
    fn active(text: &str) -> Vec<String> {
        let parser = Parser::new_ext(text, Options::all());
        let is_active = |event: &Event<'_>| {
            matches!(event, Event::Html(_) | Event::InlineHtml(_) | Event::Start(Tag::Link { .. } | Tag::Image { .. }))
        };
        parser.filter(is_active).map(|event| format!("{event:?}")).collect()
    }

    #[test]
    fn nothing_in_a_message_is_markup_and_it_reads_as_it_was_said() {
        for hostile in [
            "![x](http://evil.example/?q=1)",
            "[a](//evil.example) and [b][c]\n[c]: http://evil.example",
            "<img src=http://evil.example> <http://evil.example>",
            "see https://evil.example/x or www.evil.example or mail a@evil.example",
            r"\[x\](http://evil.example)",
            "&#104;ttp://evil.example &lt;b&gt;",
        ] {
            let text = escaped(hostile);
            assert!(active(&text).is_empty(), "{hostile} became {text}");
            for bare in ["http://", "https://", "www.evil", "a@evil"] {
                assert!(!text.contains(bare), "{text}");
            }
            let shown: String = Parser::new(&text)
                .filter_map(|event| match event {
                    Event::Text(part) => Some(part.to_string()),
                    Event::SoftBreak => Some(" ".to_owned()),
                    _ => None,
                })
                .collect();
            assert_eq!(shown, hostile.replace('\n', " "));
        }
        assert_eq!(escaped("The fee is 4.5 % (see 3)."), "The fee is 4.5 % (see 3).");
    }
}
