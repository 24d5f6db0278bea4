//! Parses a request head (RFC 9112 sections 2 to 5): one pass, from the method to the empty line.
//! Goal: each byte is looked at once, by the search that also proves it allowed; nothing is copied.
//! Costs: tens of nanoseconds for a small head. A head that dribbles in costs no more than a constant times its length.

use super::request_line::{self, RequestLine};
use super::{authority, connection, field_lines, framing, target};
use crate::head::{Fields, Framing, Known, Request, Version};
use crate::limits::{MAX_EMPTY_LINES, MAX_HEAD, MAX_REQUEST_LINE};
use crate::status::{Reject, Status};
use memchr::{memchr, memchr_iter};

/// Parses the request head at the start of `buf`: the request, and the head's length in bytes.
///
/// `Ok(None)` asks for more bytes. `scanned` starts at 0 for each head and is handed back with a buffer that has only
/// grown: it remembers how far a partial head was looked at. A buffer of [`MAX_HEAD`] bytes is enough: when it is full,
/// more bytes are never asked for.
///
/// A refusal may come before the head is complete, and never depends on how the bytes were split.
pub fn parse_request<'b>(buf: &'b [u8], scanned: &mut usize) -> Result<Option<(Request<'b>, usize)>, Reject> {
    if *scanned != 0 && !worth_parsing(buf, *scanned) {
        *scanned = buf.len();
        return Ok(None);
    }
    match whole_head(buf) {
        Ok(done) => Ok(Some(done)),
        Err(Stop::Refuse(reject)) => Err(reject),
        Err(Stop::More) => {
            *scanned = buf.len();
            Ok(None)
        }
    }
}

/// Why parsing stopped before the end of the head.
pub(super) enum Stop {
    /// The bytes end here, and so far they are right.
    More,
    /// The bytes are wrong.
    Refuse(Reject),
}

/// Whether bytes from `scanned` on can change what the last try said: they end the request line or the head, hold a bare
/// LF, or reach a limit. At most a few tries a head say yes, so that all tries together stay linear.
fn worth_parsing(buf: &[u8], scanned: usize) -> bool {
    let reaches = |limit: usize| scanned < limit && limit <= buf.len();
    if reaches(LONGEST_LINE) || reaches(MAX_HEAD) {
        return true;
    }
    let Some(new) = buf.get(scanned..) else {
        return true;
    };
    let ends_something = |at: usize| match buf[..at] {
        [.., b'\n', b'\r'] | [b'\r'] => true,
        [.., b'\r'] => false,
        _ => true,
    };
    let mut ends = memchr_iter(b'\n', new).map(|at| scanned + at).peekable();
    // The first line ends among the new bytes if none of the old ones ended it; its length bounds the search.
    ends.peek().is_some() && (memchr(b'\n', &buf[..scanned]).is_none() || ends.any(ends_something))
}

/// The whole head, after the empty lines that may stand before it (RFC 9112 section 2.2).
#[inline]
fn whole_head(buf: &[u8]) -> Result<(Request<'_>, usize), Stop> {
    // Never looking past the limit makes a refusal depend on the bytes alone, not on how many have come.
    let buf = buf.get(..MAX_HEAD).unwrap_or(buf);
    let skipped = if buf.first() == Some(&b'\r') { empty_lines(buf)? } else { 0 };
    let head = &buf[skipped..];
    let line = request_line::parse(head)?;
    let (fields, len) = match field_lines::parse(head, line.end) {
        Err(Stop::More) if buf.len() == MAX_HEAD => {
            return refuse(Status::REQUEST_HEADER_FIELDS_TOO_LARGE, "head too long");
        }
        other => other?,
    };
    let request = assemble(line, fields).map_err(Stop::Refuse)?;
    Ok((request, skipped + len))
}

/// The bytes of the empty lines before a request.
#[cold]
fn empty_lines(buf: &[u8]) -> Result<usize, Stop> {
    let mut at = 0;
    while buf.get(at) == Some(&b'\r') {
        match buf.get(at + 1) {
            None => return Err(Stop::More),
            Some(b'\n') if at < MAX_EMPTY_LINES * 2 => at += 2,
            Some(b'\n') => return bad("too many empty lines before the request"),
            Some(_) => return bad("bare CR before the request"),
        }
    }
    Ok(at)
}

/// Gives the parts their meaning, and refuses the combinations that have none.
#[inline]
fn assemble<'b>(line: RequestLine<'b>, fields: Fields<'b>) -> Result<Request<'b>, Reject> {
    let target = target::classify(line.method, line.target, line.path_len)?;
    let mut request = Request {
        method: line.method,
        method_raw: line.method_raw,
        raw_target: line.target,
        target,
        version: line.version,
        host: authority::choose(&target, &fields, line.version)?,
        fields,
        framing: Framing::None,
        keep_alive: line.version == Version::Http11,
        expect_continue: false,
        upgrade: None,
    };
    if fields.any(MEANINGFUL) {
        request.framing = framing::of(&fields, line.version)?;
        connection::apply(&mut request)?;
    }
    Ok(request)
}

#[cold]
pub(super) fn refuse<T>(status: Status, reason: &'static str) -> Result<T, Stop> {
    Err(Stop::Refuse(Reject::new(status, reason)))
}

#[cold]
pub(super) fn bad<T>(reason: &'static str) -> Result<T, Stop> {
    Err(Stop::Refuse(Reject::bad(reason)))
}

pub(super) const CRLF: &[u8] = b"\r\n";

/// From this length on a request line is certainly over its limit, empty lines before it included.
const LONGEST_LINE: usize = MAX_REQUEST_LINE + (1 + MAX_EMPTY_LINES) * CRLF.len();

/// The fields that say something of the body or the connection; most requests have none of them.
const MEANINGFUL: u32 =
    Known::Connection.bit() | Known::ContentLength.bit() | Known::TransferEncoding.bit() | Known::Expect.bit();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{Method, Target};
    use proptest::prelude::*;

    /// What a server would see of `bytes` in one piece: the status of a refusal, or the request's outline.
    fn whole(bytes: &[u8]) -> Result<Option<(String, usize)>, Reject> {
        outline(parse_request(bytes, &mut 0))
    }

    /// The same, if the bytes arrive in pieces that end at `ends`.
    fn in_pieces(bytes: &[u8], ends: impl Iterator<Item = usize>) -> Result<Option<(String, usize)>, Reject> {
        let mut scanned = 0;
        for end in ends.chain([bytes.len()]) {
            let parsed = parse_request(&bytes[..end], &mut scanned);
            if !matches!(parsed, Ok(None)) {
                return outline(parsed);
            }
            assert_eq!(scanned, end);
        }
        Ok(None)
    }

    fn outline(parsed: Result<Option<(Request, usize)>, Reject>) -> Result<Option<(String, usize)>, Reject> {
        parsed.map(|done| done.map(|(request, len)| (format!("{request:?}"), len)))
    }

    fn status(text: &str) -> u16 {
        whole(text.as_bytes()).map_or_else(|reject| reject.status.code(), |done| if done.is_some() { 200 } else { 0 })
    }

    #[test]
    fn a_request_is_what_it_says() {
        let bytes = b"\r\nPOST /a?b HTTP/1.1\r\nHost: c:1\r\nContent-Length: 3\r\n\r\nxyzGET /";
        let (request, len) = parse_request(bytes, &mut 0).unwrap().unwrap();
        assert_eq!(&bytes[len..], b"xyzGET /");
        assert_eq!(
            (request.method, request.method_raw, request.raw_target),
            (Method::Post, &b"POST"[..], &b"/a?b"[..])
        );
        assert_eq!(request.target, Target::Origin { path: b"/a", query: Some(b"b") });
        assert_eq!((request.host, request.framing, request.keep_alive), (&b"c:1"[..], Framing::Length(3), true));
        assert_eq!(request.fields.get("content-length"), Some(&b"3"[..]));
    }

    #[test]
    fn the_host_is_who_the_request_is_for() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "a"),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", ""),
            ("GET / HTTP/1.0\r\n\r\n", ""),
            ("GET http://b:2/ HTTP/1.1\r\nHost: a\r\n\r\n", "b:2"),
            ("GET http://b/ HTTP/1.0\r\n\r\n", "b"),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "a"),
            ("CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n", "b:443"),
        ] {
            let host = parse_request(text.as_bytes(), &mut 0).unwrap().unwrap().0.host;
            assert_eq!(host, expected.as_bytes(), "{text}");
        }
    }

    #[test]
    fn wrong_heads_earn_their_status() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a/\r\n\r\n", 400),
            ("GET http://b/ HTTP/1.1\r\n\r\n", 400),
            ("GET http://b/ HTTP/1.1\r\nHost: @\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            ("", 0),
            ("\r", 0),
            ("\r\n\r\n", 0),
        ] {
            assert_eq!(status(text), expected, "{text:?}");
        }
        assert_eq!(status(&("\r\n".repeat(MAX_EMPTY_LINES) + "GET / HTTP/1.0\r\n\r\n")), 200);
        assert_eq!(status(&"\r\n".repeat(MAX_EMPTY_LINES + 1)), 400);
    }

    /// A head of exactly `len` bytes.
    fn head_of(len: usize) -> String {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(len - start.len() - 4))
    }

    #[test]
    fn a_head_is_bounded_however_it_arrives() {
        let long_line = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD));
        for (text, expected) in [(head_of(MAX_HEAD), 200), (head_of(MAX_HEAD + 1), 431), (long_line, 414)] {
            assert_eq!(status(&text), expected);
            let pieces = in_pieces(text.as_bytes(), 1..text.len());
            assert_eq!(pieces, whole(text.as_bytes()));
        }
    }

    #[test]
    fn endless_bytes_are_refused_at_the_limit() {
        for (start, filler, expected) in
            [("GET /", "a", 414), ("GET / HTTP/1.1\r\nX: ", "a", 431), ("GET / HTTP/1.1\r\n", "a:b\r\n", 431)]
        {
            let text = start.to_owned() + &filler.repeat(MAX_HEAD);
            assert_eq!(in_pieces(text.as_bytes(), 1..text.len()).unwrap_err().status.code(), expected);
        }
    }

    #[test]
    fn a_full_buffer_is_never_asked_for_more() {
        for start in ["", "\r\n", "\r\n\r\n"] {
            let text = start.to_owned() + &head_of(MAX_HEAD * 2);
            let mut scanned = 0;
            assert!(matches!(parse_request(&text.as_bytes()[..MAX_HEAD - 1], &mut scanned), Ok(None)));
            assert!(parse_request(&text.as_bytes()[..MAX_HEAD], &mut scanned).is_err());
        }
    }

    #[test]
    fn a_dribbled_head_is_parsed_only_a_few_times() {
        let text = format!("\r\nGET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(90));
        let tries = (1..text.len()).filter(|&seen| worth_parsing(&text.as_bytes()[..seen + 1], seen)).count();
        assert!(tries <= 4, "{tries} tries");
    }

    #[test]
    fn an_endless_line_is_refused_before_the_head_is_full() {
        let text = "GET /".to_owned() + &"a".repeat(LONGEST_LINE);
        assert!(in_pieces(text.as_bytes(), 1..LONGEST_LINE + 1).is_err());
    }

    #[test]
    fn a_bare_lf_is_refused_when_it_comes() {
        let text = b"GET / HTTP/1.1\r\nHost: a\n";
        assert_eq!(in_pieces(text, 1..text.len()).unwrap_err().status.code(), 400);
    }

    /// Pieces of heads, right and wrong: random bytes would not come far.
    fn head_like() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => prop::sample::select(PIECES).prop_map(|piece| piece.to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    const PIECES: &[&[u8]] = &[
        b"\r\n",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n",
        b"POST /a?b HTTP/1.0\r\n",
        b"GET http://h/ HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close, upgrade\r\n",
        b"Upgrade: x\r\n",
        b"X-Y:\tz \r\n",
        b"Expect: 100-continue\r\n",
        b"Range: bytes=0-1\r\n",
        b" ",
        b":",
        b"\r",
        b"\n",
        b"a",
        b"Host",
        b"GET ",
        b"HTTP/1.1",
        b"\t",
        b"GET / HTTP/2.0",
        b"GET /",
        b" HTTP/1.",
        b"\r\n\r",
        b"#",
        b"?",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, scanned: usize) {
            let _ = parse_request(&bytes, &mut 0);
            let _ = parse_request(&bytes, &mut scanned.clone());
        }

        #[test]
        fn pieces_say_what_the_whole_says(start in head_like(), cut: prop::sample::Index) {
            let bytes = [&start[..], b"\r\n\r\n"].concat();
            let expected = whole(&bytes);
            let cut = cut.index(bytes.len());
            for pieces in [in_pieces(&bytes, [cut].into_iter()), in_pieces(&bytes, 0..bytes.len())] {
                prop_assert_eq!(&pieces, &expected);
            }
        }

        #[test]
        fn a_valid_head_survives_every_cut(path in "/[a-z/]{0,20}", value in "[ -~\\t]{0,40}", cut: prop::sample::Index) {
            let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Value: {value}\r\n\r\n");
            let (request, len) = parse_request(text.as_bytes(), &mut 0).unwrap().unwrap();
            prop_assert_eq!(len, text.len());
            prop_assert_eq!(request.fields.get("x-value").unwrap(), value.trim_matches([' ', '\t']).as_bytes());
            let cut = cut.index(text.len());
            prop_assert_eq!(parse_request(&text.as_bytes()[..cut], &mut 0).unwrap().is_none(), true);
            prop_assert_eq!(in_pieces(text.as_bytes(), [cut].into_iter()), whole(text.as_bytes()));
        }
    }
}
