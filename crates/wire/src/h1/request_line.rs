//! Parses a request line: method, target, version (RFC 9112 section 3).
//! Goal: find the three parts in one pass, and say of a line that is none what is wrong with it.
//! Costs: one comparison for `GET`, one for the version, one search for the target.
//!
//! Choices where the RFC leaves one: a raw byte above 0x7f in a target is let through, for file names are bytes and
//! old clients send them so; a raw `#` is not (400), since no two servers agree on what it cuts off.

use super::parse::{CRLF, Stop, bad, refuse};
use super::scan;
use crate::head::{Method, Version};
use crate::limits::{MAX_METHOD, MAX_REQUEST_LINE};
use crate::status::{Reject, Status};

/// A request line's parts, before they are given a meaning.
pub(super) struct RequestLine<'b> {
    pub method: Method,
    pub method_raw: &'b [u8],
    pub target: &'b [u8],
    /// Where the path ends in the target: at a question mark, or at the end.
    pub path_len: usize,
    pub version: Version,
    /// Where the fields begin.
    pub end: usize,
}

/// The request line (RFC 9112 section 3).
#[inline]
pub(super) fn parse(head: &[u8]) -> Result<RequestLine<'_>, Stop> {
    let line = head.get(..LONGEST).unwrap_or(head);
    let parsed = parts(line);
    if matches!(parsed, Err(Stop::More)) && line.len() == LONGEST {
        return refuse(Status::URI_TOO_LONG, "request line too long");
    }
    parsed
}

#[inline]
fn parts(line: &[u8]) -> Result<RequestLine<'_>, Stop> {
    let (method, start) = method(line)?;
    let path_end = scan::path_end(line, start);
    let end = if line.get(path_end) == Some(&b'?') { scan::query_end(line, path_end + 1) } else { path_end };
    match line.get(end) {
        Some(b' ') if end > start => {}
        None => return Err(Stop::More),
        Some(&other) => return Err(wrong_target(other)),
    }
    Ok(RequestLine {
        method,
        method_raw: &line[..start - 1],
        target: &line[start..end],
        path_len: path_end - start,
        version: version(line, end + 1)?,
        end: end + 1 + VERSION_LINE.len(),
    })
}

/// The method, and where the target begins.
#[inline]
fn method(line: &[u8]) -> Result<(Method, usize), Stop> {
    if line.starts_with(b"GET ") {
        return Ok((Method::Get, 4));
    }
    let len = line.iter().take(MAX_METHOD + 1).take_while(|&&b| scan::is_tchar(b)).count();
    match line.get(len) {
        _ if len > MAX_METHOD => refuse(Status::NOT_IMPLEMENTED, "method too long"),
        Some(b' ') if len > 0 => Ok((Method::from_bytes(&line[..len]), len + 1)),
        Some(_) => bad("no method"),
        None => Err(Stop::More),
    }
}

#[cold]
fn wrong_target(stop: u8) -> Stop {
    Stop::Refuse(Reject::bad(match stop {
        b' ' => "empty target",
        b'#' => "fragment in the target",
        b'\r' | b'\n' => "no version in the request line",
        _ => "control byte in the target",
    }))
}

/// The version and the end of the line.
#[inline]
fn version(line: &[u8], at: usize) -> Result<Version, Stop> {
    let rest = &line[at..];
    match rest.first_chunk() {
        Some(b"HTTP/1.1\r\n") => Ok(Version::Http11),
        Some(b"HTTP/1.0\r\n") => Ok(Version::Http10),
        _ => odd_version(rest),
    }
}

/// A version that is incomplete, wrong, or of another kind. Each byte is judged as if it were the last, so that
/// the answer does not depend on how many have come.
#[cold]
fn odd_version(rest: &[u8]) -> Result<Version, Stop> {
    for (at, (&byte, &expected)) in rest.iter().zip(VERSION_LINE).enumerate() {
        let right = if expected.is_ascii_digit() { byte.is_ascii_digit() } else { byte == expected };
        if !right {
            return bad(if byte == b'\n' { "bare LF in the request line" } else { "malformed version" });
        }
        if at == MINOR && rest[MAJOR] != b'1' {
            return refuse(Status::HTTP_VERSION_NOT_SUPPORTED, "unknown HTTP version");
        }
    }
    if rest.len() < VERSION_LINE.len() { Err(Stop::More) } else { Ok(Version::Http11) }
}

const LONGEST: usize = MAX_REQUEST_LINE + CRLF.len();
const VERSION_LINE: &[u8] = b"HTTP/1.1\r\n";
const MAJOR: usize = "HTTP/".len();
const MINOR: usize = "HTTP/1.".len();

#[cfg(test)]
mod tests {
    use super::*;

    type Line<'b> = (Method, &'b [u8], Version);

    /// Method, target and version of a line, or the status; `None` if more is needed.
    fn line(text: &[u8]) -> Result<Option<Line<'_>>, u16> {
        match parse(text) {
            Ok(line) => Ok(Some((line.method, line.target, line.version))),
            Err(Stop::More) => Ok(None),
            Err(Stop::Refuse(reject)) => Err(reject.status.code()),
        }
    }

    #[test]
    fn lines_are_taken_apart() {
        use {Method::*, Version::*};
        for (text, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], (Get, &b"/"[..], Http11)),
            (b"GETX / HTTP/1.1\r\n", (Other, b"/", Http11)),
            (b"get /a?b HTTP/1.0\r\n", (Other, b"/a?b", Http10)),
            (b"DELETE /%00\xff\"<>\\^`{|} HTTP/1.1\r\n", (Delete, b"/%00\xff\"<>\\^`{|}", Http11)),
            (b"M-SEARCH * HTTP/1.7\r\n", (Other, b"*", Http11)),
        ] {
            assert_eq!(line(text), Ok(Some(expected)));
            for end in 0..text.len() {
                assert_eq!(line(&text[..end]), Ok(None), "{:?}", text[..end].escape_ascii());
            }
        }
    }

    #[test]
    fn wrong_lines_earn_their_status() {
        for (text, status) in [
            (&b" GET / HTTP/1.1\r\n"[..], 400),
            (b"\tGET / HTTP/1.1\r\n", 400),
            (b"\nGET / HTTP/1.1\r\n", 400),
            (b"\x16\x03\x01", 400),
            (b"G\0T / HTTP/1.1\r\n", 400),
            (b"GET\t/ HTTP/1.1\r\n", 400),
            (b"G(T / HTTP/1.1\r\n", 400),
            (b"GET  / HTTP/1.1\r\n", 400),
            (b"GET /  HTTP/1.1\r\n", 400),
            (b"GET /a b HTTP/1.1\r\n", 400),
            (b"GET /\tHTTP/1.1\r\n", 400),
            (b"GET /\x7f HTTP/1.1\r\n", 400),
            (b"GET /#a HTTP/1.1\r\n", 400),
            (b"GET /?a#b HTTP/1.1\r\n", 400),
            (b"GET /\r\n", 400),
            (b"GET /\n", 400),
            (b"GET / \r\n", 400),
            (b"GET\r\n", 400),
            (b"GET / HTTP/1.1 \r\n", 400),
            (b"GET / HTTP/1.1\n", 400),
            (b"GET / HTTP/1.1\r\r\n", 400),
            (b"GET / HTTP/1.1x\r\n", 400),
            (b"GET / HTTP/1.10\r\n", 400),
            (b"GET / HTTP/1\r\n", 400),
            (b"GET / HTTP/11\r\n", 400),
            (b"GET / http/1.1\r\n", 400),
            (b"GET / HTTPS/1.1\r\n", 400),
            (b"GET / ICY/1.1\r\n", 400),
            (b"GET / HTTP/a.1\r\n", 400),
            (b"GET / HTTP/2.0\r\n", 505),
            (b"GET / HTTP/0.9\r\n", 505),
            (b"GET / HTTP/0.8x", 505),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ] {
            assert_eq!(line(text), Err(status), "{:?}", text.escape_ascii());
        }
    }

    #[test]
    fn long_parts_are_told_apart() {
        let get = |len: usize| format!("GET /{} HTTP/1.1\r\n", "a".repeat(len - "GET / HTTP/1.1".len()));
        assert!(matches!(line(get(MAX_REQUEST_LINE).as_bytes()), Ok(Some(_))));
        assert_eq!(line(get(MAX_REQUEST_LINE + 1).as_bytes()), Err(414));
        assert_eq!(line(&get(MAX_REQUEST_LINE * 2).as_bytes()[..MAX_REQUEST_LINE + 1]), Ok(None));
        assert_eq!(line("M".repeat(MAX_METHOD).as_bytes()), Ok(None));
        assert_eq!(line("M".repeat(MAX_METHOD + 1).as_bytes()), Err(501));
        assert!(matches!(line(("M".repeat(MAX_METHOD) + " / HTTP/1.1\r\n").as_bytes()), Ok(Some(_))));
    }
}
