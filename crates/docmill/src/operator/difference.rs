//! What a sample made of its documents, beside what they show.

use crate::client::api::{Api, encode};
use crate::exit::Ending;
use crate::output::{self, field, plain};
use serde_json::{Value, json};

/// Asks for the difference.
pub(super) async fn of(api: &Api, id: &str, questions: &[String]) -> Result<Value, Ending> {
    let body = if questions.is_empty() { json!({}) } else { json!({ "questions": questions }) };
    api.post(&format!("/v1/operate/replays/{}/difference", encode(id)), &body).await
}

/// For people: what differs, document by document and question by question.
pub(super) fn describe(found: &Value) {
    let total = |name: &str| field(found, &format!("/totals/{name}"));
    output::line(format!(
        "{} documents: {} the same; another text {}, chunks {}, fields {}, summary {}; failed {}, not ready {}, nothing to compare {}, processed \
         otherwise since {}\n",
        total("documents"),
        total("same"),
        total("text"),
        total("chunks"),
        total("fields"),
        total("summary"),
        total("failed"),
        total("open"),
        total("unmade"),
        total("superseded")
    ));
    for document in list(&found["documents"]) {
        one(document);
    }
    for answer in list(&found["answers"]) {
        let (before, after) = (list(&answer["before"]).count(), list(&answer["after"]).count());
        output::line(format!("? {}", plain(&field(answer, "/question"))));
        output::line(format!("  {} of {before} passages stay among the best {after}", answer["kept"]));
        for (sign, side, other) in [("-", "before", "after"), ("+", "after", "before")] {
            let is_known = |passage: &Value| list(&answer[other]).any(|known| known == passage);
            for passage in list(&answer[side]).filter(|passage| !is_known(passage)) {
                output::line(format!("  {sign} {}: {}", named(passage), short(&field(passage, "/text"))));
            }
        }
    }
}

fn one(document: &Value) {
    let mut parts = Vec::new();
    if let Some(text) = document["text"].as_object().filter(|text| text["is_same"] == false) {
        let percent = text["similarity"].as_f64().unwrap_or_default() * 100.0;
        parts.push(format!("text {percent:.1} % alike, {} → {} characters", text["before_chars"], text["after_chars"]));
    }
    let chunks = &document["chunks"];
    if !chunks.is_null() && (chunks["kept"] != chunks["before"] || chunks["kept"] != chunks["after"]) {
        parts.push(format!("chunks {} → {}, {} kept", chunks["before"], chunks["after"], chunks["kept"]));
    }
    let fields: Vec<String> = list(&document["fields"]).map(|changed| field(changed, "/field")).collect();
    if !fields.is_empty() {
        parts.push(format!("fields {}", fields.join(", ")));
    }
    if document["summary"]["is_same"] == false {
        parts.push("another summary".to_owned());
    }
    if let Some(code) = document["code"].as_str() {
        parts.push(format!("{} ({code}: deploy/codes/{code}.md)", field(document, "/state")));
    } else if document["state"] == "running" {
        parts.push("not ready".to_owned());
    }
    if parts.is_empty() {
        return;
    }
    output::line(format!("{}: {}", named(document), parts.join("; ")));
    for change in list(&document["text"]["changes"]) {
        told(&field(change, "/before"), &field(change, "/after"));
    }
    for changed in list(&document["fields"]) {
        let value = |side: &str| if changed[side].is_null() { String::new() } else { changed[side].to_string() };
        output::line(format!("  {}:", field(changed, "/field")));
        told(&value("before"), &value("after"));
    }
    output::line("");
}

fn told(before: &str, after: &str) {
    for (sign, text) in [("-", before), ("+", after)] {
        if !text.is_empty() {
            output::line(format!("  {sign} {}", short(text)));
        }
    }
}

fn named(item: &Value) -> String {
    plain(&field(item, "/document"))
}

/// One line of a text.
fn short(text: &str) -> String {
    let line: String = plain(&text.replace('\n', " ⏎ ")).chars().take(160).collect();
    line
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
