//! Small files cost little: what is looked up or copied for each paragraph, reference or point is no list and not long. Where
//! only the clock can tell, the margin is wide: these took seconds to hours when they were quadratic, and take a fraction
//! of a second.

use super::{body, package, repetitive};
use docmill_model::document::ParsedDocument;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// What one of these files may take, on a machine as slow and busy as they come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Relations of the document to parts `(kind, target, mode)`, under the ids `r0`, `r1` and so on.
fn relations(parts: impl Iterator<Item = (&'static str, String, &'static str)>) -> String {
    let mut all = String::new();
    for (id, (kind, target, mode)) in parts.enumerate() {
        write!(all, "<Relationship Id='r{id}' Type='t/{kind}' Target='{target}' {mode}/>").expect("writes");
    }
    format!("<Relationships>{all}</Relationships>")
}

fn read(content: &str, relations: &str, parts: &[(&str, &str)]) -> ParsedDocument {
    let content = body(content);
    let own = [("word/document.xml", &*content), ("word/_rels/document.xml.rels", relations)];
    let file = package(&[&own, parts].concat());
    let begun = Instant::now();
    let document = super::parse(&file, &repetitive()).expect("reads");
    assert!(begun.elapsed() < PATIENCE, "{} bytes took {:?}", file.len(), begun.elapsed());
    document
}

fn words(properties: &str) -> String {
    format!("<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>x</w:t></w:r></w:p>")
}

#[test]
fn references_are_looked_up() {
    const COUNT: usize = 200_000;
    let all = relations(
        [("footnotes", "footnotes.xml".to_owned(), "")]
            .into_iter()
            .chain((0..COUNT).map(|link| ("hyperlink", format!("a{link}"), "TargetMode='External'"))),
    );
    let (mut content, mut notes) = ("<w:p>".to_owned(), String::new());
    for id in 0..COUNT {
        write!(content, "<w:footnoteReference w:id='{id}'/><w:hyperlink r:id='r{}'/>", id + 1).expect("writes");
        write!(notes, "<w:footnote w:id='{id}'><w:p><w:r><w:t>n</w:t></w:r></w:p></w:footnote>").expect("writes");
    }
    let notes = format!("<w:footnotes>{notes}</w:footnotes>");
    let document = read(&(content + "</w:p>"), &all, &[("word/footnotes.xml", &notes)]);
    assert_eq!(document.blocks.len(), COUNT + 1);
}

#[test]
fn long_names_and_labels_are_not_repeated() {
    const COUNT: usize = 10_000;
    let long = "1".repeat(1_000_000);
    let all = relations(
        [("styles", "styles.xml"), ("numbering", "numbering.xml")]
            .map(|(kind, part)| (kind, part.to_owned(), ""))
            .into_iter(),
    );
    let style = |id: &str, properties: &str| {
        format!(
            "<w:style w:default='1' w:type='paragraph' w:styleId='{id}'><w:name w:val='{long}'/>{properties}</w:style>"
        )
    };
    let styles =
        format!("<w:styles>{}{}</w:styles>", style(&long, ""), style("a", &format!("<w:basedOn w:val='{long}'/>")));
    let numbering = format!(
        "<w:numbering><w:abstractNum w:abstractNumId='1'><w:lvl w:ilvl='0'><w:lvlText w:val='{long}'/></w:lvl></w:abstractNum><w:num w:numId='1'><w:abstractNumId w:val='1'/></w:num></w:numbering>"
    );
    let content = words("<w:numPr><w:numId w:val='1'/></w:numPr>").repeat(COUNT);
    let parts = [("word/styles.xml", &*styles), ("word/numbering.xml", &numbering)];
    let document = read(&content, &all, &parts);
    assert_eq!(document.text.len(), COUNT * 103 - 1);

    let name = format!("{}.xml", "h".repeat(8_000));
    let header = format!("<w:hdr>{}</w:hdr>", words("").repeat(COUNT));
    let all = relations([("header", name.clone(), "")].into_iter());
    let document = read(&words(""), &all, &[(&format!("word/{name}"), &header)]);
    let longest = document.blocks.iter().filter_map(|block| block.path.as_ref()).map(String::len).max();
    assert!(longest.is_some_and(|bytes| bytes < 120), "{longest:?}");
}

#[test]
fn the_words_of_a_chart_are_read_once() {
    const COUNT: usize = 10_000;
    let long = "x".repeat(1_000_000);
    let points = |point: &str| point.repeat(COUNT);
    let drawing =
        |kind: &str| format!("<w:p><w:r><w:t>x</w:t><w:drawing><{kind}:chart r:id='r0'/></w:drawing></w:r></w:p>");
    // A format, an element and an id that each point has a look at.
    let classic = format!(
        "<c:chartSpace><c:ser><c:{long}>{0}</c:{long}><c:val><c:numLit><c:formatCode>{long}</c:formatCode>{0}</c:numLit></c:val></c:ser></c:chartSpace>",
        points("<c:pt idx='0'><c:v>1</c:v></c:pt>")
    );
    let extended = format!(
        "<cx:chartSpace><cx:data id='{long}'><cx:numDim type='{long}'><cx:lvl formatCode='{long}'>{}</cx:lvl></cx:numDim></cx:data><cx:series><cx:dataId val='{long}'/></cx:series></cx:chartSpace>",
        points("<cx:pt idx='0'>1</cx:pt>")
    );
    for (prefix, kind, chart) in [("c", "chart", classic), ("cx", "chartEx", extended)] {
        let all = relations([(kind, "chart.xml".to_owned(), "")].into_iter());
        let document = read(&drawing(prefix), &all, &[("word/chart.xml", &chart)]);
        assert_eq!((document.text.as_str(), document.is_partial()), ("x\n\n1", false), "{kind}");
    }
}
