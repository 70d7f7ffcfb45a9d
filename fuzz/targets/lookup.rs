#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oci_systemd_hook::fuzz::lookup(data));
