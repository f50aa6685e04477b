//! DOCX as an archive: the container and whatever parts survive in it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    docmill_documents_fuzz::read(
        Some("application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        bytes,
    )
});
