//! Byte ranges (RFC 9110 section 14): what a Range field asks of a representation, and the fields and parts that answer it.
//! Goal: a range never reaches beyond the representation, and no list of them makes the answer larger than the whole.
//! Costs: one range allocates nothing; several allocate one short list.

use super::condition::{Validators, if_range_allows};
use crate::h1::encode;
use crate::head::{Fields, Known, Method};
use crate::limits::MAX_RANGES;
use memchr::memchr;
use std::ops::Range;

/// What a Range field asks for. Ranges are half-open, never empty, and within the representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// The whole: no range, one not understood, or too many of them. Answer 200.
    Whole,
    /// One part: answer 206 with Content-Range.
    One(Range<u64>),
    /// Parts that do not touch each other: answer 206 with multipart/byteranges.
    Many(Vec<Range<u64>>),
    /// None of the ranges is there: answer 416 with [`unsatisfied`].
    Unsatisfiable,
}

/// What a request asks for of a representation of `len` bytes: only GET has ranges (RFC 9110 section 14.2), only
/// one line of them, and only as If-Range allows. Conditions come first: see [`super::condition::evaluate`].
pub fn of_request(method: Method, fields: &Fields, validators: &Validators, len: u64, now: u64) -> Ranges {
    match fields.known(Known::Range) {
        Some(field)
            if method == Method::Get && !fields.repeated(Known::Range) && if_range_allows(fields, validators, now) =>
        {
            parse(field, len)
        }
        _ => Ranges::Whole,
    }
}

/// What a Range field's value asks for of a representation of `len` bytes.
///
/// A malformed list is ignored as a whole (RFC 9110 section 14.2 allows it). Ranges that overlap or touch are merged and then
/// put in order, so that their sum never exceeds `len`; others keep the order they were asked in. More than
/// [`MAX_RANGES`] are ignored: no reader needs them, and each would cost a part's head.
pub fn parse(field: &[u8], len: u64) -> Ranges {
    let Some(list) = bytes_unit(field) else {
        return Ranges::Whole;
    };
    if memchr(b',', list).is_none() {
        return match resolve(list.trim_ascii(), len) {
            None => Ranges::Whole,
            Some(range) if range.is_empty() => nothing_there(list, len),
            Some(range) => Ranges::One(range),
        };
    }
    let Some(ranges) = resolve_all(list, len) else {
        return Ranges::Whole;
    };
    match ranges.as_slice() {
        [] => nothing_there(list, len),
        [one] => Ranges::One(one.clone()),
        _ => Ranges::Many(ranges),
    }
}

/// The ranges of a list that are there, merged where they touch; `None` if the list is malformed, empty or too long.
fn resolve_all(list: &[u8], len: u64) -> Option<Vec<Range<u64>>> {
    let specs = list.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    let mut found = Vec::new();
    let mut seen = 0;
    for spec in specs.filter(|spec| !spec.is_empty()) {
        seen += 1;
        let range = resolve(spec, len).filter(|_| seen <= MAX_RANGES)?;
        if !range.is_empty() {
            found.push(range);
        }
    }
    let found = if any_touch(&found) { merge(found) } else { found };
    (seen > 0).then_some(found)
}

/// No range is there. An empty file asked for its last bytes can give all it has, but no Content-Range can say so.
fn nothing_there(list: &[u8], len: u64) -> Ranges {
    if len == 0 && list.trim_ascii().starts_with(b"-") { Ranges::Whole } else { Ranges::Unsatisfiable }
}

/// The list behind `bytes=`; units are compared without case (RFC 9110 section 14.1).
fn bytes_unit(field: &[u8]) -> Option<&[u8]> {
    let (unit, list) = field.split_at_checked(b"bytes=".len())?;
    unit.eq_ignore_ascii_case(b"bytes=").then_some(list)
}

/// The bytes a range asks for: empty if they are not there, `None` if it is malformed (RFC 9110 section 14.1.1).
fn resolve(spec: &[u8], len: u64) -> Option<Range<u64>> {
    let dash = spec.iter().position(|&b| b == b'-')?;
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    match (first, last) {
        (b"", suffix) => Some(len - number(suffix)?.min(len)..len),
        (first, b"") => Some(number(first)?.min(len)..len),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first.min(len)..last.saturating_add(1).min(len))
        }
    }
}

/// Digits alone. A number beyond 64 bits is as good as the largest: no representation reaches either.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |sum: u64, b| sum.saturating_mul(10).saturating_add(u64::from(b - b'0'))))
}

fn any_touch(ranges: &[Range<u64>]) -> bool {
    let touch = |a: &Range<u64>, b: &Range<u64>| a.start <= b.end && b.start <= a.end;
    ranges.iter().enumerate().any(|(i, a)| ranges[..i].iter().any(|b| touch(a, b)))
}

fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The value of Content-Range for one part: `bytes 0-4/10` (RFC 9110 section 14.4). The range must not be empty.
pub fn content_range(out: &mut Vec<u8>, range: &Range<u64>, len: u64) {
    debug_assert!(!range.is_empty(), "an empty range has no last byte");
    out.extend_from_slice(b"bytes ");
    encode::decimal(out, range.start);
    out.push(b'-');
    encode::decimal(out, range.end.saturating_sub(1));
    out.push(b'/');
    encode::decimal(out, len);
}

/// The value of Content-Range of a 416: `bytes */10`.
pub fn unsatisfied(out: &mut Vec<u8>, len: u64) {
    out.extend_from_slice(b"bytes */");
    encode::decimal(out, len);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::parse_request;
    use Ranges::*;
    use proptest::prelude::*;

    #[test]
    fn single_ranges() {
        for (field, len, expected) in [
            ("bytes=0-4", 10, One(0..5)),
            ("BYTES=0-4", 10, One(0..5)),
            ("bytes= 0-4 ", 10, One(0..5)),
            ("bytes=5-", 10, One(5..10)),
            ("bytes=9-9", 10, One(9..10)),
            ("bytes=0-99", 10, One(0..10)),
            ("bytes=-3", 10, One(7..10)),
            ("bytes=-99", 10, One(0..10)),
            ("bytes=0-18446744073709551615", 10, One(0..10)),
            ("bytes=0-99999999999999999999999", u64::MAX, One(0..u64::MAX)),
            ("bytes=-99999999999999999999999", 10, One(0..10)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=99999999999999999999999-", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-5", 0, Whole),
        ] {
            assert_eq!(parse(field.as_bytes(), len), expected, "{field} of {len}");
        }
    }

    #[test]
    fn what_is_not_understood_is_ignored() {
        for field in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes =0-1",
            "lines=0-1",
            "bytes=a-b",
            "bytes=4-0",
            "bytes=0",
            "bytes=-",
            "bytes=--1",
            "bytes=0-1-2",
            "bytes=+0-1",
            "bytes=0x0-1",
            "bytes=0 -1",
            "bytes=0-1;",
            "bytes=0-1,4-0",
            "bytes=0-1,x",
            "bytes=1.5-2",
        ] {
            assert_eq!(parse(field.as_bytes(), 10), Whole, "{field}");
        }
    }

    #[test]
    fn several_ranges_are_merged_only_where_they_touch() {
        for (field, expected) in [
            ("bytes=0-0,9-9", Many(vec![0..1, 9..10])),
            ("bytes=9-9, ,0-0", Many(vec![9..10, 0..1])),
            ("bytes=-1,0-0", Many(vec![9..10, 0..1])),
            ("bytes=0-0,20-30", One(0..1)),
            ("bytes=0-4,5-9", One(0..10)),
            ("bytes=0-4,2-6", One(0..7)),
            ("bytes=0-,0-,0-", One(0..10)),
            ("bytes=8-9,0-1,1-3", Many(vec![0..4, 8..10])),
            ("bytes=20-,30-", Unsatisfiable),
        ] {
            assert_eq!(parse(field.as_bytes(), 10), expected, "{field}");
        }
    }

    #[test]
    fn too_many_ranges_are_answered_with_the_whole() {
        let list = |n: usize| {
            format!("bytes={}", (0..n).map(|i| format!("{}-{}", i * 2, i * 2)).collect::<Vec<_>>().join(","))
        };
        assert!(matches!(parse(list(MAX_RANGES).as_bytes(), 1000), Many(ranges) if ranges.len() == MAX_RANGES));
        assert_eq!(parse(list(MAX_RANGES + 1).as_bytes(), 1000), Whole);
    }

    #[test]
    fn a_request_has_ranges_only_where_they_mean_something() {
        let ask = |method, lines: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
            let fields = parse_request(head.as_bytes(), &mut 0).unwrap().unwrap().0.fields;
            of_request(method, &fields, &Validators { etag: Some(b"\"a\""), last_modified: None }, 10, 0)
        };
        assert_eq!(ask(Method::Get, "Range: bytes=0-0"), One(0..1));
        assert_eq!(ask(Method::Head, "Range: bytes=0-0"), Whole);
        assert_eq!(ask(Method::Get, "Range: bytes=0-0\r\nRange: bytes=1-1"), Whole);
        assert_eq!(ask(Method::Get, "Range: bytes=0-0\r\nIf-Range: \"b\""), Whole);
        assert_eq!(ask(Method::Get, "Range: bytes=0-0\r\nIf-Range: \"a\""), One(0..1));
        assert_eq!(ask(Method::Get, "X: y"), Whole);
    }

    #[test]
    fn content_range_counts_from_zero_to_the_last_byte() {
        let mut out = Vec::new();
        content_range(&mut out, &(0..5), 10);
        out.push(b' ');
        unsatisfied(&mut out, 10);
        assert_eq!(out, b"bytes 0-4/10 bytes */10");
    }

    proptest! {
        #[test]
        fn ranges_stay_within_and_sum_to_no_more_than_the_whole(
            specs in prop::collection::vec((any::<Option<u8>>(), any::<Option<u8>>()), 0..20), len in 0..200u64,
        ) {
            let text = |n: Option<u8>| n.map(|n| n.to_string()).unwrap_or_default();
            let list: Vec<_> = specs.iter().map(|&(a, b)| format!("{}-{}", text(a), text(b))).collect();
            let ranges = match parse(format!("bytes={}", list.join(",")).as_bytes(), len) {
                One(range) => vec![range],
                Many(ranges) => { prop_assert!(ranges.len() > 1 && ranges.len() <= MAX_RANGES); ranges }
                Whole | Unsatisfiable => vec![],
            };
            prop_assert!(ranges.iter().all(|r| r.start < r.end && r.end <= len));
            prop_assert!(ranges.iter().map(|r| r.end - r.start).sum::<u64>() <= len);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, len: u64) {
            parse(&bytes, len);
            parse(&[b"bytes=", bytes.as_slice()].concat(), len);
        }
    }
}
