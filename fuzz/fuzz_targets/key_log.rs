#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sprag_tests::memory_bodies::key_log(data));
