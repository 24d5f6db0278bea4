//! The multipart/byteranges form of an answer with several ranges (RFC 9110 sections 14.6 and 15.3.7.2).
//! Goal: parts that can be sent one by one behind a Content-Length that was known before the first.
//! Costs: a few hundred bytes a part; counting them writes nothing.

use super::range::content_range;
use crate::h1::encode;
use std::ops::Range;

/// Writes multipart/byteranges around the parts of a representation (RFC 9110 section 14.6).
///
/// The boundary is the caller's: 1 to 70 letters and digits that do not stand in the representation, so
/// from a source of chance.
#[derive(Clone, Copy, Debug)]
pub struct Multipart<'a> {
    pub boundary: &'a [u8],
    /// The representation's own media type, written into every part.
    pub content_type: &'a [u8],
    /// The whole representation's bytes.
    pub len: u64,
}

impl Multipart<'_> {
    /// The media type of the answer.
    pub fn content_type(&self) -> Vec<u8> {
        [b"multipart/byteranges; boundary=", self.boundary].concat()
    }

    /// What stands before a part's bytes.
    pub fn part_head(&self, out: &mut Vec<u8>, range: &Range<u64>) {
        out.extend_from_slice(DELIMITER);
        out.extend_from_slice(self.boundary);
        out.extend_from_slice(b"\r\n");
        encode::field(out, CONTENT_TYPE, self.content_type);
        out.extend_from_slice(CONTENT_RANGE);
        content_range(out, range, self.len);
        out.extend_from_slice(b"\r\n\r\n");
    }

    /// What stands behind the last part's bytes.
    pub fn closing(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(DELIMITER);
        out.extend_from_slice(self.boundary);
        out.extend_from_slice(CLOSE);
    }

    /// The answer's Content-Length.
    pub fn content_length(&self, ranges: &[Range<u64>]) -> u64 {
        let parts: u64 = ranges.iter().map(|range| self.part_head_len(range) + (range.end - range.start)).sum();
        parts + (DELIMITER.len() + self.boundary.len() + CLOSE.len()) as u64
    }

    fn part_head_len(&self, range: &Range<u64>) -> u64 {
        let numbers = [range.start, range.end.saturating_sub(1), self.len].map(encode::decimal_len);
        let marks = DELIMITER.len() + CONTENT_TYPE.len() + CONTENT_RANGE.len() + b"\r\n: \r\nbytes -/\r\n\r\n".len();
        (marks + self.boundary.len() + self.content_type.len()) as u64 + numbers.iter().sum::<u64>()
    }
}

const DELIMITER: &[u8] = b"\r\n--";
const CLOSE: &[u8] = b"--\r\n";
const CONTENT_TYPE: &[u8] = b"Content-Type";
const CONTENT_RANGE: &[u8] = b"Content-Range: ";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_stand_between_delimiters() {
        let multipart = Multipart { boundary: b"XX", content_type: b"text/plain", len: 10 };
        let mut body = Vec::new();
        multipart.part_head(&mut body, &(0..2));
        body.extend_from_slice(b"ab");
        multipart.closing(&mut body);
        let expected = "\r\n--XX\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\nab\r\n--XX--\r\n";
        assert_eq!(std::str::from_utf8(&body), Ok(expected));
        assert_eq!(multipart.content_type(), b"multipart/byteranges; boundary=XX");
    }

    proptest! {
        #[test]
        fn a_multipart_body_is_as_long_as_promised(
            ranges in prop::collection::vec((0..5000u64, 1..5000u64), 1..5), boundary in "[a-z]{1,70}", content_type in "[a-z]{1,9}/x",
        ) {
            let (boundary, content_type) = (boundary.as_bytes(), content_type.as_bytes());
            let multipart = Multipart { boundary, content_type, len: 10_000 };
            let ranges: Vec<_> = ranges.into_iter().map(|(start, len)| start..start + len).collect();
            let mut body = Vec::new();
            for range in &ranges {
                multipart.part_head(&mut body, range);
                body.resize(body.len() + (range.end - range.start) as usize, b'x');
            }
            multipart.closing(&mut body);
            prop_assert_eq!(body.len() as u64, multipart.content_length(&ranges));
            prop_assert!(multipart.content_type().ends_with(boundary));
        }
    }
}
