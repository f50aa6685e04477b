//! PDF: our reading of what pdfium gives; `DOCMILL_PDFIUM` names the library, else pdf-extract reads.
//!
//! pdfium is not instrumented: coverage guides towards our own code, and its crashes end the run as ours do.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let pdfium = std::env::var_os("DOCMILL_PDFIUM").map(std::path::PathBuf::from);
    docmill_documents_fuzz::read_pdf(pdfium.as_deref(), bytes);
});
