//! The tools: their names and arguments, the request each one is, and how its answer reads.

use axum::http::Method;
use docmill_model::{Code, Failure, Span};
use docmill_retrieval::answers::clean;
use rmcp::model::{JsonObject, Tool as Description, ToolAnnotations};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A request to the API.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolRequest {
    /// `GET` or `POST`.
    pub method: Method,
    /// Path with query.
    pub path: String,
    /// JSON body of a `POST`.
    pub body: Option<Value>,
}

/// One tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Search,
    Answer,
    GetDocument,
    GetPage,
    ListCollections,
}

const ALL: [Tool; 5] = [Tool::Search, Tool::Answer, Tool::GetDocument, Tool::GetPage, Tool::ListCollections];

/// Arguments of `search` that go into the request as they are; the first has to be there.
const SEARCH_ARGUMENTS: [&str; 7] = ["query", "k", "diversity", "copies", "expand", "freshness", "rerank"];

/// What clients are told.
pub(super) fn all() -> Vec<Description> {
    let one = |tool: &Tool| {
        let annotations = ToolAnnotations::new().read_only(true).open_world(false);
        Description::new(tool.name(), tool.about(), Arc::new(tool.arguments())).with_annotations(annotations)
    };
    ALL.iter().map(one).collect()
}

impl Tool {
    pub(super) fn parse(name: &str) -> Option<Self> {
        ALL.into_iter().find(|tool| tool.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Tool::Search => "search",
            Tool::Answer => "answer",
            Tool::GetDocument => "get_document",
            Tool::GetPage => "get_page",
            Tool::ListCollections => "list_collections",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Tool::Search => {
                "Find passages of documents by words and by meaning. Gives passages with document, page and score."
            }
            Tool::Answer => {
                "Answer a question from the documents. Every sentence comes with citations (document, page, exact quote) that were \
                 verified; when the documents hold no answer, it says so."
            }
            Tool::GetDocument => "What is known of a document: name, state, collection, metadata, versions.",
            Tool::GetPage => "The text of one page of a document; without `page`, its text from the beginning.",
            Tool::ListCollections => "The collections of documents, with counts.",
        }
    }

    /// JSON Schema of the arguments.
    fn arguments(self) -> JsonObject {
        let id = text("Id of the document, as search and answer give it");
        let collection = text("Only this collection");
        let (properties, required) = match self {
            Tool::Search => (search_properties(), json!(["query"])),
            Tool::Answer => (
                json!({"question": text("The question, in any language"), "max_sentences": count(10, "3 when absent"), "collection": collection}),
                json!(["question"]),
            ),
            Tool::GetDocument => (json!({"document_id": id}), json!(["document_id"])),
            Tool::GetPage => (
                json!({"document_id": id, "page": {"type": "integer", "minimum": 1, "description": "Page from 1"}}),
                json!(["document_id"]),
            ),
            Tool::ListCollections => (json!({}), json!([])),
        };
        let schema =
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        schema.as_object().cloned().unwrap_or_default()
    }

    /// The request this call is.
    pub(super) fn request(self, arguments: JsonObject) -> Result<ToolRequest, Failure> {
        let known = self.arguments();
        let unknown = arguments.keys().find(|name| known["properties"].get(name.as_str()).is_none());
        if let Some(unknown) = unknown {
            return Err(Failure::new(Code::FieldInvalid, format!("`{unknown}`: {} has no such argument", self.name())));
        }
        let filters = arguments.get("collection").map(|name| json!({"collection": name})).unwrap_or(json!({}));
        match self {
            Tool::Search => Ok(post("/v1/search", self.body(&arguments, &SEARCH_ARGUMENTS, filters)?)),
            Tool::Answer => Ok(post("/v1/answers", self.body(&arguments, &["question", "max_sentences"], filters)?)),
            Tool::GetDocument => Ok(get(format!("/v1/documents/{}", document(&arguments)?))),
            Tool::GetPage => {
                let page = match arguments.get("page") {
                    None => String::new(),
                    Some(page) => {
                        let invalid = || Failure::new(Code::FieldInvalid, "`page`: a number from 1 is expected");
                        format!("?page={}", page.as_u64().filter(|page| *page > 0).ok_or_else(invalid)?)
                    }
                };
                Ok(get(format!("/v1/documents/{}/text{page}", document(&arguments)?)))
            }
            Tool::ListCollections => Ok(get("/v1/collections".to_owned())),
        }
    }

    fn body(self, arguments: &JsonObject, names: &[&str], filters: Value) -> Result<Value, Failure> {
        let missing = || Failure::new(Code::FieldInvalid, format!("`{}`: {} needs it", names[0], self.name()));
        arguments.get(names[0]).ok_or_else(missing)?;
        let given = names.iter().filter_map(|name| Some(((*name).to_owned(), arguments.get(*name)?.clone())));
        let mut body: Map<String, Value> = given.collect();
        body.insert("filters".to_owned(), filters);
        Ok(Value::Object(body))
    }

    /// The answer as an assistant is handed it: without what a reader of the document would not see. Positions stay those
    /// of the canonical text.
    pub(super) fn shown(self, mut answer: Value) -> Value {
        if self == Tool::GetPage {
            cut_hidden(&mut answer);
        }
        clean_strings(&mut answer);
        answer
    }

    /// The answer as text for assistants that do not read the structured one.
    pub(super) fn text(self, answer: &Value) -> String {
        match self {
            Tool::Answer => serde_json::from_value(answer.clone())
                .map_or_else(|_| answer.to_string(), |answer| crate::openai::content(&answer)),
            Tool::GetPage => answer["text"].as_str().unwrap_or_default().to_owned(),
            _ => serde_json::to_string_pretty(answer).unwrap_or_default(),
        }
    }
}

fn text(about: &str) -> Value {
    json!({"type": "string", "minLength": 1, "description": about})
}

fn count(most: u32, about: &str) -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": most, "description": about})
}

/// The arguments of `search`, with the bounds the API has for them.
fn search_properties() -> Value {
    let number = |least: &str, least_value: u32, most: f64, about: &str| json!({"type": "number", least: least_value, "maximum": most, "description": about});
    let parent = json!({"type": "integer", "minimum": 50, "maximum": 4000, "description": "Tokens of the section"});
    let half_life = number("exclusiveMinimum", 0, 36_500.0, "Days after which half of `weight` is lost");
    let weight = number("exclusiveMinimum", 0, 0.5, "Share of the score that age can take; 0.2 when absent");
    let field = text("Metadata field with the date of a document; the time of its upload when absent");
    json!({
        "query": text("What to look for"),
        "k": count(50, "Passages wanted; 10 when absent"),
        "collection": text("Only this collection"),
        "diversity": number("minimum", 0, 1.0, "How much passages should differ from each other; 0 when absent"),
        "copies": {"type": "boolean", "description": "True to learn where else the same text stands"},
        "expand": {
            "type": "object",
            "description": "What to give around each passage: passages before and after, or the section up to so many tokens",
            "properties": {"neighbours": count(3, "Passages on each side"), "parent": parent},
            "minProperties": 1, "maxProperties": 1, "additionalProperties": false
        },
        "freshness": {
            "type": "object",
            "description": "Prefer newer documents; age counts for nothing when absent",
            "properties": {"half_life_days": half_life, "weight": weight, "field": field},
            "required": ["half_life_days"], "additionalProperties": false
        },
        "rerank": {"type": "boolean", "description": "True to have the best passages read again, together with the query: slower, often in a better order"}
    })
}

/// Takes the hidden spans out of the text of a document; without knowing them, all of it.
fn cut_hidden(answer: &mut Value) {
    let Ok(hidden) = serde_json::from_value::<Vec<Span>>(answer["hidden"].take()) else {
        answer["text"] = "".into();
        return;
    };
    let start = answer["char_start"].as_u64().and_then(|start| u32::try_from(start).ok()).unwrap_or(0);
    let is_hidden = |at: u32| {
        let next = hidden.get(hidden.partition_point(|span| span.end <= at));
        next.is_some_and(|span| span.start <= at)
    };
    let text = answer["text"].as_str().unwrap_or_default();
    let seen: String = text.chars().zip(start..).filter(|(_, at)| !is_hidden(*at)).map(|(c, _)| c).collect();
    answer["text"] = seen.into();
    answer["hidden"] = json!([]);
}

/// Cleans every text in `value`.
fn clean_strings(value: &mut Value) {
    match value {
        Value::String(text) => *text = clean(text),
        Value::Array(items) => items.iter_mut().for_each(clean_strings),
        Value::Object(members) => members.values_mut().for_each(clean_strings),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The document's id in a path: nothing but an id gets there.
fn document(arguments: &JsonObject) -> Result<uuid::Uuid, Failure> {
    let id = arguments.get("document_id").and_then(Value::as_str);
    let id = id.ok_or_else(|| Failure::new(Code::FieldInvalid, "`document_id`: the id of a document is expected"))?;
    id.parse().map_err(|_| Failure::new(Code::NotFound, "nothing with this identifier"))
}

fn get(path: String) -> ToolRequest {
    ToolRequest { method: Method::GET, path, body: None }
}

fn post(path: &str, body: Value) -> ToolRequest {
    ToolRequest { method: Method::POST, path: path.to_owned(), body: Some(body) }
}

/// What a problem body says.
pub(super) fn failure(problem: &Value) -> Failure {
    let code = problem["code"].as_str().and_then(Code::parse).unwrap_or(Code::Internal);
    Failure {
        code,
        message: problem["message"].as_str().unwrap_or("unexpected failure").to_owned(),
        limit: problem["limit"].as_u64(),
        measured: problem["measured"].as_u64(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn call(name: &str, arguments: Value) -> Result<ToolRequest, Failure> {
        Tool::parse(name).unwrap().request(arguments.as_object().unwrap().clone())
    }

    #[test]
    fn each_tool_is_one_request_that_reads() {
        let id = uuid::Uuid::now_v7();
        let search = call("search", json!({"query": "rent", "k": 3, "collection": "leases"})).unwrap();
        assert_eq!((search.method, search.path.as_str()), (Method::POST, "/v1/search"));
        assert_eq!(search.body.unwrap(), json!({"query": "rent", "k": 3, "filters": {"collection": "leases"}}));
        let spread = json!({"query": "rent", "diversity": 0.5, "copies": true, "expand": {"parent": 800}});
        let body = call("search", spread).unwrap().body.unwrap();
        assert_eq!(
            (&body["diversity"], &body["copies"], &body["expand"]),
            (&json!(0.5), &json!(true), &json!({"parent": 800}))
        );
        let fresh = json!({"query": "rent", "freshness": {"half_life_days": 30}, "rerank": true});
        let body = call("search", fresh).unwrap().body.unwrap();
        assert_eq!((&body["freshness"], &body["rerank"]), (&json!({"half_life_days": 30}), &json!(true)));
        let page = call("get_page", json!({"document_id": id, "page": 2})).unwrap();
        assert_eq!((page.method, page.path), (Method::GET, format!("/v1/documents/{id}/text?page=2")));
        assert_eq!(call("list_collections", json!({})).unwrap().path, "/v1/collections");
        assert_eq!(all().len(), 5);
    }

    #[test]
    fn what_readers_do_not_see_is_not_handed_on() {
        let page = json!({"text": "See obey\u{e0041} this.", "char_start": 10, "hidden": [{"start": 14, "end": 19}], "title": "A\u{200b}B"});
        let shown = Tool::GetPage.shown(page);
        assert_eq!(
            (&shown["text"], &shown["title"], &shown["hidden"]),
            (&json!("See  this."), &json!("AB"), &json!([]))
        );
        assert_eq!(Tool::GetPage.shown(json!({"text": "See"}))["text"], "", "what is hidden has to be known");
        let hits = Tool::Search.shown(json!({"hits": [{"text": "a\u{e0041}b", "score": 1.5}]}));
        assert_eq!(hits, json!({"hits": [{"text": "ab", "score": 1.5}]}));
    }

    #[test]
    fn arguments_that_do_not_fit_never_reach_a_path() {
        for (name, arguments, code) in [
            ("get_document", json!({"document_id": "../keys"}), Code::NotFound),
            ("get_document", json!({}), Code::FieldInvalid),
            ("get_page", json!({"document_id": uuid::Uuid::nil(), "page": "1&x=2"}), Code::FieldInvalid),
            ("search", json!({"k": 3}), Code::FieldInvalid),
            ("search", json!({"query": "a", "stream": true}), Code::FieldInvalid),
            ("search", json!({"query": "a", "labels": ["board"]}), Code::FieldInvalid),
        ] {
            assert_eq!(call(name, arguments).unwrap_err().code, code, "{name}");
        }
    }
}
