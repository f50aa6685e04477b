//! The table of bad inputs: each file gets the clear answer it deserves, through the real sandbox.

use crate::made::{docx, docx_entries, page, pages, pdf, stream, zip};
use crate::support::{parser, request};
use docmill_documents::Limits;
use docmill_model::{Code, Failure};
use std::io::Write;

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

/// What of this PDF is hidden.
async fn hidden(bytes: Vec<u8>) -> Vec<String> {
    let document = parser().parse(request(bytes, "a.pdf")).await.expect("parses").document;
    assert_eq!(document.violations(), Vec::<String>::new());
    let text = docmill_model::CanonicalText::from_canonical(document.text.clone());
    document.hidden.iter().filter_map(|&span| text.slice(span)).map(str::to_owned).collect()
}

#[tokio::test]
async fn text_like_its_ground_or_under_something_is_hidden() {
    let content = concat!(
        "0 0 0.4 rg 60 690 300 30 re f BT 0 0.02 0.42 rg /F1 12 Tf 72 700 Td (darkblue) Tj ET ",
        "0 0 0.4 rg 60 640 300 30 re f BT 1 0.8 0 rg /F1 12 Tf 72 650 Td (yellow) Tj ET ",
        "1 1 1 rg 60 590 300 30 re f BT 1 1 1 rg /F1 12 Tf 72 600 Td (paper) Tj ET ",
        "BT 0 0 0 rg /F1 12 Tf 72 550 Td (covered) Tj ET 1 0 0 rg 60 540 300 30 re f ",
        "BT 0 0 0 rg /F1 12 Tf 72 500 Td (pictured) Tj ET q 300 0 0 30 60 490 cm /I Do Q ",
        "BT 0 0 0 rg /F1 12 Tf 72 450 Td (outlined) Tj ET 60 440 300 30 re S ",
        "BT 0 0 0 rg /F1 12 Tf 72 400 Td (marked) Tj ET q /G gs 1 1 0 rg 60 390 300 30 re f Q ",
        "0.9 0.9 0.9 rg 60 340 300 30 re f BT 0 0 0 rg /F1 12 Tf 72 350 Td (shaded) Tj ET ",
        "BT 0 0 0 rg /F1 12 Tf 500 300 Td (beside) Tj ET 0 0 1 rg 60 290 300 30 re f"
    );
    // A checkered picture: without evenness, only drawing the page without its text tells.
    let picture = stream(
        "/Type/XObject/Subtype/Image/Width 8/Height 2/BitsPerComponent 8/ColorSpace/DeviceGray",
        "0a0a0a0aa0a0a0a0",
    );
    let resources = "/XObject<</I 6 0 R>>/ExtGState<</G<</BM/Multiply>>>>";
    assert_eq!(hidden(page(resources, content, &[picture])).await, ["darkblue", "paper", "covered", "pictured"]);
}

#[tokio::test]
async fn text_on_a_picture_and_in_a_form_object_is_judged_by_its_trace() {
    let content = concat!(
        "q 300 0 0 30 60 690 cm /I Do Q BT 0.1 g /F1 12 Tf 72 700 Td (dark) Tj ET ",
        "q 300 0 0 30 60 640 cm /I Do Q BT 1 g /F1 12 Tf 72 650 Td (light) Tj ET /X Do ",
        "BT 0 g /F1 12 Tf 72 500 Td (outside) Tj ET"
    );
    let picture =
        stream("/Type/XObject/Subtype/Image/Width 1/Height 1/BitsPerComponent 8/ColorSpace/DeviceGray", "\u{1a}");
    let form = concat!(
        "BT 0 g /F1 12 Tf 72 600 Td (covered) Tj ET 1 0 0 rg 60 590 300 30 re f ",
        "0 0 0.4 rg 60 560 300 20 re f BT 0 0.02 0.42 rg /F1 12 Tf 72 565 Td (alike) Tj ET ",
        "BT 0 g /F1 12 Tf 72 540 Td (shown) Tj ET"
    );
    let form = stream("/Type/XObject/Subtype/Form/BBox[0 530 612 640]/Resources<</Font<</F1 5 0 R>>>>", form);
    let bytes = page("/XObject<</I 6 0 R/X 7 0 R>>", content, &[picture, form]);
    assert_eq!(hidden(bytes).await, ["dark", "covered", "alike"]);
}

#[tokio::test]
async fn a_text_layer_under_the_image_of_its_page_is_not_hidden() {
    let words = "BT 0 0 0 rg /F1 12 Tf 72 700 Td (Words that somebody recognised on this page once) Tj ET ";
    let picture = stream("/Type/XObject/Subtype/Image/Width 2/Height 1/BitsPerComponent 8/ColorSpace/DeviceGray", "az");
    let content = format!("{words}q 612 0 0 792 0 0 cm /I Do Q");
    assert_eq!(hidden(page("/XObject<</I 6 0 R>>", &content, &[picture])).await, Vec::<String>::new());
}

#[tokio::test]
async fn text_of_a_layer_that_is_off_is_hidden() {
    let content = concat!(
        "BT /F1 12 Tf 72 700 Td (Shown) Tj ET /OC /Off BDC BT /F1 12 Tf 72 650 Td (switched off) Tj ET EMC ",
        "/OC /On BDC BT /F1 12 Tf 72 600 Td (layered) Tj ET EMC"
    );
    let layers = ["<</Type/OCG/Name(off)>>".to_owned(), "<</Type/OCG/Name(on)>>".to_owned()];
    let bytes = page("/Properties<</Off 6 0 R/On 7 0 R>>", content, &layers);
    let catalog = "/Type/Catalog/OCProperties<</OCGs[6 0 R 7 0 R]/D<</OFF[6 0 R]>>>>";
    let bytes = String::from_utf8_lossy(&bytes).replace("/Type/Catalog", catalog).into_bytes();
    assert_eq!(hidden(bytes).await, ["switched", "off"]);
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

/// The failure under these limits.
async fn failure(name: &str, bytes: Vec<u8>, lower: impl FnOnce(&mut Limits)) -> Failure {
    let mut request = request(bytes, name);
    lower(&mut request.options.limits);
    parser().parse(request).await.map(|parsed| parsed.document.text).expect_err(name)
}

/// Limits as they are.
fn usual(_: &mut Limits) {}

fn seed(name: &str) -> Vec<u8> {
    std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name)).expect(name)
}

#[tokio::test]
async fn pdfs_with_passwords_and_many_pages() {
    assert_eq!(code("a.pdf", seed("pdf/user-password.pdf")).await, Err(Code::PdfEncrypted));
    let readable = code("a.pdf", seed("pdf/owner-password.pdf")).await;
    assert_eq!(readable, Ok("Only changes need a password".to_owned()));
    assert_eq!(code("a.pdf", pages(3)).await, Ok("This is page 1\n\nThis is page 2\n\nThis is page 3".to_owned()));
    for (name, bytes, pages) in [("a.pdf", pages(3), 3), ("a.tif", seed("image/two-pages.tif"), 2)] {
        let many = failure(name, bytes, |limits| limits.pages = pages - 1).await;
        assert_eq!((many.code, many.limit, many.measured), (Code::PageLimit, Some(pages - 1), Some(pages)), "{many}");
    }
}

#[tokio::test]
async fn damaged_and_oversized_pictures() {
    let png = seed("image/gray.png");
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]);
    let mut sum = flate2::Crc::new();
    sum.update(&huge[12..29]);
    huge[29..33].copy_from_slice(&sum.sum().to_be_bytes());
    let huge = failure("a.png", huge, usual).await;
    assert_eq!((huge.code, huge.limit, huge.measured), (Code::PixelLimit, Some(100_000_000), Some(900_000_000)));
    let cut = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    for (name, bytes) in [
        ("a.png", cut(&png)),
        ("a.png", png[..20].to_vec()),
        ("a.jpg", seed("image/gray.jpg")[..30].to_vec()),
        ("a.gif", seed("image/gray.gif")[..12].to_vec()),
        ("a.webp", cut(&seed("image/gray.webp"))),
        ("a.tif", seed("image/lzw.tif")[..9].to_vec()),
    ] {
        assert_eq!(failure(name, bytes, usual).await.code, Code::ImageMalformed, "{name}");
    }
}

#[tokio::test]
async fn archives_that_are_locked_crowded_or_lie() {
    let good = docx("<w:p><w:r><w:t>Some words</w:t></w:r></w:p>");
    assert_eq!(code("a.docx", good.clone()).await, Ok("Some words".to_owned()));
    let mut locked = good.clone();
    mark_encrypted(&mut locked);
    assert_eq!(code("a.docx", locked).await, Err(Code::ArchiveEncrypted));
    let mut compound = vec![0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
    compound.resize(512, 0);
    compound.extend("EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes));
    assert_eq!(code("a.docx", compound).await, Err(Code::ArchiveEncrypted));

    let with = |name: &str| {
        let mut entries = docx_entries("<w:p/>");
        entries.push((name.to_owned(), "x".to_owned()));
        zip(&entries)
    };
    let crowded = failure("a.docx", with("word/more.xml"), |limits| limits.entries = 2).await;
    assert_eq!((crowded.code, crowded.limit, crowded.measured), (Code::EntryLimit, Some(2), Some(3)));
    let outside = format!("docmill-outside-{}.xml", std::process::id());
    let (above, absolute) = (format!("../{outside}"), format!("/tmp/{outside}"));
    for name in [above.as_str(), &absolute, "/etc/passwd", "word\\..\\x.xml"] {
        assert_eq!(code("a.docx", with(name)).await, Err(Code::ArchiveUnsafePath), "{name}");
    }
    assert!(![outside, above, absolute].iter().any(|path| std::path::Path::new(path).exists()), "written outside");

    let large = docx(&format!("<w:p/>{}", " ".repeat(3 << 20)));
    let declared = failure("a.docx", large.clone(), |limits| limits.expanded_bytes = 1 << 20).await;
    assert_eq!((declared.code, declared.limit), (Code::ExpansionLimit, Some(1 << 20)), "{declared}");
    let lying = failure("a.docx", declaring(large, 100), |limits| limits.expanded_bytes = 1 << 20).await;
    assert!(matches!(lying.code, Code::ExpansionLimit | Code::DocxMalformed), "{lying}");
    let boasting = failure("a.docx", declaring(good.clone(), u32::MAX - 1), usual).await;
    assert_eq!(boasting.code, Code::ExpansionLimit, "{boasting}");
    assert_eq!(code("a.docx", good[..good.len() / 2].to_vec()).await, Err(Code::DocxMalformed));
}

/// Where the headers with this mark begin.
fn headers(archive: &[u8], mark: &[u8; 4]) -> Vec<usize> {
    (0..archive.len().saturating_sub(4)).filter(|&at| &archive[at..at + 4] == mark).collect()
}

/// Sets the bit that says that an entry needs a password, everywhere.
fn mark_encrypted(archive: &mut [u8]) {
    for (mark, flags) in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)] {
        for at in headers(archive, mark) {
            archive[at + flags] |= 1;
        }
    }
}

/// The archive with this unpacked size stated for its last entry.
fn declaring(mut archive: Vec<u8>, size: u32) -> Vec<u8> {
    for (mark, field) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
        let last = *headers(&archive, mark).last().expect("an entry") + field;
        archive[last..last + 4].copy_from_slice(&size.to_le_bytes());
    }
    archive
}

#[tokio::test]
async fn xml_that_is_damaged_or_excessive() {
    for body in ["<w:p>", "<w:p></w:r>", "<w:p>&nonsense;</w:p>", "<w:p a='></w:p>"] {
        assert_eq!(code("a.docx", docx(body)).await, Err(Code::DocxMalformed), "{body}");
    }
    let attributes = |name: &str, count: usize| -> String {
        let all: String = (0..count).map(|at| format!(" {name}{at}=''")).collect();
        format!("<w:p{all}/>")
    };
    let deep = |count: usize| format!("{}{}", "<w:p>".repeat(count), "</w:p>".repeat(count));
    for (what, body, limit, measured) in [
        ("attributes", attributes("a", 1_001), 1_000, 1_001),
        ("many attributes", attributes("a", 1_000_000), 1_000, 1_001),
        ("namespaces", attributes("xmlns:a", 100_000), 1_000, 1_001),
        ("depth", deep(50_000), 100, 101),
    ] {
        let found = failure("a.docx", docx(&body), usual).await;
        assert_eq!((found.code, found.limit, found.measured), (Code::XmlLimit, Some(limit), Some(measured)), "{what}");
    }
    let dtd = "<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;&a;'>]><w:p>&b;</w:p>";
    assert_eq!(code("a.docx", docx(dtd)).await, Err(Code::XmlDtdForbidden));
}

#[tokio::test]
async fn nothing_that_a_file_names_is_fetched() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    server.set_nonblocking(true).expect("does not wait");
    let address = format!("http://{}/x", server.local_addr().expect("bound"));
    let entity = docx(&format!("<!DOCTYPE x [<!ENTITY a SYSTEM '{address}'>]><w:p>&a;</w:p>"));
    assert_eq!(code("a.docx", entity).await, Err(Code::XmlDtdForbidden));
    let html = format!(
        "<link rel=stylesheet href={address}><script src={address}></script><img src={address}><iframe src={address}></iframe><p>Seen"
    );
    assert_eq!(code("a.html", html.into_bytes()).await, Ok("Seen".to_owned()));
    assert_eq!(code("a.md", format!("![Seen]({address})").into_bytes()).await, Ok("Seen".to_owned()));
    let good = page("", "BT /F1 12 Tf 72 700 Td (Seen) Tj ET", &[]);
    let action = format!("/Catalog/OpenAction<</S/URI/URI({address})>>");
    let pdf = String::from_utf8_lossy(&good).replace("/Catalog", &action);
    assert_eq!(code("a.pdf", pdf.into_bytes()).await, Ok("Seen".to_owned()));
    let asked = server.accept().map(|(_, from)| from);
    assert_eq!(asked.map_err(|error| error.kind()), Err(std::io::ErrorKind::WouldBlock));
}
