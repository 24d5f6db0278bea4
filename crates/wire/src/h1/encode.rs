//! Writes answer heads and chunked bodies (RFC 9112 sections 4, 5 and 7.1).
//! Goal: appending bytes to a buffer the caller keeps; no value can smuggle in a line of its own.
//! Costs: copies of what is written; no formatting machinery, no allocation but the buffer's growth.

use super::scan;
use crate::head::Version;
use crate::status::Status;
use memchr::memchr3;

/// A status line with its reason phrase.
pub fn status_line(out: &mut Vec<u8>, status: Status, version: Version) {
    out.extend_from_slice(version.as_bytes());
    out.push(b' ');
    out.extend_from_slice(&status.digits());
    out.push(b' ');
    out.extend_from_slice(status.reason().as_bytes());
    out.extend_from_slice(CRLF);
}

/// A field line. The name is ours. A value may quote what a client sent, decoded even, so a CR, LF or NUL in it is
/// written as a space (RFC 9110 section 5.5): no value ever begins another line.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    debug_assert!(scan::is_token(name), "a field name of our own that is no token");
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    let start = out.len();
    out.extend_from_slice(value);
    if memchr3(b'\r', b'\n', 0, value).is_some() {
        let written = out[start..].iter_mut();
        written.filter(|b| matches!(b, b'\r' | b'\n' | 0)).for_each(|b| *b = b' ');
    }
    out.extend_from_slice(CRLF);
}

/// A field line whose value is a number.
pub fn field_u64(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    decimal(out, value);
    out.extend_from_slice(CRLF);
}

/// The empty line that ends a head.
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(CRLF);
}

/// What stands before a chunk of `len` bytes; write the bytes and [`CHUNK_END`] behind it. A chunk of no bytes
/// would end the body: leave it out.
pub fn chunk_header(out: &mut Vec<u8>, len: u64) {
    debug_assert!(len != 0, "an empty chunk ends the body");
    hexadecimal(out, len);
    out.extend_from_slice(CRLF);
}

/// The end of a chunked body, with trailers if there are any (RFC 9110 section 6.5.1 says which may be).
pub fn last_chunk(out: &mut Vec<u8>, trailers: &[(&[u8], &[u8])]) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        field(out, name, value);
    }
    out.extend_from_slice(CRLF);
}

/// A number in decimal digits.
pub fn decimal(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0; LONGEST_DECIMAL];
    let mut first = LONGEST_DECIMAL;
    let mut rest = value;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

/// A number in hexadecimal digits, in lower case.
pub fn hexadecimal(out: &mut Vec<u8>, value: u64) {
    let digits = (u64::BITS - value.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|place| HEX[(value >> (place * 4)) as usize & 15]));
}

/// How many bytes [`decimal`] writes.
pub(crate) fn decimal_len(value: u64) -> u64 {
    u64::from(value.checked_ilog10().unwrap_or(0)) + 1
}

/// The interim answer that asks for the body (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What stands behind a chunk's bytes.
pub const CHUNK_END: &[u8] = CRLF;

const CRLF: &[u8] = b"\r\n";
const HEX: &[u8; 16] = b"0123456789abcdef";
const LONGEST_DECIMAL: usize = u64::MAX.ilog10() as usize + 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_is_written_line_by_line() {
        let head = text(|out| {
            status_line(out, Status::NOT_FOUND, Version::Http11);
            field(out, b"Server", b"amped");
            field_u64(out, b"Content-Length", 120);
            end(out);
        });
        assert_eq!(head, "HTTP/1.1 404 Not Found\r\nServer: amped\r\nContent-Length: 120\r\n\r\n");
        assert_eq!(text(|out| status_line(out, Status::OK, Version::Http10)), "HTTP/1.0 200 OK\r\n");
        // RFC 9112 section 4: the space stays even when the phrase is empty.
        assert_eq!(text(|out| status_line(out, Status::new(299).unwrap(), Version::Http11)), "HTTP/1.1 299 \r\n");
    }

    #[test]
    fn no_value_begins_another_line() {
        let written = text(|out| field(out, b"Location", b"/a\r\nSet-Cookie: b\0"));
        assert_eq!(written, "Location: /a  Set-Cookie: b \r\n");
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_would() {
        for value in [0, 1, 9, 10, 99, 100, 12345, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            assert_eq!(text(|out| decimal(out, value)), value.to_string());
            assert_eq!(decimal_len(value), value.to_string().len() as u64);
            if value != 0 {
                assert_eq!(text(|out| chunk_header(out, value)), format!("{value:x}\r\n"));
            }
        }
    }

    #[test]
    fn a_body_ends_with_or_without_trailers() {
        assert_eq!(text(|out| last_chunk(out, &[])), "0\r\n\r\n");
        assert_eq!(text(|out| last_chunk(out, &[(b"A", b"b")])), "0\r\nA: b\r\n\r\n");
    }
}
