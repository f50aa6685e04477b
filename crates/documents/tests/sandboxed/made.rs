//! Files made in code, sound but for what a test does to them.

use image::{GrayImage, Luma};
use std::io::{Cursor, Write};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A PDF of these objects (numbered from 1, the first is the catalog), with a cross-reference table.
pub fn pdf(objects: &[String]) -> Vec<u8> {
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

/// A stream object.
pub fn stream(extra: &str, content: &str) -> String {
    format!("<<{extra}/Length {}>>\nstream\n{content}\nendstream", content.len())
}

/// One page with this content, with further objects from number 6 on; object 5 is Helvetica.
pub fn page(resources: &str, content: &str, further: &[String]) -> Vec<u8> {
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

/// A PDF of `count` pages, each with its number as its only words.
pub fn pages(count: usize) -> Vec<u8> {
    let kids: Vec<String> = (0..count).map(|page| format!("{} 0 R", 4 + 2 * page)).collect();
    let mut objects = vec![
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        format!("<</Type/Pages/Kids[{}]/Count {count}>>", kids.join(" ")),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(),
    ];
    for page in 0..count {
        let content = format!("{} 0 R", 5 + 2 * page);
        objects.push(format!(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents {content}/Resources<</Font<</F1 3 0 R>>>>>>"
        ));
        objects.push(stream("", &format!("BT /F1 12 Tf 72 700 Td (This is page {}) Tj ET", page + 1)));
    }
    pdf(&objects)
}

/// The entries of the smallest DOCX with this body.
pub fn docx_entries(body: &str) -> Vec<(String, String)> {
    let relations = r#"<Relationships xmlns="x"><Relationship Id="r1" Type="t/officeDocument" Target="word/document.xml"/></Relationships>"#;
    let document = format!(r#"<w:document xmlns:w="w"><w:body>{body}</w:body></w:document>"#);
    [("_rels/.rels", relations.to_owned()), ("word/document.xml", document)].map(|(n, c)| (n.to_owned(), c)).to_vec()
}

/// A ZIP archive of these entries.
pub fn zip(entries: &[(String, String)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        archive.start_file(name.as_str(), SimpleFileOptions::default()).expect("starts");
        archive.write_all(content.as_bytes()).expect("writes");
    }
    archive.finish().expect("finishes").into_inner()
}

/// The smallest DOCX with this body.
pub fn docx(body: &str) -> Vec<u8> {
    zip(&docx_entries(body))
}

/// A gray picture as PGM.
pub fn pgm(picture: &GrayImage) -> Vec<u8> {
    let mut out = format!("P5\n{} {}\n255\n", picture.width(), picture.height()).into_bytes();
    out.extend_from_slice(picture.as_raw());
    out
}

/// White paper.
pub fn blank(width: u32, height: u32) -> GrayImage {
    GrayImage::from_pixel(width, height, Luma([255]))
}

/// The picture turned clockwise by a few degrees around its middle, on white paper that holds all of it.
pub fn askew(picture: &GrayImage, degrees: f32) -> GrayImage {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let side = |a: f32, b: f32| (a * cos.abs() + b * sin.abs()).ceil() as u32;
    let (wide, high) = (side(width, height), side(height, width));
    GrayImage::from_fn(wide, high, |x, y| {
        let (x, y) = (x as f32 - wide as f32 / 2.0, y as f32 - high as f32 / 2.0);
        let (x, y) = (x * cos + y * sin + width / 2.0, y * cos - x * sin + height / 2.0);
        let inside = x >= 0.0 && y >= 0.0 && x < width && y < height;
        if inside { *picture.get_pixel(x as u32, y as u32) } else { Luma([255]) }
    })
}
