//! What is drawn in a DOCX: the fuzzed bytes stand where Word keeps a chart, a chart of the newer kinds and a diagram.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let document = docmill_documents_fuzz::docx_of(docmill_documents_fuzz::Part::Drawn, bytes);
    docmill_documents_fuzz::read(None, &document);
});
