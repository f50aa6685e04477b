//! What a package becomes: headings, lists, tables with merges, notes, hidden runs, links, limits; `charts`: what is drawn;
//! `costs`: that small files cost little.

mod charts;
mod costs;

use super::parse;
use crate::ParseOptions;
use docmill_model::document::{BlockKind, ParsedDocument};
use docmill_model::{CanonicalText, Code};
use std::io::Write;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const RELATIONS: &str = r#"<Relationships xmlns="x"><Relationship Id="r1" Type="t/officeDocument" Target="word/document.xml"/></Relationships>"#;

fn package(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in [("_rels/.rels", RELATIONS)].iter().chain(parts) {
        zip.start_file(*name, SimpleFileOptions::default()).expect("starts");
        zip.write_all(content.as_bytes()).expect("writes");
    }
    zip.finish().expect("finishes").into_inner()
}

/// Options for files that say the same very often, and so pack better than a file may.
fn repetitive() -> ParseOptions {
    let mut options = ParseOptions::default();
    options.limits.expansion_ratio = u64::MAX;
    options
}

fn body(content: &str) -> String {
    format!(r#"<w:document xmlns:w="w" xmlns:r="r"><w:body>{content}</w:body></w:document>"#)
}

fn read(parts: &[(&str, &str)]) -> ParsedDocument {
    let document = parse(&package(parts), &ParseOptions::default()).expect("parses");
    assert_eq!(document.violations(), Vec::<String>::new());
    document
}

fn blocks(document: &ParsedDocument) -> Vec<(BlockKind, String)> {
    let text = CanonicalText::from_canonical(document.text.clone());
    document.blocks.iter().map(|b| (b.role, text.slice(b.span).expect("inside").to_owned())).collect()
}

#[test]
fn headings_runs_deletions_and_hidden_text() {
    let document = read(&[(
        "word/document.xml",
        &body(concat!(
            "<w:p><w:pPr><w:outlineLvl w:val='0'/><w:tabs><w:tab w:val='left'/></w:tabs></w:pPr><w:r><w:t>Title</w:t></w:r></w:p>",
            "<w:p><w:r><w:t xml:space='preserve'>Kept </w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>",
            "<w:ins><w:r><w:t>added</w:t></w:r></w:ins><w:r><w:rPr><w:vanish/></w:rPr><w:t> secret</w:t></w:r></w:p>"
        )),
    )]);
    let expected =
        [(BlockKind::Heading { level: 1 }, "Title".to_owned()), (BlockKind::Paragraph, "Kept added secret".to_owned())];
    assert_eq!(blocks(&document), expected);
    let text = CanonicalText::from_canonical(document.text.clone());
    assert_eq!(document.hidden.iter().filter_map(|&h| text.slice(h)).collect::<Vec<_>>(), ["secret"]);
}

#[test]
fn merged_cells_and_notes() {
    let cell = |properties: &str, text: &str| {
        format!("<w:tc><w:tcPr>{properties}</w:tcPr><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:tc>")
    };
    let table = format!(
        "<w:tbl><w:tr><w:trPr><w:tblHeader/></w:trPr>{}{}</w:tr><w:tr>{}{}{}</w:tr></w:tbl><w:p><w:r><w:t>See</w:t><w:footnoteReference w:id='7'/></w:r></w:p>",
        cell("<w:vMerge w:val='restart'/>", "A"),
        cell("<w:gridSpan w:val='2'/>", "B"),
        cell("<w:vMerge/>", ""),
        cell("", "x"),
        cell("", "y")
    );
    let relations =
        r#"<Relationships xmlns="x"><Relationship Id="r1" Type="t/footnotes" Target="footnotes.xml"/></Relationships>"#;
    let notes = r#"<w:footnotes xmlns:w="w"><w:footnote w:id="7"><w:p><w:r><w:t>Source</w:t></w:r></w:p></w:footnote></w:footnotes>"#;
    let document = read(&[
        ("word/document.xml", &body(&table)),
        ("word/_rels/document.xml.rels", relations),
        ("word/footnotes.xml", notes),
    ]);
    let spans: Vec<_> =
        document.tables[0].cells.iter().map(|c| (c.row, c.column, c.row_span, c.column_span, c.header)).collect();
    assert_eq!(spans, [(0, 0, 2, 1, true), (0, 1, 1, 2, true), (1, 1, 1, 1, false), (1, 2, 1, 1, false)]);
    assert_eq!(
        blocks(&document)[1..],
        [(BlockKind::Paragraph, "See[1]".to_owned()), (BlockKind::Footnote, "[1] Source".to_owned())]
    );
}

#[test]
fn a_table_in_a_cell_is_a_table_of_its_own() {
    let cell = |inner: &str| format!("<w:tc>{inner}</w:tc>");
    let words = |words: &str| format!("<w:p><w:r><w:t>{words}</w:t></w:r></w:p>");
    let table = |rows: &[&[String]]| {
        let row = |cells: &&[String]| format!("<w:tr>{}</w:tr>", cells.concat());
        format!("<w:tbl>{}</w:tbl>", rows.iter().map(row).collect::<String>())
    };
    let deepest = table(&[&[cell(&words("x")), cell(&words(""))]]);
    let inner = table(&[&[cell(&words("Cafe\u{301}")), cell(&words("B"))], &[cell(&deepest), cell(&words("D"))]]);
    let outer = table(&[&[cell(&words("left")), cell(&format!("{}{inner}{}", words("Before"), words("after")))]]);
    let blank = table(&[&[cell(&table(&[&[cell(&words(""))]])), cell(&words("end"))]]);
    let document = read(&[("word/document.xml", &body(&format!("{outer}{blank}")))]);
    assert_eq!(document.text, "left | Before Caf\u{e9} | B x |  | D after\n\n | end");
    let text = CanonicalText::from_canonical(document.text.clone());
    let at = |span| text.slice(span).expect("inside");
    let tables: Vec<Vec<(u32, u32, &str)>> =
        document.tables.iter().map(|t| t.cells.iter().map(|c| (c.row, c.column, at(c.span))).collect()).collect();
    let expected = [
        vec![(0, 0, "left"), (0, 1, "Before Caf\u{e9} | B x |  | D after")],
        vec![(0, 0, "Caf\u{e9}"), (0, 1, "B"), (1, 0, "x |"), (1, 1, "D")],
        vec![(0, 0, "x"), (0, 1, "")],
        vec![(0, 0, ""), (0, 1, "end")],
    ];
    assert_eq!(tables, expected);
    assert_eq!((document.tables[1].rows, document.tables[1].columns), (2, 2));
    let roles: Vec<BlockKind> = document.blocks.iter().map(|block| block.role).collect();
    assert_eq!(roles, [BlockKind::Table { table: 0 }, BlockKind::Table { table: 3 }]);
    let outer = document.tables[0].cells[1].span;
    assert!(document.tables[1..3].iter().flat_map(|t| &t.cells).all(|cell| outer.contains(cell.span)));
}

#[test]
fn hostile_packages_have_codes() {
    let code =
        |parts: &[(&str, &str)]| parse(&package(parts), &ParseOptions::default()).map_err(|f| f.code).map(|_| ());
    let doctype = format!("<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>{}", body("<w:p/>"));
    assert_eq!(code(&[("word/document.xml", &doctype)]), Err(Code::XmlDtdForbidden));
    let deep = body(&"<w:x>".repeat(200));
    assert_eq!(code(&[("word/document.xml", &deep)]), Err(Code::XmlLimit));
    assert_eq!(code(&[("word/document.xml", &body("")), ("../evil", "x")]), Err(Code::ArchiveUnsafePath));
    assert_eq!(code(&[("word/document.xml", &body("<w:p/>"))]), Err(Code::EmptyText));
    let big = " ".repeat(30_000_000);
    assert_eq!(code(&[("word/document.xml", &big)]), Err(Code::ExpansionLimit));
}

/// A text box whose shape has these properties.
fn text_box(properties: &str, run: &str) -> String {
    format!(
        "<w:p><w:r><w:drawing><wps:wsp><wps:spPr>{properties}</wps:spPr><wps:txbx><w:txbxContent><w:p>{run}</w:p></w:txbxContent></wps:txbx></wps:wsp></w:drawing></w:r></w:p>"
    )
}

#[test]
fn what_hidden_rows_runs_and_drawings_hold_is_hidden() {
    let run = |properties: &str, inner: &str| format!("<w:r><w:rPr>{properties}</w:rPr>{inner}</w:r>");
    let words = |words: &str| format!("<w:t xml:space='preserve'>{words}</w:t>");
    let boxed = |drawing: &str, inner: &str| {
        let paragraph = format!("<w:p><w:r>{}</w:r></w:p>", words(inner));
        format!(
            "<w:drawing><wp:inline>{drawing}<wps:wsp><wps:txbx><w:txbxContent>{paragraph}</w:txbxContent></wps:txbx></wps:wsp></wp:inline></w:drawing>"
        )
    };
    let row = |properties: &str, inner: &str| {
        let cell = format!("<w:tc><w:p><w:r>{}</w:r></w:p></w:tc>", words(inner));
        format!("<w:tr><w:trPr>{properties}</w:trPr>{cell}</w:tr>")
    };
    let reference = |id: u32| format!("<w:footnoteReference w:id='{id}'/>");
    let content = [
        format!("<w:p>{}{}</w:p>", run("<w:vanish/>", &boxed("", "anchored")), run("", &words("seen "))),
        format!("<w:p>{}{}</w:p>", run("", &boxed("<wp:docPr hidden='1'/>", "drawn")), run("", &words("after"))),
        format!("<w:p>{}</w:p>", run("", &boxed("<wp:docPr id='2'/>", "boxed"))),
        format!("<w:tbl>{}{}</w:tbl>", row("<w:hidden/>", "row"), row("", "next")),
        format!("<w:p>{}{}</w:p>", run("<w:vanish/>", &reference(1)), run("", &reference(2))),
    ];
    let relations =
        r#"<Relationships xmlns="x"><Relationship Id="r1" Type="t/footnotes" Target="footnotes.xml"/></Relationships>"#;
    let note =
        |id: u32, inner: &str| format!("<w:footnote w:id='{id}'><w:p><w:r>{}</w:r></w:p></w:footnote>", words(inner));
    let notes = format!("<w:footnotes xmlns:w='w'>{}{}</w:footnotes>", note(1, "below"), note(2, "foot"));
    let document = read(&[
        ("word/document.xml", &body(&content.concat())),
        ("word/_rels/document.xml.rels", relations),
        ("word/footnotes.xml", &notes),
    ]);
    let text = CanonicalText::from_canonical(document.text.clone());
    let hidden: Vec<&str> = document.hidden.iter().filter_map(|&span| text.slice(span)).collect();
    assert_eq!(hidden, ["anchored", "drawn", "row", "[1]", "[1] below"], "{}", document.text);
    for seen in ["seen", "after", "boxed", "next", "[2] foot"] {
        assert!(document.text.contains(seen), "{}", document.text);
    }
}

#[test]
fn text_that_cannot_be_seen_is_hidden() {
    let run = |properties: &str, words: &str| {
        format!("<w:r><w:rPr>{properties}</w:rPr><w:t xml:space='preserve'>{words}</w:t></w:r>")
    };
    let (white, tiny) = ("<w:color w:val='FFFFFF'/>", "<w:sz w:val='2'/>");
    let dark = "<w:shd w:val='clear' w:fill='1F3864'/>";
    let content = [
        "<w:p>".to_owned(),
        run("", "seen "),
        run(white, "white "),
        run(tiny, "tiny "),
        run(&format!("{white}<w:highlight w:val='black'/>"), "marked "),
        run(&format!("{white}{dark}"), "shaded"),
        "</w:p>".to_owned(),
        format!("<w:p><w:pPr>{dark}</w:pPr>{}</w:p>", run(white, "banner")),
        format!("<w:tbl><w:tr><w:tc><w:tcPr>{dark}</w:tcPr><w:p>{}</w:p></w:tc></w:tr></w:tbl>", run(white, "head")),
        format!("<w:tbl><w:tr><w:tc><w:p>{}</w:p></w:tc></w:tr></w:tbl>", run(white, "cell")),
        format!(
            "<w:tbl><w:tblPr><w:tblStyle w:val='Fancy'/></w:tblPr><w:tr><w:tc><w:p>{}</w:p></w:tc><w:tc><w:tcPr><w:shd w:fill='FFFFFF'/></w:tcPr><w:p>{}</w:p></w:tc></w:tr></w:tbl>",
            run(white, "styled"),
            run(white, "blank")
        ),
        format!(
            "<w:tbl><w:tr><w:tc><w:tcPr>{dark}</w:tcPr><w:p>{}</w:p></w:tc><w:tc><w:p>{}</w:p></w:tc></w:tr></w:tbl>",
            run(white, "beside"),
            run(white, "unshaded")
        ),
        format!(
            "<w:p>{}</w:p>",
            run(&format!("{white}<w:shd w:val='solid' w:color='000000' w:fill='auto'/>"), "solid")
        ),
        text_box("<a:solidFill><a:srgbClr val='FFFFFF'/></a:solidFill>", &run(white, "boxed")),
        text_box("<a:solidFill><a:schemeClr val='bg1'/></a:solidFill>", &run(white, "themed")),
        text_box("<a:solidFill><a:srgbClr val='1F3864'/></a:solidFill>", &run(white, "title")),
        text_box(
            "<a:solidFill><a:srgbClr val='FFFFFF'><a:alpha val='0'/></a:srgbClr></a:solidFill>",
            &run(white, "through"),
        ),
        text_box("<a:noFill/><a:ln><a:solidFill><a:srgbClr val='FFFFFF'/></a:solidFill></a:ln>", &run(white, "cover")),
        format!("<w:p><w:pPr><w:pStyle w:val='Banner'/></w:pPr>{}</w:p>", run(white, "ribbon")),
    ];
    let relations =
        r#"<Relationships xmlns="x"><Relationship Id="r1" Type="t/styles" Target="styles.xml"/></Relationships>"#;
    let styles = format!(
        "<w:styles xmlns:w='w'><w:style w:type='paragraph' w:styleId='Banner'><w:pPr>{dark}</w:pPr></w:style></w:styles>"
    );
    let document = read(&[
        ("word/document.xml", &body(&content.concat())),
        ("word/_rels/document.xml.rels", relations),
        ("word/styles.xml", &styles),
    ]);
    let text = CanonicalText::from_canonical(document.text.clone());
    let hidden: String = document.hidden.iter().filter_map(|&span| text.slice(span)).collect::<Vec<_>>().join(" ");
    assert_eq!(
        hidden.split_whitespace().collect::<Vec<_>>(),
        ["white", "tiny", "cell", "blank", "unshaded", "boxed", "themed"],
        "{}",
        document.text
    );
}
