#![no_main]

#[path = "../image_parsers.rs"]
mod image_parsers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| image_parsers::changes(bytes));
