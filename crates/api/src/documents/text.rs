//! `GET /v1/documents/{id}/text`: canonical text and its pages; every span of every other answer points into it.

use super::document_id;
use super::results::{not_ready, read_version};
use crate::auth::Reader;
use crate::body::QueryParams;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::Json;
use axum::extract::{Path, State};
use docmill_model::document::{Page, PageOutcome, ParsedDocument};
use docmill_model::{CanonicalText, Code, DocumentId, Failure, Sha256Hex, Span, VersionId};

/// Most characters of one answer; the rest is asked for by `char_start`.
pub const MAX_TEXT_CHARS: u32 = 500_000;

/// Which part of the text.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TextQuery {
    /// Number of the version, from 1; the one that answers questions when absent, else the newest.
    version: Option<i32>,
    /// Only this page, from 1; not together with `char_start` and `char_end`.
    page: Option<u32>,
    /// First character, counted from 0.
    char_start: Option<u32>,
    /// One past the last character; at most 500,000 characters are given at once.
    char_end: Option<u32>,
}

/// Canonical text: NFC, `\n` line ends, positions in Unicode scalar values.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct TextView {
    /// The document.
    pub document_id: DocumentId,
    /// The version that was read.
    pub version_id: VersionId,
    /// Its number.
    pub version: i32,
    /// Detected format.
    pub format: Option<String>,
    /// ISO 639-3 language.
    pub language: Option<String>,
    /// Title.
    pub title: Option<String>,
    /// Which engine read it.
    pub engine: String,
    /// Characters of the whole text.
    pub characters: u32,
    /// First character of `text`.
    pub char_start: u32,
    /// One past the last character of `text`; less than `characters` when more follows.
    pub char_end: u32,
    /// The text, with what a reader would not see.
    pub text: String,
    /// Parts a reader would not see.
    pub hidden: Vec<Span>,
    /// Pages that overlap `text`, for paged formats.
    pub pages: Vec<PageView>,
}

/// One page.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct PageView {
    /// Number from 1.
    pub number: u32,
    /// Width in points; pixels for images.
    pub width: f32,
    /// Height, same unit.
    pub height: f32,
    /// The part of the canonical text on this page.
    pub span: Span,
    /// `text`, `ocr`, `blank` or `failed`.
    pub outcome: &'static str,
    /// Mean confidence of text recognition, 0–1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Why the page failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl From<&Page> for PageView {
    fn from(page: &Page) -> Self {
        let (outcome, confidence, code) = match &page.outcome {
            PageOutcome::Text => ("text", None, None),
            PageOutcome::Ocr { confidence } => ("ocr", Some(*confidence), None),
            PageOutcome::Blank => ("blank", None, None),
            PageOutcome::Failed { failure } => ("failed", None, Some(failure.code.to_string())),
        };
        let (number, width, height, span) = (page.number, page.width, page.height, page.span);
        Self { number, width, height, span, outcome, confidence, code }
    }
}

/// The canonical text of a document.
#[utoipa::path(get, path = "/v1/documents/{id}/text", tag = "documents",
    params(("id" = String, Path, description = "Document id"), TextQuery),
    responses((status = 200, body = TextView), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
              (status = 422, body = ProblemBody)))]
pub async fn text(
    State(state): State<ApiState>,
    Reader(principal): Reader,
    Path(id): Path<String>,
    QueryParams(query): QueryParams<TextQuery>,
) -> Result<Json<TextView>, Problem> {
    let id = document_id(&id)?;
    if query.page.is_some() && (query.char_start.is_some() || query.char_end.is_some()) {
        return Err(Problem::field("page", "either a page or a range of characters is expected"));
    }
    let (tenant, labels, number) = (principal.tenant_id, principal.labels, query.version);
    let read = state
        .database
        .read(tenant, move |connection| Box::pin(async move { read_version(connection, id, &labels, number).await }));
    let version = read.await?;
    let sha256: Option<Sha256Hex> = version.parsed_sha256.as_deref().and_then(|text| text.parse().ok());
    let bytes = state.artifacts.get(tenant, &sha256.ok_or_else(|| not_ready("text"))?).await?;
    let read = move || -> Result<TextView, Failure> {
        let parsed: ParsedDocument = serde_json::from_slice(&bytes)
            .map_err(|_| Failure::new(Code::Internal, "a parsed document cannot be read"))?;
        let mut view = TextView {
            document_id: id,
            version_id: version.id.into(),
            version: version.number,
            format: version.format,
            language: version.language,
            title: version.title,
            engine: parsed.engine.clone(),
            characters: 0,
            char_start: 0,
            char_end: 0,
            text: String::new(),
            hidden: Vec::new(),
            pages: Vec::new(),
        };
        cut(parsed, &query, &mut view)?;
        Ok(view)
    };
    let view = tokio::task::spawn_blocking(read).await;
    Ok(Json(view.map_err(|_| Problem::new(Code::Internal, "a parsed document cannot be read"))??))
}

/// Fills in the part that was asked for.
fn cut(parsed: ParsedDocument, query: &TextQuery, view: &mut TextView) -> Result<(), Failure> {
    let invalid = |field: &str, why: &str| Failure::new(Code::FieldInvalid, format!("`{field}`: {why}"));
    let text = CanonicalText::from_canonical(parsed.text);
    let wanted = match query.page {
        Some(number) => {
            let page = parsed.pages.iter().find(|page| page.number == number);
            page.ok_or_else(|| invalid("page", "the document has no such page"))?.span
        }
        None => Span::new(query.char_start.unwrap_or(0), query.char_end.unwrap_or(text.len()).min(text.len())),
    };
    if wanted.start > text.len() || query.char_end.is_some_and(|end| end < wanted.start) {
        return Err(invalid("char_start", "a position inside the text, not after `char_end`, is expected"));
    }
    let span = Span::new(wanted.start, wanted.end.min(wanted.start.saturating_add(MAX_TEXT_CHARS)));
    view.characters = text.len();
    (view.char_start, view.char_end) = (span.start, span.end);
    view.text = text.slice(span).unwrap_or_default().to_owned();
    view.hidden = parsed.hidden.into_iter().filter(|hidden| hidden.overlaps(span)).collect();
    let shown = |page: &&Page| page.span.overlaps(span) || query.page == Some(page.number);
    view.pages = parsed.pages.iter().filter(shown).map(PageView::from).collect();
    Ok(())
}
