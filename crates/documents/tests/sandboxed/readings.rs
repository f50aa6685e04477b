//! What is read from the samples, as a snapshot, so that nobody changes it without noticing.
//!
//! When this fails and the new reading is right: raise [`docmill_documents::READING`], by which results that are kept
//! elsewhere learn that they are old, then run it with `INSTA_UPDATE=always`.

use crate::support::{parser_with, request};
use docmill_documents::READING;
use docmill_model::Sha256Hex;
use std::fmt::Write;
use std::path::Path;

#[tokio::test]
async fn samples_are_read_as_before_or_under_a_new_number() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sample-docs");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("samples").map(|entry| entry.expect("one").path()).collect();
    paths.retain(|path| !path.ends_with("README.md") && !path.ends_with("questions.yaml"));
    paths.sort();
    // What is recognised depends on the tesseract of the machine.
    let parser = parser_with(None);
    let mut readings = format!("reading {READING}\n");
    for path in paths {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let Ok(document) = parser.parse(request(std::fs::read(&path).expect("reads"), &name)).await else { continue };
        let serialised = serde_json::to_vec(&document.document).expect("serialises");
        let _ = writeln!(readings, "{} {name}", &Sha256Hex::of(&serialised).as_str()[..16]);
    }
    insta::assert_snapshot!(readings);
}
