//! What tesseract says of an image: a table of words, or which way up the page is.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| docmill_documents_fuzz::read_recognised(bytes));
