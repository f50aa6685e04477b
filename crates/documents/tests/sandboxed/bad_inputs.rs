//! The table of bad inputs: each file gets the clear answer it deserves, through the real sandbox.

use crate::support::{parser, request};
use docmill_model::Code;
use std::io::Write;

/// A PDF of these objects (numbered from 1, the first is the catalog), with a cross-reference table.
fn pdf(objects: &[String]) -> Vec<u8> {
    let mut out = b"%PDF-1.4\n".to_vec();
    let mut offsets = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        offsets.push(out.len());
        out.extend(format!("{} 0 obj\n{object}\nendobj\n", index + 1).bytes());
    }
    let start = out.len();
    out.extend(format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1).bytes());
    for offset in offsets {
        out.extend(format!("{offset:010} 00000 n \n").bytes());
    }
    out.extend(format!("trailer\n<</Size {}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n", objects.len() + 1).bytes());
    out
}

fn stream(extra: &str, content: &str) -> String {
    format!("<<{extra}/Length {}>>\nstream\n{content}\nendstream", content.len())
}

/// One page with this content, with further objects from number 6 on; object 5 is Helvetica.
fn page(resources: &str, content: &str, further: &[String]) -> Vec<u8> {
    let mut objects = vec![
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_owned(),
        format!(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>{resources}>>>>"
        ),
        stream("", content),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(),
    ];
    objects.extend_from_slice(further);
    pdf(&objects)
}

async fn code(name: &str, bytes: Vec<u8>) -> Result<String, Code> {
    parser().parse(request(bytes, name)).await.map(|parsed| parsed.document.text).map_err(|failure| failure.code)
}

#[tokio::test]
async fn files_that_are_something_else() {
    assert_eq!(code("a.pdf", Vec::new()).await, Err(Code::EmptyFile));
    assert_eq!(code("a.txt", b"\xef\xbb\xbf".to_vec()).await, Err(Code::EmptyText));
    assert_eq!(code("a.txt", b"  \n ".to_vec()).await, Err(Code::EmptyText));
    assert_eq!(code("a.pdf", b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0".to_vec()).await, Err(Code::TypeMismatch));
    assert_eq!(code("a.pdf", b"<!doctype html><p>Hi".to_vec()).await, Err(Code::TypeMismatch));
    assert_eq!(code("a.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec()).await, Err(Code::TypeMismatch));
    assert_eq!(code("a.txt", b"with\0NUL".to_vec()).await, Ok("withNUL".to_owned()));
    let lines = vec![b'x'; 17 << 20];
    assert_eq!(code("a.csv", lines).await, Err(Code::LineLimit));
    assert_eq!(code("a.html", "<div>".repeat(100_000).into_bytes()).await, Err(Code::DepthLimit));
    let html =
        "<script>alert(1)</script><meta http-equiv=refresh content='0;http://10.0.0.1'><img src=http://10.0.0.1>Seen";
    assert_eq!(code("a.html", html.as_bytes().to_vec()).await, Ok("Seen".to_owned()));
}

#[tokio::test]
async fn pdfs_that_are_broken_or_hostile() {
    let good = page("", "BT /F1 12 Tf 72 700 Td (Hello there) Tj ET", &[]);
    assert_eq!(code("a.pdf", good.clone()).await, Ok("Hello there".to_owned()));
    assert_eq!(code("a.pdf", good[..60].to_vec()).await, Err(Code::PdfMalformed));
    let mut random = b"%PDF-1.7\n".to_vec();
    random.extend((0..5_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8));
    assert_eq!(code("a.pdf", random).await, Err(Code::PdfMalformed));
    for depth in [10_400, 400_000] {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let found = code("a.pdf", page("", "BT ET", &[nested])).await;
        assert_eq!(found, Err(Code::PdfNestingLimit), "{depth}");
    }
    let cycle = pdf(&["<</Type/Catalog/Pages 2 0 R>>".to_owned(), "<</Type/Pages/Kids[2 0 R]/Count 3>>".to_owned()]);
    assert!(matches!(code("a.pdf", cycle).await, Err(Code::PdfMalformed | Code::EmptyText)));
    let form = stream("/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 6 0 R>>>>", "/X Do");
    let selfish = page("/XObject<</X 6 0 R>>", "/X Do BT /F1 12 Tf 72 700 Td (After) Tj ET", &[form]);
    assert!(matches!(code("a.pdf", selfish).await.as_deref(), Ok("After") | Err(Code::ParserCrashed)));
    let undefined = page("", "BT /Nope 12 Tf 72 700 Td (Text) Tj ET", &[]);
    assert!(matches!(code("a.pdf", undefined).await, Ok(_) | Err(Code::EmptyText | Code::ParserCrashed)));
    let script = good
        .strip_suffix(b"")
        .map(|bytes| String::from_utf8_lossy(bytes).replace("/Catalog", "/Catalog/OpenAction<</S/Launch/F(calc)>>"));
    assert_eq!(code("a.pdf", script.unwrap_or_default().into_bytes()).await, Ok("Hello there".to_owned()));
}

#[tokio::test]
async fn hidden_text_is_flagged() {
    let content = concat!(
        "BT /F1 12 Tf 72 700 Td (Visible words) Tj ET ",
        "BT /F1 12 Tf 3 Tr 72 650 Td (invisible) Tj ET ",
        "BT 0 Tr 1 1 1 rg /F1 12 Tf 72 600 Td (white) Tj ET ",
        "0 0 0 rg 60 540 300 30 re f BT 1 1 1 rg /F1 12 Tf 72 550 Td (inverse) Tj ET ",
        "BT 0 0 0 rg /F1 1 Tf 72 500 Td (tiny) Tj ET ",
        "BT /F1 12 Tf 2000 450 Td (outside) Tj ET"
    );
    let parsed = parser().parse(request(page("", content, &[]), "a.pdf")).await.expect("parses");
    let document = parsed.document;
    let text = docmill_model::CanonicalText::from_canonical(document.text.clone());
    let hidden: Vec<&str> = document.hidden.iter().filter_map(|&span| text.slice(span)).collect();
    assert_eq!(hidden, ["invisible", "white", "tiny", "outside"]);
    assert_eq!(document.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn pages_can_be_drawn_with_a_citation_marked() {
    let bytes = page("", "BT /F1 12 Tf 72 700 Td (Hello there) Tj ET", &[]);
    let parser = parser();
    let document = parser.parse(request(bytes.clone(), "a.pdf")).await.expect("parses").document;
    let boxes: Vec<_> = document.boxes(document.words[1].span).into_iter().map(|(_, rect)| rect).collect();
    assert_eq!(boxes.len(), 1);
    let plain = parser.render_page(bytes.clone().into(), 1, 1.0, Vec::new()).await.expect("draws");
    let marked = parser.render_page(bytes.clone().into(), 1, 1.0, boxes).await.expect("draws");
    assert!(plain.starts_with(b"\x89PNG") && plain != marked);
    let missing = parser.render_page(bytes.into(), 2, 1.0, Vec::new()).await;
    assert_eq!(missing.map_err(|f| f.code), Err(Code::NotFound));
}

#[tokio::test]
async fn a_pdf_bomb_names_its_expansion() {
    let mut outer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let mut inner = flate2::write::ZlibEncoder::new(&mut outer, flate2::Compression::best());
    for _ in 0..1_000 {
        inner.write_all(&vec![b' '; 1 << 20]).expect("compresses");
    }
    inner.finish().expect("compresses");
    let packed = outer.finish().expect("compresses");
    let mut bytes = b"%PDF-1.4\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages/Kids[3 0 R]/Count 1>>\nendobj\n\
        3 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>\nendobj\n4 0 obj\n"
        .to_vec();
    bytes.extend(format!("<</Filter[/FlateDecode/FlateDecode]/Length {}>>\nstream\n", packed.len()).bytes());
    bytes.extend(packed);
    bytes.extend(b"\nendstream\nendobj\ntrailer\n<</Root 1 0 R>>\n%%EOF\n");
    let failure = parser().parse(request(bytes, "a.pdf")).await.expect_err("a bomb");
    assert_eq!(failure.code, Code::ExpansionLimit, "{failure}");
    assert!(failure.measured > failure.limit);
}
