#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sprag_tests::vault_bodies::vault_open(data));
