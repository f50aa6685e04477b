//! The second engine: pdf-extract, text by page without boxes. It panics and overflows on some files, which is why
//! it runs in the sandboxed child only.

use crate::blocks::DocumentBuilder;
use crate::inline::Inline;
use crate::options::ParseOptions;
use docmill_model::document::{BlockKind, Format, Page, PageOutcome, ParsedDocument};
use docmill_model::{Code, Failure, Span};

/// Reads a PDF with pdf-extract.
///
/// # Errors
/// `PDF_ENCRYPTED`, `PDF_MALFORMED`, `PAGE_LIMIT`, `EMPTY_TEXT`.
pub(crate) fn parse(bytes: &[u8], options: &ParseOptions) -> Result<ParsedDocument, Failure> {
    let pages = pdf_extract::extract_text_from_mem_by_pages(bytes).map_err(|error| match error {
        pdf_extract::OutputError::PdfError(pdf_extract::Error::Decryption(_)) => {
            Failure::new(Code::PdfEncrypted, "the PDF opens only with a password")
        }
        _ => Failure::new(Code::PdfMalformed, "the PDF cannot be read"),
    })?;
    let count = pages.len() as u64;
    if count > options.limits.pages {
        return Err(Failure::limit(Code::PageLimit, "the PDF has too many pages", options.limits.pages, count));
    }
    let mut builder = DocumentBuilder::new(Format::Pdf);
    let mut spans: Vec<(u32, Span)> = Vec::new();
    for (index, text) in pages.iter().enumerate() {
        let number = index as u32 + 1;
        for paragraph in text.split("\n\n") {
            if let Some(span) = builder.block(BlockKind::Paragraph, format!("page[{number}]"), &Inline::of(paragraph)) {
                spans.push((number, span));
            }
        }
    }
    builder.metadata("page_count", &count.to_string());
    let mut document = builder.finish()?;
    document.engine = "pdf-extract".to_owned();
    for (block, (number, _)) in document.blocks.iter_mut().zip(&spans) {
        block.page = Some(*number);
    }
    let mut end = 0;
    for number in 1..=count as u32 {
        let own = spans
            .iter()
            .filter(|(page, _)| *page == number)
            .map(|(_, span)| *span)
            .reduce(|a, b| Span::new(a.start, b.end));
        let span = own.unwrap_or(Span::new(end, end));
        end = span.end;
        let outcome = if own.is_some() { PageOutcome::Text } else { PageOutcome::Blank };
        // The engine gives no geometry: the size is that of a letter page.
        document.pages.push(Page { number, width: 612.0, height: 792.0, rotation: 0, span, outcome });
    }
    Ok(document)
}
