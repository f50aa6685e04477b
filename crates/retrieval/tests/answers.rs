//! Answers over a real Postgres: citations that hold to the character, honest absence, withdrawal, and models that are
//! not believed.
#![allow(clippy::unwrap_used)]

mod support;

use docmill_model::{AnswerId, Code, Failure, Sha256Hex, TenantId};
use docmill_retrieval::answers::{Answer, AnswerEvent, Ask, Generated, Generator};
use docmill_retrieval::{AnswerRequest, Answers, AnswersConfig, Caller};
use std::sync::{Arc, Mutex};
use support::{Doc, Node, World, Written, world};

const LEASE: [&str; 3] = [
    "The lease of the warehouse in Lübeck began on 1 March 2019. The tenant is Nordhafen Spedition GmbH.",
    "The monthly rent amounts to 4,250 euros. It is payable on the third working day of each month.",
    "Either party may terminate with six months' notice. Notice must be given in writing.",
];

const MENU: [&str; 2] = ["Soup of the day is served at noon.", "The kitchen closes at nine."];

struct Office {
    world: World,
    node: Node,
    tenant: TenantId,
    caller: Caller,
    lease: Written,
}

async fn office() -> Office {
    let world = world().await;
    let tenant = world.tenant().await;
    let lease = world.publish(tenant, &Doc::new("lease.pdf", &LEASE)).await;
    world.publish(tenant, &Doc::new("menu.pdf", &MENU)).await;
    let node = Node::start(&world).await;
    node.caught_up(&world, tenant).await;
    let caller = world.caller(tenant);
    Office { world, node, tenant, caller, lease }
}

impl Office {
    fn answers(&self, generator: Option<Arc<dyn Generator>>) -> Answers {
        Answers::new(self.node.search.clone(), self.world.artifacts.clone(), generator, AnswersConfig::default())
    }

    async fn ask(&self, answers: &Answers, question: &str) -> Answer {
        answers.answer(&self.caller, &AnswerRequest::new(question)).await.unwrap()
    }
}

/// Every citation must be the words of the document at that place.
fn check_quotes(answer: &Answer) {
    for citation in answer.sentences.iter().flat_map(|sentence| &sentence.citations) {
        // The hashing embedder of the tests sees meaning in stop words: a sentence of the menu may come last.
        let passages: &[&str] = if citation.document.as_deref() == Some("menu.pdf") { &MENU } else { &LEASE };
        let canonical: Vec<char> = format!("{}\n\n", passages.join("\n\n")).chars().collect();
        let words: String = canonical[citation.char_start as usize..citation.char_end as usize].iter().collect();
        assert_eq!(citation.quote.as_deref(), Some(words.as_str()));
        assert_eq!(citation.page, Some(1));
        assert!(
            !citation.boxes.is_empty() && citation.boxes.iter().all(|place| place.page == 1 && place.x0 < place.x1)
        );
        assert!(!citation.withdrawn);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extractive_answer_quotes_the_sentence_that_answers() {
    let office = office().await;
    let answers = office.answers(None);
    let cases = [
        ("How much is the monthly rent?", "The monthly rent amounts to 4,250 euros."),
        ("When did the lease of the warehouse begin?", "The lease of the warehouse in Lübeck began on 1 March 2019."),
        ("Who is the tenant of the warehouse?", "The tenant is Nordhafen Spedition GmbH."),
    ];
    for (question, expected) in cases {
        let answer = office.ask(&answers, question).await;
        assert!(answer.found, "{question}");
        assert_eq!((answer.engine.as_str(), answer.sentences.len() <= 3), ("extractive", true));
        let texts: Vec<&str> = answer.sentences.iter().filter_map(|sentence| sentence.text.as_deref()).collect();
        assert!(texts.contains(&expected), "{question}: {texts:?}");
        check_quotes(&answer);
        let stored = answers.get(&office.caller, answer.id).await.unwrap();
        assert_eq!(stored.sentences, answer.sentences, "the snapshot renders the same");
    }
    let hash = Sha256Hex::of(LEASE.concat().as_bytes()).to_string();
    let answer = office.ask(&answers, "How much is the monthly rent?").await;
    assert_eq!(answer.sentences[0].citations[0].sha256.as_deref(), Some(hash.as_str()));
    assert_eq!(answer.sentences[0].citations[0].version_id, office.lease.version);
    office.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_the_documents_do_not_answer_gets_an_honest_no() {
    let office = office().await;
    let answers = office.answers(None);
    for question in [
        "Which planet has the largest moon?",
        "What is the chemical formula of caffeine?",
        "Wer gewann die Weltmeisterschaft?",
    ] {
        let answer = office.ask(&answers, question).await;
        assert!(!answer.found && answer.sentences.is_empty(), "{question}: {:?}", answer.sentences);
        assert_eq!(answer.note.as_deref(), Some("This is not in the documents."));
        assert!(!answers.get(&office.caller, answer.id).await.unwrap().found);
    }
    office.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_answers_hold_no_text_withdraw_with_their_document_and_stay_in_their_tenant() {
    let office = office().await;
    let answers = office.answers(None);
    let answer = office.ask(&answers, "How much is the monthly rent?").await;
    let stored: String = office
        .world
        .database
        .read(office.tenant, move |connection| {
            Box::pin(async move {
                let row = sqlx::query_scalar("SELECT row_to_json(a)::text FROM answers a WHERE id = $1");
                Ok(row.bind(answer.id.0).fetch_one(connection).await?)
            })
        })
        .await
        .unwrap();
    assert!(!stored.contains("rent") && !stored.contains("4,250"), "no words of question or answer are stored");

    let stranger = office.world.caller(office.world.tenant().await);
    for (caller, id) in [(&stranger, answer.id), (&office.caller, AnswerId::fresh())] {
        assert_eq!(answers.get(caller, id).await.unwrap_err().code, Code::NotFound);
    }
    office.world.delete(office.tenant, office.lease).await;
    let after = answers.get(&office.caller, answer.id).await.unwrap();
    for (sentence, before) in after.sentences.iter().zip(&answer.sentences) {
        assert_eq!(sentence.text, None);
        let citation = &sentence.citations[0];
        assert!(
            citation.withdrawn && citation.quote.is_none() && citation.document.is_none() && citation.boxes.is_empty()
        );
        assert_eq!(citation.char_start, before.citations[0].char_start);
    }
    office.node.stop().await;
}

/// Says what it was told to say, in pieces to who listens, and keeps what it was asked.
struct Scripted {
    says: Result<String, Failure>,
    /// Bytes after which a streamed answer breaks off.
    breaks_at: Option<usize>,
    heard: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Generator for Scripted {
    fn serves(&self, used_for: &str) -> bool {
        used_for == "answers"
    }

    async fn instructions(&self, _: &Ask<'_>) -> Result<String, Failure> {
        Ok("These are the secret instructions of this very test".to_owned())
    }

    async fn generate(&self, ask: Ask<'_>) -> Result<Generated, Failure> {
        self.heard.lock().unwrap().extend(ask.values.iter().map(|(_, value)| (*value).to_owned()));
        let text = self.says.clone()?;
        if let Some(deltas) = &ask.deltas {
            let whole = &text.as_bytes()[..self.breaks_at.unwrap_or(text.len())];
            for piece in whole.chunks(7) {
                deltas.send(String::from_utf8(piece.to_vec()).unwrap()).unwrap();
            }
            if self.breaks_at.is_some() {
                tokio::task::yield_now().await;
                return Err(Failure::new(Code::ProviderError, "broke off"));
            }
        }
        Ok(Generated { text, engine: "scripted/parrot".to_owned(), tokens_in: 7, tokens_out: 3 })
    }
}

fn scripted(says: Result<serde_json::Value, Failure>) -> Arc<Scripted> {
    Arc::new(Scripted { says: says.map(|value| value.to_string()), breaks_at: None, heard: Mutex::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_models_answer_keeps_only_what_the_documents_say() {
    let office = office().await;
    let cite = |quote: &str| serde_json::json!([{"passage": 1, "quote": quote}]);
    let model = scripted(Ok(serde_json::json!({"found": true, "sentences": [
        {"text": "The rent is 4,250 euros a month.", "citations": cite("The monthly rent amounts to 4,250 euros.")},
        {"text": "The rent is 9,999 euros a month.", "citations": cite("The monthly rent amounts to 9,999 euros.")},
        {"text": "Nobody says so.", "citations": []},
        {"text": "Another passage says so.", "citations": [{"passage": 77, "quote": "The monthly rent amounts to"}]},
        {"text": "See https://evil.example/?q=4250", "citations": cite("The monthly rent amounts to 4,250 euros.")},
        {"text": "The rent is 4,251 euros.", "citations": cite("The monthly rent amounts to 4,250 euros.")},
        {"text": "These are the secret instructions of this test.", "citations": cite("The monthly rent amounts to 4,250 euros.")},
        {"text": "Rent is waived.", "citations": cite("It is payable on the third working day of each month.")},
    ]})));
    let answer = office.ask(&office.answers(Some(model.clone())), "How much is the monthly rent?").await;
    assert_eq!((answer.engine.as_str(), answer.found, answer.sentences.len()), ("scripted/parrot", true, 1));
    assert!(answer.note.as_deref().unwrap().starts_with("7 sentences"));
    assert_eq!(answer.removed, 7);
    check_quotes(&answer);
    let heard = model.heard.lock().unwrap().join("");
    assert!(heard.contains("How much is the monthly rent?") && heard.contains("4,250 euros"));
    let again = office.answers(None).get(&office.caller, answer.id).await.unwrap();
    assert_eq!(again.removed, 7);
    assert_eq!(again.sentences[0].text, None, "generated wording is not kept");
    assert_eq!(again.sentences[0].citations, answer.sentences[0].citations);
    office.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_or_lying_model_is_replaced_by_the_documents_own_sentences() {
    let office = office().await;
    let lies = serde_json::json!({"found": true, "sentences": [
        {"text": "It is free.", "citations": [{"passage": 1, "quote": "The warehouse is free of charge."}]}]});
    let failures = [
        (Err(Failure::new(Code::ProviderError, "down")), "The model provider failed.", 0),
        (Err(Failure::new(Code::BudgetExceeded, "spent")), "The budget for model calls is used up.", 0),
        (Ok(serde_json::json!("no object")), "The model's answer could not be used.", 0),
        (Ok(lies), "The documents do not bear out the model's answer.", 1),
    ];
    for (says, why, removed) in failures {
        let answer = office.ask(&office.answers(Some(scripted(says))), "How much is the monthly rent?").await;
        assert_eq!((answer.engine.as_str(), answer.found), ("extractive", true));
        assert!(answer.note.as_deref().unwrap().starts_with(why), "{:?}", answer.note);
        assert_eq!(answer.removed, removed, "{why}");
        check_quotes(&answer);
        assert_eq!(office.answers(None).get(&office.caller, answer.id).await.unwrap().removed, removed);
    }
    let model = scripted(Ok(serde_json::json!({"found": false, "sentences": []})));
    assert!(!office.ask(&office.answers(Some(model)), "How much is the monthly rent?").await.found);
    office.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_not_asked_what_the_documents_do_not_support() {
    let office = office().await;
    let model = scripted(Ok(serde_json::json!({"found": true, "sentences": []})));
    let answer = office.ask(&office.answers(Some(model.clone())), "Which planet has the largest moon?").await;
    assert_eq!((answer.found, answer.note.as_deref()), (false, Some("This is not in the documents.")));
    assert!(model.heard.lock().unwrap().is_empty());
    office.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_reads_the_text_otherwise_leaves_answers_as_they_were() {
    let office = office().await;
    let answers = office.answers(None);
    let before = office.ask(&answers, "How much is the monthly rent?").await;
    assert!(before.found);
    // Ingest has read the version anew, with a line above; the generation that answers is still the old one.
    let read = office.world.reread(office.tenant, office.lease, &[&["Page 1 of 1"][..], &LEASE[..]].concat()).await;
    let meanwhile = office.ask(&answers, "How much is the monthly rent?").await;
    assert_eq!(meanwhile.sentences, before.sentences, "passages are looked up in the text they were cut from");
    office.world.flip(office.tenant, read).await;
    office.node.caught_up(&office.world, office.tenant).await;
    let after = office.ask(&answers, "How much is the monthly rent?").await;
    let start = |answer: &Answer| answer.sentences[0].citations[0].char_start;
    assert_eq!(start(&after), start(&before) + "Page 1 of 1\n\n".len() as u32);
    for answer in [&before, &after] {
        let stored = answers.get(&office.caller, answer.id).await.unwrap();
        assert_eq!(stored.sentences, answer.sentences);
    }
    office.node.stop().await;
}

/// What a listener hears of an answer.
async fn listen(office: &Office, model: Scripted) -> (Result<Answer, Failure>, Vec<AnswerEvent>) {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let answers = office.answers(Some(Arc::new(model)));
    let request = AnswerRequest::new("How much is the monthly rent?");
    let answer = answers.answer_in(&office.caller, &request, None, Some(sender)).await;
    let mut events = Vec::new();
    while let Ok(event) = receiver.try_recv() {
        events.push(event);
    }
    (answer, events)
}

fn spoken(events: &[AnswerEvent]) -> String {
    let token = |event: &AnswerEvent| match event {
        AnswerEvent::Token { text, .. } => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(token).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_tells_verified_sentences_and_ends_with_the_whole_or_not_at_all() {
    let office = office().await;
    let rent = serde_json::json!([{"passage": 1, "quote": "The monthly rent amounts to 4,250 euros."}]);
    let says = serde_json::json!({"found": true, "sentences": [
        {"text": "The rent is 4,250 euros a month.", "citations": rent},
        {"text": "See https://evil.example/.", "citations": rent},
        {"text": "The rent of 4,250 euros is monthly.", "citations": rent}]})
    .to_string();
    let model = |breaks_at| Scripted { says: Ok(says.clone()), breaks_at, heard: Mutex::default() };

    let (answer, events) = listen(&office, model(None)).await;
    let answer = answer.unwrap();
    let names: Vec<&str> = events.iter().map(AnswerEvent::name).filter(|name| *name != "token").collect();
    assert_eq!(names, ["retrieval", "citations", "citations", "answer"]);
    assert_eq!(spoken(&events), "The rent is 4,250 euros a month.The rent of 4,250 euros is monthly.");
    assert_eq!(events.last(), Some(&AnswerEvent::Answer(Box::new(answer.clone()))));
    assert_eq!((answer.sentences.len(), answer.removed), (2, 1));

    let after_first = says.find("See https").unwrap();
    let (answer, events) = listen(&office, model(Some(after_first))).await;
    assert_eq!(answer.unwrap_err().code, Code::ProviderError);
    assert_eq!(spoken(&events), "The rent is 4,250 euros a month.", "what was verified had been sent");
    assert!(!events.iter().any(|event| event.name() == "answer"), "a cut stream is never an answer");

    let (answer, events) = listen(&office, model(Some(20))).await;
    assert_eq!(answer.unwrap().engine, "extractive", "nothing had been sent, so the documents answer");
    assert_eq!(events.last().map(AnswerEvent::name), Some("answer"));
    office.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentences_that_do_not_answer_stay_out() {
    let office = office().await;
    let answers = office.answers(None);
    for question in [
        "How much is the monthly rent?",
        "Who is the tenant of the warehouse?",
        "When must notice be given in writing?",
    ] {
        let answer = office.ask(&answers, question).await;
        let texts: Vec<&str> = answer.sentences.iter().filter_map(|sentence| sentence.text.as_deref()).collect();
        assert!(answer.found, "{question}");
        assert!(!texts.iter().any(|text| MENU.concat().contains(text)), "{question}: {texts:?}");
    }
    office.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_a_question_are_checked() {
    let office = office().await;
    let answers = office.answers(None);
    for (request, code) in [
        (AnswerRequest::new("?"), Code::QueryEmpty),
        (AnswerRequest::new("x".repeat(4_001)), Code::QueryLimit),
        (AnswerRequest { k: 51, ..AnswerRequest::new("x") }, Code::FieldInvalid),
        (AnswerRequest { max_sentences: 0, ..AnswerRequest::new("x") }, Code::FieldInvalid),
    ] {
        assert_eq!(answers.answer(&office.caller, &request).await.unwrap_err().code, code);
    }
    office.node.stop().await;
}
