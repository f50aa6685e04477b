//! What is drawn in a package: charts and diagrams, where they stand, and what they may cost.

use super::super::parse;
use super::{blocks, body, package, repetitive};
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
    let (deep, wide) = (format!("<c:chartSpace>{}", "<c:x>".repeat(200)), " ".repeat(30_000_000));
    for (hostile, code) in [
        (deep.as_str(), Code::XmlLimit),
        ("<!DOCTYPE x []><c:chartSpace/>", Code::XmlDtdForbidden),
        (wide.as_str(), Code::ExpansionLimit),
    ] {
        let document = open(hostile).expect("the rest is read");
        assert!(document.text.contains("Visitors") && document.text.ends_with("after"), "{}", document.text);
        let [failed] = document.failed_parts.as_slice() else { panic!("{:?}", document.failed_parts) };
        assert_eq!((failed.path.as_str(), failed.failure.code), ("body/drawing[3]", code));
        assert!(failed.failure.message.ends_with("(part word/charts/chart2.xml)"), "{}", failed.failure);
    }
    assert!(!open(&chart).expect("reads").is_partial());
}

/// A document with this body and a chart that relations of these ids lead to.
fn with_chart(content: &str, ids: &[&str], kind: &str, chart: &str) -> ParsedDocument {
    let relation = |id: &&str| format!(r#"<Relationship Id="{id}" Type="t/{kind}" Target="charts/chart1.xml"/>"#);
    let relations = format!("<Relationships>{}</Relationships>", ids.iter().map(relation).collect::<String>());
    let parts = [
        ("word/document.xml", &*body(content)),
        ("word/_rels/document.xml.rels", &relations),
        ("word/charts/chart1.xml", chart),
    ];
    let document = parse(&package(&parts), &repetitive()).expect("reads");
    assert_eq!(document.violations(), Vec::<String>::new());
    document
}

/// The document that draws this chart, and nothing else but a word.
fn drawn(chart: &str) -> ParsedDocument {
    let content = drawing("before", "<c:chart r:id='c1'/>");
    let document = with_chart(&content, &["c1"], "chart", &format!("<c:chartSpace>{chart}</c:chartSpace>"));
    assert_eq!(document.failed_parts, []);
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
fn a_chart_of_too_many_points_costs_itself() {
    let content = drawing("before", "<c:chart r:id='c1'/>");
    for (kind, point) in [("chart", "<c:pt/>"), ("chartEx", "<cx:pt/>")] {
        for (count, failed) in [(500_000, 0), (500_001, 1)] {
            let chart = format!("<c:chartSpace>{}</c:chartSpace>", point.repeat(count));
            let document = with_chart(&content, &["c1"], kind, &chart);
            assert_eq!((document.text.as_str(), document.failed_parts.len()), ("before", failed), "{count} of {kind}");
        }
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

#[test]
fn a_chart_is_read_when_it_is_drawn_and_stands_once() {
    let chart = format!("<c:chartSpace><c:ser>{}</c:ser></c:chartSpace>", list("val", 0, 10..12));
    let reference = |id: &str| drawing("x", &format!("<c:chart r:id='{id}'/>"));
    let ids: Vec<String> = (0..9_000).map(|id| format!("c{id}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let content: String = ids.iter().map(|id| reference(id)).collect();
    let document = with_chart(&content, &ids, "chart", &chart);
    assert_eq!((document.tables.len(), document.failed_parts.len()), (1, 0));
    // What is broken fails once, and not at all when nothing draws it.
    let broken = with_chart(&content, &ids, "chart", "<x/>");
    assert_eq!((broken.tables.len(), broken.failed_parts.len()), (0, 1));
    let words = "<w:p><w:r><w:t>words</w:t></w:r></w:p>";
    for unseen in ["<x/>", &"<c:x>".repeat(200)] {
        assert!(!with_chart(words, &["c0"], "chart", unseen).is_partial());
        let deleted = format!("{words}<w:p><w:del>{}</w:del></w:p>", reference("c0"));
        assert!(!with_chart(&deleted, &["c0"], "chart", unseen).is_partial());
    }
    // Hidden where it is drawn first, it is seen where it is drawn again.
    let hidden = reference("c0").replace("<wp:inline>", "<wp:inline><wp:docPr hidden='1'/>");
    let document = with_chart(&[hidden.as_str(), &reference("c1"), &hidden].concat(), &["c0", "c1"], "chart", &chart);
    let roles: Vec<BlockKind> = document.blocks.iter().map(|block| block.role).collect();
    let paragraph = BlockKind::Paragraph;
    assert_eq!(roles, [paragraph, BlockKind::Furniture, paragraph, BlockKind::Table { table: 0 }, paragraph]);
}

#[test]
fn what_drawings_refer_to_in_vain_is_said() {
    let content: String = (0..3_000).map(|id| drawing("x", &format!("<c:chart r:id='c{id}'/>"))).collect();
    let document = with_chart(&content, &["c7"], "chartsheet", "<x/>");
    assert_eq!(document.failed_parts.len(), 1_000);
    let messages = [0, 7].map(|at| document.failed_parts[at].failure.message.as_str());
    assert_eq!(
        messages,
        [
            "a drawing refers to a part that the document does not have",
            "a drawing refers to a part of a kind that is not read (part word/charts/chart1.xml)"
        ]
    );
}

#[test]
fn the_newer_kinds_of_charts_are_read() {
    let level = |format: &str, points: &[&str]| {
        let point = |(at, words): (usize, &&str)| format!("<cx:pt idx='{at}'>{words}</cx:pt>");
        format!("<cx:lvl {format}>{}</cx:lvl>", points.iter().enumerate().map(point).collect::<String>())
    };
    let data = |id: u32, values: &str| {
        let categories = level("", &["Oak", "Elm", "45292"]) + &level("", &["Trees"]);
        let values = format!("<cx:f>Sheet1!$B$2</cx:f>{}", level("formatCode='General'", &[values, "7"]));
        format!(
            "<cx:data id='{id}'><cx:strDim type='cat'><cx:f dir='row'>Sheet1!$A$2</cx:f>{categories}</cx:strDim><cx:numDim type='val'>{values}</cx:numDim><cx:strDim type='entityId'>{}</cx:strDim></cx:data>",
            level("", &["0xfe"])
        )
    };
    let text =
        |words: &str| format!("<cx:tx><cx:txData><cx:f>Sheet1!$B$1</cx:f><cx:v>{words}</cx:v></cx:txData></cx:tx>");
    let series = |hidden: u8, name: &str, data: &str| {
        format!("<cx:series layoutId='treemap' hidden='{hidden}'>{}<cx:dataLabels/>{data}</cx:series>", text(name))
    };
    let title = |words: &str| {
        format!("<cx:title>{}<cx:txPr><a:p><a:r><a:t>{words}</a:t></a:r></a:p></cx:txPr></cx:title>", text(words))
    };
    let rich = "<cx:title><cx:tx><cx:rich><a:p><a:r><a:t>hecta</a:t></a:r><a:r><a:t>res</a:t></a:r></a:p></cx:rich></cx:tx></cx:title>";
    let chart = format!(
        "<cx:chartSpace><cx:chartData><cx:externalData r:id='r1'/>{}{}{}</cx:chartData><cx:chart>{}<cx:plotArea><cx:plotAreaRegion>{}{}{}{}</cx:plotAreaRegion><cx:axis id='0' hidden='1'>{}</cx:axis><cx:axis id='1'>{rich}</cx:axis></cx:plotArea></cx:chart></cx:chartSpace>",
        data(0, "0.30000000000000004"),
        data(1, "12"),
        data(2, "gone"),
        title("Forest"),
        series(0, "Area", "<cx:dataId val='0'/>"),
        series(0, "Age", "<cx:dataId val='1'/>"),
        series(1, "Filtered", "<cx:dataId val='2'/>"),
        series(0, "Pareto", ""),
        title("unseen")
    );
    let reference = drawing("before", "<cx:chart r:id='c1'/>");
    let content = format!(
        "<mc:AlternateContent><mc:Choice Requires='cx1'>{reference}</mc:Choice><mc:Fallback><w:p><w:r><w:t>This chart is not available</w:t></w:r></w:p></mc:Fallback></mc:AlternateContent>"
    );
    let document = with_chart(&content, &["c1"], "chartEx", &chart);
    let table = "  |  | Area | Age\nTrees | Oak | 0.3 | 12\n | Elm | 7 | 7\n | 45292 |  | ";
    let expected = [
        (BlockKind::Paragraph, "before"),
        (BlockKind::Caption, "Forest\nhectares"),
        (BlockKind::Table { table: 0 }, &table[1..]),
    ];
    assert_eq!(blocks(&document), expected.map(|(role, words)| (role, words.to_owned())));
    assert_eq!((document.tables[0].cells.len(), document.is_partial()), (16, false));
}
