//! `POST /v1/operate/replays/{id}/difference`: what a sample made of its documents, beside what they show.
//!
//! The runs of a sample compute and show nothing: what they made is read from their jobs, what is shown from the rows. Since
//! both are text, this needs the right to read content besides that to operate, and leaves out documents whose labels the
//! caller does not meet.

mod compare;
mod read;

use crate::auth::Operator;
use crate::body::JsonBody;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
pub use compare::{Change, ChunkDifference, FieldDifference, SummaryDifference, TextDifference};
use docmill_model::scope::Scope;
use docmill_model::{Code, DocumentId, Failure, TenantId};
use docmill_retrieval::among::Passage;
use read::{Made, SampleDocument};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

const MAX_QUESTIONS: usize = 20;
const MAX_QUESTION_BYTES: usize = 4_000;
/// Questions that are made up where none is asked.
const OWN_QUESTIONS: usize = 10;
const DEFAULT_K: u32 = 5;
const MAX_K: u32 = 20;

/// What to ask the passages of a sample.
#[derive(Debug, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AskDifference {
    /// Questions whose best passages are compared, at most 20; titles and headings of the documents when absent.
    pub questions: Option<Vec<String>>,
    /// Passages of each question, 1 to 20; 5 when absent.
    pub k: Option<u32>,
}

/// What a sample made of its documents, beside what they show.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct SampleDifference {
    /// The sample.
    pub replay_id: Uuid,
    /// `running`, `paused`, `done`, `cancelled` or `stopped`.
    pub state: String,
    /// How many documents differ.
    pub totals: DifferenceTotals,
    /// By document, in the order of their names.
    pub documents: Vec<DocumentDifference>,
    /// By question: the best passages of these documents as they are shown, and as the sample made them.
    pub answers: Vec<AnswerDifference>,
}

/// How many documents of a sample differ, and in what.
#[derive(Debug, Default, serde::Serialize, utoipa::ToSchema)]
pub struct DifferenceTotals {
    /// Documents that were compared.
    pub documents: usize,
    /// Of them without any difference in what the sample made.
    pub same: usize,
    /// With another text.
    pub text: usize,
    /// With other chunks.
    pub chunks: usize,
    /// With other fields.
    pub fields: usize,
    /// With another summary.
    pub summary: usize,
    /// Whose run failed, in whole or in part.
    pub failed: usize,
    /// Whose run has not ended.
    pub open: usize,
    /// Of which nothing is there to be compared: the run was cancelled, or retention let go of what it made.
    pub unmade: usize,
    /// Processed otherwise since, as by an upload: a replay leaves them alone, and they are not compared.
    pub superseded: usize,
}

/// One document of a sample. A part is null where the sample has not made it; what is shown for the first time is compared with
/// nothing.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct DocumentDifference {
    /// The document.
    pub document_id: DocumentId,
    /// Its name.
    pub document: String,
    /// The run that made it anew.
    pub run_id: Uuid,
    /// How that run stands.
    pub state: String,
    /// What it failed with.
    pub code: Option<String>,
    /// True when it was processed otherwise since.
    pub superseded: bool,
    /// The canonical text, without what a reader would not see.
    pub text: Option<TextDifference>,
    /// The chunks.
    pub chunks: Option<ChunkDifference>,
    /// Fields whose value differs.
    pub fields: Option<Vec<FieldDifference>>,
    /// The summary.
    pub summary: Option<SummaryDifference>,
}

/// The best passages of one question.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct AnswerDifference {
    /// The question.
    pub question: String,
    /// Passages that are among the best before and after.
    pub kept: usize,
    /// As they are shown, best first.
    pub before: Vec<AnswerPassage>,
    /// As the sample made them, best first.
    pub after: Vec<AnswerPassage>,
}

/// A passage among the best.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct AnswerPassage {
    /// Its document.
    pub document_id: DocumentId,
    /// The document's name.
    pub document: String,
    /// The beginning of its words.
    pub text: String,
}

/// Compares what a sample made with what is shown.
#[utoipa::path(post, path = "/v1/operate/replays/{id}/difference", tag = "operate", request_body = AskDifference,
    params(("id" = String, Path, description = "Replay id")),
    responses((status = 200, body = SampleDifference), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
              (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn difference(
    State(state): State<ApiState>,
    Operator(principal): Operator,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<AskDifference>,
) -> Result<Json<SampleDifference>, Problem> {
    if !principal.may(Scope::ContentRead) {
        return Err(Problem::new(Code::ScopeMissing, "this shows text: it needs the scope `content:read` as well"));
    }
    let id: Uuid = id.parse().map_err(|_| Problem::not_found())?;
    let k = check(&request)?;
    let tenant = principal.tenant_id;
    let (replay_state, documents) = read::sample(&state, tenant, id, &principal.labels).await?;
    let mut compared = Vec::with_capacity(documents.len());
    for document in documents {
        compared.push(one(&state, tenant, document).await?);
    }
    let questions = request.questions.unwrap_or_else(|| own_questions(&compared));
    let (mut before, mut after, mut items) = (Vec::new(), Vec::new(), Vec::with_capacity(compared.len()));
    for Compared { difference, shown, made } in compared {
        before.extend(shown);
        after.extend(made);
        items.push(difference);
    }
    let answers = answers(&state, tenant, &questions, k as usize, (before.into(), after.into())).await?;
    let totals = totals(&items);
    Ok(Json(SampleDifference { replay_id: id, state: replay_state, totals, documents: items, answers }))
}

fn check(request: &AskDifference) -> Result<u32, Problem> {
    let k = request.k.unwrap_or(DEFAULT_K);
    if !(1..=MAX_K).contains(&k) {
        return Err(Problem::field("k", &format!("1 to {MAX_K} is expected")));
    }
    let questions = request.questions.as_deref().unwrap_or_default();
    let is_question =
        |text: &String| !text.trim().is_empty() && text.len() <= MAX_QUESTION_BYTES && !text.contains('\0');
    if questions.len() > MAX_QUESTIONS || !questions.iter().all(is_question) {
        let expected = format!("at most {MAX_QUESTIONS} questions of 1 to {MAX_QUESTION_BYTES} bytes are expected");
        return Err(Problem::field("questions", &expected));
    }
    Ok(k)
}

/// A compared document with the passages it shows, and those that were made.
struct Compared {
    difference: DocumentDifference,
    shown: Vec<Passage>,
    made: Vec<Passage>,
}

async fn one(state: &ApiState, tenant: TenantId, document: SampleDocument) -> Result<Compared, Failure> {
    let (shown, made) = if document.superseded {
        Default::default()
    } else {
        (read::shown(state, tenant, &document).await?, read::made(state, tenant, &document).await?)
    };
    let work = tokio::task::spawn_blocking(move || compared(document, shown, made));
    work.await.map_err(|_| Failure::new(Code::Internal, "comparing a document panicked"))
}

fn compared(document: SampleDocument, shown: Made, made: Made) -> Compared {
    let before = shown.chunks.unwrap_or_default();
    let sentences = shown.summary.unwrap_or_default();
    let difference = DocumentDifference {
        document_id: document.document_id.into(),
        document: document.name,
        run_id: document.run_id,
        state: document.state,
        code: document.code,
        superseded: document.superseded,
        text: made.text.map(|after| compare::text(shown.text.as_deref().unwrap_or_default(), &after)),
        chunks: made.chunks.as_ref().map(|after| compare::chunks(&before, after)),
        fields: made.fields.map(|after| compare::fields(&shown.fields.unwrap_or_default(), &after)),
        summary: made.summary.map(|after| SummaryDifference { is_same: sentences == after, before: sentences, after }),
    };
    // One whose chunks were not made anew is taken as it is, so that it does not seem to be lost.
    let after = made.chunks.unwrap_or_else(|| before.clone());
    Compared { difference, shown: before, made: after }
}

fn totals(documents: &[DocumentDifference]) -> DifferenceTotals {
    let mut totals = DifferenceTotals { documents: documents.len(), ..DifferenceTotals::default() };
    for one in documents {
        let differs = [
            one.text.as_ref().map(|text| !text.is_same),
            one.chunks.as_ref().map(|chunks| !chunks.is_same()),
            one.fields.as_ref().map(|fields| !fields.is_empty()),
            one.summary.as_ref().map(|summary| !summary.is_same),
        ];
        let [text, chunks, fields, summary] = differs.map(|part| usize::from(part == Some(true)));
        totals.text += text;
        totals.chunks += chunks;
        totals.fields += fields;
        totals.summary += summary;
        let counter = match one.state.as_str() {
            _ if one.superseded => &mut totals.superseded,
            "running" => &mut totals.open,
            "failed" | "partial" => &mut totals.failed,
            _ if differs == [None; 4] => &mut totals.unmade,
            _ if differs.contains(&Some(true)) => continue,
            _ => &mut totals.same,
        };
        *counter += 1;
    }
    totals
}

/// What the documents are about, by their own words: of each its title, else its first heading, else how it begins.
fn own_questions(documents: &[Compared]) -> Vec<String> {
    let mut seen = HashSet::new();
    let about = |compared: &Compared| {
        let first = compared.shown.first().or(compared.made.first())?;
        let heading = compared.shown.iter().find_map(|passage| passage.heading_path.last().cloned());
        let title = (first.titles.len() > 1).then(|| first.titles[0].clone());
        let begins = || first.text.split_whitespace().take(12).collect::<Vec<_>>().join(" ");
        Some(title.or(heading).unwrap_or_else(begins))
    };
    let questions = documents.iter().filter_map(about).filter(|question| !question.trim().is_empty());
    questions.filter(|question| seen.insert(question.clone())).take(OWN_QUESTIONS).collect()
}

async fn answers(
    state: &ApiState,
    tenant: TenantId,
    questions: &[String],
    k: usize,
    (before, after): (Arc<[Passage]>, Arc<[Passage]>),
) -> Result<Vec<AnswerDifference>, Failure> {
    let tell = |passage: &Passage| AnswerPassage {
        document_id: passage.document_id,
        document: passage.titles.last().cloned().unwrap_or_default(),
        text: compare::excerpt(&passage.text),
    };
    let shown = state.search.among(tenant, before.clone(), questions, k).await?;
    let made = state.search.among(tenant, after.clone(), questions, k).await?;
    let mut answers = Vec::with_capacity(questions.len());
    for (question, (shown, made)) in questions.iter().zip(shown.iter().zip(&made)) {
        let (shown, made): (Vec<Passage>, Vec<Passage>) = (
            shown.iter().map(|&place| before[place].clone()).collect(),
            made.iter().map(|&place| after[place].clone()).collect(),
        );
        answers.push(AnswerDifference {
            question: question.clone(),
            kept: compare::chunks(&shown, &made).kept,
            before: shown.iter().map(tell).collect(),
            after: made.iter().map(tell).collect(),
        });
    }
    Ok(answers)
}
