//! Fuzzes the Range field: ranges stay within the representation and never ask for more than the whole of it.
//! Goal: no list of ranges is a way to make an answer grow.
//! Costs: one parse an input.
#![no_main]

use amped_wire::semantics::range::{Ranges, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (len, list) = input;
    let ranges = match parse(&[b"bytes=", list].concat(), len) {
        Ranges::One(range) => vec![range],
        Ranges::Many(ranges) => ranges,
        Ranges::Whole | Ranges::Unsatisfiable => return,
    };
    assert!(
        ranges
            .iter()
            .all(|range| range.start < range.end && range.end <= len)
    );
    assert!(
        ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum::<u64>()
            <= len
    );
});
