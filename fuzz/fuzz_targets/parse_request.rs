//! Fuzzes the parser of request heads: no bytes panic, and no way of cutting them changes the outcome.
//! Goal: what a refusal or a request says depends on the bytes alone.
//! Costs: two parses an input.
#![no_main]

use amped_wire::h1::parse_request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let whole = [bytes, b"\r\n\r\n"].concat();
    let mut scanned = 0;
    let first = parse_request(&whole[..usize::from(cut) % (whole.len() + 1)], &mut scanned);
    let outcome = if matches!(first, Ok(None)) {
        parse_request(&whole, &mut scanned)
    } else {
        first
    };
    assert_eq!(
        format!("{outcome:?}"),
        format!("{:?}", parse_request(&whole, &mut 0))
    );
});
