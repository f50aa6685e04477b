//! Reading costs in proportion to the file: small files in which one thing is there very often. A reader that looks at
//! all of them for each of them takes minutes here and runs into the processor time that it gets.

use crate::made::{docx, zip};
use crate::support::{parser, request};
use docmill_documents::ParseRequest;
use std::fmt::Write;

/// How often each thing is there.
const TIMES: usize = 20_000;
/// Processor time in seconds: a hundred times what the slowest of these takes.
const CPU_SECS: u64 = 10;

fn often(one: impl Fn(usize) -> String) -> String {
    (0..TIMES).map(one).collect()
}

fn paragraph(words: &str) -> String {
    format!("<w:p><w:r><w:t xml:space='preserve'>{words}</w:t></w:r></w:p>")
}

fn cell(properties: &str, content: &str) -> String {
    format!("<w:tc><w:tcPr>{properties}</w:tcPr>{content}</w:tc>")
}

fn footnotes() -> Vec<u8> {
    let mut entries = crate::made::docx_entries(&format!(
        "<w:p>{}</w:p>",
        often(|at| format!("<w:r><w:t>w{at}</w:t></w:r><w:r><w:footnoteReference w:id='{at}'/></w:r>"))
    ));
    let notes = often(|at| format!("<w:footnote w:id='{at}'>{}</w:footnote>", paragraph("note")));
    let relation = "<Relationship Id='n' Type='t/footnotes' Target='footnotes.xml'/>";
    let relations = format!("<Relationships xmlns='x'>{relation}</Relationships>");
    entries.push(("word/_rels/document.xml.rels".to_owned(), relations));
    entries.push(("word/footnotes.xml".to_owned(), format!("<w:footnotes xmlns:w='w'>{notes}</w:footnotes>")));
    zip(&entries)
}

#[tokio::test]
async fn what_is_there_very_often_is_read_as_fast_as_the_rest() {
    let row = |cells: &str| format!("<w:tr>{cells}</w:tr>");
    let nested = format!("<w:tbl>{}</w:tbl>", often(|at| row(&cell("", &paragraph(&at.to_string())))));
    let mut marks = String::from("a");
    (0..TIMES).for_each(|at| {
        write!(marks, "<a href='/x'>{}</a>", char::from_u32(0x300 + at as u32 % 80).unwrap_or('b')).expect("a string")
    });
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("nested.docx", docx(&format!("<w:tbl>{}</w:tbl>", row(&cell("", &(nested + &paragraph(""))))))),
        (
            "links.docx",
            docx(&format!(
                "<w:p>{}</w:p>",
                often(|at| format!("<w:hyperlink w:anchor='a{at}'><w:r><w:t>w{at} </w:t></w:r></w:hyperlink>"))
            )),
        ),
        (
            "hidden.docx",
            docx(&format!(
                "<w:p>{}</w:p>",
                often(|at| format!(
                    "<w:r><w:rPr><w:vanish/></w:rPr><w:t>h{at}</w:t></w:r><w:r><w:t> w{at} </w:t></w:r>"
                ))
            )),
        ),
        (
            "merged.docx",
            docx(&format!(
                "<w:tbl>{}{}</w:tbl>",
                row(&cell("<w:vMerge w:val='restart'/>", &paragraph("top"))),
                often(|at| row(&cell("<w:vMerge/>", &paragraph(&at.to_string()))))
            )),
        ),
        (
            "unmerged.docx",
            docx(&format!(
                "<w:tbl>{}</w:tbl>",
                often(|at| row(&(cell("", &paragraph(&at.to_string()))
                    + "<w:tc><w:tcPr><w:gridSpan w:val='2'/><w:vMerge/></w:tcPr><w:p/></w:tc>")))
            )),
        ),
        (
            "blank.docx",
            docx(&format!(
                "<w:tbl>{}</w:tbl>",
                row(&cell("", &(often(|at| paragraph(&" ".repeat(at % 100))) + &paragraph("x"))))
            )),
        ),
        ("notes.docx", footnotes()),
        ("links.html", format!("<p>{}</p>", often(|at| format!("<a href='/{at}'>w{at}</a> "))).into_bytes()),
        ("hidden.html", format!("<p>{}</p>", often(|at| format!("<span hidden>h{at}</span> w{at} "))).into_bytes()),
        ("marks.html", format!("<p>{marks}</p>").into_bytes()),
        ("links.md", often(|at| format!("[w{at}](/{at}) ")).into_bytes()),
        ("hidden.md", format!("text {}", often(|at| format!("<span hidden>h{at}</span> w{at} "))).into_bytes()),
    ];
    let parser = parser();
    for (name, bytes) in files {
        let mut request: ParseRequest = request(bytes, name);
        request.options.limits.cpu_secs = CPU_SECS;
        let parsed = parser.parse(request).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert!(!parsed.document.is_partial() && parsed.document.violations().is_empty(), "{name}");
    }
}
