//! `GET /v1/documents/{id}/pages/{n}.png`: a page as a reader sees it, with a citation marked in it. Documents without
//! pages, or whose engine found no places for its words, answer with an HTML excerpt around the citation instead.
//!
//! The picture is drawn in the parser's sandbox; the file's own bytes are not given out.

use super::document_id;
use super::results::{ReadVersion, not_ready, read_version};
use crate::auth::Reader;
use crate::body::QueryParams;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use docmill_documents::{Parser, excerpt_html};
use docmill_model::document::{Format, ParsedDocument, Rect};
use docmill_model::{Code, DocumentId, Failure, Sha256Hex, Span, TenantId};

/// Widest picture in pixels.
pub const MAX_WIDTH_PIXELS: u32 = 2_000;
/// Largest file a page is drawn from, in bytes: it is held in memory meanwhile.
pub const MAX_DRAWN_BYTES: u64 = 256 << 20;

/// Draws pages.
#[async_trait::async_trait]
pub trait PageImages: Send + Sync {
    /// Page `number` (from 1) of a PDF or image as PNG, `scale` pixels per page unit, with rectangles marked.
    ///
    /// # Errors
    /// `NOT_FOUND`, `PIXEL_LIMIT` and those of parsing.
    async fn draw(&self, file: Bytes, number: u32, scale: f32, marked: Vec<Rect>) -> Result<Vec<u8>, Failure>;
}

#[async_trait::async_trait]
impl PageImages for Parser {
    async fn draw(&self, file: Bytes, number: u32, scale: f32, marked: Vec<Rect>) -> Result<Vec<u8>, Failure> {
        self.render_page(file, number, scale, marked).await
    }
}

/// What to show.
#[derive(Debug, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Number of the version, from 1; the one that answers questions when absent, else the newest.
    version: Option<i32>,
    /// Characters to mark, as `START-END` in the canonical text, as citations give them.
    highlight: Option<String>,
    /// Width of the picture in pixels: 50 to 2,000, else 1,000.
    width: Option<u32>,
}

/// What is drawn, decided from the parsed document.
enum Shown {
    Picture { scale: f32, marked: Vec<Rect> },
    Excerpt(String),
}

/// A page with a citation marked.
#[utoipa::path(get, path = "/v1/documents/{id}/pages/{page}", tag = "documents",
    params(("id" = String, Path, description = "Document id"),
           ("page" = String, Path, description = "Number of the page from 1 and `.png`, as in `3.png`"), PageQuery),
    responses((status = 200, description = "PNG of a PDF or image, HTML excerpt of other formats", content_type = "image/png"),
              (status = 404, body = ProblemBody), (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
              (status = 422, body = ProblemBody)))]
pub async fn page(
    State(state): State<ApiState>,
    Reader(principal): Reader,
    Path((id, page)): Path<(String, String)>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Response, Problem> {
    let id = document_id(&id)?;
    let number = page.strip_suffix(".png").and_then(|number| number.parse().ok());
    let number: u32 = number.ok_or_else(Problem::not_found)?;
    let width = query.width.unwrap_or(1_000);
    if !(50..=MAX_WIDTH_PIXELS).contains(&width) {
        return Err(Problem::field("width", "50 to 2000 pixels are expected"));
    }
    let highlight = query.highlight.as_deref().map(span).transpose()?;
    let tenant = principal.tenant_id;
    let (version, file) = find(&state, tenant, id, principal.labels, query.version).await?;
    let sha256: Option<Sha256Hex> = version.parsed_sha256.as_deref().and_then(|text| text.parse().ok());
    let parsed = state.artifacts.get(tenant, &sha256.ok_or_else(|| not_ready("pages"))?).await?;
    let decide = move || -> Result<Shown, Problem> {
        let parsed: ParsedDocument = serde_json::from_slice(&parsed)
            .map_err(|_| Failure::new(Code::Internal, "a parsed document cannot be read"))?;
        shown(&parsed, number, highlight, width)
    };
    let shown = tokio::task::spawn_blocking(decide).await;
    match shown.map_err(|_| Problem::new(Code::Internal, "a parsed document cannot be read"))?? {
        Shown::Excerpt(html) => Ok(answer("text/html; charset=utf-8", html)),
        Shown::Picture { scale, marked } => {
            let file = file?;
            let bytes = state.blobs.get_verified(&file.key, &file.sha256).await.map_err(Failure::from)?;
            Ok(answer("image/png", state.pages.draw(bytes, number, scale, marked).await?))
        }
    }
}

/// The accepted file of a version.
struct Accepted {
    key: String,
    sha256: Sha256Hex,
}

async fn find(
    state: &ApiState,
    tenant: TenantId,
    id: DocumentId,
    labels: Vec<String>,
    number: Option<i32>,
) -> Result<(ReadVersion, Result<Accepted, Problem>), Problem> {
    let read = state.database.read(tenant, move |connection| {
        Box::pin(async move {
            let version = read_version(&mut *connection, id, &labels, number).await?;
            let row: (Option<String>, String, i64, bool) = sqlx::query_as(
                "SELECT accepted_key, sha256, size_bytes, raw_removed_at IS NOT NULL FROM document_versions WHERE tenant_id = current_tenant() AND id = $1",
            )
            .bind(version.id)
            .fetch_one(connection)
            .await?;
            Ok((version, row))
        })
    });
    let (version, (key, sha256, size, is_removed)) = read.await?;
    Ok((version, drawable(key, &sha256, size, is_removed)))
}

/// Whether the accepted file can be drawn; excerpts of text do without it.
fn drawable(key: Option<String>, sha256: &str, size: i64, is_removed: bool) -> Result<Accepted, Problem> {
    if is_removed {
        return Err(Failure::new(Code::FileRemoved, "the uploaded bytes are kept no longer").into());
    }
    let (Some(key), Ok(sha256)) = (key, sha256.parse()) else { return Err(not_ready("pages").into()) };
    let size = size.unsigned_abs();
    if size > MAX_DRAWN_BYTES {
        let message = "the file is too large for its pages to be drawn";
        return Err(Failure::limit(Code::SizeLimit, message, MAX_DRAWN_BYTES, size).into());
    }
    Ok(Accepted { key, sha256 })
}

fn shown(parsed: &ParsedDocument, number: u32, highlight: Option<Span>, width: u32) -> Result<Shown, Problem> {
    let length = parsed.text.chars().count();
    if highlight.is_some_and(|span| span.end as usize > length) {
        return Err(Problem::field("highlight", "positions inside the text are expected"));
    }
    if !matches!(parsed.format, Format::Pdf | Format::Image) {
        return Ok(excerpt(parsed, highlight.unwrap_or(Span::new(0, 0))));
    }
    let page = parsed.pages.iter().find(|page| page.number == number).ok_or_else(Problem::not_found)?;
    // The second engine reads what the first one cannot open, so that nothing draws the page or knows its words' places.
    if parsed.words.is_empty() && parsed.engine == "pdf-extract" {
        return Ok(excerpt(parsed, highlight.unwrap_or(Span::new(page.span.start, page.span.start))));
    }
    let boxes = highlight.map(|span| parsed.boxes(span)).unwrap_or_default();
    let marked = boxes.into_iter().filter(|(page, _)| *page == number).map(|(_, rect)| rect).collect();
    Ok(Shown::Picture { scale: width as f32 / page.width.max(1.0), marked })
}

fn excerpt(parsed: &ParsedDocument, span: Span) -> Shown {
    let excerpt = excerpt_html(parsed, span);
    Shown::Excerpt(format!("<!doctype html><meta charset=utf-8><title>Excerpt</title>{excerpt}"))
}

/// `START-END`.
fn span(text: &str) -> Result<Span, Problem> {
    let parts = text.split_once('-').and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)));
    match parts {
        Some((start, end)) if start < end => Ok(Span::new(start, end)),
        _ => Err(Problem::field("highlight", "START-END is expected, as in 120-164")),
    }
}

/// Nothing in the answer may run, load or be kept.
fn answer(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "private, no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::{Shown, shown};
    use docmill_documents::{InProcess, ParseOptions};
    use docmill_model::Span;
    use docmill_model::document::{Format, Rect, Word};

    #[test]
    fn pages_whose_words_have_no_places_are_shown_as_text() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sample-docs/annual-report-2025.pdf");
        let bytes = std::fs::read(path).expect("a sample");
        let mut parsed = InProcess::new(None).parse(&bytes, &ParseOptions::default()).expect("reads");
        assert_eq!((parsed.engine.as_str(), parsed.words.len()), ("pdf-extract", 0));
        let marked = Some(Span::new(0, 6));
        let Ok(Shown::Excerpt(html)) = shown(&parsed, 1, marked, 612) else { panic!("no excerpt") };
        assert!(html.contains("<mark>"), "{html}");
        assert!(shown(&parsed, 9_999, None, 612).is_err());
        // With places, as pdfium and tesseract give them, the page is drawn and the words are marked in it.
        let rect = Rect { x0: 1.0, y0: 2.0, x1: 3.0, y1: 4.0 };
        parsed.words = vec![Word { span: Span::new(0, 6), page: 1, rect, confidence: 1.0 }];
        for (format, engine) in [(Format::Pdf, "pdfium"), (Format::Image, "tesseract")] {
            (parsed.format, parsed.engine) = (format, engine.to_owned());
            let Ok(Shown::Picture { scale, marked }) = shown(&parsed, 1, marked, 306) else { panic!("no picture") };
            assert_eq!((scale, marked), (0.5, vec![rect]));
        }
    }
}
