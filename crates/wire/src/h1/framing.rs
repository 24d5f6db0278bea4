//! How a request's body is delimited: Transfer-Encoding and Content-Length (RFC 9112 sections 6.1 to 6.3).
//! Goal: exactly one reading. Whatever another server could read differently is refused, even where repair is allowed.
//! Costs: nothing for a request that has neither field.

use super::connection::members;
use crate::head::{Fields, Framing, Known, Version};
use crate::status::{Reject, Status};

/// The body's framing as the fields say.
pub(super) fn of(fields: &Fields, version: Version) -> Result<Framing, Reject> {
    let length = fields.known(Known::ContentLength);
    if fields.any(Known::TransferEncoding.bit()) {
        return match (length, version) {
            (Some(_), _) => Err(BOTH),
            (None, Version::Http10) => Err(CODING_IN_10),
            (None, Version::Http11) => chunked(fields),
        };
    }
    match length {
        None => Ok(Framing::None),
        Some(_) if fields.repeated(Known::ContentLength) => Err(TWO_LENGTHS),
        Some(digits) => content_length(digits).map(Framing::Length).ok_or(WRONG_LENGTH),
    }
}

/// A Content-Length: digits alone, within 64 bits. A list is refused even if its members agree.
fn content_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Chunked must be the last coding and is the only one understood: 400 if it is not last, for the body's end is
/// unknown then; 501 for a coding that stands before it.
fn chunked(fields: &Fields) -> Result<Framing, Reject> {
    let mut unknown = false;
    let mut chunks = 0;
    let mut last_is_chunked = false;
    for coding in fields.each(Known::TransferEncoding).flat_map(members) {
        last_is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        chunks += u32::from(last_is_chunked);
        unknown |= !last_is_chunked && !is_registered(coding);
    }
    match (last_is_chunked, chunks) {
        (false, _) if unknown => Err(UNKNOWN_CODING),
        (false, _) => Err(NOT_LAST),
        (true, 1) if fields.each(Known::TransferEncoding).flat_map(members).count() == 1 => Ok(Framing::Chunked),
        (true, 1) => Err(UNKNOWN_CODING),
        (true, _) => Err(TWICE_CHUNKED),
    }
}

/// The codings of the registry that are not chunked (RFC 9112 section 7.2).
fn is_registered(coding: &[u8]) -> bool {
    [&b"gzip"[..], b"x-gzip", b"deflate", b"compress", b"x-compress"].iter().any(|c| coding.eq_ignore_ascii_case(c))
}

const BOTH: Reject = Reject::bad("both Content-Length and Transfer-Encoding");
const CODING_IN_10: Reject = Reject::bad("Transfer-Encoding in HTTP/1.0");
const NOT_LAST: Reject = Reject::bad("chunked is not the last transfer coding");
const TWICE_CHUNKED: Reject = Reject::bad("chunked more than once");
const TWO_LENGTHS: Reject = Reject::bad("more than one Content-Length");
const UNKNOWN_CODING: Reject = Reject::new(Status::NOT_IMPLEMENTED, "unknown transfer coding");
const WRONG_LENGTH: Reject = Reject::bad("malformed Content-Length");

#[cfg(test)]
mod tests {
    use crate::h1::parse_request;
    use crate::head::Framing;

    fn framing(version: &str, lines: &str) -> Result<Framing, u16> {
        let head = format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n\r\n");
        match parse_request(head.as_bytes(), &mut 0) {
            Ok(parsed) => Ok(parsed.expect("a whole head").0.framing),
            Err(reject) => Err(reject.status.code()),
        }
    }

    #[test]
    fn one_reading_is_accepted() {
        for (version, lines, expected) in [
            ("1.1", "X: y", Framing::None),
            ("1.1", "Content-Length: 0", Framing::Length(0)),
            ("1.0", "Content-Length: 007", Framing::Length(7)),
            ("1.1", "Content-Length: 18446744073709551615", Framing::Length(u64::MAX)),
            ("1.1", "Transfer-Encoding: chunked", Framing::Chunked),
            ("1.1", "transfer-encoding:\tCHUNKED ", Framing::Chunked),
            ("1.1", "Transfer-Encoding: , chunked,", Framing::Chunked),
        ] {
            assert_eq!(framing(version, lines), Ok(expected), "{lines}");
        }
    }

    #[test]
    fn two_readings_are_refused() {
        for (version, lines, status) in [
            ("1.1", "Content-Length:", 400),
            ("1.1", "Content-Length: +1", 400),
            ("1.1", "Content-Length: -1", 400),
            ("1.1", "Content-Length: 0x1", 400),
            ("1.1", "Content-Length: 1 1", 400),
            ("1.1", "Content-Length: 1, 1", 400),
            ("1.1", "Content-Length: 18446744073709551616", 400),
            ("1.1", "Content-Length: 1\r\nContent-Length: 1", 400),
            ("1.1", "Content-Length: 1\r\ncontent-length: 2", 400),
            ("1.1", "Content-Length: 1\r\nTransfer-Encoding: chunked", 400),
            ("1.1", "Transfer-Encoding: chunked\r\nContent-Length: 1", 400),
            ("1.0", "Transfer-Encoding: chunked", 400),
            ("1.1", "Transfer-Encoding:", 400),
            ("1.1", "Transfer-Encoding: gzip", 400),
            ("1.1", "Transfer-Encoding: chunked, gzip", 400),
            ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", 400),
            ("1.1", "Transfer-Encoding: chunked, chunked", 400),
            ("1.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
            ("1.1", "Transfer-Encoding: identity", 501),
            ("1.1", "Transfer-Encoding: xchunked", 501),
            ("1.1", "Transfer-Encoding: chunked;q=1", 501),
            ("1.1", "Transfer-Encoding: \"chunked\"", 501),
            ("1.1", "Transfer-Encoding: gzip, chunked", 501),
            ("1.1", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501),
        ] {
            assert_eq!(framing(version, lines), Err(status), "{lines}");
        }
    }
}
