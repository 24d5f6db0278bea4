//! Decodes request bodies: by length, or in the chunked coding (RFC 9112 sections 6.3 and 7.1).
//! Goal: the data's place in the input and nothing copied; the end of the body found in one way only.
//! Costs: nothing for data; see `chunked.rs` for what stands between it.

use super::chunked::{Chunked, State};
use crate::head::Framing;
use crate::status::Reject;
use std::ops::Range;

/// A body on its way in. Feed it what has come; it says what to do with it.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    body: Body,
}

/// What [`BodyDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyEvent {
    /// A piece of the body, at this place in the input; there may be more behind what was consumed.
    Data(Range<usize>),
    /// All of the input is consumed and the body goes on.
    NeedMore,
    /// The body has ended; what follows what was consumed belongs to the next request.
    Done,
}

#[derive(Clone, Debug)]
enum Body {
    /// So many bytes to come.
    Length(u64),
    Chunked(Chunked),
}

impl BodyDecoder {
    /// A decoder for a body that `framing` delimits.
    pub fn new(framing: Framing) -> BodyDecoder {
        let body = match framing {
            Framing::None => Body::Length(0),
            Framing::Length(len) => Body::Length(len),
            Framing::Chunked => Body::Chunked(Chunked::new()),
        };
        BodyDecoder { body }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        match &self.body {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.state == State::Done,
        }
    }

    /// Takes the next bytes: how many were consumed, and what they were. Call it again with the rest until it says
    /// [`BodyEvent::NeedMore`] or [`BodyEvent::Done`].
    ///
    /// Trailers are held to the grammar of fields and dropped. To bound what a client may send, count what is consumed:
    /// chunks of one byte make the framing larger than the data.
    ///
    /// # Errors
    /// 400 if the coding is broken, 431 if its trailers are too long. The decoder must not be used again.
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, BodyEvent), Reject> {
        match &mut self.body {
            Body::Length(0) => Ok((0, BodyEvent::Done)),
            Body::Length(_) if input.is_empty() => Ok((0, BodyEvent::NeedMore)),
            Body::Length(left) => {
                let data = data(0, input.len(), *left);
                *left -= data.len() as u64;
                Ok((data.end, BodyEvent::Data(data)))
            }
            Body::Chunked(chunked) => next_chunk(chunked, input),
        }
    }
}

/// Steps through the framing up to data, the end of the body, or the end of the input.
fn next_chunk(chunked: &mut Chunked, input: &[u8]) -> Result<(usize, BodyEvent), Reject> {
    let mut at = 0;
    loop {
        match chunked.state {
            State::Done => return Ok((at, BodyEvent::Done)),
            _ if at == input.len() => return Ok((at, BodyEvent::NeedMore)),
            State::Data(left) => {
                let data = data(at, input.len(), left);
                chunked.data_left(left - data.len() as u64);
                return Ok((data.end, BodyEvent::Data(data)));
            }
            _ => chunked.step(input[at])?,
        }
        at += 1;
    }
}

/// The place of the next data in the input: no more than there is, no more than is due.
fn data(at: usize, end: usize, left: u64) -> Range<usize> {
    let there = end - at;
    at..at + usize::try_from(left).map_or(there, |left| left.min(there))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::encode;
    use crate::limits::{MAX_CHUNK_EXTENSIONS, MAX_TRAILERS};
    use proptest::prelude::*;

    /// The body and what was consumed, or the status; the input given in pieces of `step` bytes.
    fn decode(framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), u16> {
        let (mut decoder, mut body, mut consumed) = (BodyDecoder::new(framing), Vec::new(), 0);
        for piece in input.chunks(step) {
            let mut rest = piece;
            loop {
                let (used, event) = decoder.decode(rest).map_err(|reject| reject.status.code())?;
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

    fn chunked(input: &[u8]) -> Result<(Vec<u8>, usize, bool), u16> {
        let whole = decode(Framing::Chunked, input, input.len().max(1));
        for step in 1..input.len() {
            assert_eq!(decode(Framing::Chunked, input, step), whole, "in steps of {step}");
        }
        whole
    }

    #[test]
    fn a_body_by_length_ends_after_its_bytes() {
        for step in 1..12 {
            assert_eq!(decode(Framing::Length(5), b"helloGET /", step), Ok((b"hello".to_vec(), 5, true)));
            assert_eq!(decode(Framing::Length(50), b"hello", step), Ok((b"hello".to_vec(), 5, false)));
            assert_eq!(decode(Framing::Length(u64::MAX), b"hello", step), Ok((b"hello".to_vec(), 5, false)));
            assert_eq!(decode(Framing::Length(0), b"GET /", step), Ok((vec![], 0, true)));
            assert_eq!(decode(Framing::None, b"GET /", step), Ok((vec![], 0, true)));
        }
    }

    #[test]
    fn chunks_are_joined_and_the_rest_is_left_alone() {
        for (input, body, left) in [
            (&b"0\r\n\r\n"[..], &b""[..], 0),
            (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", 3),
            (b"5\r\nhello\r\n00006\r\n world\r\n0000\r\n\r\n", b"hello world", 0),
            (b"A;a=b;c=\"d;e\"\r\n0123456789\r\n0;x\r\n\r\n", b"0123456789", 0),
            (b"1 ;a\r\nx\r\n0\r\n\r\n", b"x", 0),
            (b"2\r\n\r\n\r\n0\r\nA: b\r\nC:\t\xffd \r\nE:\r\n\r\n\r\n", b"\r\n", 2),
        ] {
            assert_eq!(chunked(input), Ok((body.to_vec(), input.len() - left, true)), "{input:?}");
        }
    }

    #[test]
    fn a_partial_body_waits() {
        let whole = b"5;x\r\nhello\r\n0\r\nA: b\r\n\r\n";
        for end in 0..whole.len() {
            assert!(matches!(chunked(&whole[..end]), Ok((_, used, false)) if used == end));
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        for input in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            " 1\r\n",
            "0x1\r\nx\r\n",
            "1 \r\nx",
            "1\nx",
            "1\r\rx",
            "1\r\nxy\r\n",
            "1\r\nx\n",
            "1\r\nx\r\r",
            "1;\0\r\n",
            "1;a\nx\r\n",
            "10000000000000000\r\n",
            "00000000000000000\r\n",
            "0\r\n\n",
            "0\r\n A: b\r\n",
            "0\r\nA : b\r\n",
            "0\r\nA\r\n",
            "0\r\nA: b\n",
            "0\r\nA: \0\r\n",
            "0\r\n: b\r\n",
            "0\r\n\rx",
            ";a\r\n",
            "1,\r\n",
        ] {
            assert_eq!(chunked(input.as_bytes()), Err(400), "{input:?}");
        }
        assert!(matches!(chunked(b"ffffffffffffffff\r\nx"), Ok((_, _, false))));
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let filler = "a".repeat(MAX_TRAILERS as usize);
        let decode = |input: &str| decode(Framing::Chunked, input.as_bytes(), input.len());
        assert_eq!(decode(&format!("1;{filler}")), Err(400));
        assert_eq!(decode(&format!("0\r\nA:{filler}")), Err(431));
        assert_eq!(decode(&"1;a\r\nx\r\n".repeat(MAX_CHUNK_EXTENSIONS as usize)), Err(400));
        assert_eq!(decode(&format!("0\r\n{}", "a:b\r\n".repeat(MAX_TRAILERS as usize))), Err(431));
        assert!(decode(&format!("1;{}\r\nx", &filler[..MAX_CHUNK_EXTENSIONS as usize - 1])).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8), step in 1..60usize) {
            let mut wire = Vec::new();
            for piece in &pieces {
                encode::chunk_header(&mut wire, piece.len() as u64);
                wire.extend_from_slice(piece);
                wire.extend_from_slice(encode::CHUNK_END);
            }
            encode::last_chunk(&mut wire, &[(b"A", b"b")]);
            let len = wire.len();
            wire.extend_from_slice(b"GET /");
            prop_assert_eq!(decode(Framing::Chunked, &wire, step), Ok((pieces.concat(), len, true)));
        }

        #[test]
        fn pieces_say_what_the_whole_says(parts in prop::collection::vec(prop::sample::select(PARTS), 0..16), noise: Vec<u8>) {
            chunked(&parts.concat()).ok();
            chunked(&noise).ok();
        }
    }

    const PARTS: &[&[u8]] =
        &[b"1\r\nx\r\n", b"0\r\n", b"\r\n", b"a", b"5", b";", b" ", b"\r", b"\n", b"A: b\r\n", b"\0"];
}
