//! Fuzzes conditional requests: any field lines, against a fixed representation.
//! Goal: no bytes panic, 304 answers GET and HEAD only, and without conditions everything proceeds.
//! Costs: a parse and two evaluations an input.
#![no_main]

use amped_wire::h1::parse_request;
use amped_wire::head::Method;
use amped_wire::semantics::condition::{Outcome, Validators, evaluate, if_range_allows};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|lines: &[u8]| {
    let head = [b"GET / HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n\r\n"].concat();
    let Ok(Some((request, _))) = parse_request(&head, &mut 0) else {
        return;
    };
    let validators = Validators {
        etag: Some(b"\"a\""),
        last_modified: Some(784_111_777),
    };
    let read = evaluate(Method::Get, &request.fields, &validators, 1_700_000_000);
    let written = evaluate(Method::Put, &request.fields, &validators, 1_700_000_000);
    assert!(written != Outcome::NotModified);
    assert!(
        request.fields.conditional() || read == Outcome::Proceed && written == Outcome::Proceed
    );
    if_range_allows(&request.fields, &validators, 1_700_000_000);
});
