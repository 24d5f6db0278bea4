//! Fuzzes dates: what is read as a date is written and read again as the same one.
//! Goal: no bytes panic, and no date drifts.
//! Costs: two readings and a writing an input.
#![no_main]

use amped_wire::semantics::date::{format, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (now, bytes) = input;
    // A leap second at the end of the year 9999 is the one second that cannot be written.
    if let Some(secs) = parse(bytes, now).filter(|&secs| secs < 253_402_300_800) {
        assert_eq!(parse(&format(secs), now), Some(secs));
    }
    parse(&format(now), now).expect("what we write is a date");
});
