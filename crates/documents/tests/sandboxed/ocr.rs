//! Recognition through the real sandbox and the real tesseract: words, boxes and confidences of scans, however they lie.

use crate::made::{askew, blank, page, pages, pgm, stream};
use crate::support::{parser, parser_with, request, tesseract};
use docmill_documents::{OcrMode, ParseOptions, Parser};
use docmill_model::document::{PageOutcome, ParsedDocument};
use docmill_model::{CanonicalText, Code};
use image::GrayImage;
use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

/// A parser with tesseract, or `None` after saying that there is none on this machine.
fn with_ocr() -> Option<Parser> {
    if tesseract().is_none() {
        let _ = writeln!(std::io::stderr(), "skipped: no tesseract");
        return None;
    }
    Some(parser())
}

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sample-docs").join(name)).expect(name)
}

fn notice() -> GrayImage {
    image::load_from_memory(&sample("pier-closure-notice.png")).expect("decodes").into_luma8()
}

async fn read(parser: &Parser, bytes: Vec<u8>, name: &str, options: &ParseOptions) -> Result<ParsedDocument, Code> {
    let mut request = request(bytes, name);
    request.options = options.clone();
    parser.parse(request).await.map(|parsed| parsed.document).map_err(|failure| failure.code)
}

fn words(text: &str) -> HashSet<String> {
    text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase()).collect()
}

/// The share of the notice's words that were read.
fn share(expected: &ParsedDocument, found: &ParsedDocument) -> f32 {
    let expected = words(&expected.text);
    expected.intersection(&words(&found.text)).count() as f32 / expected.len() as f32
}

fn check_places(document: &ParsedDocument, name: &str) {
    assert_eq!(document.violations(), Vec::<String>::new(), "{name}");
    for word in &document.words {
        let page = &document.pages[word.page as usize - 1];
        let r = word.rect;
        let inside =
            0.0 <= r.x0 && r.x0 < r.x1 && r.x1 <= page.width && 0.0 <= r.y0 && r.y0 < r.y1 && r.y1 <= page.height;
        assert!(inside, "{name}: {r:?} is not on a page of {} by {}", page.width, page.height);
        assert!((0.0..=1.0).contains(&word.confidence), "{name}: confidence {}", word.confidence);
    }
    for page in &document.pages {
        let PageOutcome::Ocr { confidence } = page.outcome else { panic!("{name}: page {} is no scan", page.number) };
        assert!((0.5..=1.0).contains(&confidence), "{name}: confidence {confidence}");
    }
}

#[tokio::test]
async fn scans_faxes_and_photographs_are_read() {
    let Some(parser) = with_ocr() else { return };
    for (name, pages, expected) in [
        ("cable-inspection-scan.pdf", 2, "The subsea cable was inspected over its whole length of 2.4 kilometres"),
        ("insurance-fax.tif", 1, "The agreed excess is 15,000 euros. We shall pay 127,450 euros"),
        ("pier-closure-notice.png", 1, "Fishing boats land their catch at the north quay."),
        ("receipt-harbour-chandlery.jpg", 1, "Receipt no. 20771"),
    ] {
        let document = read(&parser, sample(name), name, &ParseOptions::default()).await.expect(name);
        assert_eq!((document.pages.len(), document.engine.as_str()), (pages, "tesseract"), "{name}");
        assert!(document.text.contains(expected), "{name}: {}", document.text);
        check_places(&document, name);
    }
}

#[tokio::test]
async fn pages_on_their_side_and_head_are_read() {
    let Some(parser) = with_ocr() else { return };
    let options = ParseOptions::default();
    let upright = read(&parser, pgm(&notice()), "a.pgm", &options).await.expect("reads");
    for (turn, turned) in [
        (90, image::imageops::rotate90(&notice())),
        (180, image::imageops::rotate180(&notice())),
        (270, image::imageops::rotate270(&notice())),
    ] {
        let document = read(&parser, pgm(&turned), "a.pgm", &options).await.expect("reads");
        check_places(&document, &format!("{turn} degrees"));
        assert!(share(&upright, &document) > 0.95, "{turn} degrees: {}", document.text);
    }
}

#[tokio::test]
async fn pages_askew_are_straightened_and_their_boxes_turned_back() {
    let Some(parser) = with_ocr() else { return };
    let (options, straight) = (ParseOptions::default(), notice());
    let upright = read(&parser, pgm(&straight), "a.pgm", &options).await.expect("reads");
    let middle = |document: &ParsedDocument, wanted: &str| {
        let text = CanonicalText::from_canonical(document.text.clone());
        let word = document.words.iter().find(|word| text.slice(word.span) == Some(wanted)).expect(wanted);
        let page = &document.pages[0];
        ((word.rect.x0 + word.rect.x1 - page.width) / 2.0, (word.rect.y0 + word.rect.y1 - page.height) / 2.0)
    };
    for degrees in [-7.0f32, 3.0, 7.0] {
        let document = read(&parser, pgm(&askew(&straight, degrees)), "a.pgm", &options).await.expect("reads");
        check_places(&document, &format!("{degrees} degrees"));
        assert!(share(&upright, &document) > 0.95, "{degrees} degrees: {}", document.text);
        for word in ["NOTICE", "tonnes.", "Finlay"] {
            let (from, to) = (middle(&upright, word), middle(&document, word));
            let (sin, cos) = degrees.to_radians().sin_cos();
            let (x, y) = (from.0 * cos - from.1 * sin, from.0 * sin + from.1 * cos);
            assert!((x - to.0).abs() < 8.0 && (y - to.1).abs() < 8.0, "{degrees} degrees, {word}: {x} {y} but {to:?}");
        }
    }
}

#[tokio::test]
async fn languages_that_are_not_installed_are_left_out() {
    let Some(parser) = with_ocr() else { return };
    for languages in [vec!["xyz"], vec!["xyz", "eng"], vec![]] {
        let ocr_languages = languages.into_iter().map(str::to_owned).collect();
        let options = ParseOptions { ocr_languages, ..ParseOptions::default() };
        let document = read(&parser, pgm(&notice()), "a.pgm", &options).await.expect("reads");
        assert!(document.text.contains("Fishing boats"), "{:?}", options.ocr_languages);
        let noted = |key: &str| document.metadata.get(key).map(String::as_str);
        let missing = options.ocr_languages.first().map(|_| "xyz");
        assert_eq!((noted("ocr_languages"), noted("ocr_languages_missing")), (Some("eng"), missing));
    }
}

#[tokio::test]
async fn without_recognition_a_picture_has_a_code() {
    let off = ParseOptions { ocr: OcrMode::Off, ..ParseOptions::default() };
    assert_eq!(read(&parser(), pgm(&notice()), "a.pgm", &off).await.err(), Some(Code::OcrUnavailable));
    let scan = read(&parser(), sample("cable-inspection-scan.pdf"), "a.pdf", &off).await;
    assert_eq!(scan.err(), Some(Code::OcrUnavailable));
    let absent = parser_with(None);
    let found = read(&absent, pgm(&notice()), "a.pgm", &ParseOptions::default()).await;
    assert_eq!(found.err(), Some(Code::OcrUnavailable));
}

#[tokio::test]
async fn a_few_words_over_a_scan_are_not_its_text() {
    let picture = stream("/Type/XObject/Subtype/Image/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8", "0");
    let content = "q 612 0 0 792 0 0 cm /X Do Q BT /F1 12 Tf 72 30 Td (Scanned by Copier) Tj ET";
    let bytes =
        page("/XObject<</X 6 0 R>>/Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>", content, &[picture]);
    let off = ParseOptions { ocr: OcrMode::Off, ..ParseOptions::default() };
    for (parser, options) in [(parser(), off), (parser_with(None), ParseOptions::default())] {
        let document = read(&parser, bytes.clone(), "a.pdf", &options).await.expect("the words of its layer");
        assert_eq!(document.text, "Scanned by Copier");
        let PageOutcome::Failed { failure } = &document.pages[0].outcome else { panic!("{:?}", document.pages[0]) };
        assert_eq!(failure.code, Code::OcrUnavailable);
    }
}

#[tokio::test]
async fn empty_paper_and_large_pictures_have_codes() {
    let mut small = ParseOptions::default();
    small.limits.pixels = 1_000;
    assert_eq!(read(&parser(), pgm(&notice()), "a.pgm", &small).await.err(), Some(Code::PixelLimit));
    let Some(parser) = with_ocr() else { return };
    for paper in [blank(1, 1), blank(900, 1_200)] {
        assert_eq!(read(&parser, pgm(&paper), "a.pgm", &ParseOptions::default()).await.err(), Some(Code::OcrEmpty));
    }
}

#[tokio::test]
async fn pages_past_the_limit_of_recognition_fail_and_the_others_stand() {
    let Some(parser) = with_ocr() else { return };
    let mut one = ParseOptions::default();
    one.limits.ocr_pages = 1;
    let document = read(&parser, sample("cable-inspection-scan.pdf"), "a.pdf", &one).await.expect("reads");
    assert!(document.is_partial() && document.text.contains("CABLE INSPECTION REPORT"));
    let PageOutcome::Failed { failure } = &document.pages[1].outcome else { panic!("{:?}", document.pages[1]) };
    assert_eq!((failure.code, failure.limit, failure.measured), (Code::PageLimit, Some(1), Some(2)));
}

#[tokio::test]
async fn a_page_too_large_to_be_drawn_has_a_code() {
    let picture = stream("/Type/XObject/Subtype/Image/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8", "0");
    let bytes = page("/XObject<</X 6 0 R>>", "q 50000 0 0 50000 0 0 cm /X Do Q", &[picture]);
    let large = String::from_utf8(bytes).expect("text").replace("[0 0 612 792]", "[0 0 50000 50000]");
    let Some(parser) = with_ocr() else { return };
    let found = read(&parser, large.into_bytes(), "a.pdf", &ParseOptions::default()).await;
    assert_eq!(found.err(), Some(Code::PixelLimit));
}

#[tokio::test]
async fn a_page_that_ends_the_parser_is_left_out() {
    // The second page's content unpacks to more than the child may hold, but to less than a file may.
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..190 {
        packed.write_all(&vec![b' '; 1_000_000]).expect("compresses");
    }
    let packed = packed.finish().expect("compresses");
    let mut object = format!("<</Filter/FlateDecode/Length {}>>\nstream\n", packed.len()).into_bytes();
    object.extend(&packed);
    object.extend(b"\nendstream");
    let whole = pages(3);
    let content = b"(This is page 2)";
    let at = whole.windows(content.len()).position(|w| w == content).expect("the second page");
    let start = whole[..at].windows(2).rposition(|w| w == b"<<").expect("its stream");
    let end = at + whole[at..].windows(9).position(|w| w == b"endstream").expect("its end") + 9;
    let bytes = [&whole[..start], &object, &whole[end..]].concat();
    let mut options = ParseOptions::default();
    options.limits.memory_bytes = 128 << 20;
    let document = read(&parser(), bytes, "a.pdf", &options).await.expect("the other pages");
    assert_eq!(document.text, "This is page 1\n\nThis is page 3");
    assert!(document.is_partial() && document.pages.len() == 3);
    let PageOutcome::Failed { failure } = &document.pages[1].outcome else { panic!("{:?}", document.pages[1]) };
    assert!(matches!(failure.code, Code::ParserMemory | Code::ParserCrashed), "{failure}");
}
