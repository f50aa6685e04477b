//! The body of a DOCX: the fuzzed bytes stand where Word keeps the text, so that every input reaches the XML.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let document = docmill_documents_fuzz::docx_of(docmill_documents_fuzz::Part::Body, bytes);
    docmill_documents_fuzz::read(None, &document);
});
