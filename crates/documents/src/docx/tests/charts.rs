//! What is drawn in a package: charts and diagrams, where they stand, and what they may cost.

use super::super::parse;
use super::{blocks, body, package};
use crate::ParseOptions;
use docmill_model::Code;
use docmill_model::document::{BlockKind, ParsedDocument};
use std::fmt::Write;

/// A paragraph with words and a chart or diagram.
fn drawing(words: &str, inner: &str) -> String {
    let drawing = format!("<w:drawing><wp:inline><a:graphic>{inner}</a:graphic></wp:inline></w:drawing>");
    format!("<w:p><w:r><w:t>{words}</w:t></w:r><w:r>{drawing}</w:r></w:p>")
}

#[test]
fn charts_and_diagrams_are_read_where_they_stand() {
    let points = |values: &[&str]| -> String {
        let point = |(at, value): (usize, &&str)| format!("<c:pt idx='{at}'><c:v>{value}</c:v></c:pt>");
        values.iter().enumerate().map(point).collect()
    };
    let text = |words: &str| format!("<c:tx><c:rich><a:p><a:r><a:t>{words}</a:t></a:r></a:p></c:rich></c:tx>");
    let series = |name: &str, values: &[&str]| {
        format!(
            "<c:ser><c:tx><c:strRef><c:strCache>{}</c:strCache></c:strRef></c:tx><c:cat><c:strRef><c:strCache>{}</c:strCache></c:strRef></c:cat><c:val><c:numRef><c:numCache><c:formatCode>General</c:formatCode>{}</c:numCache></c:numRef></c:val><c:extLst><c:ser/></c:extLst></c:ser>",
            points(&[name]),
            points(&["May", "June"]),
            points(values)
        )
    };
    let axis = |deleted: u8, title: &str| {
        format!("<c:valAx><c:delete c:val='{deleted}'/><c:title>{}</c:title></c:valAx>", text(title))
    };
    let chart = format!(
        "<c:chartSpace xmlns:c='c'><c:chart><c:title>{}</c:title><c:plotArea>{}{}{}{}</c:plotArea></c:chart></c:chartSpace>",
        text("Visitors"),
        series("Quay", &["4.4000000000000004", "7"]),
        series("Pier", &["5"]),
        axis(0, "thousands"),
        axis(1, "unseen")
    );
    let point = |kind: &str, words: &str| {
        format!("<dgm:pt><dgm:prSet {kind}/><dgm:t><a:p><a:r><a:t>{words}</a:t></a:r></a:p></dgm:t></dgm:pt>")
    };
    let diagram = format!("<dgm:dataModel>{}{}</dgm:dataModel>", point("", "Ask"), point("phldr='1'", "[Text]"));
    let relation =
        |id: &str, kind: &str, target: &str| format!(r#"<Relationship Id="{id}" Type="t/{kind}" Target="{target}"/>"#);
    let relations = format!(
        "<Relationships>{}{}{}</Relationships>",
        relation("c1", "chart", "charts/chart1.xml"),
        relation("c2", "chart", "charts/chart2.xml"),
        relation("d1", "diagramData", "diagrams/data1.xml")
    );
    let reference = |id: &str| format!("<c:chart r:id='{id}'/>");
    let content = [
        drawing("before", &reference("c1")),
        drawing("again", &reference("c1")),
        drawing("broken", &reference("c2")),
        drawing("steps", "<dgm:relIds r:dm='d1' r:lo='x'/>"),
        "<w:p><w:r><w:t>after</w:t></w:r></w:p>".to_owned(),
    ];
    let parts = |second: &str| {
        [
            ("word/document.xml".to_owned(), body(&content.concat())),
            ("word/_rels/document.xml.rels".to_owned(), relations.clone()),
            ("word/charts/chart1.xml".to_owned(), chart.clone()),
            ("word/charts/chart2.xml".to_owned(), second.to_owned()),
            ("word/diagrams/data1.xml".to_owned(), diagram.clone()),
        ]
    };
    let open = |second: &str| {
        let parts = parts(second);
        let parts: Vec<(&str, &str)> = parts.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
        parse(&package(&parts), &ParseOptions::default())
    };
    for (broken, path) in [("<c:chartSpace><c:chart>", "body/drawing[3]"), ("<x/>", "body/drawing[3]")] {
        let document = open(broken).expect("the rest is read");
        assert_eq!(document.violations(), Vec::<String>::new());
        let expected = [
            (BlockKind::Paragraph, "before"),
            (BlockKind::Caption, "Visitors\nthousands"),
            (BlockKind::Table { table: 0 }, " | Quay | Pier\nMay | 4.4 | 5\nJune | 7 | "),
            (BlockKind::Paragraph, "again"),
            (BlockKind::Paragraph, "broken"),
            (BlockKind::Paragraph, "steps"),
            (BlockKind::ListItem, "Ask"),
            (BlockKind::Paragraph, "after"),
        ];
        assert_eq!(blocks(&document), expected.map(|(role, words)| (role, words.to_owned())));
        assert_eq!(document.tables[0].cells.len(), 9);
        assert!(document.is_partial());
        let failed: Vec<_> = document.failed_parts.iter().map(|p| (p.path.as_str(), p.failure.code)).collect();
        assert_eq!(failed, [(path, Code::DocxMalformed)]);
    }
    let deep = format!("<c:chartSpace>{}", "<c:x>".repeat(200));
    for (hostile, code) in [(deep.as_str(), Code::XmlLimit), ("<!DOCTYPE x []><c:chartSpace/>", Code::XmlDtdForbidden)]
    {
        assert_eq!(open(hostile).map_err(|f| f.code).map(|_| ()), Err(code));
    }
    assert_eq!(open(&" ".repeat(30_000_000)).map_err(|f| f.code).map(|_| ()), Err(Code::ExpansionLimit));
    assert!(!open(&chart).expect("reads").is_partial());
}

/// The document that draws this chart, and nothing else but a word.
fn drawn(chart: &str) -> ParsedDocument {
    let relations =
        r#"<Relationships><Relationship Id="c1" Type="t/chart" Target="charts/chart1.xml"/></Relationships>"#;
    let document = parse(
        &package(&[
            ("word/document.xml", &body(&drawing("before", "<c:chart r:id='c1'/>"))),
            ("word/_rels/document.xml.rels", relations),
            ("word/charts/chart1.xml", &format!("<c:chartSpace>{chart}</c:chartSpace>")),
        ]),
        &ParseOptions::default(),
    )
    .expect("reads");
    assert_eq!((document.violations(), document.failed_parts.len()), (Vec::new(), 0));
    document
}

/// A list of points under consecutive indices from `first` on.
fn list(slot: &str, first: usize, values: impl Iterator<Item = usize>) -> String {
    let mut points = String::new();
    for (at, value) in values.enumerate() {
        write!(points, "<c:pt idx='{}'><c:v>{value}</c:v></c:pt>", first + at).expect("writes");
    }
    format!("<c:{slot}><c:numRef><c:numCache>{points}</c:numCache></c:numRef></c:{slot}>")
}

#[test]
fn only_numbers_have_formats() {
    let point = |at: usize, format: &str, value: &str| format!("<c:pt idx='{at}' {format}><c:v>{value}</c:v></c:pt>");
    let series = |name: &str, categories: &str, values: &str| {
        let name = format!("<c:tx><c:strRef><c:strCache>{name}</c:strCache></c:strRef></c:tx>");
        format!("<c:ser>{name}<c:cat>{categories}</c:cat><c:val>{values}</c:val></c:ser>")
    };
    let dates = "<c:formatCode>yyyy</c:formatCode>";
    let words = format!("<c:strLit>{}{}</c:strLit>", point(0, "", "45292"), point(1, "", "4.4000000000000004"));
    let numbers = format!(
        "<c:numLit>{dates}{}{}{}</c:numLit>",
        point(0, "", "45292"),
        point(1, "formatCode='General'", "45292"),
        point(2, "", "45293")
    );
    let plain = format!("<c:numLit>{}{}</c:numLit>", point(0, "formatCode='mmm'", "45292"), point(1, "", "45292"));
    let document = drawn(
        &[series(&point(0, "", "2024"), &words, &numbers), series(&point(0, "", "45292"), &words, &plain)].concat(),
    );
    let table = [
        " | 2024 | 45292",
        "45292 | 2024-01-01 | 2024-01-01",
        "4.4000000000000004 | 45292 | 45292",
        " | 2024-01-02 | ",
    ];
    assert_eq!(blocks(&document)[1].1, table.join("\n"));
}

#[test]
fn scattered_points_cost_no_more_cells_than_the_file_has_points() {
    // A cloud of points and straight lines through it, as they are drawn: each over values of its own.
    let cloud = |name: &str, count: usize, sizes: &str| {
        let (x, y) = (list("xVal", 0, 0..count), list("yVal", 0, 7..count + 7));
        format!("<c:ser><c:tx><c:v>{name}</c:v></c:tx>{x}{y}{sizes}</c:ser>")
    };
    let lines: String = (0..40).map(|line| cloud(&format!("line {line}"), 2 + line % 2, "")).collect();
    let scatter = drawn(&(cloud("cloud", 5_000, &list("bubbleSize", 0, 0..5_000)) + &lines));
    assert_eq!(scatter.tables.len(), 41);
    let cells: Vec<usize> = scatter.tables.iter().map(|table| table.cells.len()).collect();
    assert_eq!(cells[..3], [5_001 * 3, 3 * 2, 4 * 2]);
    assert!(blocks(&scatter)[1].1.starts_with(" | cloud | cloud\n0 | 7 | 0\n1 | 8 | 1\n"));
    // Series over the same values stand side by side, also when most of them have few points.
    let shared = |values: std::ops::Range<usize>| {
        format!("<c:ser>{}{}</c:ser>", list("cat", 0, 0..400), list("val", values.start, values))
    };
    let side = drawn(&(0..100).map(|at| shared(at..at + 3)).collect::<String>());
    assert_eq!(side.tables.iter().map(|table| table.cells.len()).collect::<Vec<_>>(), [400 * 101]);
    // Made to be mostly empty: one point a series, each in a row of its own.
    let one = |at: usize| format!("<c:ser>{}</c:ser>", list("val", at, at..at + 1));
    for (count, expected) in [(30, 30 * 30), (3_000, 3_000)] {
        let sparse = drawn(&(0..count).map(one).collect::<String>());
        assert_eq!(sparse.tables.iter().map(|table| table.cells.len()).sum::<usize>(), expected);
    }
}

#[test]
fn a_series_of_too_many_levels_is_refused() {
    let levels = |count: usize| {
        let levels = "<c:lvl><c:pt idx='0'><c:v>x</c:v></c:pt></c:lvl>".repeat(count);
        format!("<c:chartSpace><c:ser><c:cat>{levels}</c:cat></c:ser></c:chartSpace>")
    };
    let read = |count: usize| {
        let limits = ParseOptions::default().limits;
        super::super::chart::read(levels(count).as_bytes(), &limits).map(|chart| chart.tables[0].cells.len())
    };
    assert_eq!(read(32), Ok(33));
    assert_eq!(read(33).map_err(|failure| failure.code), Err(Code::DocxMalformed));
}
