#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rov_tests::fuzz::sctp(data));
