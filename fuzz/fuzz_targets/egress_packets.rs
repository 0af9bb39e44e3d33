#![no_main]

#[path = "../packets.rs"]
#[allow(dead_code, reason = "each target uses one of them")]
mod packets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| packets::packets(bytes));
