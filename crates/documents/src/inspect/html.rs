//! The report as one page of HTML, in which nothing is loaded from elsewhere.

use super::{Inspection, outcome, role};
use crate::parser::{FailedParse, Parsed};
use crate::render::escape;
use docmill_model::CanonicalText;
use docmill_model::document::{Block, BlockKind, Page, ParsedDocument, Rect, Table};
use std::fmt::Write;

const STYLE: &str = "body{font:14px sans-serif;background:#eee;margin:1em}.page{position:relative;background:#fff;margin:0 0 1em;box-shadow:0 0 4px #999}\
.page img{position:absolute;left:0;top:0;width:100%;height:100%}.b,.w{position:absolute;box-sizing:border-box}.b{border:1px solid #06c}.b i{position:absolute;right:100%;top:0;font:10px monospace;white-space:nowrap;background:#ffc}\
.w{border-bottom:1px solid #0a04}.w.hidden{background:#f005;border:1px dotted #c00}.heading{border-color:#c00}.table{border-color:#080}.furniture{border-color:#aaa;background:#aaa3}.list_item{border-color:#a0a}\
.c{position:absolute;box-sizing:border-box;border:1px dashed #080;background:#0801}.c.h{background:#0803}td,th{border:1px solid #080;padding:.1em .4em}\
.block{background:#fff;border-left:4px solid #06c;margin:.3em 0;padding:.2em .5em;white-space:pre-wrap}.hidden{background:#fdd}";

/// One HTML page with the pages' pictures (PNG as base64 by page number, where there are any), blocks and words drawn
/// over them, or the blocks one below the other for formats without pages. Nothing in it is loaded from elsewhere.
#[must_use]
pub fn inspection_html(parsed: &Parsed, title: &str, pictures: &[(u32, String)]) -> String {
    let document = &parsed.document;
    let report = Inspection::of_document(parsed);
    let text = CanonicalText::from_canonical(document.text.clone());
    let mut out = top(title);
    let language = document.language.as_deref().unwrap_or("unknown language");
    let _ = write!(
        out,
        "<p>{} read by {}, {language}, {} words, {} hidden spans</p><p>{}</p><p>{}</p><p>{} blocks: {}</p>",
        document.format.as_str(),
        escape(&document.engine),
        report.words,
        report.hidden,
        escape(&report.detection()),
        report.timings(),
        report.blocks,
        report.blocks_by_role()
    );
    if document.pages.is_empty() || document.words.is_empty() {
        for block in &document.blocks {
            flow(&mut out, document, &text, block);
        }
    } else {
        for page in &document.pages {
            let picture = pictures.iter().find(|(number, _)| *number == page.number);
            draw(&mut out, document, &text, page, picture.map(|(_, png)| png.as_str()));
        }
    }
    out
}

/// One HTML page that says why a file was not read.
#[must_use]
pub fn failure_html(failed: &FailedParse, title: &str) -> String {
    let mut out = top(title);
    let failure = &failed.failure;
    let _ = write!(out, "<p><b>{}</b>: {}</p>", failure.code, escape(&failure.message));
    if let (Some(limit), Some(measured)) = (failure.limit, failure.measured) {
        let _ = write!(out, "<p>limit {limit}, measured {measured}</p>");
    }
    let report = Inspection::of_failure(failed);
    let (detection, timings) = (escape(&report.detection()), report.timings());
    let _ = write!(out, "<p>{detection}</p><p>{timings}</p><p>{}</p>", failure.code.help());
    out
}

fn top(title: &str) -> String {
    let title = escape(title);
    format!("<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>")
}

/// A block of a format without pages.
fn flow(out: &mut String, document: &ParsedDocument, text: &CanonicalText, block: &Block) {
    let first = document.hidden.partition_point(|hidden| hidden.end <= block.span.start);
    let hidden = document.hidden.get(first).is_some_and(|hidden| hidden.overlaps(block.span));
    let class = if hidden { "block hidden" } else { "block" };
    let path = escape(block.path.as_deref().unwrap_or_default());
    let _ = write!(out, "<div class=\"{class}\" title=\"{path}\"><b>{}</b> ", role(block.role));
    match table_of(document, block) {
        Some(table) => {
            rows(out, text, table);
            nested(document, block).for_each(|table| rows(out, text, table));
        }
        None => out.push_str(&escape(text.slice(block.span).unwrap_or_default())),
    }
    out.push_str("</div>");
}

fn table_of<'a>(document: &'a ParsedDocument, block: &Block) -> Option<&'a Table> {
    let BlockKind::Table { table } = block.role else { return None };
    document.tables.get(table as usize)
}

/// The tables in the cells of the block's own.
fn nested<'a>(document: &'a ParsedDocument, block: &Block) -> impl Iterator<Item = &'a Table> {
    let BlockKind::Table { table: own } = block.role else { return [].iter() };
    let after = document.tables.get(own as usize + 1..).unwrap_or_default();
    let inside = |table: &Table| table.cells.first().is_some_and(|cell| cell.span.end <= block.span.end);
    after[..after.iter().take_while(|table| inside(table)).count()].iter()
}

fn rows(out: &mut String, text: &CanonicalText, table: &Table) {
    out.push_str("<table>");
    for cells in table.cells.chunk_by(|left, right| left.row == right.row) {
        let row = cells[0].row;
        out.push_str("<tr>");
        for cell in cells {
            let tag = if cell.header { "th" } else { "td" };
            let words = escape(text.slice(cell.span).unwrap_or_default());
            let _ = write!(
                out,
                "<{tag} rowspan={} colspan={} title=\"{row}, {}\">{words}</{tag}>",
                cell.row_span, cell.column_span, cell.column
            );
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
}

/// A page: its picture, and over it blocks, cells and words.
fn draw(out: &mut String, document: &ParsedDocument, text: &CanonicalText, page: &Page, picture: Option<&str>) {
    let (width, height) = (page.width.max(1.0), page.height.max(1.0));
    let _ = write!(
        out,
        "<h2>Page {} ({})</h2><div class=page style=\"width:{width}px;height:{height}px\">",
        page.number,
        outcome(&page.outcome)
    );
    if let Some(png) = picture {
        let _ = write!(out, "<img alt=\"\" src=\"data:image/png;base64,{png}\">");
    }
    for (index, block) in document.blocks.iter().enumerate().filter(|(_, b)| b.page == Some(page.number)) {
        if let Some(rect) = block.rect {
            let name = role(block.role);
            let _ = write!(out, "<div class=\"b {name}\" style=\"{}\"><i>{index} {name}</i></div>", place(rect));
        }
        if let Some(table) = table_of(document, block) {
            cells(out, document, table, page.number);
        }
    }
    for word in document.words.iter().filter(|w| w.page == page.number) {
        let label = escape(text.slice(word.span).unwrap_or_default());
        let hidden = document.hidden.partition_point(|span| span.end <= word.span.start);
        let hidden = document.hidden.get(hidden).is_some_and(|span| span.overlaps(word.span));
        let (class, note) = if hidden { ("w hidden", " (hidden)") } else { ("w", "") };
        let _ = write!(out, "<div class=\"{class}\" style=\"{}\" title=\"{label}{note}\"></div>", place(word.rect));
    }
    out.push_str("</div>");
}

fn cells(out: &mut String, document: &ParsedDocument, table: &Table, page: u32) {
    for cell in &table.cells {
        let boxes = document.boxes(cell.span).into_iter().filter(|(number, _)| *number == page).map(|(_, rect)| rect);
        if let Some(rect) = boxes.reduce(Rect::union) {
            let class = if cell.header { "c h" } else { "c" };
            let (row, column, place) = (cell.row, cell.column, place(rect));
            let _ = write!(out, "<div class=\"{class}\" style=\"{place}\" title=\"{row}, {column}\"></div>");
        }
    }
}

fn place(rect: Rect) -> String {
    format!(
        "left:{:.1}px;top:{:.1}px;width:{:.1}px;height:{:.1}px",
        rect.x0,
        rect.y0,
        rect.x1 - rect.x0,
        rect.y1 - rect.y0
    )
}

#[cfg(test)]
mod tests {
    use super::{failure_html, inspection_html};
    use crate::{Detected, FailedParse, Observed, ParseOptions, Parsed, Steps, parse_in_process};
    use docmill_model::{Code, Failure};

    #[test]
    fn cells_are_drawn_and_escaped() {
        let html = b"<!doctype html><p>Stock</p><table><tr><th>Part<th>Held</tr><tr><td>a &lt;b&gt;<td>3</tr></table>";
        let document = parse_in_process(html, &ParseOptions::default()).expect("parses");
        let detected = Detected { media_type: "text/html".to_owned(), format: None };
        let steps = Steps { read_millis: 4, ..Steps::default() };
        let observed = Observed { declared: None, detected: Some(detected), steps };
        let parsed = Parsed { document, millis: 5, peak_rss_bytes: 3 << 20, observed };
        let page = inspection_html(&parsed, "<stock>", &[]);
        assert!(
            page.contains("declared: nothing, detected: text/html") && page.contains("5 ms (0 starting, 4 reading")
        );
        assert!(page.contains("2 blocks: 1 paragraph, 1 table"), "{page}");
        assert!(page.contains("<h1>&lt;stock&gt;</h1>"));
        assert!(page.contains("<td rowspan=1 colspan=1 title=\"1, 0\">a &lt;b&gt;</td>"), "{page}");
        assert_eq!(page.matches("<th ").count(), 2);
    }

    #[test]
    fn failures_say_their_code_and_what_was_found() {
        let detected = Detected { media_type: "text/html".to_owned(), format: None };
        let observed =
            Observed { declared: Some("application/pdf".to_owned()), detected: Some(detected), ..Observed::default() };
        let failure = Failure::new(Code::TypeMismatch, "declared application/pdf, detected text/html");
        let page = failure_html(&FailedParse { failure, millis: 3, peak_rss_bytes: 0, observed }, "a.pdf");
        assert!(page.contains("<b>TYPE_MISMATCH</b>") && page.contains("detected: text/html"), "{page}");
    }
}
