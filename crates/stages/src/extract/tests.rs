//! Whole documents through the schemas that come with Docmill.

use super::{ExtractSchema, extract_document};
use docmill_model::CanonicalText;
use docmill_model::document::{Format, ParsedDocument};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) fn document(text: &str) -> ParsedDocument {
    ParsedDocument {
        schema: ParsedDocument::SCHEMA,
        format: Format::Text,
        engine: "text".to_owned(),
        text: text.to_owned(),
        pages: Vec::new(),
        blocks: Vec::new(),
        words: Vec::new(),
        tables: Vec::new(),
        links: Vec::new(),
        hidden: Vec::new(),
        language: Some("eng".to_owned()),
        metadata: BTreeMap::new(),
        failed_parts: Vec::new(),
    }
}

fn shipped(name: &str) -> ExtractSchema {
    let path = format!("{}/../../pipelines/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("shipped")).expect("JSON");
    ExtractSchema::read(&schema).expect("a usable schema")
}

fn extract(text: &str, schema: &ExtractSchema) -> Value {
    let document = document(text);
    let outcome = extract_document(&document, "test", schema);
    let canonical = CanonicalText::from_canonical(document.text.clone());
    for value in outcome.extraction.fields.values().flatten() {
        assert_eq!(canonical.slice(value.place.span), Some(value.raw.as_str()));
        assert!((0.0..=1.0).contains(&value.confidence));
    }
    outcome.extraction.data
}

#[test]
fn an_english_invoice() {
    let text = "Blue Heron Supplies Ltd.\n42 Harbour Road\nSpringfield, IL 62701\n\nInvoice No: INV-2024-0117\nInvoice date: March 5, 2024\n\
        Due date: April 4, 2024\n\nBill to: Deepwell Divers Inc.\n\nPump seal | 2 | $40.00 | $80.00\nSubtotal: $80.00\nVAT 20%: $16.00\nTotal: $96.00\n";
    let data = extract(text, &shipped("invoices"));
    assert_eq!(data["invoice_number"], "INV-2024-0117");
    assert_eq!((&data["invoice_date"], &data["due_date"]), (&json!("2024-03-05"), &json!("2024-04-04")));
    assert_eq!(data["total"], json!({ "amount": "96.00", "currency": "USD" }));
    assert_eq!(data["net_total"], json!({ "amount": "80.00", "currency": "USD" }));
    assert_eq!(data["tax"], json!({ "amount": "16.00", "currency": "USD" }));
    assert_eq!(data["customer"], "Deepwell Divers Inc.");
    assert_eq!(data["supplier"], "Blue Heron Supplies Ltd.");
    assert_eq!(data["supplier_address"], "42 Harbour Road, Springfield, IL 62701");
}

#[test]
fn a_german_invoice() {
    let text = "Nordlicht Technik GmbH\nRechnung Nr. 2026-0417\nRechnungsdatum: 17.04.2026\nKundennummer: K-88\n\nNettobetrag 1.200,00 €\n\
        zzgl. 19 % MwSt. 228,00 €\nGesamtbetrag 1.428,00 €\nZahlbar bis 01.05.2026\nIBAN DE89 3704 0044 0532 0130 00\n";
    let data = extract(text, &shipped("invoices"));
    assert_eq!(data["invoice_number"], "2026-0417");
    assert_eq!((&data["invoice_date"], &data["due_date"]), (&json!("2026-04-17"), &json!("2026-05-01")));
    assert_eq!(data["total"], json!({ "amount": "1428.00", "currency": "EUR" }));
    assert_eq!(data["tax"], json!({ "amount": "228.00", "currency": "EUR" }));
    assert_eq!(data["iban"], "DE89370400440532013000");
    assert_eq!(data["customer_number"], "K-88");
}

#[test]
fn a_contract() {
    let text = "NON-DISCLOSURE AGREEMENT\n\nThis Agreement is made and entered into as of January 12, 2024 by and between Blue Heron Labs, Inc., a \
        Delaware corporation (\"Discloser\"), and Deepwell Divers LLC (\"Recipient\").\n\nThis Agreement shall continue for a period of two (2) years. \
        It shall be governed by the laws of the State of New York.\n";
    let data = extract(text, &shipped("contracts"));
    assert_eq!(data["effective_date"], "2024-01-12");
    assert_eq!(data["parties"], json!(["Blue Heron Labs, Inc.", "Deepwell Divers LLC"]));
    assert_eq!((&data["term"], &data["jurisdiction"]), (&json!("P2Y"), &json!("New York")));
}

#[test]
fn what_the_schema_refuses_is_dropped_and_counted() {
    let schema = json!({"type": "object", "required": ["due"], "properties": {
        "dates": {"type": "array", "maxItems": 5, "items": {"type": "string", "pattern": "^2024"}, "x-docmill": {"kind": "date"}},
        "due": {"type": "string", "format": "date", "x-docmill": {"kind": "date", "labels": ["due"]}}}});
    let schema = ExtractSchema::read(&schema).expect("usable");
    let outcome = extract_document(&document("2024-01-02, 2023-01-02, 2024-03-04"), "test", &schema);
    assert_eq!(outcome.extraction.data, json!({ "dates": ["2024-01-02", "2024-03-04"] }));
    assert_eq!((outcome.dropped, outcome.missing), (1, 1));
    assert_eq!(outcome.extraction.fields["dates"].len(), 2);
}

#[test]
fn nothing_is_read_from_hidden_text() {
    let mut hidden = document("Pay to a@example.org. Pay to b@example.org.");
    hidden.hidden = vec![docmill_model::Span::new(22, 43)];
    let data = extract_document(&hidden, "general", &shipped("general")).extraction.data;
    assert_eq!(data["emails"], json!(["a@example.org"]));
}

#[test]
fn a_schema_that_cannot_be_used_says_where() {
    let broken = |schema: Value| ExtractSchema::read(&schema).expect_err("refused").message;
    assert!(broken(json!({"type": "object"})).contains("properties"));
    assert!(broken(json!({"properties": {"a": {"x-docmill": {"kind": "colour"}}}})).contains("`a`"));
    assert!(broken(json!({"properties": {"a": {"x-docmill": {"kind": "identifier"}}}})).contains("labels"));
    assert!(broken(json!({"type": 7, "properties": {}})).contains("JSON Schema"));
}
