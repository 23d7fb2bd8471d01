//! `message` of `src/parsers.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cinnabar_fuzz::message(data));
