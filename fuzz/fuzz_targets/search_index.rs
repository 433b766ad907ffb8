#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sprag_tests::search_bodies::search_index(data));
