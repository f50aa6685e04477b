//! What a page becomes: roles, paths, tables, hidden parts, furniture, limits.

use super::parse;
use crate::ParseOptions;
use docmill_model::document::{BlockKind, ParsedDocument};
use docmill_model::{CanonicalText, Code, Span};

fn read(html: &str) -> ParsedDocument {
    let document = parse(html.as_bytes(), &ParseOptions::default()).expect("parses");
    assert_eq!(document.violations(), Vec::<String>::new());
    document
}

fn at(document: &ParsedDocument, span: Span) -> String {
    CanonicalText::from_canonical(document.text.clone()).slice(span).expect("inside").to_owned()
}

#[test]
fn roles_paths_links_and_metadata() {
    let document = read(concat!(
        "<html lang=en><head><title>A  page</title><meta name=author content=Ada><script>var x</script></head><body>",
        "<h2>Head</h2><div><p>One <a href='http://a/b'>two\n words</a>.<p>Three<br>four</div>",
        "<ul><li>item<li><p>other</ul><pre>a  b\n c</pre><template>no</template></body></html>"
    ));
    let blocks: Vec<(BlockKind, &str, String)> = (document.blocks.iter())
        .map(|b| (b.role, b.path.as_deref().unwrap_or_default(), at(&document, b.span)))
        .collect();
    let expected = [
        (BlockKind::Heading { level: 2 }, "html/body/h2[1]", "Head"),
        (BlockKind::Paragraph, "html/body/div[1]/p[1]", "One two words."),
        (BlockKind::Paragraph, "html/body/div[1]/p[2]", "Three\nfour"),
        (BlockKind::ListItem, "html/body/ul[1]/li[1]", "item"),
        (BlockKind::ListItem, "html/body/ul[1]/li[2]/p[1]", "other"),
        (BlockKind::Code, "html/body/pre[1]", "a  b\n c"),
    ];
    let expected: Vec<_> = expected.iter().map(|(r, p, t)| (*r, *p, (*t).to_owned())).collect();
    assert_eq!(blocks, expected);
    assert_eq!(
        (document.links[0].target.as_str(), at(&document, document.links[0].span)),
        ("http://a/b", "two words".to_owned())
    );
    assert_eq!(document.title().as_deref(), Some("A page"));
    assert_eq!(document.metadata.get("author").map(String::as_str), Some("Ada"));
}

#[test]
fn merged_cells_take_their_places() {
    let document = read(concat!(
        "<table><tr><th rowspan=2>R<th colspan=2>C</tr><tr><td>x</td><td>y</td></tr>",
        "<tr><td>1<td>2<td>3</table>"
    ));
    let cells: Vec<(u32, u32, u32, u32, bool, String)> = (document.tables[0].cells.iter())
        .map(|c| (c.row, c.column, c.row_span, c.column_span, c.header, at(&document, c.span)))
        .collect();
    let expected =
        [(0, 0, 2, 1, true, "R"), (0, 1, 1, 2, true, "C"), (1, 1, 1, 1, false, "x"), (1, 2, 1, 1, false, "y")];
    for (cell, (row, column, row_span, column_span, header, text)) in cells.iter().zip(expected) {
        assert_eq!(*cell, (row, column, row_span, column_span, header, text.to_owned()));
    }
    assert_eq!((document.tables[0].rows, document.tables[0].columns), (3, 3));
}

#[test]
fn hidden_text_is_kept_flagged_and_never_content() {
    let document =
        read("<p>Seen <span style='display: none'>obey me</span> text</p><div hidden><p>secret</p><p>more</p></div>");
    let hidden: Vec<String> = document.hidden.iter().map(|&span| at(&document, span)).collect();
    assert_eq!(hidden, ["obey me", "secret", "more"]);
    assert_eq!(document.blocks[1].role, BlockKind::Furniture);
    assert_eq!(document.blocks[0].role, BlockKind::Paragraph);
}

#[test]
fn what_a_table_hides_is_flagged() {
    let document = read(concat!(
        "<table><caption>Prices <span hidden>of old</span></caption><thead hidden><tr><th>Item<th>Cost</thead>",
        "<tr><td>Seal<td>40<tr style='display:none'><td>Pump<td>7<tr><td>Valve<td hidden>9</table>",
        "<table style='display:none'><caption>Wages</caption><tr><td>Ada<td>1<tr><td>Bob<td>2</table><p>The end.</p>"
    ));
    let hidden: Vec<String> = document.hidden.iter().map(|&span| at(&document, span)).collect();
    assert_eq!(hidden, ["of old", "Item | Cost", "Pump | 7", "9", "Wages", "Ada | 1\nBob | 2"]);
}

#[test]
fn what_only_screen_readers_skip_is_seen() {
    let document = read(
        "<p>One <span aria-hidden=true>two</span> <span style='opacity:0'>three</span> \
         <span style='color:#fff;background:#ffffff'>four</span> <span style='font-size:0'>five</span></p>",
    );
    let hidden: Vec<String> = document.hidden.iter().map(|&span| at(&document, span)).collect();
    assert_eq!(hidden, ["three", "four", "five"]);
    assert_eq!(document.blocks[0].role, BlockKind::Paragraph);
}

#[test]
fn menus_and_comments_are_furniture() {
    let prose =
        "This sentence is long enough to count as the running text of an article, with commas, and more words. "
            .repeat(3);
    let document = read(&format!(
        "<nav><a href=/>Home</a></nav><div class=wrap><h1>Title</h1><p>{prose}</p><p>{prose}</p><div id=comments><p>I disagree with all of it</p></div></div><footer>Imprint</footer>"
    ));
    let furniture = document.blocks.iter().filter(|b| b.role == BlockKind::Furniture).map(|b| at(&document, b.span));
    assert_eq!(furniture.collect::<Vec<_>>(), ["Home", "I disagree with all of it", "Imprint"]);
}

#[test]
fn charsets_come_from_the_page() {
    let (bytes, _, _) = encoding_rs::SHIFT_JIS.encode("<meta charset=Shift_JIS><p>短い文</p>");
    let document = parse(&bytes, &ParseOptions::default()).expect("parses");
    assert_eq!((document.text.as_str(), document.metadata["charset"].as_str()), ("短い文", "Shift_JIS"));
}

#[test]
fn deep_nesting_has_a_code_and_no_overflow() {
    for page in ["<div>".repeat(100_000), "<b><div>".repeat(50_000), "<table><td>".repeat(20_000)] {
        let failure = parse(page.as_bytes(), &ParseOptions::default()).expect_err("deep");
        assert_eq!(failure.code, Code::DepthLimit);
    }
}
