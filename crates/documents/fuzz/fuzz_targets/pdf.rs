//! PDF: our reading of what pdfium gives; `DOCMILL_PDFIUM` names the library, else pdf-extract reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let pdfium = std::env::var_os("DOCMILL_PDFIUM").map(std::path::PathBuf::from);
    docmill_documents_fuzz::read_pdf(pdfium.as_deref(), bytes);
});
