//! What a reader of a file would not see reaches no passage, no embedding model, no prompt and no result: files of every
//! format that can hide text, each through the real stages, with and without a model, whose prompts are kept.

use crate::bench::{Bench, Document, Prepared};
use axum::extract::State;
use axum::routing::post;
use docmill_model::chunk::ChunkList;
use docmill_model::document::ParsedDocument;
use docmill_model::manifest::{Manifest, kind};
use docmill_model::results::{Extraction, Summary};
use docmill_model::{CanonicalText, Span};
use docmill_platform::gateway::{Gateway, GatewayConfig, ModelConfig};
use docmill_stages::registry;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zip::write::SimpleFileOptions;

/// Stands in all hidden text, beside what rules would extract, and nowhere else.
const SECRET: &str = "wraith";
/// Stands in all text that is seen, and nowhere else.
const SEEN: &str = "slipway";

/// A file, and how many pieces of it are hidden.
struct Case {
    name: &'static str,
    media_type: &'static str,
    bytes: Vec<u8>,
    secrets: usize,
}

pub async fn hidden_text_goes_nowhere(bench: &Bench) {
    let (models, prompts) = model().await;
    for case in [pdf(), docx(), html(), markdown()] {
        let name = case.name;
        let tenant = bench.tenant().await;
        let document = bench.document(tenant, &Document::fresh(), 1, name, case.media_type, &case.bytes).await;
        bench.embedded();
        let mut manifests = Vec::new();
        for stage in bench.pipeline.stages.iter().filter(|stage| !stage.on_settled) {
            manifests.push((stage.name.clone(), bench.step(&document, &stage.name, &manifests).await.unwrap()));
        }
        let parsed: ParsedDocument = artifact(bench, &document, &manifests, "ingest", kind::PARSED).await;
        let text = CanonicalText::from_canonical(parsed.text.clone());
        is_hidden_in(&case, &parsed);

        let chunks: ChunkList = artifact(bench, &document, &manifests, "chunk", kind::CHUNKS).await;
        are_clean(bench, &document, &parsed, &chunks, name).await;
        let extraction: Extraction = artifact(bench, &document, &manifests, "extract", kind::EXTRACTION).await;
        is_clean(name, "extraction", &serde_json::to_string(&extraction).unwrap());
        let values: Vec<_> = extraction.fields.values().flatten().collect();
        assert!(!values.is_empty(), "{name}: nothing was extracted");
        for value in values {
            is_quoted(name, &parsed, &text, value.place.span, &value.raw);
        }
        let summary: Summary = artifact(bench, &document, &manifests, "summarize", kind::SUMMARY).await;
        assert!(!summary.sentences.is_empty(), "{name}: nothing was summarised");
        for sentence in &summary.sentences {
            is_quoted(name, &parsed, &text, sentence.citations[0].span, &sentence.text);
        }
        is_clean(name, "title", &title(bench, &document).await);

        for stage in ["extract", "summarize"] {
            ask(bench, &document, &manifests, models.clone(), stage).await;
            let asked = std::mem::take(&mut *prompts.lock().unwrap());
            assert!(!asked.is_empty(), "{name}: {stage} asked no model");
            for prompt in asked {
                assert!(prompt.contains(SEEN), "{name}: the prompt of {stage} shows nothing of the document");
                is_clean(name, stage, &prompt);
            }
        }
        let embedded = bench.embedded();
        assert!(embedded.iter().any(|words| words.contains(SEEN)), "{name}: nothing was embedded");
        embedded.iter().for_each(|words| is_clean(name, "embedded text", words));
    }
    println!("test hidden_text_goes_nowhere ... ok");
}

/// The parser kept and flagged every piece: otherwise the rest would prove nothing.
fn is_hidden_in(case: &Case, parsed: &ParsedDocument) {
    let name = case.name;
    assert_eq!(parsed.violations(), Vec::<String>::new(), "{name}");
    let text = legible(&parsed.text);
    let places: Vec<u32> = (text.match_indices(SECRET)).map(|(at, _)| text[..at].chars().count() as u32).collect();
    assert_eq!(places.len(), case.secrets, "{name}: {text}");
    for start in places {
        let span = Span::new(start, start + SECRET.len() as u32);
        assert!(parsed.hidden.iter().any(|hidden| hidden.contains(span)), "{name}: seen at {start}: {text}");
    }
}

/// The passages as they are stored and as they are indexed.
async fn are_clean(bench: &Bench, document: &Prepared, parsed: &ParsedDocument, list: &ChunkList, name: &str) {
    let text = CanonicalText::from_canonical(parsed.text.clone());
    for chunk in &list.chunks {
        is_quoted(name, parsed, &text, chunk.span, &chunk.text);
        is_clean(name, "passage with its headings", &chunk.embed_text());
    }
    let whole: String = list.chunks.iter().map(|chunk| legible(&chunk.text)).collect();
    let expected = legible(&parsed.text).matches(SEEN).count();
    assert_eq!(whole.matches(SEEN).count(), expected, "{name}: everything that is seen is in a passage");
    let read = bench.world.database.read(document.tenant, |connection| {
        Box::pin(async move {
            Ok(sqlx::query_scalar("SELECT concat_ws(' ', text, heading_path::text) FROM chunks")
                .fetch_all(connection)
                .await?)
        })
    });
    let rows: Vec<String> = read.await.unwrap();
    assert_eq!(rows.len(), list.chunks.len(), "{name}");
    rows.iter().for_each(|row| is_clean(name, "row of a passage", row));
}

/// Runs a stage with a model that has nothing to say.
async fn ask(bench: &Bench, document: &Prepared, manifests: &[(String, Manifest)], models: GatewayConfig, stage: &str) {
    let mut deps = bench.deps.clone();
    deps.gateway = Some(Arc::new(Gateway::new(models, bench.world.database.clone()).unwrap()));
    let mut settings = bench.pipeline.stage(stage).unwrap().settings.clone();
    settings["provider"] = "llm".into();
    let job = bench.context(document, stage, manifests);
    registry(deps).get(stage).unwrap().run(&job, &settings).await.unwrap();
}

async fn artifact<T: serde::de::DeserializeOwned>(
    bench: &Bench,
    document: &Prepared,
    manifests: &[(String, Manifest)],
    stage: &str,
    kind: &str,
) -> T {
    let manifest = &manifests.iter().find(|(name, _)| name == stage).unwrap().1;
    bench.context(document, stage, manifests).load_ref(&manifest.artifacts[kind]).await.unwrap()
}

async fn title(bench: &Bench, document: &Prepared) -> String {
    let version = document.ids.version.0;
    let read = bench.world.database.read(document.tenant, move |connection| {
        Box::pin(async move {
            let title = sqlx::query_scalar("SELECT coalesce(title, '') FROM document_versions WHERE id = $1");
            Ok(title.bind(version).fetch_one(connection).await?)
        })
    });
    read.await.unwrap()
}

/// The words stand at the span, line breaks as spaces, and no part of it is hidden.
fn is_quoted(name: &str, parsed: &ParsedDocument, text: &CanonicalText, span: Span, words: &str) {
    let quoted = text.slice(span).unwrap_or_else(|| panic!("{name}: {span:?} reaches past the text"));
    assert!(quoted == words || quoted.replace('\n', " ") == words, "{name}: {span:?} is not {words:?}");
    assert!(parsed.hidden.iter().all(|hidden| !hidden.overlaps(span)), "{name}: {words:?} is hidden in part");
    is_clean(name, "quote", words);
}

fn is_clean(name: &str, what: &str, words: &str) {
    assert!(!legible(words).contains(SECRET), "{name}: hidden words in the {what}: {words:?}");
}

/// In lower case, with Unicode tag characters as the letters that they spell.
fn legible(words: &str) -> String {
    let letter = |c: char| char::from_u32(u32::from(c).wrapping_sub(0xE0000)).filter(char::is_ascii_graphic);
    words.chars().map(|c| if c >= '\u{e0000}' { letter(c).unwrap_or(c) } else { c.to_ascii_lowercase() }).collect()
}

/// A model server that says nothing of use and keeps what it is asked.
async fn model() -> (GatewayConfig, Arc<Mutex<Vec<String>>>) {
    type Prompts = Arc<Mutex<Vec<String>>>;
    async fn answer(State(prompts): State<Prompts>, body: String) -> String {
        let asked: Value = serde_json::from_str(&body).unwrap();
        let contents = asked["messages"].as_array().unwrap().iter().filter_map(|message| message["content"].as_str());
        prompts.lock().unwrap().push(contents.collect::<Vec<_>>().join("\n"));
        let choice = json!({"message": {"role": "assistant", "content": "{}"}, "finish_reason": "stop"});
        json!({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}}).to_string()
    }
    let prompts = Prompts::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let server = axum::Router::new().fallback(post(answer)).with_state(prompts.clone());
    tokio::spawn(async move { axum::serve(listener, server).await });
    let config = GatewayConfig {
        tries: 1,
        cache_for: Duration::ZERO,
        ..GatewayConfig::new(vec![ModelConfig::new("mute", &url, None, "mute")])
    };
    (config, prompts)
}

/// Words that are hidden: a sentence to quote, with a party, an amount, a date and an address to extract.
fn secret() -> String {
    format!("The {SECRET} pays Wraith Holdings Ltd. $9,999.00 by March 9, 1999 to {SECRET}@{SECRET}.example.")
}

/// Occurrences of the secret in [`secret`].
const IN_SECRET: usize = 4;

/// Words that are seen, with the same to extract.
const SENTENCE: &str = "The slipway is leased by Harbour Works Ltd. for $1,200.00 a month from January 12, 2024 on, with all of its rails.";

/// Text in the colour of its box, text under a box, and text of a layer that is off, between lines that are seen.
fn pdf() -> Case {
    let line = |y: u32, words: &str| format!("BT /F1 8 Tf 40 {y} Td ({words}) Tj ET ");
    let secret = secret();
    let content = [
        format!("0 0 0 rg {}", line(740, SENTENCE)),
        format!("0 0 0.4 rg 30 690 500 30 re f 0 0.02 0.42 rg {}0 0 0 rg ", line(700, &secret)),
        line(660, "The slipway is kept free of oil by those who use it on any day of the week."),
        format!("{}1 0 0 rg 30 610 500 30 re f 0 0 0 rg ", line(620, &secret)),
        line(580, "Every winter the rails of the slipway are repaired before the first frost comes."),
        format!("/OC /Off BDC {}EMC ", line(540, &secret)),
        line(500, "Nothing else is said of the slipway in this agreement."),
    ];
    let content = content.concat();
    let resources = "<</Font<</F1 5 0 R>>/Properties<</Off 6 0 R>>>>";
    let objects = [
        "<</Type/Catalog/Pages 2 0 R/OCProperties<</OCGs[6 0 R]/D<</OFF[6 0 R]>>>>>>".to_owned(),
        "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_owned(),
        format!("<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources{resources}>>"),
        format!("<</Length {}>>\nstream\n{content}\nendstream", content.len()),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(),
        "<</Type/OCG/Name(off)>>".to_owned(),
    ];
    let mut bytes = b"%PDF-1.5\n".to_vec();
    let mut offsets = String::new();
    for (number, object) in objects.iter().enumerate() {
        offsets.push_str(&format!("{:010} 00000 n \n", bytes.len()));
        bytes.extend(format!("{} 0 obj\n{object}\nendobj\n", number + 1).bytes());
    }
    let (start, size) = (bytes.len(), objects.len() + 1);
    bytes.extend(
        format!("xref\n0 {size}\n0000000000 65535 f \n{offsets}trailer\n<</Size {size}/Root 1 0 R>>\n").bytes(),
    );
    bytes.extend(format!("startxref\n{start}\n%%EOF\n").bytes());
    Case { name: "lease.pdf", media_type: "application/pdf", bytes, secrets: 3 * IN_SECRET }
}

/// A half hidden heading, hidden and white runs in sentences, a hidden header cell and row, a hidden note, and a text box
/// in a hidden run.
fn docx() -> Case {
    let run = |properties: &str, words: &str| {
        format!("<w:r><w:rPr>{properties}</w:rPr><w:t xml:space='preserve'>{words}</w:t></w:r>")
    };
    let (seen, secret) = (|words: &str| run("", words), secret());
    let (vanish, white) = ("<w:vanish/>", "<w:color w:val='FFFFFF'/>");
    let cell = |runs: &str| format!("<w:tc><w:p>{runs}</w:p></w:tc>");
    let row =
        |properties: &str, cells: [String; 2]| format!("<w:tr><w:trPr>{properties}</w:trPr>{}</w:tr>", cells.concat());
    let anchored = format!(
        "<w:r><w:rPr>{vanish}</w:rPr><w:drawing><wps:wsp><wps:txbx><w:txbxContent><w:p>{}</w:p></w:txbxContent></wps:txbx></wps:wsp></w:drawing></w:r>",
        seen(&secret)
    );
    let note = format!("<w:r><w:rPr>{vanish}</w:rPr><w:footnoteReference w:id='1'/></w:r>");
    let body = [
        format!(
            "<w:p><w:pPr><w:outlineLvl w:val='0'/></w:pPr>{}{}</w:p>",
            seen("Lease of the slipway"),
            run(vanish, &format!(" and the {SECRET}"))
        ),
        format!(
            "<w:p>{}{}{}</w:p>",
            seen(SENTENCE),
            run(vanish, &format!(" {secret} ")),
            seen("The slipway is kept free of oil by those who use it.")
        ),
        format!("<w:p>{}</w:p>", run(white, &secret)),
        "<w:tbl>".to_owned(),
        row(
            "<w:tblHeader/>",
            [
                cell(&seen("Part of the slipway")),
                cell(&format!("{}{}", seen("Cost"), run(vanish, &format!(" to the {SECRET}")))),
            ],
        ),
        row("", [cell(&seen("Rails of the slipway")), cell(&seen("$40.00"))]),
        row("<w:hidden/>", [cell(&seen(SECRET)), cell(&seen("$9,999.00"))]),
        "</w:tbl>".to_owned(),
        format!("<w:p>{anchored}{}{note}</w:p>", seen("Nothing else is said of the slipway in this agreement.")),
    ];
    let part = |name: &str, content: String| (name.to_owned(), content);
    let relation = |kind: &str, target: &str| {
        format!(r#"<Relationships xmlns="x"><Relationship Id="r1" Type="t/{kind}" Target="{target}"/></Relationships>"#)
    };
    let parts = [
        part("_rels/.rels", relation("officeDocument", "word/document.xml")),
        part(
            "word/document.xml",
            format!(r#"<w:document xmlns:w="w"><w:body>{}</w:body></w:document>"#, body.concat()),
        ),
        part("word/_rels/document.xml.rels", relation("footnotes", "footnotes.xml")),
        part(
            "word/footnotes.xml",
            format!(
                r#"<w:footnotes xmlns:w="w"><w:footnote w:id="1"><w:p>{}</w:p></w:footnote></w:footnotes>"#,
                seen(&secret)
            ),
        ),
    ];
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in parts {
        archive.start_file(name, SimpleFileOptions::default()).unwrap();
        archive.write_all(content.as_bytes()).unwrap();
    }
    let media_type = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
    let bytes = archive.finish().unwrap().into_inner();
    Case { name: "lease.docx", media_type, bytes, secrets: 4 * IN_SECRET + 3 }
}

/// A half hidden heading, a hidden sentence and paragraph, a hidden caption, header cell and row.
fn html() -> Case {
    let secret = secret();
    let page = format!(
        "<h1>Lease of the slipway <span hidden>and the {SECRET}</span></h1><p>{SENTENCE} <span style='display:none'>{secret}</span> \
         The slipway is kept free of oil by those who use it.</p><div hidden><p>{secret}</p></div>\
         <table><caption>Parts of the slipway <span style='font-size:0'>of the {SECRET}</span></caption>\
         <tr><th>Part of the slipway<th>Cost <span hidden>to the {SECRET}</span></tr><tr><td>Rails of the slipway<td>$40.00</tr>\
         <tr style='visibility:collapse'><td>{SECRET}<td>$9,999.00</tr></table>\
         <p style='color:#fff;background:#fff'>{secret}</p><p>Nothing else is said of the slipway in this agreement.</p>"
    );
    Case { name: "lease.html", media_type: "text/html", bytes: page.into_bytes(), secrets: 3 * IN_SECRET + 4 }
}

/// Raw HTML that hides words of a line and whole blocks, and tag characters that spell.
fn markdown() -> Case {
    let secret = secret();
    let spelled: String = SECRET.chars().filter_map(|c| char::from_u32(0xE0000 + u32::from(c))).collect();
    let page = format!(
        "# Lease of the slipway <span hidden>and the {SECRET}</span>\n\n{SENTENCE} <span hidden>{secret}</span> The slipway{spelled} \
         is kept free of oil by those who use it.\n\n<div style='display:none'>\n\n{secret}\n\n| {SECRET} | $9,999.00 |\n|---|---|\n| a | b |\n\n</div>\n\n\
         <p hidden>{secret}</p>\n\nNothing else is said of the slipway in this agreement.\n"
    );
    Case { name: "lease.md", media_type: "text/markdown", bytes: page.into_bytes(), secrets: 3 * IN_SECRET + 3 }
}
