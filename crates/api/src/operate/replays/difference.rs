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
    /// Of them without any difference.
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
}

/// One document of a sample. A part is null where the sample has not made it, or nothing of it is shown that it could be
/// compared with.
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
    /// The canonical text.
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
    for document in &documents {
        compared.push(one(&state, tenant, document).await?);
    }
    let questions = request.questions.unwrap_or_else(|| own_questions(&compared));
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut items = Vec::with_capacity(compared.len());
    for Compared { difference, shown, made } in compared {
        before.extend(shown);
        after.extend(made);
        items.push(difference);
    }
    let answers = answers(&state, tenant, &questions, k as usize, (before, after)).await?;
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

async fn one(state: &ApiState, tenant: TenantId, document: &SampleDocument) -> Result<Compared, Failure> {
    let shown = read::shown(state, tenant, document).await?;
    let made = read::made(state, tenant, document).await?;
    let both = |pick: fn(&Made) -> bool| pick(&shown) && pick(&made);
    let text = both(|made| made.text.is_some())
        .then(|| compare::text(shown.text.as_deref().unwrap_or_default(), made.text.as_deref().unwrap_or_default()));
    let chunks = both(|made| made.chunks.is_some()).then(|| {
        compare::chunks(shown.chunks.as_deref().unwrap_or_default(), made.chunks.as_deref().unwrap_or_default())
    });
    let fields = match (&shown.fields, &made.fields) {
        (Some(before), Some(after)) => Some(compare::fields(before, after)),
        _ => None,
    };
    let summary = match (shown.summary, made.summary) {
        (Some(before), Some(after)) => Some(SummaryDifference { is_same: before == after, before, after }),
        _ => None,
    };
    let difference = DocumentDifference {
        document_id: document.document_id.into(),
        document: document.name.clone(),
        run_id: document.run_id,
        state: document.state.clone(),
        code: document.code.clone(),
        text,
        chunks,
        fields,
        summary,
    };
    // One whose chunks were not made anew is taken as it is, so that it does not seem to be lost.
    let passages = |chunks: Option<Vec<Passage>>| chunks.unwrap_or_default();
    let made = if made.chunks.is_some() { passages(made.chunks) } else { shown.chunks.clone().unwrap_or_default() };
    Ok(Compared { difference, shown: passages(shown.chunks), made })
}

fn totals(documents: &[DocumentDifference]) -> DifferenceTotals {
    let mut totals = DifferenceTotals { documents: documents.len(), ..DifferenceTotals::default() };
    for one in documents {
        let differs = [
            one.text.as_ref().is_some_and(|text| !text.is_same),
            one.chunks.as_ref().is_some_and(|chunks| !chunks.is_same()),
            one.fields.as_ref().is_some_and(|fields| !fields.is_empty()),
            one.summary.as_ref().is_some_and(|summary| !summary.is_same),
        ];
        let (is_open, has_failed) = (one.state == "running", matches!(one.state.as_str(), "failed" | "partial"));
        totals.text += usize::from(differs[0]);
        totals.chunks += usize::from(differs[1]);
        totals.fields += usize::from(differs[2]);
        totals.summary += usize::from(differs[3]);
        totals.open += usize::from(is_open);
        totals.failed += usize::from(has_failed);
        totals.same += usize::from(!is_open && !has_failed && differs == [false; 4]);
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
    (before, after): (Vec<Passage>, Vec<Passage>),
) -> Result<Vec<AnswerDifference>, Failure> {
    let told = |passages: &[Passage], places: &[usize]| -> Vec<AnswerPassage> {
        let tell = |&place: &usize| AnswerPassage {
            document_id: passages[place].document_id,
            document: passages[place].titles.last().cloned().unwrap_or_default(),
            text: compare::excerpt(&passages[place].text),
        };
        places.iter().map(tell).collect()
    };
    let shown = state.search.among(tenant, before.clone(), questions, k).await?;
    let made = state.search.among(tenant, after.clone(), questions, k).await?;
    let answer = |(question, (shown, made)): (&String, (&Vec<usize>, &Vec<usize>))| {
        let (before, after) = (told(&before, shown), told(&after, made));
        let kept = before.iter().filter(|passage| after.contains(passage)).count();
        AnswerDifference { question: question.clone(), kept, before, after }
    };
    Ok(questions.iter().zip(shown.iter().zip(&made)).map(answer).collect())
}
