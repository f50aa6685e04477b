//! What a parsing child writes to the service; a child may have been taken over by the file it read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| docmill_documents_fuzz::hear(bytes));
