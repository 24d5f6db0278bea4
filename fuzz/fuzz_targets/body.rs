//! Fuzzes the chunked coding: the same body comes out however the bytes were cut, and nothing is consumed twice.
//! Goal: the end of a body is found in one place only.
//! Costs: two decodings an input.
#![no_main]

use amped_wire::h1::{BodyDecoder, BodyEvent, Reject};
use amped_wire::head::Framing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    assert_eq!(
        decode(bytes, usize::from(step) + 1),
        decode(bytes, bytes.len().max(1))
    );
});

fn decode(bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), Reject> {
    let (mut decoder, mut body, mut consumed) = (BodyDecoder::new(Framing::Chunked), Vec::new(), 0);
    for mut rest in bytes.chunks(step) {
        loop {
            let (used, event) = decoder.decode(rest)?;
            consumed += used;
            match event {
                BodyEvent::Data(range) => body.extend_from_slice(&rest[range]),
                BodyEvent::NeedMore => break,
                BodyEvent::Done => return Ok((body, consumed, decoder.is_done())),
            }
            rest = &rest[used..];
        }
    }
    Ok((body, consumed, decoder.is_done()))
}
