//! Parses a request head (RFC 9112 sections 2 to 5): one pass, from the method to the empty line.
//! Goal: each byte is looked at once, by the search that also proves it allowed; nothing is copied.
//! Costs: tens of nanoseconds for a small head. A head that dribbles in costs no more than a constant times its length.
//!
//! Choices where the RFC leaves one: a bare LF never ends a line, since other readers take it for a value's
//! byte (400); a raw byte above 0x7f in a target is let through, for file names are bytes and old clients send
//! them so; a raw `#` in a target is not (400), since no two servers agree on what it cuts off.

use super::scan;
use super::{authority, connection, framing, target};
use crate::head::{Fields, Framing, Known, Method, Request, Version};
use crate::limits::{MAX_EMPTY_LINES, MAX_FIELDS, MAX_HEAD, MAX_METHOD, MAX_REQUEST_LINE};
use crate::status::{Reject, Status};
use memchr::{memchr, memchr_iter};

/// Parses the request head at the start of `buf`: the request, and the head's length in bytes.
///
/// `Ok(None)` asks for more bytes. `scanned` starts at 0 for each head and is handed back with a buffer that has only
/// grown: it remembers how far a partial head was looked at.
///
/// A refusal may come before the head is complete, and never depends on how the bytes were split.
pub fn parse_request<'b>(buf: &'b [u8], scanned: &mut usize) -> Result<Option<(Request<'b>, usize)>, Reject> {
    if *scanned != 0 && !worth_parsing(buf, *scanned) {
        *scanned = buf.len();
        return Ok(None);
    }
    match head(buf) {
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
    if reaches(LONGEST_LINE) || reaches(LONGEST_HEAD) {
        return true;
    }
    let Some(new) = buf.get(scanned..) else { return true };
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
fn head(buf: &[u8]) -> Result<(Request<'_>, usize), Stop> {
    let skipped = if buf.first() == Some(&b'\r') { empty_lines(buf)? } else { 0 };
    let buf = &buf[skipped..];
    // Never looking past the limits makes a refusal depend on the bytes alone, not on how many have come.
    let head = buf.get(..MAX_HEAD).unwrap_or(buf);
    let line = request_line(head)?;
    let (fields, len) = match field_lines(head, line.end) {
        Err(Stop::More) if head.len() == MAX_HEAD => {
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

/// A request line's parts, before they are given a meaning.
struct RequestLine<'b> {
    method: Method,
    method_raw: &'b [u8],
    target: &'b [u8],
    /// Where the path ends in the target: at a question mark, or at the end.
    path_len: usize,
    version: Version,
    /// Where the fields begin.
    end: usize,
}

/// The request line (RFC 9112 section 3).
#[inline]
fn request_line(head: &[u8]) -> Result<RequestLine<'_>, Stop> {
    let line = head.get(..MAX_REQUEST_LINE + CRLF.len()).unwrap_or(head);
    let parsed = request_line_parts(line);
    if matches!(parsed, Err(Stop::More)) && line.len() == MAX_REQUEST_LINE + CRLF.len() {
        return refuse(Status::URI_TOO_LONG, "request line too long");
    }
    parsed
}

#[inline]
fn request_line_parts(line: &[u8]) -> Result<RequestLine<'_>, Stop> {
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

/// A version that is incomplete, wrong, or of another kind.
#[cold]
fn odd_version(rest: &[u8]) -> Result<Version, Stop> {
    for (&byte, &expected) in rest.iter().zip(VERSION_LINE) {
        let right = if expected.is_ascii_digit() { byte.is_ascii_digit() } else { byte == expected };
        if !right {
            return bad("malformed version");
        }
    }
    match rest.get(5) {
        Some(&major) if major != b'1' && rest.len() > 7 => {
            refuse(Status::HTTP_VERSION_NOT_SUPPORTED, "unknown HTTP version")
        }
        _ if rest.len() < VERSION_LINE.len() => Err(Stop::More),
        _ => Ok(Version::Http11),
    }
}

/// The field lines up to the empty line (RFC 9112 section 5), and the length of the head.
#[inline]
fn field_lines(head: &[u8], first_line: usize) -> Result<(Fields<'_>, usize), Stop> {
    let mut fields = Fields::over(head, first_line);
    let mut at = first_line;
    for _ in 0..=MAX_FIELDS {
        if head.get(at) == Some(&b'\r') {
            let len = line_end(head, at)?;
            fields.end_at(len);
            return Ok((fields, len));
        }
        at = field_line(head, at, &mut fields)?;
    }
    refuse(Status::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields")
}

/// One field line; where the next begins.
#[inline]
fn field_line(head: &[u8], at: usize, fields: &mut Fields) -> Result<usize, Stop> {
    let colon = scan::name_end(head, at);
    match head.get(colon) {
        Some(b':') => {}
        None => return Err(Stop::More),
        Some(&other) => return Err(wrong_name(other, colon == at)),
    }
    let name = &head[at..colon];
    let known = Known::recognise(name);
    if known.is_none() && !scan::is_token(name) {
        return bad("malformed field name");
    }
    let mut start = colon + 1;
    while let Some(b' ' | b'\t') = head.get(start) {
        start += 1;
    }
    let end = scan::value_end(head, start);
    let next = line_end(head, end)?;
    if let Some(known) = known {
        fields.note(known, start, head[start..end].trim_ascii_end().len());
    }
    Ok(next)
}

#[cold]
fn wrong_name(stop: u8, first: bool) -> Stop {
    Stop::Refuse(Reject::bad(match stop {
        b' ' | b'\t' if first => "folded field line",
        b' ' | b'\t' => "white space in or after a field name",
        b'\r' | b'\n' => "field line without a colon",
        _ => "control byte in a field name",
    }))
}

/// The position after the CRLF that must stand at `at`, where a search stopped.
#[inline]
fn line_end(head: &[u8], at: usize) -> Result<usize, Stop> {
    match (head.get(at), head.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(at + 2),
        (None, _) | (Some(b'\r'), None) => Err(Stop::More),
        (Some(b'\r'), _) => bad("bare CR in a field line"),
        (Some(b'\n'), _) => bad("bare LF in a field line"),
        _ => bad("control byte in a field value"),
    }
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
fn refuse<T>(status: Status, reason: &'static str) -> Result<T, Stop> {
    Err(Stop::Refuse(Reject::new(status, reason)))
}

#[cold]
fn bad<T>(reason: &'static str) -> Result<T, Stop> {
    Err(Stop::Refuse(Reject::bad(reason)))
}

const CRLF: &[u8] = b"\r\n";
const VERSION_LINE: &[u8] = b"HTTP/1.1\r\n";

/// From these lengths on, a request line or a head is certainly over its limit, empty lines before it included.
const LONGEST_LINE: usize = MAX_REQUEST_LINE + (1 + MAX_EMPTY_LINES) * CRLF.len();
const LONGEST_HEAD: usize = MAX_HEAD + MAX_EMPTY_LINES * CRLF.len();

/// The fields that say something of the body or the connection; most requests have none of them.
const MEANINGFUL: u32 = Known::Connection.bit()
    | Known::ContentLength.bit()
    | Known::TransferEncoding.bit()
    | Known::Expect.bit();
