//! Parses field lines up to the empty line that ends a head (RFC 9112 section 5).
//! Goal: names are tokens, values hold no control bytes, lines end in CRLF: whatever else is refused, never repaired.
//! Costs: two searches a line, and a look-up of the name; only names not known are checked byte by byte.
//!
//! Choice where the RFC leaves one: a bare LF never ends a line, since other readers take it for a value's byte (400).

use super::parse::{Stop, bad, refuse};
use super::scan;
use crate::head::{Fields, Known};
use crate::limits::MAX_FIELDS;
use crate::status::{Reject, Status};

/// The field lines up to the empty line (RFC 9112 section 5), and the length of the head.
#[inline]
pub(super) fn parse(head: &[u8], first_line: usize) -> Result<(Fields<'_>, usize), Stop> {
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
        b'\r' => "field line without a colon",
        b'\n' => BARE_LF,
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
        (Some(b'\n'), _) => bad(BARE_LF),
        _ => bad("control byte in a field value"),
    }
}

const BARE_LF: &str = "bare LF in a field line";

#[cfg(test)]
mod tests {
    use super::*;

    type Line<'b> = (&'b [u8], &'b [u8]);

    /// The lines' names and values, or the status; `None` if more is needed.
    fn lines(text: &[u8]) -> Result<Option<Vec<Line<'_>>>, u16> {
        match parse(text, 0) {
            Ok((fields, len)) => {
                assert!(text[..len].ends_with(b"\r\n"));
                Ok(Some(fields.iter().collect()))
            }
            Err(Stop::More) => Ok(None),
            Err(Stop::Refuse(reject)) => Err(reject.status.code()),
        }
    }

    #[test]
    fn lines_are_taken_apart() {
        for (text, expected) in [
            (&b"\r\n"[..], &[][..]),
            (b"A:b\r\n\r\n", &[(&b"A"[..], &b"b"[..])]),
            (b"A: \t b\tc d \t\r\nx!:\r\n\r\n", &[(b"A", b"b\tc d"), (b"x!", b"")]),
            (b"A: \xff\x80:\"\r\nHost: \r\n\r\n", &[(b"A", b"\xff\x80:\""), (b"Host", b"")]),
        ] {
            assert_eq!(lines(text), Ok(Some(expected.to_vec())));
            for end in 0..text.len() {
                assert_eq!(lines(&text[..end]), Ok(None), "{:?}", text[..end].escape_ascii());
            }
        }
    }

    #[test]
    fn wrong_lines_are_refused() {
        for text in [
            &b" A: b\r\n\r\n"[..],
            b"\tA: b\r\n\r\n",
            b"A: b\r\n c\r\n\r\n",
            b"A: b\r\n\tc\r\n\r\n",
            b"A : b\r\n\r\n",
            b"A\t: b\r\n\r\n",
            b"A b: c\r\n\r\n",
            b": b\r\n\r\n",
            b"A\r\n\r\n",
            b"A\n\r\n",
            b"A(: b\r\n\r\n",
            b"\xc3\xa4: b\r\n\r\n",
            b"A\0: b\r\n\r\n",
            b"A\x7f: b\r\n\r\n",
            b"A: b\n\r\n",
            b"A: b\rc\r\n\r\n",
            b"A: b\r\r\n\r\n",
            b"A:\rb\r\n\r\n",
            b"A: \0\r\n\r\n",
            b"A: \x0b\r\n\r\n",
            b"A: \x1f\r\n\r\n",
            b"A: b\x7f\r\n\r\n",
            b"A: b\r\n\n",
            b"A: b\r\n\rx",
            b"\n",
        ] {
            assert_eq!(lines(text), Err(400), "{:?}", text.escape_ascii());
        }
    }

    #[test]
    fn their_number_is_bounded() {
        let many = |n: usize| "a:b\r\n".repeat(n) + "\r\n";
        assert!(matches!(lines(many(MAX_FIELDS).as_bytes()), Ok(Some(found)) if found.len() == MAX_FIELDS));
        assert_eq!(lines(many(MAX_FIELDS + 1).as_bytes()), Err(431));
    }
}
