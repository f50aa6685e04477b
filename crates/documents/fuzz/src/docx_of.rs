//! A file around a part that was made up.

use std::io::{Cursor, Write};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Which part of a DOCX is made up; the others are as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The body. It can refer to a note (`2`), a style (`Heading1`), a list (`1`), a link (`r9`) and the drawings of [`KINDS`],
    /// each by its kind and `1` or `2`.
    Body,
    /// The part behind a drawing of each kind, drawn in a paragraph and in a cell.
    Drawn,
}

const TYPES: &str = r#"<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>"#;
const ROOT: &str = r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>"#;
/// Kinds of relations that drawings have, and a sound part of each.
const KINDS: [(&str, &[u8]); 3] = [
    ("chart", include_bytes!("../corpus/docx_drawn/chart.xml")),
    ("chartEx", include_bytes!("../corpus/docx_drawn/chartEx.xml")),
    ("diagramData", include_bytes!("../corpus/docx_drawn/diagramData.xml")),
];
/// Kinds of relations to parts that paragraphs refer to, and what stands in the parts.
const OTHERS: [(&str, &str); 4] = [
    (
        "footnotes",
        r#"<w:footnotes xmlns:w="w"><w:footnote w:id="2"><w:p><w:r><w:t>Note</w:t></w:r></w:p></w:footnote></w:footnotes>"#,
    ),
    (
        "styles",
        r#"<w:styles xmlns:w="w"><w:style w:type="paragraph" w:styleId="Heading1"><w:name w:val="heading 1"/></w:style></w:styles>"#,
    ),
    (
        "numbering",
        r#"<w:numbering xmlns:w="w"><w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/><w:lvlText w:val="%1."/></w:lvl></w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="1"/></w:num></w:numbering>"#,
    ),
    ("header", r#"<w:hdr xmlns:w="w"><w:p><w:r><w:t>Page</w:t></w:r></w:p></w:hdr>"#),
];

/// A DOCX in which these bytes stand for a part.
#[must_use]
pub fn docx_of(part: Part, bytes: &[u8]) -> Vec<u8> {
    let mut relations =
        r#"<Relationship Id="r9" Type="t/hyperlink" Target="https://example.org/" TargetMode="External"/>"#.to_owned();
    let (mut paragraph, mut cell) = (String::new(), String::new());
    let mut parts: Vec<(String, Vec<u8>)> = vec![("_rels/.rels".to_owned(), ROOT.into())];
    let mut relate = |id: &str, kind: &str, content: &[u8]| {
        relations.push_str(&format!(r#"<Relationship Id="{id}" Type="t/{kind}" Target="{id}.xml"/>"#));
        parts.push((format!("word/{id}.xml"), content.to_vec()));
    };
    for (kind, content) in OTHERS {
        relate(kind, kind, content.as_bytes());
    }
    for (kind, sound) in KINDS {
        for (place, number) in [(&mut paragraph, 1), (&mut cell, 2)] {
            let id = format!("{kind}{number}");
            relate(&id, kind, if part == Part::Drawn { bytes } else { sound });
            place.push_str(&format!(r#"<w:r><w:drawing><c:chart r:id="{id}"/></w:drawing></w:r>"#));
        }
    }
    let body = match part {
        Part::Body => bytes.to_vec(),
        Part::Drawn => format!("<w:document><w:body><w:p><w:r><w:t>Drawn</w:t></w:r>{paragraph}</w:p><w:tbl><w:tr><w:tc><w:p>{cell}</w:p></w:tc></w:tr></w:tbl></w:body></w:document>").into_bytes(),
    };
    parts.push(("[Content_Types].xml".to_owned(), TYPES.into()));
    parts.push((
        "word/_rels/document.xml.rels".to_owned(),
        format!("<Relationships>{relations}</Relationships>").into_bytes(),
    ));
    parts.push(("word/document.xml".to_owned(), body));
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in parts {
        archive.start_file(name, stored).expect("an entry can be started in memory");
        archive.write_all(&bytes).expect("memory can be written");
    }
    archive.finish().expect("an archive in memory can be finished").into_inner()
}
