//! Markdown.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| docmill_documents_fuzz::read(Some("text/markdown"), bytes));
