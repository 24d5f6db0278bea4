//! Conditional requests: what If-Match and its kin decide, in the order of RFC 9110 section 13.2.2.
//! Goal: a request is answered 304 or 412 exactly when the RFC says so; a field that makes no sense never yields 304.
//! Costs: nothing when [`Fields::conditional`] says no; otherwise a walk over the listed tags.

use super::date;
use crate::head::{Fields, Known, Method};

/// What identifies the state of the selected representation, which exists. For one that does not, do not ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// The entity tag as sent, quotes and `W/` included.
    pub etag: Option<&'a [u8]>,
    /// The modification date in seconds since 1970.
    pub last_modified: Option<u64>,
}

/// What the conditions decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were no conditions; Range comes next.
    Proceed,
    /// 304, to GET and HEAD only.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Evaluates the conditions of a request (RFC 9110 section 13.2.2). `now` is in seconds since 1970.
///
/// A date field that is no date, or comes twice, is ignored, as is any without a date to compare it with; a list of tags
/// counts up to its first mistake.
pub fn evaluate(method: Method, fields: &Fields, validators: &Validators, now: u64) -> Outcome {
    if !unchanged_as_required(fields, validators, now) {
        return Outcome::PreconditionFailed;
    }
    let reads = matches!(method, Method::Get | Method::Head);
    if fields.known(Known::IfNoneMatch).is_some() {
        return match (any_match(fields, Known::IfNoneMatch, validators, weakly_equal), reads) {
            (false, _) => Outcome::Proceed,
            (true, true) => Outcome::NotModified,
            (true, false) => Outcome::PreconditionFailed,
        };
    }
    match (single_date(fields, Known::IfModifiedSince, now), validators.last_modified) {
        (Some(since), Some(modified)) if reads && modified <= since => Outcome::NotModified,
        _ => Outcome::Proceed,
    }
}

/// Whether a Range field may be honoured (RFC 9110 section 13.1.5): yes without If-Range, else only if the representation
/// is byte for byte the one the client has a part of.
///
/// A date is such proof only if it equals ours and is at least a second old: within its second the file may have
/// changed again (RFC 9110 section 8.8.2.2).
pub fn if_range_allows(fields: &Fields, validators: &Validators, now: u64) -> bool {
    let Some(condition) = fields.known(Known::IfRange) else {
        return true;
    };
    if fields.repeated(Known::IfRange) {
        return false;
    }
    match (entity_tag(condition), validators.etag) {
        (Some((tag, b"")), Some(ours)) => strongly_equal(tag, ours),
        (Some(_), _) => false,
        (None, _) => validators
            .last_modified
            .is_some_and(|modified| modified < now && date::parse(condition, now) == Some(modified)),
    }
}

/// If-Match, or in its absence If-Unmodified-Since.
fn unchanged_as_required(fields: &Fields, validators: &Validators, now: u64) -> bool {
    if fields.known(Known::IfMatch).is_some() {
        return any_match(fields, Known::IfMatch, validators, strongly_equal);
    }
    match (single_date(fields, Known::IfUnmodifiedSince, now), validators.last_modified) {
        (Some(since), Some(modified)) => modified <= since,
        _ => true,
    }
}

/// Whether a tag of the lists, which may stand in several lines, equals ours; `*` equals whatever exists.
fn any_match(fields: &Fields, field: Known, validators: &Validators, equal: fn(&[u8], &[u8]) -> bool) -> bool {
    let ours = validators.etag;
    fields.each(field).any(|list| list == b"*" || Tags { list }.any(|tag| ours.is_some_and(|ours| equal(tag, ours))))
}

/// The date of a field that stands once and is one.
fn single_date(fields: &Fields, field: Known, now: u64) -> Option<u64> {
    let value = fields.known(field).filter(|_| !fields.repeated(field))?;
    date::parse(value, now)
}

/// RFC 9110 section 8.8.3.2: strong tags, byte for byte.
fn strongly_equal(a: &[u8], b: &[u8]) -> bool {
    a == b && !a.starts_with(b"W/")
}

/// RFC 9110 section 8.8.3.2: the same but for their weakness.
fn weakly_equal(a: &[u8], b: &[u8]) -> bool {
    a.strip_prefix(b"W/").unwrap_or(a) == b.strip_prefix(b"W/").unwrap_or(b)
}

/// The tags of a comma-separated list, up to its first mistake.
struct Tags<'b> {
    list: &'b [u8],
}

impl<'b> Iterator for Tags<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        // RFC 9110 section 5.6.1: empty members are skipped.
        while let [b',' | b' ' | b'\t', rest @ ..] = self.list {
            self.list = rest;
        }
        let (tag, rest) = entity_tag(self.list)?;
        let rest = rest.trim_ascii_start();
        self.list = if rest.is_empty() || rest[0] == b',' { rest } else { b"" };
        Some(tag)
    }
}

/// The entity tag at the start of `text`, quotes and `W/` included, and what follows it (RFC 9110 section 8.8.3).
fn entity_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quote = if text.starts_with(b"W/") { 2 } else { 0 };
    let opaque = text.get(quote..)?.strip_prefix(b"\"")?;
    let len = opaque.iter().position(|&b| b == b'"' || b <= b' ' || b == 0x7f)?;
    (opaque[len] == b'"').then(|| text.split_at(quote + len + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::parse_request;
    use Outcome::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const MODIFIED: u64 = 784_111_777;
    const NOW: u64 = 1_700_000_000;

    fn fields(lines: &str) -> Fields<'static> {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes().leak();
        parse_request(head, &mut 0).unwrap().unwrap().0.fields
    }

    fn outcome(method: Method, lines: &str, etag: &str) -> Outcome {
        let etag = (!etag.is_empty()).then_some(etag.as_bytes());
        evaluate(method, &fields(lines), &Validators { etag, last_modified: Some(MODIFIED) }, NOW)
    }

    #[test]
    fn if_match_compares_strongly() {
        for (list, expected) in [
            ("\"a\"", Proceed),
            ("*", Proceed),
            ("\"b\", \"a\"", Proceed),
            (",, \"b\" ,\"a\"", Proceed),
            ("\"b\"\r\nIf-Match: \"a\"", Proceed),
            ("\"b\"", PreconditionFailed),
            ("W/\"a\"", PreconditionFailed),
            ("a", PreconditionFailed),
            ("\"b\" \"a\"", PreconditionFailed),
            ("", PreconditionFailed),
        ] {
            assert_eq!(outcome(Method::Put, &format!("If-Match: {list}"), "\"a\""), expected, "{list}");
        }
        assert_eq!(outcome(Method::Get, "If-Match: W/\"a\"", "W/\"a\""), PreconditionFailed);
        assert_eq!(outcome(Method::Get, "If-Match: \"a\"", ""), PreconditionFailed);
        assert_eq!(outcome(Method::Get, "If-Match: *", ""), Proceed);
    }

    #[test]
    fn if_none_match_compares_weakly() {
        for (list, etag, expected) in [
            ("\"a\"", "\"a\"", NotModified),
            ("W/\"a\"", "\"a\"", NotModified),
            ("\"a\"", "W/\"a\"", NotModified),
            ("\"x,y\", \"a\"", "\"a\"", NotModified),
            ("\"a", "\"a\"", Proceed),
            ("w/\"a\"", "\"a\"", Proceed),
            ("\"A\"", "\"a\"", Proceed),
            ("*", "", NotModified),
            ("\"\"", "\"\"", NotModified),
            ("\"a\u{e4}\"", "\"a\u{e4}\"", NotModified),
        ] {
            assert_eq!(outcome(Method::Get, &format!("If-None-Match: {list}"), etag), expected, "{list}");
        }
        assert_eq!(outcome(Method::Head, "If-None-Match: \"a\"", "\"a\""), NotModified);
        assert_eq!(outcome(Method::Put, "If-None-Match: \"a\"", "\"a\""), PreconditionFailed);
        assert_eq!(outcome(Method::Put, "If-None-Match: *", "\"a\""), PreconditionFailed);
    }

    #[test]
    fn dates_compare_whole_seconds() {
        for (field, date, expected) in [
            ("If-Modified-Since", BEFORE, Proceed),
            ("If-Modified-Since", THEN, NotModified),
            ("If-Modified-Since", AFTER, NotModified),
            ("If-Modified-Since", "yesterday", Proceed),
            ("If-Unmodified-Since", BEFORE, PreconditionFailed),
            ("If-Unmodified-Since", THEN, Proceed),
            ("If-Unmodified-Since", AFTER, Proceed),
            ("If-Unmodified-Since", "0", Proceed),
        ] {
            assert_eq!(outcome(Method::Get, &format!("{field}: {date}"), ""), expected, "{field}: {date}");
        }
        assert_eq!(outcome(Method::Post, &format!("If-Modified-Since: {THEN}"), ""), Proceed);
        assert_eq!(
            outcome(Method::Get, &format!("If-Modified-Since: {THEN}\r\nIf-Modified-Since: {THEN}"), ""),
            Proceed
        );
        let undated = Validators::default();
        assert_eq!(evaluate(Method::Get, &fields(&format!("If-Modified-Since: {THEN}")), &undated, NOW), Proceed);
        assert_eq!(evaluate(Method::Get, &fields(&format!("If-Unmodified-Since: {BEFORE}")), &undated, NOW), Proceed);
    }

    #[test]
    fn tags_take_precedence_over_dates_and_requirements_over_savings() {
        for (lines, expected) in [
            (format!("If-Match: \"a\"\r\nIf-Unmodified-Since: {BEFORE}"), Proceed),
            (format!("If-None-Match: \"b\"\r\nIf-Modified-Since: {AFTER}"), Proceed),
            (format!("If-None-Match: \"a\"\r\nIf-Modified-Since: {BEFORE}"), NotModified),
            ("If-Match: \"b\"\r\nIf-None-Match: \"a\"".to_string(), PreconditionFailed),
            ("If-Match: \"a\"\r\nIf-None-Match: \"a\"".to_string(), NotModified),
            (format!("If-Unmodified-Since: {BEFORE}\r\nIf-Modified-Since: {AFTER}"), PreconditionFailed),
            (format!("If-Unmodified-Since: {AFTER}\r\nIf-Modified-Since: {AFTER}"), NotModified),
            ("X: y".to_string(), Proceed),
        ] {
            assert_eq!(outcome(Method::Get, &lines, "\"a\""), expected, "{lines}");
        }
    }

    #[test]
    fn if_range_wants_proof_of_the_same_bytes() {
        for (lines, etag, now, expected) in [
            ("X: y", "", NOW, true),
            ("If-Range: \"a\"", "\"a\"", NOW, true),
            ("If-Range: \"b\"", "\"a\"", NOW, false),
            ("If-Range: W/\"a\"", "W/\"a\"", NOW, false),
            ("If-Range: \"a\"", "W/\"a\"", NOW, false),
            ("If-Range: \"a\", \"b\"", "\"a\"", NOW, false),
            ("If-Range: \"a\"", "", NOW, false),
            ("If-Range: \"a\"\r\nIf-Range: \"a\"", "\"a\"", NOW, false),
            ("If-Range: Sun, 06 Nov 1994 08:49:37 GMT", "\"a\"", NOW, true),
            ("If-Range: Sun, 06 Nov 1994 08:49:37 GMT", "\"a\"", MODIFIED, false),
            ("If-Range: Sun, 06 Nov 1994 08:49:38 GMT", "\"a\"", NOW, false),
            ("If-Range: a", "\"a\"", NOW, false),
            ("If-Range: *", "\"a\"", NOW, false),
        ] {
            let etag = (!etag.is_empty()).then_some(etag.as_bytes());
            let validators = Validators { etag, last_modified: Some(MODIFIED) };
            assert_eq!(if_range_allows(&fields(lines), &validators, now), expected, "{lines} {etag:?}");
        }
    }
}
