#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| frostgate::fuzz::check_in(bytes));
