//! `tsp_request` of `src/parsers.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cinnabar_fuzz::tsp_request(data));
