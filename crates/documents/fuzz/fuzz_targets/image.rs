//! Images: headers, limits and decoders; recognition itself is not reached.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| docmill_documents_fuzz::read(None, bytes));
