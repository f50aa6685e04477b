//! PDF by pdf-extract, which reads where pdfium fails.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| docmill_documents_fuzz::read_pdf_plain(bytes));
